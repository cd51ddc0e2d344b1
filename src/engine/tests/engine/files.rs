//! What a command reads and writes, looked at closely: stamps, links, files that are left over, the
//! project's own state.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pipe_core::Status;
use pipe_engine::kind::{Failure, StageId};
use pipe_engine::state::Record;

use crate::exec::{Ran, run};
use crate::fake::Project;

fn project(stages: &str) -> Project {
    Project::new(&format!("name: chain\nstages:\n{stages}"))
}

fn path(project: &Project, name: &str) -> PathBuf {
    project.folder.path().join(name)
}

fn put(project: &Project, name: &str, text: &str) {
    std::fs::create_dir_all(path(project, name).parent().unwrap()).unwrap();
    std::fs::write(path(project, name), text).unwrap();
}

fn read(project: &Project, name: &str) -> String {
    std::fs::read_to_string(path(project, name)).unwrap()
}

/// Another content with the same size and time.
fn alter_unseen(path: &Path) {
    let (old, time) =
        (std::fs::read(path).unwrap(), std::fs::metadata(path).unwrap().modified().unwrap());
    std::fs::write(path, old.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>()).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[track_caller]
fn ran(project: &Project) -> Ran {
    let ran = run(project, false);
    assert!(ran.summary.failed.is_empty(), "{:?}", ran.summary.failed);
    ran
}

#[track_caller]
fn failure(project: &Project) -> String {
    let mut ran = run(project, false);
    let (_, error) = ran.summary.failed.pop().expect("it fails");
    assert_eq!(error.failure, Failure::Command);
    error.message
}

fn record(project: &Project) -> Record {
    Record::load(&project.root, "chain", &StageId::new("a").unwrap()).unwrap()
}

const COPY: &str =
    "  a: { kind: command, run: 'cat in.txt > out.txt', inputs: [in.txt], outputs: [out.txt] }\n";

#[test]
fn another_content_is_seen_whatever_size_and_time_say() {
    let project = project(COPY).file("in.txt", "one");
    ran(&project);
    alter_unseen(&path(&project, "out.txt"));
    assert_eq!(ran(&project).reasons, ["out.txt was changed since it was made"]);
    alter_unseen(&path(&project, "in.txt"));
    assert_eq!(ran(&project).reasons, ["another content of in.txt"]);
    assert_eq!(read(&project, "out.txt"), read(&project, "in.txt"));
}

#[test]
fn what_was_found_unchanged_is_noted_and_not_read_again() {
    let project = project(COPY).file("in.txt", "one");
    ran(&project);
    let stamps = || record(&project).made.unwrap().outputs[0].changed;
    assert_eq!(stamps(), 0, "it changed too shortly before it was read");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let before = record(&project);
    assert_eq!(ran(&project).planned, ["a skip"]);
    assert_ne!(stamps(), 0);
    let after = record(&project);
    assert_eq!((after.updated_at, after.status), (before.updated_at, Status::Completed));
    // A digest that is wrong is believed as long as the stamp fits.
    let mut marked = after.clone();
    marked.made.as_mut().unwrap().inputs[0].digest = "sha256:wrong".into();
    marked.save(&project.root, &StageId::new("a").unwrap()).unwrap();
    assert_eq!(ran(&project).planned, ["a skip"]);
    alter_unseen(&path(&project, "in.txt"));
    assert_eq!(ran(&project).planned, ["a run"]);
}

#[test]
fn a_record_of_an_earlier_version_makes_nothing_run_again() {
    let stages =
        "  a: { kind: command, run: 'cat data/x > out.txt', inputs: [data], outputs: [out.txt] }\n";
    let project = project(stages);
    put(&project, "data/x", "one");
    put(&project, "elsewhere/y", "two");
    ran(&project);
    // As it was written before stamps had all times, and before links to folders were followed.
    let mut old = record(&project);
    let made = old.made.as_mut().unwrap();
    made.follows_links = false;
    for output in made.outputs.iter_mut().chain(&mut made.inputs) {
        (output.changed, output.inode) = (0, 0);
    }
    old.save(&project.root, &StageId::new("a").unwrap()).unwrap();
    symlink("../elsewhere", path(&project, "data/linked")).unwrap();
    assert_eq!(ran(&project).planned, ["a skip"]);
    assert!(record(&project).made.unwrap().follows_links);
    assert_eq!(ran(&project).planned, ["a skip"]);
    put(&project, "elsewhere/y", "three");
    assert_eq!(ran(&project).planned, ["a run"]);
}

#[test]
fn links_to_folders_are_followed_and_circles_are_not() {
    for input in ["data", "data/**/*.txt", "'*'"] {
        let stages = format!(
            "  a: {{ kind: command, run: 'echo > out', inputs: [{input}], outputs: [out] }}\n"
        );
        let project = project(&stages);
        put(&project, "data/x.txt", "one");
        put(&project, "elsewhere/deep/y.txt", "two");
        symlink("../elsewhere", path(&project, "data/linked")).unwrap();
        symlink("..", path(&project, "data/circle")).unwrap();
        symlink("../../data", path(&project, "elsewhere/deep/back")).unwrap();
        symlink("nowhere", path(&project, "data/dangling")).unwrap();
        ran(&project);
        assert_eq!(ran(&project).planned, ["a skip"], "{input}");
        put(&project, "elsewhere/deep/y.txt", "three");
        assert_eq!(ran(&project).planned, ["a run"], "{input}");
        put(&project, "elsewhere/deep/new.txt", "four");
        assert_eq!(ran(&project).planned, ["a run"], "{input}");
        std::fs::remove_file(path(&project, "data/linked")).unwrap();
        assert_eq!(ran(&project).planned, ["a run"], "{input}");
    }
}

#[test]
fn an_output_that_was_there_before_and_is_not_written_is_an_error() {
    let stages = |run: &str| {
        format!(
            "name: chain\nstages:\n  a: {{ kind: command, run: '{run}', outputs: [out.txt, dir] }}\n"
        )
    };
    let project = Project::new(&stages(
        "echo one > out.txt; mkdir -p dir; echo 1 > dir/a; echo 2 > dir/b; touch dir/.keep",
    ));
    ran(&project);
    let project = project.file("p.yaml", &stages("echo 9 > dir/a; echo 9 > dir/b"));
    for _ in 0..2 {
        let text = failure(&project);
        assert!(text.contains("did not write out.txt") && text.contains("touch out.txt"), "{text}");
    }
    let project = project.file("p.yaml", &stages("echo two > out.txt; echo 9 > dir/a"));
    assert!(failure(&project).contains("did not write dir/b"));
    let project =
        project.file("p.yaml", &stages("echo two > out.txt; echo 9 > dir/a; touch dir/b"));
    ran(&project);
    assert_eq!(ran(&project).planned, ["a skip"]);
    // A file that stood there before the first run is nobody's result either.
    let other = self::project("  a: { kind: command, run: 'true', outputs: [out.txt] }\n")
        .file("out.txt", "mine");
    assert!(failure(&other).contains("did not write out.txt"));
    std::fs::remove_file(path(&other, "out.txt")).unwrap();
    assert!(failure(&other).contains("did not write out.txt, one of its outputs"));
}

#[test]
fn what_is_written_with_the_same_content_or_by_a_link_is_written() {
    for run in ["echo one > out.txt", "cp -p in.txt out.txt", "ln -sf in.txt out.txt"] {
        let stages = |more: &str| {
            format!(
                "name: chain\nstages:\n  a: {{ kind: command, run: '{run}; {more}', outputs: [out.txt] }}\n"
            )
        };
        let project = Project::new(&stages("true")).file("in.txt", "one\n");
        ran(&project);
        let project = project.file("p.yaml", &stages(":"));
        assert_eq!(ran(&project).planned, ["a run"], "{run}");
    }
}

#[test]
fn what_an_attempt_left_counts_for_the_next_one_at_the_same() {
    // It writes its file once, and fails after that; what it wrote it takes for done.
    let run = "test -e begun && exit 0; touch begun; cat in.txt > out.txt; exit 1";
    let with = |keys: &str| {
        let stage = format!(
            "  a: {{ kind: command, run: '{run}', inputs: [in.txt], outputs: [out.txt]{keys} }}\n"
        );
        project(&stage).file("in.txt", "one")
    };
    let retried = with(", retry: { max: 1 }").file("out.txt", "old");
    ran(&retried);
    for again in [with("").file("out.txt", "old"), with("")] {
        failure(&again);
        ran(&again);
    }
    ran(&with(", retry: { max: 1 }"));
    // With other inputs it is as old as the rest.
    let other = with("").file("out.txt", "old");
    failure(&other);
    let other = other.file("in.txt", "two");
    assert!(failure(&other).contains("did not write out.txt"));
}

#[test]
fn the_whole_project_as_input_is_what_people_wrote_in_it() {
    for input in [".", "./", "'**/*.txt'"] {
        let project = project(&format!(
            "  a: {{ kind: command, run: 'cat src/x.txt > out.txt; mkdir -p dir; cp out.txt dir', inputs: [{input}], outputs: [out.txt, dir] }}\n  \
             b: {{ kind: command, run: 'cat out.txt > last', inputs: [out.txt], outputs: [last] }}\n"
        ));
        put(&project, "src/x.txt", "one");
        put(&project, ".git/index.txt", "1");
        ran(&project);
        put(&project, ".git/index.txt", "2");
        put(&project, "checkpoints/base/run_001/metadata.json", "{}");
        put(&project, "checkpoints/base/run_001/logs/metrics.txt", "0.1");
        assert_eq!(ran(&project).planned, ["a skip", "b skip"], "{input}");
        put(&project, "src/new.txt", "two");
        assert_eq!(ran(&project).planned, ["a run", "b run"], "{input}");
        assert_eq!(ran(&project).planned, ["a skip", "b skip"], "{input}");
    }
}

#[test]
fn a_folder_that_holds_its_own_outputs_is_read_without_them() {
    let project = project(
        "  a: { kind: command, run: 'date +%N > data/made; cat data/x > data/copy', inputs: [data], outputs: [data/made, data/copy] }\n",
    );
    put(&project, "data/x", "one");
    ran(&project);
    assert_eq!(ran(&project).planned, ["a skip"]);
    put(&project, "data/y", "two");
    assert_eq!(ran(&project).planned, ["a run"]);
}
