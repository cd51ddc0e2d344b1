//! Programs as stages: files in and out, what makes them run again, how they are stopped.

use std::path::Path;
use std::time::{Duration, Instant};

use pipe_engine::kind::Failure;

use crate::exec::{How, run, run_with};
use crate::fake::Project;

// raw.txt -> count -> words.txt -> sort -> out/sorted.txt
const TWO: &str = "\
name: chain
stages:
  sort:
    kind: command
    run: 'mkdir -p out && sort words.txt > out/sorted.txt'
    inputs: [words.txt]
    outputs: [out]
  count:
    kind: command
    run: [sh, -c, 'tr \" \" \"\\n\" < raw.txt > words.txt; echo counted; echo $NAME']
    inputs: ['raw*.txt']
    outputs: [words.txt]
    env: { NAME: someone }
";

fn two() -> Project {
    Project::new(TWO).file("raw.txt", "b a c\n")
}

fn read(project: &Project, path: &str) -> String {
    std::fs::read_to_string(project.folder.path().join(path)).unwrap()
}

#[test]
fn files_connect_stages_and_decide_what_runs_again() {
    let project = two();
    let ran = run(&project, false);
    assert_eq!(ran.planned, ["count run", "sort run"], "in the order of their files");
    assert_eq!(ran.summary.finished.len(), 2, "{:?}", ran.summary.failed);
    assert_eq!(read(&project, "out/sorted.txt"), "a\nb\nc\n");
    assert!(ran.heard.iter().any(|l| l.contains("line: \"counted\"")), "{:?}", ran.heard);
    assert!(
        ran.heard.iter().any(|l| l.contains("line: \"***\"")),
        "a value of `env:`: {:?}",
        ran.heard
    );
    assert_eq!(run(&project, false).planned, ["count skip", "sort skip"]);

    // Another order of the same words: the second stage need not know.
    let project = project.file("raw.txt", "b a c \n");
    let ran = run(&project, false);
    assert_eq!(ran.planned[0], "count run");
    assert_eq!(ran.reasons[0], "another content of raw.txt");
    assert_eq!(read(&project, "words.txt"), "b\na\nc\n\n");

    std::fs::remove_file(project.folder.path().join("words.txt")).unwrap();
    let ran = run(&project, false);
    assert_eq!(ran.reasons[0], "words.txt is not there");
    assert_eq!(ran.summary.skipped.len(), 1, "made again as it was: {:?}", ran.heard);

    let project = project.file("out/sorted.txt", "mine\n");
    assert_eq!(run(&project, false).reasons[1], "out/sorted.txt was changed since it was made");
    let project = project.file("raw2.txt", "d\n");
    assert_eq!(run(&project, false).planned[0], "count run", "one file more for the pattern");
    let project = project.file("p.yaml", &TWO.replace("someone", "nobody"));
    let reason = &run(&project, false).reasons[0];
    assert_eq!(reason, "another content of env.NAME");
    assert!(
        !reason.contains("someone") && !reason.contains("nobody"),
        "values may be secrets: {reason}"
    );
    for file in [".pipe/records/chain/count.json", ".pipe/events.jsonl"] {
        let kept = read(&project, file);
        assert!(!kept.contains("nobody"), "{file} holds a value: {kept}");
    }
}

#[test]
fn what_fails_says_how_and_leaves_no_record_of_success() {
    let failing = TWO.replace("echo counted", "echo oops >&2; exit 3");
    let project = Project::new(&failing).file("raw.txt", "b a c\n");
    for _ in 0..2 {
        let ran = run(&project, false);
        let (_, error) = &ran.summary.failed[0];
        assert_eq!(error.failure, Failure::Command);
        assert!(error.message.contains("ended with exit code 3:\n  oops"), "{}", error.message);
    }
    let silent = "name: chain\nstages:\n  a: { kind: command, run: 'true', outputs: [x] }\n";
    let ran = run(&Project::new(silent), false);
    assert!(ran.summary.failed[0].1.message.contains("did not write x"));
    let missing = "name: chain\nstages:\n  a: { kind: command, run: [no-such-program] }\n";
    assert!(
        run(&Project::new(missing), false).summary.failed[0]
            .1
            .message
            .contains("failed to start `no-such-program`")
    );
    let ran = run(&Project::new(TWO), false);
    let said = &ran.summary.failed[0].1.message;
    assert!(said.starts_with("inputs: there is no raw*.txt in the project's folder, /"), "{said}");
}

#[test]
fn a_retry_runs_it_again() {
    let file = "name: chain\nstages:\n  a: { kind: command, run: 'test -e there || { touch there; exit 1; }', retry: { max: 1 } }\n";
    let ran = run(&Project::new(file), false);
    assert_eq!(ran.summary.finished.len(), 1, "{:?}", ran.summary.failed);
    assert_eq!(ran.heard.iter().filter(|l| l.contains("Retrying")).count(), 1);
}

#[test]
fn a_time_limit_ends_the_whole_group() {
    let file = "name: chain\nstages:\n  a: { kind: command, run: 'sleep 61 & sleep 62', timeout: 300ms }\n";
    let started = Instant::now();
    let ran = run(&Project::new(file), false);
    assert_eq!(ran.summary.failed[0].1.failure, Failure::Timeout);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    std::thread::sleep(Duration::from_millis(100));
    let alive = |seconds: &str| {
        let of = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(of);
        all.into_iter().any(|line| line == format!("sleep\0{seconds}\0").as_bytes())
    };
    assert!(!alive("61") && !alive("62"), "nothing of it is left");
}

#[test]
fn paths_outside_and_outputs_of_two_are_refused() {
    let refused = |from: &str, to: &str| Project::new(&TWO.replace(from, to)).error();
    assert!(
        refused("'raw*.txt'", "../raw.txt")
            .contains("stages.count.inputs.0: expected a path inside")
    );
    assert!(refused("outputs: [out]", "outputs: [/tmp/x]").contains("stages.sort.outputs.0"));
    assert!(
        refused("outputs: [out]", "outputs: [words.txt]").contains("words.txt is written by stage")
    );
    assert!(refused("run: [sh", "ran: [sh").contains("did you mean `run`?"));
    assert!(
        refused("[words.txt]\n    outputs: [out]", "[words.txt]\n    outputs: [raw.txt]")
            .contains("in a circle")
    );
}

#[test]
fn many_run_at_once() {
    let mut file = "name: chain\nstages:\n".to_owned();
    for i in 0..4 {
        file += &format!(
            "  s{i}: {{ kind: command, run: 'touch here{i}; while [ $(ls here* | wc -l) -lt 4 ]; do sleep 0.01; done' }}\n"
        );
    }
    let ran = run_with(&Project::new(&file), How { jobs: 4, ..How::default() });
    assert_eq!(ran.summary.finished.len(), 4);
    assert!(!Path::new("here0").exists(), "started in the project's folder");
}

#[test]
fn a_matrix_of_commands() {
    let file = "name: chain\nstages:\n  make:\n    kind: command\n    matrix: { size: [1, 2], word: [a b] }\n    run: 'echo $WORD ${matrix.size} > out/${matrix.size}.txt'\n    env: { WORD: '${matrix.word}' }\n    outputs: ['out/${matrix.size}.txt']\n  all: { kind: command, run: 'cat out/*.txt > all.txt', inputs: ['out/*.txt'], outputs: [all.txt] }\n";
    let project = Project::new(file);
    let ran = run(&project, false);
    assert_eq!(ran.planned, ["make@size=1,word=a_b run", "make@size=2,word=a_b run", "all run"]);
    assert_eq!(read(&project, "all.txt"), "a b 1\na b 2\n");
    let error = Project::new(&file.replace("size: [1, 2]", "size: [1, 2], sice: [1]")).error();
    assert!(error.contains("stages.make.matrix.sice: neither a setting"), "{error}");
}
