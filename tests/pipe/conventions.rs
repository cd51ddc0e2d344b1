//! What programs on a command line are expected to do: completions, manuals, versions, colours,
//! logs.

use std::process::{Command, Stdio};

use crate::project::Project;

#[test]
fn five_shells_are_completed() {
    let project = Project::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = project.pipe(&["completions", shell]).succeeds().stdout();
        // It asks the program, which knows more than any script.
        assert!(script.contains("PIPE_COMPLETE"), "{shell}: {script}");
        // Where the shell is at hand, it says whether it can read it.
        if let Ok(found) = Command::new(shell)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            && found.success()
            && ["bash", "zsh"].contains(&shell)
        {
            project.write("completions", &script);
            let read =
                Command::new(shell).arg("-n").arg(project.path("completions")).status().unwrap();
            assert!(read.success(), "{shell} cannot read its completions");
        }
    }
    project
        .pipe(&["completions", "tcsh"])
        .exits(2)
        .says("possible values: bash, elvish, fish, powershell, zsh");
}

/// What may follow so many typed words, as a shell asks for it.
fn completed(project: &Project, words: &[&str]) -> Vec<String> {
    let mut command = project.command(&[]);
    command.env("PIPE_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    command.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true");
    command.env("_CLAP_IFS", "\n").args(["--", "pipe"]).args(&words[..words.len() - 1]);
    let told = command.arg(words[words.len() - 1]).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let lines = told.lines().map(|line| line.trim_end().to_owned());
    // Options follow everywhere.
    lines.filter(|line| !line.starts_with("--") || words.last().unwrap().starts_with('-')).collect()
}

#[test]
fn stages_runs_classes_and_devices_of_the_project_are_completed() {
    let project =
        Project::with("    device: cpu\n", "    device: cpu\n    matrix: { seed: [1, 2] }\n");
    project
        .write("pipelines/other.yaml", crate::project::TINY.replace("name: tiny", "name: other"));
    assert!(completed(&project, &["stat"]).contains(&"status".to_owned()));
    assert!(completed(&project, &["run", "--keep"]).contains(&"--keep-going".to_owned()));
    assert_eq!(completed(&project, &["run", ""]), ["p.yaml", "pipelines/other.yaml"]);
    assert_eq!(completed(&project, &["run", "pipelines/"]), ["pipelines/other.yaml"]);
    let stages = completed(&project, &["run", "p.yaml", ""]);
    assert_eq!(stages, ["data", "base@seed=1", "base@seed=2"], "{stages:?}");
    assert_eq!(completed(&project, &["run", "p.yaml", "--from", "d"]), ["data"]);
    assert_eq!(completed(&project, &["logs", "other", "b"]), ["base"]);
    assert_eq!(completed(&project, &["run", "p.yaml", "--device", "c"]), ["cpu"]);
    assert_eq!(completed(&project, &["runs", "show", ""]), [""; 0]);
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(completed(&project, &["runs", "show", ""]), ["1", "2"]);
    assert_eq!(completed(&project, &["fork", ""]), ["1", "2"]);
    let best = "checkpoints/base_training/run_001/checkpoints/best.ckpt";
    assert_eq!(completed(&project, &["sample", best, "--class", ""]), ["circle", "square"]);
}

/// A broken file or an empty folder is no reason to print anything.
#[test]
fn what_cannot_be_read_is_not_completed() {
    let project = Project::new();
    project.write("p.yaml", "name: [");
    assert_eq!(completed(&project, &["run", "p.yaml", ""]), [""; 0]);
    std::fs::remove_file(project.path("p.yaml")).unwrap();
    assert_eq!(completed(&project, &["status", "", "x"]), [""; 0]);
}

#[test]
fn every_command_has_a_manual() {
    let project = Project::new();
    let page = project.pipe(&["man"]).succeeds().stdout();
    assert!(page.contains(".TH pipe 1"), "{page}");
    assert!(page.contains("Exit codes") && page.contains("75 stopped by SIGTERM"), "{page}");
    project.pipe(&["man", "--dir", "man1"]).succeeds();
    let pages = project.list("man1");
    for command in
        ["run", "plan", "status", "check", "runs", "runs-compare", "ckpt-export", "sample", "init"]
    {
        assert!(pages.contains(&format!("pipe-{command}.1")), "{pages:?}");
    }
    assert!(project.read("man1/pipe-run.1").contains("pipe run pipelines/base_training.yaml"));
}

#[test]
fn the_version_says_what_was_built() {
    let project = Project::new();
    assert_eq!(
        project.pipe(&["-V"]).succeeds().stdout(),
        concat!("pipe ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let long = project.pipe(&["--version"]).succeeds().stdout();
    assert!(long.starts_with(concat!("pipe ", env!("CARGO_PKG_VERSION"))), "{long}");
    assert!(long.contains("\nfeatures: wgpu"), "{long}");
}

#[test]
fn colours_are_for_terminals_and_those_who_ask() {
    let bad = |key: &str| Project::with("batch_size: 16", "batch_sise: 16").environment(key, "1");
    let plain = bad("UNUSED").pipe(&["check", "p.yaml"]).exits(2).stderr();
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let coloured = bad("CLICOLOR_FORCE").pipe(&["check", "p.yaml"]).exits(2).stderr();
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31merror:\u{1b}[0m"), "{coloured:?}");
    let mut without = coloured;
    for code in ["0", "1", "2", "31", "36"] {
        without = without.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(without, plain);
    let refused =
        bad("NO_COLOR").environment("CLICOLOR_FORCE", "1").pipe(&["check", "p.yaml"]).stderr();
    assert_eq!(refused, plain);
}

#[test]
fn a_log_that_is_no_terminal_has_a_line_an_epoch_and_no_control_characters() {
    let log = Project::new().pipe(&["run", "p.yaml"]).succeeds().stderr();
    assert!(log.chars().all(|c| !c.is_control() || c == '\n'), "{log:?}");
    assert_eq!(log.lines().filter(|line| line.starts_with("Epoch ")).count(), 2, "{log}");
}

#[test]
fn a_log_for_programs_is_json_to_the_last_line() {
    let project = Project::new();
    let log = project.pipe(&["run", "p.yaml", "--log", "json"]).succeeds().stderr();
    let events: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let step = events.iter().find(|e| e["event"] == "step").expect("a step");
    assert!(step["memory"].as_u64().is_some_and(|bytes| bytes > 1_000_000), "{step}");
    let error = project.pipe(&["run", "none.yaml", "--log", "json"]).exits(2).stderr();
    let error: serde_json::Value = serde_json::from_str(&error).expect(&error);
    assert_eq!(error["event"], "error");
    let text = error["text"].as_str().unwrap();
    assert!(text.starts_with("none.yaml: no such file\n  = the pipelines here: p.yaml"), "{text}");
}

#[test]
fn the_summary_says_what_was_done_and_what_to_type_next() {
    let project = Project::new();
    let told = project.pipe(&["run", "p.yaml"]).succeeds().stdout();
    let best = "checkpoints/base_training/run_001/checkpoints/best.ckpt";
    let last = told.lines().last().unwrap();
    assert_eq!(last, format!("next: pipe sample {best} --n 16 -o samples.png"));
    let words: Vec<&str> = last.split(' ').skip(2).collect();
    project.pipe(&words).succeeds();
    assert!(project.path("samples.png").is_file());
    project.write(
        "q.yaml",
        format!(
            "{}  fails: {{ kind: command, run: [\"false\"], needs: base }}\n",
            crate::project::TINY
        ),
    );
    let ended = project.pipe(&["run", "q.yaml"]).exits(1);
    ended.says("stage fails:").says("go on with: pipe run q.yaml");
}

#[test]
fn nothing_is_written_outside_the_project() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let project = Project::new()
        .environment("HOME", path("."))
        .environment("XDG_CACHE_HOME", path("cache"))
        .environment("XDG_CONFIG_HOME", path("config"))
        .environment("XDG_DATA_HOME", path("data"))
        .environment("XDG_STATE_HOME", path("state"));
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["runs"]).succeeds();
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}
