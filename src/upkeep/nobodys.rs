//! Folders among the runs that are none: with files, and without metadata or a version before them.
//! Half a copy is one, and so is a person's own folder.

use std::collections::BTreeSet;
use std::path::Path;

use pipe_engine::state::Record;
use pipe_runs::found::checkpoint_files;
use pipe_runs::{Belongings, Checkpoint, Metadata, Run};

use crate::clean::{lies_in, user_of_any};

/// The runs of a project, as far as they say what they are, and what its stages noted.
pub(crate) struct Known {
    pub records: Vec<Record>,
    pub runs: Vec<(Run, Option<Metadata>)>,
}

impl Known {
    /// Whether nobody knows of a folder, or nothing of a run is in it. A run that lost its metadata
    /// is known where a stage says that the run is its own, or where a stage or another run was made
    /// from one of its checkpoints.
    pub fn is_nobodys(&self, run: &Run) -> bool {
        if run.is_started() || run.is_empty() {
            return false;
        }
        // A run that was removed has left what somebody else had put into its folder.
        if Belongings::of(run).own.iter().all(|path| *path == run.lock_path()) {
            return true;
        }
        let others = || self.runs.iter().filter(|(other, _)| other.folder != run.folder);
        let listed = others().flat_map(|(_, metadata)| metadata);
        let listed: BTreeSet<&str> = listed
            .flat_map(|m| m.checkpoints.iter().chain(&m.best_checkpoint))
            .map(|checkpoint| checkpoint.digest.as_str())
            .collect();
        // What another run lists is a copy of that one's.
        let digests: Vec<String> = checkpoint_files(run)
            .into_iter()
            .filter_map(|(_, path)| Some(Checkpoint::open(&path).ok()?.head_digest().to_owned()))
            .filter(|digest| !listed.contains(digest.as_str()))
            .collect();
        let digests: BTreeSet<&str> = digests.iter().map(String::as_str).collect();
        let is_one = |file: &str| lies_in(file, run);
        let runs = others().map(|(run, metadata)| (run, metadata));
        user_of_any(run, &digests, &is_one, &self.records, runs).is_none()
            && !self.records.iter().any(|record| is_of(record, run))
    }
}

/// Whether a record names a run as that of its stage.
fn is_of(record: &Record, run: &Run) -> bool {
    let folder = run.folder.parent().unwrap_or(Path::new(""));
    let is_its_folder = record.runs.as_ref().is_some_and(|runs| folder.ends_with(runs));
    let name = format!("run {}", run.number);
    let path = format!("run_{}/", run.number);
    let says = |text: &String| {
        text.split([':', ',', ';', '(', ')']).any(|part| part.trim() == name)
            || text.contains(&path)
    };
    is_its_folder && [&record.message, &record.next].into_iter().flatten().any(says)
}
