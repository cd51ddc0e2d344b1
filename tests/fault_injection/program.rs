//! A training program of the user's: its checkpoints, which are files or folders, under kills, a
//! full disk and signals.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::project::Project;
use crate::results::{Options, Results, ensure};
use crate::state::{
    RUN, State, changes_of, faulty, goes_on, nothing_reported_is_missing, run_with, state, text,
};

/// A project whose only training is a program: this binary.
pub fn project(folder: bool) -> Project {
    let exe = std::env::current_exe().unwrap();
    let project = Project::new();
    project.write(
        "p.yaml",
        format!(
            "name: program\nstages:\n  base:\n    kind: trainer\n    run: ['{}', program]\n    epochs: 3\n    \
             settings: {{ folder: {folder} }}\n    checkpoint: {{ keep_last_n: 1 }}\n  \
             best: {{ kind: copy_best, from: base, to: out/model.ckpt }}\n",
            exe.display()
        ),
    );
    project
}

/// What an undisturbed run leaves.
pub fn undisturbed(folder: bool) -> State {
    let project = project(folder);
    project.pipe(&RUN).succeeds();
    state(&project).unwrap()
}

/// The next run. A program that outlived its `pipe` for a moment has the stage until it has ended.
pub fn recovers(project: &Project, expected: &State) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while project.pipe(&["status", "p.yaml"]).stdout().contains("left behind") {
        ensure(Instant::now() < deadline, || "its program stays".to_owned())?;
        std::thread::sleep(Duration::from_millis(10));
    }
    goes_on(project, expected)
}

pub fn section(options: &Options, results: &mut Results) {
    for (folder, what) in [(false, "a file"), (true, "a folder")] {
        let expected = undisturbed(folder);
        let last = changes_of(&project(folder));
        let all: Vec<usize> = (1..=last).collect();
        results.each(&format!("a program with {what}, killed at each change"), &all, |at| {
            let project = project(folder);
            let output = run_with(&project, &format!("kill@{at}"));
            ensure(output.status.signal() == Some(9), || {
                format!("it was to be killed, and ended with {}", output.status)
            })?;
            nothing_reported_is_missing(&project, &output.stderr)?;
            recovers(&project, &expected)
        });
        let some = options.some_of(last);
        results.each(&format!("a program with {what}, on a full disk"), &some, |at| {
            let project = project(folder);
            let output = run_with(&project, &format!("full@{at}+"));
            nothing_reported_is_missing(&project, &output.stderr)?;
            recovers(&project, &expected)
        });
        results.each(&format!("a program with {what}, stopped at each change"), &some, |at| {
            let project = project(folder);
            let output = faulty(&project, &format!("term@{at}")).output().unwrap();
            let code = output.status.code();
            ensure(code == Some(75) || code == Some(0), || {
                format!("ended with {code:?}: {}", text(&output.stderr))
            })?;
            nothing_reported_is_missing(&project, &output.stderr)?;
            recovers(&project, &expected)
        });
    }
}
