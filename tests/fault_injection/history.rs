//! Settings that change on the way: a run that is extended behind an entry of `then`, and a fork of it,
//! killed at changes of the disk. The same command goes on to what an undisturbed one leaves.

use std::os::unix::process::ExitStatusExt;
use std::process::{Output, Stdio};

use crate::again::copy;
use crate::project::Project;
use crate::results::{Options, Results, ensure};
use crate::state::{State, chain, same, state, text};

const EXTEND: &[&str] = &[
    "run",
    "p.yaml",
    "base",
    "--epochs",
    "5",
    "--set",
    "base.then=[{from: 3, learning_rate: 1e-4}, {from: 4, batch_size: 2}]",
];
const FORK: &[&str] =
    &["fork", "1", "--at", "3", "--set", "optimizer.weight_decay=0.5", "--epochs", "5"];

/// A trained base, and what a command makes of it.
struct History {
    project: Project,
    command: &'static [&'static str],
    after: State,
    changes: usize,
}

impl History {
    fn of(command: &'static [&'static str]) -> Self {
        let project = chain();
        project.pipe(&["run", "p.yaml", "base"]).succeeds();
        let mut history = Self { project, command, after: State::new(), changes: 0 };
        let whole = history.copied();
        let log = whole.path("changes.log");
        let ended = history.again(&whole, &[("BURN_PIPE_FAULT_LOG", log.to_str().unwrap())]);
        assert!(ended.status.success(), "{}", text(&ended.stderr));
        history.changes = std::fs::read_to_string(&log).unwrap().lines().count();
        std::fs::remove_file(log).unwrap();
        history.after = state(&whole).unwrap();
        history
    }

    fn copied(&self) -> Project {
        let project = Project::new();
        copy(&self.project.path(""), &project.path(""));
        project
    }

    fn again(&self, project: &Project, environment: &[(&str, &str)]) -> Output {
        let mut command = project.command(self.command);
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.output().unwrap()
    }

    fn goes_on(&self, at: usize) -> Result<(), String> {
        let project = self.copied();
        let output = self.again(&project, &[("BURN_PIPE_FAULT", &format!("kill@{at}"))]);
        ensure(output.status.signal() == Some(9), || {
            format!("it was to be killed, and ended with {}", output.status)
        })?;
        for which in ["the next run", "the run after that"] {
            let output = self.again(&project, &[]);
            ensure(output.status.success(), || format!("{which}: {}", text(&output.stderr)))?;
            same(&project, &self.after).map_err(|e| format!("{which}: {e}"))?;
        }
        Ok(())
    }
}

pub fn section(options: &Options, results: &mut Results) {
    for (name, command) in [
        ("a run extended with other settings, killed at a change", EXTEND),
        ("a fork of a run, killed at a change", FORK),
    ] {
        let history = History::of(command);
        // Each is three trainings.
        let some = options.part_of(history.changes, 5);
        results.each(name, &some, |at| history.goes_on(*at));
    }
}
