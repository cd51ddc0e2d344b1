//! Which files of the project are a stage's own, so that it may write over them and remove them.
//!
//! What a stage made before is its own, and so is what stages made that its pipeline does not have
//! any more: a stage that was renamed is found again by its place, not by its name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::kind::{RunContext, StageError};
use crate::state::{Output, Outputs, Record};

impl RunContext<'_> {
    /// Notes that the stage puts files into a place of the project, a file or a folder. So they are
    /// known as its own, whichever way it ends, until it notes what it made.
    pub fn note_place(&self, place: &Path) -> Result<(), StageError> {
        self.journal.place(&self.stage, place)
    }

    /// Files that this stage made, now and before, and those of stages that are not in the pipeline
    /// any more.
    pub fn known_outputs(&self) -> impl Iterator<Item = &Output> {
        let left = self.left_behind().iter().filter_map(|record| record.made.as_ref());
        self.made.iter().chain(left).flat_map(Outputs::all)
    }

    /// Where the stage has put files: what it noted, and what was made.
    pub fn own_places(&self) -> BTreeSet<PathBuf> {
        let made = self.known_outputs().map(|output| output.path.clone());
        self.noted_places().into_iter().chain(made).map(PathBuf::from).collect()
    }

    /// Whether what stands at a path is the stage's own: it is as it was made, or in a place that
    /// was noted.
    pub fn is_own(&self, file: &Path) -> bool {
        let is_unchanged = |o: &Output| self.if_unchanged(o).is_some();
        self.is_noted(file)
            || self.known_outputs().any(|o| Path::new(&o.path) == file && is_unchanged(o))
    }

    /// Whether a path is in a place that the stage noted.
    pub fn is_noted(&self, file: &Path) -> bool {
        self.noted_places().iter().any(|place| file.starts_with(place))
    }

    /// The places that this stage noted, and those of stages that broke off and have left the
    /// pipeline since this one last ended.
    fn noted_places(&self) -> BTreeSet<String> {
        let last = self.made.as_ref().map(|made| made.written_at);
        let broke_off = |record: &&Record| last.is_none_or(|last| record.updated_at > last);
        let left = self.left_behind().iter().filter(broke_off);
        let mut places = self.journal.places(&self.stage);
        places.extend(left.flat_map(|record| record.places.iter().cloned()));
        places
    }

    fn left_behind(&self) -> &[Record] {
        self.journal.left_behind(self.graph.stages().map(|stage| &stage.id))
    }
}
