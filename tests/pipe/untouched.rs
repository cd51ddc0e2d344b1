//! What is a person's stays as it is, whatever somebody else wrote into a store or a run, and
//! wherever an output goes.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::project::{Ended, Project};

const RUN: &str = "checkpoints/base_training/run_001";

/// A store with the state of the pipeline `tiny`, and its newest index.
struct Nas(tempfile::TempDir);

impl Nas {
    fn new() -> (Self, Project) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        (Self(folder), Project::new().environment("PIPE_STORE", url))
    }

    fn indexes(&self) -> Vec<PathBuf> {
        let folder = self.0.path().join("tiny/.pipe/index");
        let mut all: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        all.sort();
        all
    }

    /// Puts another index in the place of the newest one, as somebody can who may write to the
    /// store.
    fn change(&self, change: impl FnOnce(&mut Value)) {
        let newest = self.indexes().pop().unwrap();
        let mut index: Value = serde_json::from_slice(&std::fs::read(&newest).unwrap()).unwrap();
        index.as_object_mut().unwrap().remove("checksum");
        let generation = index["generation"].as_u64().unwrap() + 1;
        (index["generation"], index["commit"]) =
            (generation.into(), format!("evil{generation}").into());
        change(&mut index["files"]);
        std::fs::write(newest.with_file_name(format!("{generation:010}.json")), index.to_string())
            .unwrap();
        std::fs::remove_file(newest).unwrap();
    }

    /// An object with a content, and how an index lists it.
    fn object(&self, content: &[u8]) -> Value {
        use sha2::{Digest, Sha256};
        let sha256: String =
            Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("object-{}", &sha256[..16]);
        std::fs::write(self.0.path().join("tiny").join(&name), content).unwrap();
        json!({"sha256": sha256, "bytes": content.len(), "modified": 7, "object": name})
    }
}

#[test]
fn who_can_write_to_the_store_writes_no_file_of_the_project() {
    let (nas, project) = Nas::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("tools/evaluate.py", "mine");
    let pipeline = project.read("p.yaml");
    let evil =
        ["tools/random.py", ".git/hooks/post-checkout", ".envrc", "tools/evaluate.py", "p.yaml"];
    let more = nas.object(b"evil: true\n");
    nas.change(|files| evil.iter().for_each(|path| files[path] = more.clone()));
    project.pipe(&["plan", "p.yaml"]).succeeds().says("they are left alone");
    // Listed as they are, and then not any more: they would be removed as fetched ones.
    let (own, tool) = (nas.object(pipeline.as_bytes()), nas.object(b"mine"));
    nas.change(|files| (files["p.yaml"], files["tools/evaluate.py"]) = (own, tool));
    project.pipe(&["status", "p.yaml"]).succeeds();
    nas.change(|files| {
        evil.iter().for_each(|path| drop(files.as_object_mut().unwrap().remove(*path)))
    });
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(project.read("p.yaml"), pipeline);
    assert_eq!(project.list("tools"), ["evaluate.py"]);
    assert!(!project.path(".git").exists() && !project.path(".envrc").exists());
    // The state itself is fetched as ever.
    std::fs::remove_dir_all(project.path("checkpoints")).unwrap();
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
}

#[test]
fn metadata_names_no_file_outside_of_its_run() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("victim.txt", "my thesis");
    let absolute = project.path("victim.txt").display().to_string();
    let whole = project.metadata(RUN);
    let write = |change: &dyn Fn(&mut Value)| {
        let mut metadata = whole.clone();
        metadata.as_object_mut().unwrap().remove("checksum");
        metadata["status"] = "interrupted".into();
        change(&mut metadata);
        project.write(&format!("{RUN}/metadata.json"), metadata.to_string());
        let _ = std::fs::remove_file(project.path(&format!("{RUN}/metadata.json.previous")));
    };
    let partial = |path: &str| {
        json!({"epoch": 1, "step_in_epoch": 0, "global_step": 4, "path": path, "bytes": 9, "digest": "x",
               "saved_at": whole["updated_at"]})
    };
    let changes: [&dyn Fn(&mut Value); 4] = [
        &|m| m["checkpoints"][0]["path"] = "../../../victim.txt".into(),
        &|m| m["checkpoints"][0]["path"] = absolute.as_str().into(),
        &|m| m["partial_checkpoint"] = partial(&absolute),
        &|m| m["checkpoints"][0]["path"] = "checkpoints/best.ckpt".into(),
    ];
    for change in changes {
        write(change);
        let keep = "--set=base.checkpoint.keep_last_n=1";
        let ended = project.pipe(&["run", "p.yaml", "--epochs", "4", keep]);
        assert!(
            (ended.stdout() + &ended.stderr()).contains("not a run's metadata"),
            "{}",
            ended.stderr()
        );
        assert_eq!(project.read("victim.txt"), "my thesis");
        assert!(project.path(&format!("{RUN}/checkpoints/best.ckpt")).is_file());
    }
}

/// Commands that write a file of one's choosing, each with the beginning of what is in it.
const OUTPUTS: [(&[&str], &str, &[u8]); 5] = [
    (&["report", "p.yaml", "-o"], "o.html", b"<!doctype html>"),
    (&["plan", "p.yaml", "-o"], "o.json", b"{"),
    (&["export", "argo", "p.yaml", "-o"], "o.yaml", b"apiVersion"),
    (&["data", "p.yaml", "-o"], "o.png", b"\x89PNG"),
    (
        &[
            "sample",
            "checkpoints/base_training/run_001",
            "--device=cpu",
            "--steps=1",
            "--n=1",
            "-o",
        ],
        "s.png",
        b"\x89PNG",
    ),
];

#[test]
#[cfg(unix)]
fn an_output_goes_through_a_link_and_into_a_pipe() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    std::fs::create_dir(project.path("big")).unwrap();
    for (arguments, name, begins) in OUTPUTS {
        let (link, pipe) = (format!("link_{name}"), format!("pipe_{name}"));
        let there = project.path("big").join(name);
        std::fs::write(&there, begins).unwrap();
        std::os::unix::fs::symlink(&there, project.path(&link)).unwrap();
        project.pipe(&[arguments, &[link.as_str()]].concat()).succeeds();
        assert!(project.path(&link).is_symlink(), "{arguments:?}");
        let written = std::fs::read(&there).unwrap();
        assert!(
            written.to_ascii_lowercase().starts_with(&begins.to_ascii_lowercase()),
            "{arguments:?}"
        );
        std::fs::remove_file(project.path(&link)).unwrap();

        fifo(&project.path(&pipe));
        let path = project.path(&pipe);
        let reader = std::thread::spawn(move || std::fs::read(path).unwrap());
        project.pipe(&[arguments, &[pipe.as_str()]].concat()).succeeds();
        let read = reader.join().unwrap();
        assert!(
            read.to_ascii_lowercase().starts_with(&begins.to_ascii_lowercase()),
            "{arguments:?}"
        );
        assert!(is_fifo(&project.path(&pipe)), "{arguments:?}");
    }
    // What must be a file says so.
    let export = ["ckpt", "export", RUN, "--weights-only", "--overwrite", "-o"];
    project.pipe(&[&export[..], &["pipe_o.png"]].concat()).exits(2).says("is a pipe or a device");
    assert!(is_fifo(&project.path("pipe_o.png")));
    std::os::unix::fs::symlink("big/new.ckpt", project.path("link.ckpt")).unwrap();
    project.pipe(&[&export[..], &["link.ckpt"]].concat()).succeeds();
    assert!(project.path("link.ckpt").is_symlink() && project.path("big/new.ckpt").is_file());
}

#[cfg(unix)]
fn fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[cfg(unix)]
fn is_fifo(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).unwrap().file_type().is_fifo()
}

#[test]
#[cfg(unix)]
fn a_pipe_in_the_place_of_a_file_is_told_and_one_of_the_shell_is_read() {
    let project = Project::new();
    fifo(&project.path("fifo"));
    let began = Instant::now();
    project.pipe(&["plan", "fifo"]).exits(2).says("it is a pipe or a device, not a file");
    project.pipe(&["run", "--plan", "fifo"]).exits(2).says("it is a pipe or a device, not a file");
    project.pipe(&["ckpt", "show", "fifo"]).exits(1).says("a checkpoint must be a file");
    assert!(began.elapsed() < Duration::from_secs(20));
    let plan = project.pipe(&["plan", "p.yaml"]).succeeds().stdout();
    for file in ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        // `plan <(cat p.yaml)` hands on a pipe by such a name.
        let mut command = project.command(&["plan", file]);
        let mut cat = std::process::Command::new("cat")
            .arg(project.path("p.yaml"))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        command.stdin(cat.stdout.take().unwrap());
        assert_eq!(Ended::of(command, &["plan", file]).succeeds().stdout(), plan, "{file}");
        cat.wait().unwrap();
    }
}

#[test]
#[cfg(unix)]
fn a_lock_that_is_a_link_is_somebody_s_and_stays_what_it_was() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("precious", "a year of work");
    let lock = project.path(&format!("{RUN}/run.lock"));
    std::fs::remove_file(&lock).unwrap();
    std::os::unix::fs::symlink(project.path("precious"), &lock).unwrap();
    for arguments in [
        &["run", "p.yaml", "--epochs", "3"][..],
        &["runs", "rm", "1", "--force"],
        &["gc"],
        &["runs", "prune", "--keep", "1"],
        &["status", "p.yaml"],
    ] {
        project.pipe(arguments);
        assert_eq!(project.read("precious"), "a year of work", "{arguments:?}");
        assert!(project.path(&format!("{RUN}/metadata.json")).is_file(), "{arguments:?}");
    }
}

#[test]
fn what_a_person_put_beside_runs_is_no_garbage() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let mine = [
        "checkpoints/other/run_001/results.csv".to_owned(),
        format!("{RUN}/.notes.tmp-backup"),
        format!("{RUN}/checkpoints/epoch_002_my_favourite.ckpt"),
        "checkpoints/base_training/.notes.tmp-backup".to_owned(),
    ];
    mine.iter().for_each(|path| project.write(path, "a year of work"));
    project.pipe(&["gc"]).succeeds();
    project.pipe(&["run", "p.yaml", "--epochs", "9"]).succeeds();
    for path in mine {
        assert_eq!(project.read(&path), "a year of work", "{path}");
    }
}

#[test]
#[cfg(unix)]
fn records_and_pages_reach_no_file_outside_of_the_project() {
    let (project, other) = (Project::new(), Project::new());
    project.pipe(&["run", "p.yaml"]).succeeds();
    std::fs::create_dir_all(other.path("runs/run_001")).unwrap();
    other.write("secret", "hunter2");
    let secret = other.path("secret").display().to_string();
    let output = json!({"path": secret, "digest": "sha256:1", "bytes": 7});
    let now = "2026-01-01T00:00:00Z";
    let record = |stage: &str, outputs: &serde_json::Value| {
        let record = json!({
            "schema_version": 2, "pipeline": "tiny", "stage": stage, "kind": "sample", "status": "completed",
            "action": "run", "reason": "", "started_at": now, "updated_at": now, "runs": other.path("runs"),
            "made": {"identity": "i", "manifest": {}, "written_at": now, "outputs": outputs},
        });
        project.write(&format!(".pipe/records/tiny/{stage}.json"), record.to_string());
    };
    record("grid", &json!([output]));
    record("other", &json!([]));
    project.pipe(&["verify", "--repair"]).succeeds().says("which is outside of the project");
    assert_eq!(other.read("secret"), "hunter2");
    record("grid", &json!([output]));
    project.pipe(&["gc"]).succeeds().says("lies outside of the project and is left alone");
    assert!(other.path("runs/run_001").is_dir());
    project.pipe(&["report"]).succeeds();
    assert!(!project.read("report.html").contains("aHVudGVyMg"), "the page has the file");
    project
        .pipe(&["gc", "--dir", &other.path("runs").display().to_string()])
        .succeeds()
        .says("never begun");
}

#[test]
#[cfg(unix)]
fn a_project_that_is_moved_while_it_trains_is_not_made_anew_where_it_was() {
    let place = Project::new();
    place.write("there/p.yaml", place.read("p.yaml"));
    let arguments = ["run", "p.yaml", "--epochs", "4000"];
    let mut command = place.command(&arguments);
    command.current_dir(place.path("there"));
    let mut child = command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = place.path("there").join(RUN).join("checkpoints/epoch_002.ckpt");
    let end = Instant::now() + Duration::from_secs(60);
    while !begun.exists() {
        assert!(Instant::now() < end, "never begun");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::rename(place.path("there"), place.path("here")).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!child.wait().unwrap().success(), "{said}");
    assert!(!place.path("there").exists(), "{said}");
    let mut plan = place.command(&["plan", "p.yaml", "--epochs", "4000"]);
    plan.current_dir(place.path("here"));
    Ended::of(plan, &["plan"]).succeeds().says("resume");
}

#[test]
#[cfg(target_os = "linux")]
fn a_run_in_a_lower_layer_of_an_overlay_can_be_removed() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    // The project as a container's image has it, and what is changed in it elsewhere.
    let layers = tempfile::tempdir().unwrap();
    let script = "mkdir upper work merged; options=upperdir=upper,workdir=work,userxattr,lowerdir=$1; \
        mount -t overlay overlay -o $options merged || exit 77; cd merged; \
        \"$0\" runs rm 1 --force && test ! -e checkpoints/base_training/run_001 && \"$0\" plan p.yaml";
    let program = project.command(&[]).get_program().to_owned();
    let mut command = std::process::Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", script])
        .arg(program)
        .arg(project.path(""))
        .current_dir(layers.path());
    let output = match command.output() {
        Ok(output) if output.status.code() != Some(77) => output,
        _ => return eprintln!("skipped: no overlay in a user namespace"),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare") {
        return eprintln!("skipped: {said}");
    }
    assert!(output.status.success() && said.contains("base"), "{said}");
    assert!(
        project.path(&format!("{RUN}/metadata.json")).is_file(),
        "the lower layer is as it was"
    );
}
