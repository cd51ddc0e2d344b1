//! A training as a stage sees it, and where its runs are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipe_engine::kind::{Files, Request};
use pipe_fs::ProjectRoot;
use pipe_runs::{Run, Runs};
use serde_json::Value;

use crate::stages::resume_checkpoint::{self};
use crate::trainer::TrainingSettings;

/// A training as a stage sees it.
pub(crate) struct Training<'a> {
    pub settings: &'a TrainingSettings,
    /// The stage's settings as they are recorded.
    pub value: Value,
    /// Folder of the numbered runs, if the settings name none.
    pub base_dir: &'static str,
}

impl Training<'_> {
    /// The run that is asked for by its number.
    pub(super) fn number(&self, request: &Request) -> Option<u32> {
        let policy = &self.settings.checkpoint;
        request.run_number.or(policy.run_number).or(policy.resume_from_run)
    }

    pub(super) fn runs(&self, root: &ProjectRoot) -> Runs {
        Runs::at(root.disk(), root.join(self.folder()))
    }

    /// Where a run is that lies in another folder than new ones would.
    pub(super) fn place(&self, root: &ProjectRoot, run: &Run) -> String {
        match run.folder.parent() {
            Some(folder) if folder != self.runs(root).folder() => {
                format!(" in {}", folder.strip_prefix(root).unwrap_or(folder).display())
            }
            _ => String::new(),
        }
    }

    /// Files that other stages may write.
    pub fn files(&self) -> Files {
        resume_checkpoint::files(self.settings)
    }

    /// Digests of files that decide the result.
    pub fn content(&self, root: &Path) -> BTreeMap<String, String> {
        resume_checkpoint::content(self.settings, root)
    }

    /// The folder of its numbered runs, relative to the project.
    pub fn folder(&self) -> PathBuf {
        self.settings.checkpoint.base_dir.as_deref().unwrap_or(self.base_dir).into()
    }
}
