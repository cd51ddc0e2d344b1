//! The state in a store, with the real program: a folder as a store always; S3 where
//! `PIPE_TEST_PYTHON` has moto, which is started on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::chain::{CHAIN, results};
use crate::project::{Project, all_tensors, send};
use crate::resume::{delays, kill_after};

const RUN: &str = "checkpoints/base_training/run_001";
const LAST: &str = "checkpoints/base_training/run_001/checkpoints/last.ckpt";
/// A training of many short epochs.
const LONG: [&str; 6] = ["run", "p.yaml", "--epochs", "400", "--set", "num_images=512"];
const SECRET: &str = "hunter2/Very+Secret";
/// It says which port the system gave it: one that was looked for before could be another's by now.
/// It ends with whoever started it.
const S3: &str = "
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
";

#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < end, "never {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts with the output in files.
fn start(project: &Project, arguments: &[&str]) -> Child {
    let file = |name: &str| std::fs::File::create(project.path(name)).unwrap();
    project.command(arguments).stdout(file("out.txt")).stderr(file("err.txt")).spawn().unwrap()
}

/// A folder as a store, for as many machines as one likes.
struct Nas(tempfile::TempDir);

impl Nas {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// A machine with an empty folder and the pipeline.
    fn machine(&self, pipeline: &str) -> Project {
        let project =
            Project::new().environment("PIPE_STORE", format!("file://{}", self.path().display()));
        project.write("p.yaml", pipeline);
        project
    }

    /// The newest index of a pipeline.
    fn index(&self, pipeline: &str) -> Option<serde_json::Value> {
        let folder = self.path().join(pipeline).join(".pipe/index");
        let mut all: Vec<PathBuf> =
            std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).collect();
        all.retain(|path| path.extension().is_some_and(|e| e == "json"));
        all.sort();
        serde_json::from_slice(&std::fs::read(all.last()?).ok()?).ok()
    }

    fn has(&self, pipeline: &str, path: &str) -> bool {
        self.index(pipeline).is_some_and(|index| !index["files"][path].is_null())
    }
}

fn tiny() -> String {
    crate::project::TINY.to_owned()
}

#[test]
fn a_finished_chain_is_up_to_date_on_another_machine() {
    let nas = Nas::new();
    let first = nas.machine(CHAIN);
    first.pipe(&["run", "p.yaml"]).succeeds();
    let second = nas.machine(CHAIN);
    let plan = second.pipe(&["plan", "p.yaml"]).succeeds().says("fetched, as left by pid");
    for line in plan.stdout().lines() {
        assert!(line.contains("skip"), "{}", plan.stdout());
    }
    let status = second.pipe(&["status", "p.yaml", "--json"]).succeeds().stdout();
    let status: Vec<serde_json::Value> = serde_json::from_str(&status).unwrap();
    assert!(
        status.iter().all(|s| s["status"] == "done" || s["status"] == "on demand"),
        "{status:?}"
    );
    second.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    assert!(results(&second) == results(&first));
    let lora = |project: &Project| project.list("checkpoints/lora/run_001");
    let mut there = lora(&first);
    there.retain(|name| !name.ends_with(".previous") && !name.ends_with(".lock"));
    assert_eq!(lora(&second), there);
    // A run's names are of one file, and what was copied from it is another: who writes to that
    // changes no run.
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let file = |path: &str| std::fs::metadata(second.path(path)).unwrap().ino();
        let best = file(&format!("{RUN}/checkpoints/best.ckpt"));
        assert_eq!(best, file(&format!("{RUN}/checkpoints/epoch_002.ckpt")));
        assert_ne!(best, file("checkpoints/base/base_model_last.ckpt"));
    }
    // More of the same goes on from there, and the first machine follows.
    second
        .pipe(&["run", "p.yaml", "--set", "lora.epochs=4"])
        .succeeds()
        .says("Resumed from epoch 3");
    first
        .pipe(&["plan", "p.yaml", "--set", "lora.epochs=4"])
        .succeeds()
        .says("skip  up to date, run 001");
    // On a third one the store is all there is, and a copy of the folder does as well.
    nas.machine(CHAIN)
        .pipe(&["run", "p.yaml", "--set", "lora.epochs=4"])
        .succeeds()
        .says("up to date");
}

#[test]
fn each_piece_on_another_machine_gives_the_bits_of_one_run() {
    let arguments = [
        "run",
        "p.yaml",
        "--epochs",
        "60",
        "--set",
        "num_images=256",
        "--set",
        "base.checkpoint.save_every_n_steps=3",
    ];
    let straight = Project::new();
    straight.pipe(&arguments).succeeds();
    let nas = Nas::new();
    let mut kills = 0;
    // What is saved without a pause is brought over every two seconds.
    let last = delays(2300, 4500).take(200).find_map(|delay| {
        let machine = nas.machine(&tiny());
        let ended = !kill_after(&machine, &arguments, delay);
        kills += usize::from(!ended);
        ended.then_some(machine)
    });
    let last = last.expect("never came to its end");
    eprintln!("{kills} machines were lost");
    // Where none was lost, one is now.
    if kills == 0 {
        nas.machine(&tiny()).pipe(&arguments).succeeds().says("up to date");
    }
    assert!(
        all_tensors(&last.path(LAST)) == all_tensors(&straight.path(LAST)),
        "after {kills} machines"
    );
    let figures = |project: &Project| {
        let history = project.metadata(RUN)["history"].as_array().unwrap().clone();
        history.into_iter().map(|e| (e["epoch"].clone(), e["metrics"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(figures(&last), figures(&straight));
}

#[test]
fn a_machine_that_is_killed_in_the_middle_is_followed_by_another() {
    let nas = Nas::new();
    let first = nas.machine(&tiny());
    let mut child = start(&first, &LONG);
    until("mirrored", || nas.has("tiny", LAST));
    child.kill().unwrap();
    child.wait().unwrap();
    drop(first);
    let short = ["run", "p.yaml", "--epochs", "60", "--set", "num_images=512"];
    let second = nas.machine(&tiny());
    second
        .pipe(&["plan", "p.yaml", "--epochs", "400", "--set", "num_images=512"])
        .succeeds()
        .says("base  resume at epoch");
    second.pipe(&short).succeeds();
    let straight = Project::new();
    straight.pipe(&short).succeeds();
    let epoch = "checkpoints/base_training/run_001/checkpoints/epoch_060.ckpt";
    if second.path(epoch).exists() {
        assert!(all_tensors(&second.path(epoch)) == all_tensors(&straight.path(epoch)));
    }
}

#[test]
fn sigterm_leaves_all_in_the_store() {
    let nas = Nas::new();
    let first = nas.machine(&tiny());
    let mut child = start(&first, &LONG);
    until("mirrored", || nas.has("tiny", LAST));
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let said = first.read("err.txt");
    assert!(!said.contains("does not have all yet"), "{said}");
    let plan =
        |project: &Project| project.pipe(&[&LONG[..], &["--dry-run"]].concat()).succeeds().stdout();
    let second = nas.machine(&tiny());
    assert_eq!(plan(&second), plan(&first));
    assert!(std::fs::read(second.path(LAST)).unwrap() == std::fs::read(first.path(LAST)).unwrap());
}

#[test]
fn a_machine_that_comes_back_is_told_that_another_one_went_on() {
    let nas = Nas::new();
    let first = nas.machine(&tiny());
    let long = ["run", "p.yaml", "--epochs", "100000", "--set", "num_images=512"];
    let mut child = start(&first, &long);
    until("mirrored", || nas.has("tiny", LAST));
    send(&child, "STOP");
    let second = nas.machine(&tiny());
    second
        .pipe(&[
            "run",
            "p.yaml",
            "--epochs",
            "100000",
            "--set",
            "num_images=512",
            "--set",
            "base.timeout=4s",
        ])
        .exits(1);
    send(&child, "CONT");
    until("told", || first.read("err.txt").contains("continued by pid"));
    send(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let theirs = nas.index("tiny").unwrap();
    // What is here is whole, and somebody has to say what to do with it.
    first.pipe(&["ckpt", "verify", LAST]).succeeds();
    first
        .pipe(&["plan", "p.yaml"])
        .exits(2)
        .says("left it in a state that this folder does not go on from")
        .says("--take");
    assert_eq!(nas.index("tiny").unwrap()["commit"], theirs["commit"]);
    first.pipe(&["run", "p.yaml", "--store", "none", "--dry-run"]).succeeds();
    first.pipe(&["run", "p.yaml", "--take", "store", "--dry-run"]).succeeds();
    assert!(std::fs::read(first.path(LAST)).unwrap() == std::fs::read(second.path(LAST)).unwrap());
    assert_eq!(first.list(".pipe/aside").len(), 1);
}

#[test]
fn runs_that_are_removed_do_not_come_back_and_those_that_are_lost_do() {
    let nas = Nas::new();
    let first = nas.machine(&tiny());
    first.pipe(&["run", "p.yaml"]).succeeds();
    first.pipe(&["run", "p.yaml", "--set", "learning_rate=0.01"]).succeeds();
    std::fs::remove_dir_all(first.path(RUN)).unwrap();
    first.pipe(&["status", "p.yaml"]).succeeds().says("fetching");
    assert!(first.path(LAST).exists());
    first.pipe(&["runs", "rm", "1"]).succeeds();
    first.pipe(&["run", "p.yaml", "--set", "learning_rate=0.01"]).succeeds();
    let second = nas.machine(&tiny());
    second.pipe(&["status", "p.yaml"]).succeeds();
    assert_eq!(second.list("checkpoints/base_training"), ["run_002"]);
    let left: Vec<String> =
        files(&nas.path()).into_iter().filter(|path| path.contains("run_001")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn files(folder: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path())
            } else {
                found.push(entry.path().display().to_string())
            }
        }
    }
    found
}

#[test]
fn two_pipelines_share_a_prefix_and_a_folder() {
    let nas = Nas::new();
    let first = nas.machine(&tiny());
    first.write("q.yaml", tiny().replace("name: tiny", "name: other"));
    first.pipe(&["run", "p.yaml"]).succeeds();
    first.pipe(&["run", "q.yaml", "--set", "base.seed=7"]).succeeds();
    let second = nas.machine(&tiny());
    second.write("q.yaml", tiny().replace("name: tiny", "name: other"));
    second.pipe(&["run", "q.yaml", "--set", "base.seed=7"]).succeeds().says("up to date");
    assert_eq!(second.list("checkpoints/base_training"), ["run_002"]);
    second.pipe(&["run", "p.yaml"]).succeeds().says("up to date");
    assert_eq!(second.list("checkpoints/base_training"), ["run_001", "run_002"]);
}

#[test]
fn the_setting_is_layered_as_others_are_and_part_of_no_identity() {
    let nas = Nas::new();
    let url = format!("file://{}", nas.path().display());
    let file = tiny().replace(
        "params: { epochs: 2 }",
        &format!("params: {{ epochs: 2, at: mine }}\nstore: {url}-${{params.at}}"),
    );
    let project = Project::new();
    project.write("p.yaml", file);
    project.pipe(&["run", "p.yaml"]).succeeds();
    let store = |name: &str| nas.0.path().join(name).join("tiny/.pipe/index").exists();
    assert!(store("store-mine"));
    project.pipe(&["run", "p.yaml", "--set", "at=yours"]).succeeds().says("up to date");
    assert!(store("store-yours"));
    project
        .pipe(&["run", "p.yaml", "--store", &format!("{url}-flag")])
        .succeeds()
        .says("up to date");
    assert!(store("store-flag"));
    let none = project.pipe(&["run", "p.yaml", "--store", "none"]).succeeds().says("up to date");
    assert!(!none.stderr().contains("fetch"));
    project
        .pipe(&["run", "p.yaml", "--set", "store=ftp://x"])
        .exits(2)
        .says("--set store=ftp://x: unknown kind of store `ftp`");
    let nowhere = format!("file://{}/no/where", nas.0.path().display());
    project
        .pipe(&["run", "p.yaml", "--store", &nowhere])
        .exits(2)
        .says("is not there; is it mounted?");
    let secret = project
        .pipe(&["run", "p.yaml", "--store", "s3://key:hunter2@bucket/x"])
        .exits(2)
        .says("never from a URL");
    assert!(!secret.stderr().contains("hunter2"), "{}", secret.stderr());
    let metadata = project.read(&format!("{RUN}/metadata.json"))
        + &project.read(&format!("{RUN}/config.yaml"));
    assert!(!metadata.contains("store-"), "{metadata}");
}

#[test]
fn without_a_store_nothing_is_started_and_nothing_remembered() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert!(!project.list(".pipe").contains(&"store".to_owned()));
}

/// A server of S3 on loopback, and a way to it that can be shut.
struct Server {
    child: Child,
    port: u16,
    gate: Gate,
}

impl Server {
    /// `None`, with a word, where there is none to be had.
    fn start(environment: &[(&str, &str)]) -> Option<Self> {
        let Some(python) = std::env::var_os("PIPE_TEST_PYTHON") else {
            eprintln!("skipped: PIPE_TEST_PYTHON is not set");
            return None;
        };
        let has_moto =
            Command::new(&python).args(["-c", "import moto.server"]).stderr(Stdio::null()).status();
        if !has_moto.is_ok_and(|status| status.success()) {
            eprintln!("skipped: moto[server] is not installed for PIPE_TEST_PYTHON");
            return None;
        }
        let mut command = Command::new(python);
        command.args(["-c", S3]).envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let port = said.trim().parse().unwrap_or_else(|_| panic!("no port: {said:?}"));
        let server = Self { child, port, gate: Gate::before(port) };
        until("a server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(server)
    }

    fn create_bucket(&self, name: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let request = format!(
            "PUT /{name} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }

    /// A machine with an empty folder and the pipeline, which reaches the server through the gate.
    fn machine(&self, pipeline: &str) -> Project {
        let project = Project::new()
            .environment("PIPE_STORE", "s3://bucket/some/prefix")
            .environment("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.gate.port))
            .environment("AWS_ALLOW_HTTP", "true")
            .environment("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .environment("AWS_SECRET_ACCESS_KEY", SECRET)
            .environment("NO_PROXY", "127.0.0.1");
        project.write("p.yaml", pipeline);
        project
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes connections on while it is open, and breaks them when it is shut.
struct Gate {
    port: u16,
    open: Arc<AtomicBool>,
    through: Arc<Mutex<Vec<TcpStream>>>,
}

impl Gate {
    fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let (open, through) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
        let gate = Self { port: own, open: open.clone(), through: through.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Dropped at once: reset, or closed without an answer.
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let mut all = through.lock().unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    all.push(from.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        gate
    }

    fn shut(&self) {
        self.open.store(false, Ordering::SeqCst);
        for stream in self.through.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

/// No file of a machine holds the secret.
#[track_caller]
fn no_secret(project: &Project) {
    for path in files(&project.path(".")) {
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "{path} has the secret");
    }
}

#[test]
fn s3_a_chain_that_is_killed_goes_on_elsewhere_to_the_bits_of_a_local_run() {
    let Some(server) = Server::start(&[]) else { return };
    server.create_bucket("bucket");
    let pipeline = CHAIN.replace("epochs: 2\n", "epochs: 30\n");
    let straight = Project::new();
    straight.write("p.yaml", &pipeline);
    straight.pipe(&["run", "p.yaml"]).succeeds();

    let first = server.machine(&pipeline);
    let mut child = start(&first, &["run", "p.yaml", "-v"]);
    // The first index is noted before it is put, and again when it is there.
    let noted =
        || std::fs::read_to_string(first.path(".pipe/store/chain.json")).unwrap_or_default();
    until(
        "saved",
        || !matches!(noted(), text if text.is_empty() || text.contains("\"instead_of\"")),
    );
    child.kill().unwrap();
    child.wait().unwrap();
    no_secret(&first);
    drop(first);
    let second = server.machine(&pipeline);
    let ended = second
        .pipe(&["run", "p.yaml", "-v"])
        .succeeds()
        .says("from s3://bucket/some/prefix")
        .says("mirrored ");
    assert!(!(ended.stdout() + &ended.stderr()).contains(SECRET));
    assert!(results(&second) == results(&straight));
    assert!(all_tensors(&second.path(LAST)) == all_tensors(&straight.path(LAST)));
    no_secret(&second);

    let third = server.machine(&pipeline);
    third.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    assert!(results(&third) == results(&straight));
}

#[test]
fn s3_a_large_checkpoint_goes_in_parts_and_a_broken_connection_is_outlived() {
    let Some(server) = Server::start(&[]) else { return };
    server.create_bucket("bucket");
    let pipeline = tiny().replace("dim: 16", "dim: 96").replace("epochs: 2", "epochs: 6");
    let first = server.machine(&pipeline);
    let mut child = start(&first, &["run", "p.yaml", "--log", "json"]);
    until("begun", || first.list(".pipe/store").contains(&"tiny.json".to_owned()));
    server.gate.shut();
    std::thread::sleep(Duration::from_secs(3));
    server.gate.open();
    assert!(child.wait().unwrap().success(), "{}", first.read("err.txt"));
    let size = std::fs::metadata(first.path(LAST)).unwrap().len();
    assert!(size > 16 << 20, "{size} bytes are no large checkpoint");
    let second = server.machine(&pipeline);
    second.pipe(&["run", "p.yaml"]).succeeds().says("up to date");
    assert!(std::fs::read(second.path(LAST)).unwrap() == std::fs::read(first.path(LAST)).unwrap());
}

#[test]
fn s3_a_server_that_stays_away_fails_the_command_and_loses_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    server.create_bucket("bucket");
    let first = server.machine(&tiny());
    let mut child = start(&first, &["run", "p.yaml", "--epochs", "60", "--set", "num_images=512"]);
    until("begun", || first.list(".pipe/store").contains(&"tiny.json".to_owned()));
    server.gate.shut();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{}", first.read("err.txt"));
    let said = first.read("err.txt");
    assert!(
        said.contains("error: store s3://bucket/some/prefix: it does not have all yet"),
        "{said}"
    );
    assert!(said.contains("what this folder has is whole"), "{said}");
    assert!(
        first.read("out.txt").contains("base: run 001, 60 epochs"),
        "{}",
        first.read("out.txt")
    );
    server.gate.open();
    first
        .pipe(&["run", "p.yaml", "--epochs", "60", "--set", "num_images=512"])
        .succeeds()
        .says("up to date");
    let second = server.machine(&tiny());
    second
        .pipe(&["run", "p.yaml", "--epochs", "60", "--set", "num_images=512"])
        .succeeds()
        .says("up to date");
    assert!(std::fs::read(second.path(LAST)).unwrap() == std::fs::read(first.path(LAST)).unwrap());
}

#[test]
fn s3_what_is_wrong_is_said_before_anything_runs() {
    // The server asks for credentials that it knows, after the bucket is there.
    let Some(server) = Server::start(&[("INITIAL_NO_AUTH_ACTION_COUNT", "1")]) else { return };
    server.create_bucket("bucket");
    let told = |project: Project, piece: &str| {
        let ended = project
            .pipe(&["run", "p.yaml"])
            .exits(2)
            .says("error: store s3://bucket/some/prefix")
            .says(piece);
        let all = ended.stdout() + &ended.stderr();
        assert!(!all.contains(SECRET) && !all.contains("AKIDEXAMPLE"), "{all}");
        assert!(project.list("checkpoints").is_empty(), "nothing was begun");
    };
    told(
        server.machine(&tiny()),
        "the credentials in the environment are not accepted (InvalidAccessKeyId)",
    );
    told(server.machine(&tiny()).environment("AWS_ALLOW_HTTP", "false"), "AWS_ALLOW_HTTP=true");
    told(
        server.machine(&tiny()).environment("AWS_SECRET_ACCESS_KEY", ""),
        "AWS_SECRET_ACCESS_KEY is not",
    );

    let Some(open) = Server::start(&[]) else { return };
    told(open.machine(&tiny()), "there is no such bucket");
    open.gate.shut();
    let fresh = open.machine(&tiny());
    fresh.pipe(&["plan", "p.yaml"]).exits(1).says("failed to list the indexes");
}
