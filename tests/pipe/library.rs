//! The product as a library: `examples/custom_stage.rs` is `pipe` with a stage kind of its own.

use std::path::Path;
use std::process::{Command, Output};

use crate::project::Project;

const PIPELINE: &str = "\
name: words
stages:
  text: { kind: command, run: 'echo one two three > text.txt', outputs: [text.txt] }
  words: { kind: word_count, from: text.txt, to: words.txt }
";

/// The example program in a project. `None`, with a word, where it was not built: `cargo test`
/// builds examples unless it is told which tests to build.
fn example(project: &Project, arguments: &[&str]) -> Option<Output> {
    let program = Path::new(env!("CARGO_BIN_EXE_pipe")).with_file_name("examples");
    let program = program.join("custom_stage");
    if !program.is_file() {
        eprintln!("skipped: {} is not there", program.display());
        return None;
    }
    Some(Command::new(program).args(arguments).current_dir(project.path("")).output().unwrap())
}

#[test]
fn a_stage_kind_of_one_s_own_has_the_whole_command_line() {
    let project = Project::new();
    project.write("p.yaml", PIPELINE);
    let said = |arguments: &[&str]| {
        let ended = example(&project, arguments)?;
        assert!(
            ended.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
        Some(String::from_utf8(ended.stdout).unwrap())
    };
    let Some(first) = said(&["run", "p.yaml"]) else { return };
    assert!(first.contains("words: 3 words"), "{first}");
    assert_eq!(std::fs::read_to_string(project.path("words.txt")).unwrap(), "3\n");
    let again = said(&["run", "p.yaml"]).unwrap();
    assert!(again.contains("everything is up to date"), "{again}");
    // It stands behind the command by the file that it reads.
    let changed = PIPELINE.replace("one two", "one");
    project.write("p.yaml", changed);
    let third = said(&["run", "p.yaml"]).unwrap();
    assert!(third.contains("words: 2 words"), "{third}");
    let schema = said(&["schema", "word_count"]).unwrap();
    assert!(schema.contains("The file whose words are counted"), "{schema}");
    // The plain program does not know it, and says what it knows.
    let refused = project.pipe(&["check", "p.yaml"]).exits(2).stderr();
    assert!(refused.contains("word_count"), "{refused}");
}
