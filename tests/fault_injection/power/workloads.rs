//! What the program does while the power goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Bench, Row, some_state};
use crate::crash::Random;
use crate::program;
use crate::project::Project;
use crate::results::ensure;
use crate::state::{
    CHAIN, RUN, STORE, State, chain, chain_with, files, goes_on, goes_on_with, same, state, text,
};

pub struct Workload {
    pub what: &'static str,
    /// Its share of the time.
    pub share: u32,
    pub row: fn(&Bench) -> Row,
}

pub const ALL: [Workload; 11] = [
    Workload { what: "in a chain of every kind of stage", share: 3, row: whole },
    Workload { what: "in the run after a kill", share: 2, row: recovery },
    Workload { what: "in two lives one after the other", share: 2, row: two_lives },
    Workload { what: "while a training is extended", share: 1, row: extension },
    Workload { what: "with outputs of programs", share: 1, row: outputs },
    Workload { what: "with an unpacked .tar.gz", share: 1, row: archive },
    Workload { what: "with an unpacked .zip", share: 1, row: zip_file },
    Workload { what: "with checkpoints of a program", share: 1, row: program },
    Workload { what: "with a store", share: 1, row: store },
    Workload { what: "while a run is removed", share: 1, row: removal },
    Workload { what: "while it is cleaned up after crashes", share: 1, row: cleaning },
];

/// The command as it is recorded: what it reports can be read.
fn told(project: &Project, arguments: &[&str]) -> Command {
    let mut command = project.command(arguments);
    command.args(["--log", "json"]);
    command
}

/// A pause in which files become old enough that their times are believed.
fn pause() -> Command {
    let mut command = Command::new("sleep");
    command.arg("2.1");
    command
}

/// The state after a command that nothing disturbs.
pub fn after(project: &Project, arguments: &[&str]) -> State {
    project.pipe(arguments).succeeds();
    state(project).unwrap()
}

fn whole(bench: &Bench) -> Row {
    let project = chain();
    let lives = vec![bench.record(&project, &[told(&project, &RUN)], 0, Vec::new())];
    Row { lives, expected: after(&chain(), &RUN), project, check: Box::new(goes_on) }
}

/// Files in one half of the runs of this test, folders in the other.
fn program(bench: &Bench) -> Row {
    let folder = bench.seed.is_multiple_of(2);
    let project = program::project(folder);
    let lives = vec![bench.record(&project, &[told(&project, &RUN)], 0, Vec::new())];
    Row {
        project,
        lives,
        expected: program::undisturbed(folder),
        check: Box::new(program::recovers),
    }
}

const EXTENDED: [&str; 4] = ["run", "p.yaml", "--set", "base.epochs=4"];

fn extension(bench: &Bench) -> Row {
    let short = |project: &Project| {
        project.pipe(&["run", "p.yaml", "--set", "base.epochs=2"]).succeeds();
        // A crash left this, in a folder in which nothing else happens.
        project.write(&format!("{FIRST}/kept/.half.tmp-1-1"), "half");
    };
    let (project, other) = (chain(), chain());
    short(&other);
    let expected = after(&other, &EXTENDED);
    short(&project);
    let lives = vec![bench.record(&project, &[told(&project, &EXTENDED)], 0, Vec::new())];
    let check = |project: &Project, expected: &State| goes_on_with(project, &EXTENDED, expected);
    Row { project, lives, expected, check: Box::new(check) }
}

/// How many second lives are recorded where time is limited.
const SOME: usize = 8;

/// Killed at several changes, and right after each new folder; then the power goes in the run that
/// puts it in order.
fn recovery(bench: &Bench) -> Row {
    let project = chain();
    let log = project.path("changes.log");
    let mut counted = project.command(&RUN);
    assert!(counted.env("BURN_PIPE_FAULT_LOG", &log).output().unwrap().status.success());
    let changes = std::fs::read_to_string(log).unwrap();
    let folders = changes
        .lines()
        .zip(1..)
        .filter(|(line, _)| line.contains(" Folder "))
        .map(|(_, at)| at + 1);
    let mut random = Random(bench.seed | 1);
    let others = (0..6).map(|_| 1 + random.below(changes.lines().count() as u64) as usize);
    let mut all: Vec<usize> =
        folders.chain(others).collect::<BTreeSet<usize>>().into_iter().collect();
    while bench.limited && all.len() > SOME {
        all.remove(random.below(all.len() as u64) as usize);
    }
    let mut lives = Vec::new();
    for at in all {
        clear(&project, |_| false);
        project.write("p.yaml", CHAIN);
        let mut killed = told(&project, &RUN);
        killed.env("BURN_PIPE_FAULT", format!("kill@{at}"));
        lives.push(bench.record(&project, &[killed, told(&project, &RUN)], 1, Vec::new()));
    }
    Row { lives, expected: after(&chain(), &RUN), project, check: Box::new(goes_on) }
}

/// Empties a project's folder, but for what stays.
fn clear(project: &Project, stays: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(project.path("")).unwrap().flatten() {
        if !stays(&entry.file_name().to_string_lossy()) {
            let path = entry.path();
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(path)
            } else {
                std::fs::remove_file(path)
            };
            removed.unwrap();
        }
    }
}

/// The power goes, and again in the run after that.
fn two_lives(bench: &Bench) -> Row {
    let project = chain();
    let first = bench.record(&project, &[told(&project, &RUN)], 0, Vec::new());
    let mut random = Random(bench.seed.rotate_left(32) | 1);
    let again = |_| {
        let (tree, reported) = some_state(&first, &mut random);
        tree.put(&project.path(""));
        bench.record(&project, &[told(&project, &RUN)], 0, first.told[..reported].to_vec())
    };
    let lives = (0..if bench.limited { SOME } else { 50 }).map(again).collect();
    Row { lives, expected: after(&chain(), &RUN), project, check: Box::new(goes_on) }
}

/// Programs that write as they please: into a file that is there, into room that was set aside,
/// through a mapping, and folders in folders.
const WRITES: &str = "\
name: outputs
stages:
  write: { kind: command, run: [python3, -IS, write.py], outputs: [inside.bin, aside.bin, mapped.bin] }
  nested:
    kind: command
    run: 'rm -rf out && mkdir -p out/a/b && echo one > out/a/b/one.txt && cp -r out/a out/c && echo two > out/two.txt'
    outputs: [out]
  use:
    kind: command
    run: 'cat inside.bin aside.bin mapped.bin out/c/b/one.txt | cksum > sum.txt'
    inputs: [inside.bin, aside.bin, mapped.bin, out]
    outputs: [sum.txt]
";
const PROGRAM: &str = "\
import mmap, os
new = bytes(range(256)) * 40
with open('inside.bin', 'r+b') as f:
    f.write(new)
with open('aside.bin', 'wb') as f:
    os.posix_fallocate(f.fileno(), 0, len(new))
    f.write(new)
with open('mapped.bin', 'w+b') as f:
    f.truncate(len(new))
    with mmap.mmap(f.fileno(), len(new)) as m:
        m[:] = new
";
/// The same without Python.
const PLAIN: &str = "\
yes new | head -c 10240 | dd conv=notrunc of=inside.bin status=none
rm -f aside.bin && truncate -s 10240 aside.bin && yes new | head -c 10240 | dd conv=notrunc of=aside.bin status=none
yes new | head -c 10240 > mapped.bin
";

pub fn writes_in(project: Project) -> Project {
    let mut python = Command::new("python3");
    python.args(["-IS", "-c", "import mmap"]).stdout(Stdio::null()).stderr(Stdio::null());
    let (yaml, program) = if python.status().is_ok_and(|status| status.success()) {
        (WRITES.to_owned(), PROGRAM)
    } else {
        (WRITES.replace("[python3, -IS, write.py]", "[sh, write.py]"), PLAIN)
    };
    project.write("p.yaml", yaml);
    project.write("write.py", program);
    project.write("inside.bin", "old!".repeat(2560));
    project
}

fn outputs(bench: &Bench) -> Row {
    believed(bench, || writes_in(Project::new()))
}

/// A run, and after a while another one, which believes the times of files.
fn believed(bench: &Bench, project: fn() -> Project) -> Row {
    let expected = after(&project(), &RUN);
    // A power cut leaves times and numbers of files as they were. Those that are put in place here
    // keep their time.
    let project = project().environment("BURN_PIPE_FAULT_STAMP", "1");
    let commands = [told(&project, &RUN), pause(), told(&project, &RUN)];
    let lives = vec![bench.record(&project, &commands, 0, Vec::new())];
    Row { project, lives, expected, check: Box::new(goes_on) }
}

const IMAGES: &str = "\
name: images
stages:
  data: { kind: dataset, source: SOURCE, image_size: 8 }
  base:
    kind: train
    dataset: data
    epochs: 1
    batch_size: 4
    model: { dim: 16, mults: [1], depths: [1], heads: 2, window: 4 }
    device: cpu
";

/// Pictures of two classes: the name of the folder and the file, and the content.
fn pictures() -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..8_u8).map(|number| {
        let picture = image::RgbImage::from_fn(20, 16, |x, y| {
            image::Rgb([number * 30, x as u8 * 9, y as u8 * 9])
        });
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
        let class = ["n01440764", "n03888257"][usize::from(number % 2)];
        (format!("{class}/{number}.JPEG"), bytes.into_inner())
    })
}

fn archive(bench: &Bench) -> Row {
    believed(bench, || {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, bytes) in pictures() {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            let name = format!("imagenette2-160/train/{name}");
            archive.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        let project = Project::new();
        project.write("data/imagenette2-160.tgz", archive.into_inner().unwrap().finish().unwrap());
        project.write("p.yaml", IMAGES.replace("SOURCE", "imagenette, download: false"));
        project
    })
}

fn zip_file(bench: &Bench) -> Row {
    believed(bench, || {
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in pictures() {
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(&bytes).unwrap();
        }
        let project = Project::new();
        project.write("images.zip", archive.finish().unwrap().into_inner());
        project.write("p.yaml", IMAGES.replace("SOURCE", "image_folder, root: images.zip"));
        project
    })
}

/// Machine and store lose their power together. Then the machine goes on; then another one, which
/// has nothing else.
fn store(bench: &Bench) -> Row {
    let stored = || {
        let project = Project::new();
        let url = format!("file://{}", project.path(STORE).display());
        chain_with(project.environment("PIPE_STORE", url))
    };
    let expected = after(&stored(), &RUN);
    let project = stored();
    let lives = vec![bench.record(&project, &[told(&project, &RUN)], 0, Vec::new())];
    let check = |project: &Project, expected: &State| {
        goes_on(project, expected)?;
        clear(project, |name| name == STORE);
        project.write("p.yaml", CHAIN);
        goes_on(project, expected)
            .map_err(|e| format!("another machine, with what is in the store: {e}"))
    };
    Row { project, lives, expected, check: Box::new(check) }
}

const FIRST: &str = "checkpoints/base_training/run_001";

/// Two runs, of which the first goes.
fn removal(bench: &Bench) -> Row {
    let run = |project: &Project, seed: u8| {
        let seed = format!("base.seed={seed}");
        let output = project
            .command(&["run", "p.yaml", "base", "--set", "base.epochs=1", "--set", &seed])
            .output();
        let output = output.unwrap();
        ensure(output.status.success(), || text(&output.stderr))
    };
    let remove = ["runs", "rm", "base/1"];
    let project = chain();
    run(&project, 1).and_then(|()| run(&project, 2)).unwrap();
    let before = contents(&project.path(FIRST));
    let lives = vec![bench.record(&project, &[project.command(&remove)], 0, Vec::new())];
    project.pipe(&["gc"]).succeeds();
    let expected = state(&project).unwrap();
    let check = move |project: &Project, expected: &State| {
        let found = contents(&project.path(FIRST));
        let there = project.path(FIRST).exists();
        ensure(!there || found == before, || format!("half a run stands: {:?}", found.keys()))?;
        // With what is left it goes on as it would without: the other run is whole.
        run(project, 2)?;
        let again = project.command(&remove).output().unwrap();
        ensure(again.status.success() == there, || text(&again.stderr))?;
        let cleaned = project.command(&["gc"]).output().unwrap();
        ensure(cleaned.status.success(), || text(&cleaned.stderr))?;
        same(project, expected)
    };
    Row { project, lives, expected, check: Box::new(check) }
}

/// What is below a folder, but for locks.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).unwrap());
    let is_lock = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "lock");
    files(folder).into_iter().filter(|path| !is_lock(path)).map(read).collect()
}

/// What crashes leave, and `pipe gc`.
fn cleaning(bench: &Bench) -> Row {
    let project = chain();
    project.pipe(&RUN).succeeds();
    project.write(&format!("{FIRST}/checkpoints/.epoch_009.ckpt.tmp-1-1"), "half");
    project.write(&format!("{FIRST}/.metadata.json.tmp-1-2"), "half");
    project.write(
        "checkpoints/base_training/.run_002.tmp-1-3/checkpoints/epoch_001.ckpt",
        "of a run that went",
    );
    std::fs::create_dir_all(project.path("checkpoints/base_training/run_003/checkpoints")).unwrap();
    let unlisted = project.path(FIRST).join("checkpoints/step_00000099.ckpt");
    std::fs::copy(project.path(FIRST).join("checkpoints/epoch_003.ckpt"), unlisted).unwrap();
    let lives = vec![bench.record(&project, &[project.command(&["gc"])], 0, Vec::new())];
    let expected = after(&project, &RUN);
    let check = |project: &Project, expected: &State| {
        let cleaned = project.command(&["gc"]).output().unwrap();
        ensure(cleaned.status.success(), || text(&cleaned.stderr))?;
        let empty = project.path("checkpoints/base_training/run_003");
        ensure(!empty.exists(), || "the run that was never begun is still there".into())?;
        goes_on(project, expected)
    };
    Row { project, lives, expected, check: Box::new(check) }
}
