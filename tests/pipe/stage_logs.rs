//! `pipe logs`: what a stage wrote when it ran last, on this machine.

use crate::advice::{after, typed};
use crate::project::Project;

const PIPELINE: &str = "\
name: two
stages:
  a: { kind: command, run: 'echo first; echo \"$WORD\"; echo third >&2', outputs: [], env: { WORD: hello } }
  b: { kind: command, run: 'echo before; exit 3', needs: [a] }
";

#[test]
fn what_a_program_printed_can_be_read_afterwards() {
    let project = Project::new();
    project.write("p.yaml", PIPELINE);
    project.pipe(&["logs", "p.yaml", "a"]).exits(2).says("stage `a` has not run yet");
    project.pipe(&["run", "p.yaml"]).exits(1);
    let told = project.pipe(&["logs", "p.yaml", "a"]).succeeds().stdout();
    for line in ["first", "third"] {
        assert!(told.lines().any(|said| said == line), "{told}");
    }
    // The value of `env:` is a secret here as everywhere.
    assert!(!told.contains("hello") && told.contains("***"), "{told}");
    let failed = project.pipe(&["logs", "p.yaml", "b"]).succeeds().stdout();
    assert!(failed.contains("before") && failed.contains("exit code 3"), "{failed}");
    let last = project.pipe(&["logs", "p.yaml", "b", "--tail", "1"]).succeeds().stdout();
    assert_eq!(last.trim_end().lines().count(), 1, "{last}");
    project.pipe(&["logs", "p.yaml", "aa"]).exits(2).says("did you mean `a`?");
    // The project has one pipeline only.
    assert_eq!(project.pipe(&["logs", "a"]).succeeds().stdout(), told);
    project
        .pipe(&["logs", "p.yaml"])
        .exits(2)
        .says("name a stage too, such as `pipe logs p.yaml a`: a, b");
    project.pipe(&["logs"]).exits(2).says("name a stage too, such as `pipe logs p.yaml a`: a, b");
    project.write("q.yaml", PIPELINE);
    let refused = project.pipe(&["logs", "a"]).exits(2).says("which of 2 pipelines is meant?");
    let line = after(&refused.stderr(), "type for instance: ");
    assert_eq!(line, "pipe logs p.yaml a");
    assert!(typed(&project, "", &line).contains("first"));
    // Only one has it.
    project.write("q.yaml", PIPELINE.replace("  a: {", "  c: {").replace("[a]", "[c]"));
    assert_eq!(project.pipe(&["logs", "a"]).succeeds().stdout(), told);
    project.pipe(&["logs", "d"]).exits(2).says("which of 2 pipelines is meant?");
}

#[test]
fn a_run_stands_for_what_its_stage_told_when_it_trained_it() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let first = project.pipe(&["logs", "base"]).succeeds().stdout();
    project.pipe(&["run", "p.yaml", "--seed", "2"]).succeeds();
    let second = project.pipe(&["logs", "base"]).succeeds().stdout();
    assert!(first.contains("Run 001") && second.contains("Run 002"), "{first}{second}");
    for (run, told) in [("1", &first), ("base/1", &first), ("2", &second)] {
        assert_eq!(project.pipe(&["logs", run]).succeeds().stdout(), *told, "{run}");
    }
    project.pipe(&["logs", "3"]).exits(2).says("there is no run 3");
    std::fs::remove_file(project.path(".pipe/events.jsonl")).unwrap();
    project.pipe(&["logs", "1"]).exits(2).says("nothing is known here of what was said");
}

#[test]
fn the_log_is_that_of_the_last_time_and_a_skipped_stage_keeps_it() {
    let project = Project::new();
    let file =
        |word: &str| format!("name: n\nstages:\n  a: {{ kind: command, run: 'echo {word}' }}\n");
    project.write("p.yaml", file("one"));
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let lines = || -> Vec<String> {
        let told = project.pipe(&["logs", "p.yaml", "a"]).succeeds().stdout();
        told.lines().map(str::to_owned).filter(|line| line == "one" || line == "two").collect()
    };
    assert_eq!(lines(), ["one"]);
    project.write("p.yaml", file("two"));
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(lines(), ["two"]);
}

#[test]
fn a_trainings_log_has_the_words_of_the_terminal_and_a_matrix_all_its_stages() {
    let project =
        Project::with("    device: cpu\n", "    device: cpu\n    matrix: { seed: [1, 2] }\n");
    let run = project.pipe(&["run", "p.yaml"]).succeeds();
    let told = project.pipe(&["logs", "p.yaml", "base"]).succeeds().stdout();
    let epochs = |text: &str| text.lines().filter(|line| line.starts_with("Epoch ")).count();
    assert_eq!((epochs(&told), epochs(&run.stderr())), (4, 4), "{told}");
    let one = project.pipe(&["logs", "p.yaml", "base@seed=2"]).succeeds().stdout();
    assert_eq!(epochs(&one), 2, "{one}");
    assert!(one.contains("epoch_002.ckpt"), "{one}");
}

/// A program that prints without end fills no disk.
#[test]
fn a_log_ends_at_its_size_and_says_so() {
    let project = Project::new();
    let line = "x".repeat(1000);
    let run = format!("i=0; while [ $i -lt 20000 ]; do echo {line}; i=$((i+1)); done; echo last");
    project.write("p.yaml", format!("name: n\nstages:\n  a: {{ kind: command, run: '{run}' }}\n"));
    let quiet = project.pipe(&["run", "p.yaml", "--quiet"]).succeeds();
    assert_eq!(quiet.stdout(), "", "nothing went wrong");
    let told = project.pipe(&["logs", "p.yaml", "a"]).succeeds().stdout();
    assert!(told.contains("what is printed behind 16 MiB is not kept"), "{}", told.len());
    assert!(!told.contains("\nlast\n") && told.len() < 20_000_000, "{}", told.len());
}

#[test]
fn of_a_pipeline_with_one_training_that_is_printed() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let told = project.pipe(&["logs"]).succeeds().stdout();
    assert_eq!(told, project.pipe(&["logs", "base"]).succeeds().stdout());
    assert!(told.contains("Epoch 2/2"), "{told}");
}
