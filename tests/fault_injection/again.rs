//! A checkpoint that is made again: killed at each change of the disk, and at a full disk. The run
//! stays as it was, or has the checkpoint, and nothing is left.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::project::Project;
use crate::results::{Options, Results, ensure};
use crate::state::{State, chain, state, text};

const RUN: &str = "checkpoints/base_training/run_001";

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &to)
        } else {
            std::fs::copy(path, to).unwrap();
        }
    }
}

/// A trained base.
struct Trained {
    project: Project,
    /// Whose checkpoint is gone.
    epoch: u64,
    before: State,
    after: State,
}

impl Trained {
    fn new() -> Self {
        let project = chain();
        project.pipe(&["run", "p.yaml", "base"]).succeeds();
        let listed = project.metadata(RUN)["checkpoints"].clone();
        let is_kept = |epoch: u64| listed.as_array().unwrap().iter().any(|c| c["epoch"] == epoch);
        let epoch = (1..3).find(|epoch| !is_kept(*epoch)).unwrap();
        let before = state(&project).unwrap();
        let mut trained = Self { project, epoch, before, after: State::new() };
        let whole = trained.copied();
        assert!(trained.again(&whole, &[]).status.success());
        trained.after = state(&whole).unwrap();
        assert!(trained.after.len() == trained.before.len() + 1);
        trained
    }

    fn copied(&self) -> Project {
        let project = Project::new();
        copy(&self.project.path(""), &project.path(""));
        project
    }

    fn again(&self, project: &Project, environment: &[(&str, &str)]) -> Output {
        let epoch = self.epoch.to_string();
        let mut command = project.command(&["ckpt", "again", "base/1", "--epoch", &epoch]);
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.output().unwrap()
    }

    fn changes(&self) -> usize {
        let project = self.copied();
        let log = project.path("changes.log");
        let environment = [("BURN_PIPE_FAULT_LOG", log.to_str().unwrap())];
        assert!(self.again(&project, &environment).status.success());
        std::fs::read_to_string(log).unwrap().lines().count()
    }

    /// The run is as it was, or has the checkpoint; and the next attempt ends with it.
    fn survives(&self, project: &Project) -> Result<(), String> {
        let metadata = project.metadata(RUN);
        let digests = metadata["checkpoints"].as_array().unwrap().iter();
        for record in digests {
            let path = project.path(&format!("{RUN}/{}", record["path"].as_str().unwrap()));
            let found = pipe_runs::file_digest(&path).map_err(|e| e.to_string())?;
            ensure(record["digest"] == found, || format!("{} has another digest", path.display()))?;
        }
        let output = self.again(project, &[]);
        ensure(output.status.success(), || format!("the next one: {}", text(&output.stderr)))?;
        let found = state(project)?;
        let differ = |(name, content): &(&String, &String)| found.get(*name) != Some(*content);
        let wrong: Vec<&String> = self.after.iter().filter(differ).map(|(name, _)| name).collect();
        ensure(wrong.is_empty() && found.len() == self.after.len(), || format!("{wrong:?}"))
    }
}

pub fn section(options: &Options, results: &mut Results) {
    let trained = Trained::new();
    let all: Vec<usize> = (1..=trained.changes()).collect();
    results.each("a checkpoint made again, killed at each change", &all, |at| {
        let project = trained.copied();
        let output = trained.again(&project, &[("BURN_PIPE_FAULT", &format!("kill@{at}"))]);
        ensure(output.status.signal() == Some(9), || {
            format!("it was to be killed, and ended with {}", output.status)
        })?;
        trained.survives(&project)
    });
    let some = options.some_of(all.len());
    results.each("a checkpoint made again on a full disk", &some, |at| {
        let project = trained.copied();
        let output = trained.again(&project, &[("BURN_PIPE_FAULT", &format!("full@{at}+"))]);
        let said = text(&output.stderr);
        let clear = output.status.success() || said.contains("make room");
        ensure(clear, || format!("ended with {}: {said}", output.status))?;
        trained.survives(&project)
    });
}
