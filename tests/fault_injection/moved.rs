//! A run that is taken in from an archive, and one whose checkpoints are given up: killed at every
//! change, and a disk that refuses each.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::project::Project;
use crate::results::{Options, Results, ensure};
use crate::state::{chain, files, text};

const RUNS: &str = "checkpoints/base_training";
const IMPORT: [&str; 3] = ["runs", "import", "run.tar"];
const THIN: [&str; 5] = ["runs", "thin", "1", "--keep", "1"];
/// The base of the workload, with a checkpoint of each epoch.
const TRAIN: [&str; 5] = ["run", "p.yaml", "base", "--set", "base.checkpoint={keep_last_n: 9}"];

pub fn section(options: &Options, results: &mut Results) {
    let trained = chain();
    trained.pipe(&TRAIN).succeeds();
    trained.pipe(&["runs", "export", "1", "-o", "run.tar"]).succeeds();
    let archive = trained.path("run.tar");
    let faults = ["kill", "full", "denied"];
    let changes = changes(&importing(&archive), &IMPORT);
    let expected = {
        let project = importing(&archive);
        project.pipe(&IMPORT).succeeds();
        content(&project)
    };
    for fault in faults {
        let name = format!("an import meets {fault} at each change");
        results.each(&name, &options.some_of(changes), |at| {
            let project = importing(&archive);
            disturb(&project, &IMPORT, fault, *at)?;
            let begun = content(&project);
            let is_run = project.path(&format!("{RUNS}/run_001/metadata.json")).exists();
            ensure(!is_run || begun == expected, || "half a run counts as one".into())?;
            succeeds(&project, &["gc"])?;
            if !is_run {
                ensure(project.list(RUNS).is_empty(), || {
                    format!("left: {:?}", project.list(RUNS))
                })?;
                succeeds(&project, &IMPORT)?;
                ensure(content(&project) == expected, || "another run came of it".into())?;
            }
            succeeds(&project, &["verify"]).map(drop)
        });
    }
    let kept = || {
        let project = chain();
        copy(&trained.path("checkpoints"), &project.path("checkpoints"));
        project
    };
    let changes = self::changes(&kept(), &THIN);
    let expected = {
        let project = kept();
        project.pipe(&THIN).succeeds();
        project.list(&format!("{RUNS}/run_001/checkpoints"))
    };
    for fault in faults {
        let name = format!("a run being thinned meets {fault} at each change");
        results.each(&name, &options.some_of(changes), |at| {
            let project = kept();
            disturb(&project, &THIN, fault, *at)?;
            succeeds(&project, &["verify"])?;
            let again = succeeds(&project, &TRAIN)?;
            ensure(again.contains("up to date"), || again)?;
            succeeds(&project, &THIN)?;
            succeeds(&project, &["gc"])?;
            let found = project.list(&format!("{RUNS}/run_001/checkpoints"));
            ensure(found == expected, || format!("left: {found:?}"))
        });
    }
}

fn importing(archive: &Path) -> Project {
    let project = chain();
    std::fs::copy(archive, project.path("run.tar")).unwrap();
    project
}

/// How many changes of the disk a command makes.
fn changes(project: &Project, arguments: &[&str]) -> usize {
    let log = project.path("changes.log");
    let mut command = project.command(arguments);
    command.env("BURN_PIPE_FAULT_LOG", &log).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success(), "{arguments:?} fails without a fault");
    std::fs::read_to_string(log).unwrap().lines().count()
}

/// Runs a command with a fault, which must show: it is killed, or says that it failed.
fn disturb(project: &Project, arguments: &[&str], fault: &str, at: usize) -> Result<(), String> {
    let mut command: Command = project.command(arguments);
    let output = command.env("BURN_PIPE_FAULT", format!("{fault}@{at}")).output();
    let output = output.map_err(|e| e.to_string())?;
    let as_meant = match fault {
        "kill" => output.status.signal() == Some(9),
        // A change that needs no room does not meet a full disk.
        "full" => output.status.code().is_some(),
        _ => output.status.code() == Some(1),
    };
    ensure(as_meant, || format!("it ended with {}: {}", output.status, text(&output.stderr)))
}

fn succeeds(project: &Project, arguments: &[&str]) -> Result<String, String> {
    let output = project.command(arguments).output().map_err(|e| e.to_string())?;
    let said = text(&output.stdout) + &text(&output.stderr);
    ensure(output.status.success(), || format!("{arguments:?}: {said}"))?;
    Ok(said)
}

/// Every file of the folder of runs with its content.
fn content(project: &Project) -> BTreeMap<String, Vec<u8>> {
    let root = project.path(RUNS);
    let entry = |path: std::path::PathBuf| {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        (name, std::fs::read(path).unwrap())
    };
    files(&root).into_iter().map(entry).collect()
}

/// Copies a folder; further names of a file stay so.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}
