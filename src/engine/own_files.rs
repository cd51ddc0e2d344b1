//! Which files of the project are a stage's own, so that it may write over them and remove them.
//!
//! What a stage made before is its own. So is, in its place, what stages made that its pipeline does
//! not have any more, or that write elsewhere now: a stage that was renamed is found again by its
//! place, not by its name, and two stages may exchange their places.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::kind::{Files, RunContext, StageError};
use crate::state::{Output, Outputs, Record};

impl RunContext<'_> {
    /// Notes that the stage puts files into a place of the project, a file or a folder. So they are
    /// known as its own, whichever way it ends, until it notes what it made.
    pub fn note_place(&self, place: &Path) -> Result<(), StageError> {
        self.journal.place(&self.stage, place)
    }

    /// Files that this stage made, now and before, and those of stages that are not in the pipeline
    /// any more: nobody else makes them.
    pub fn known_outputs(&self) -> impl Iterator<Item = &Output> {
        self.outputs_of(|record| {
            self.graph.stages().all(|stage| *stage.id.as_str() != record.stage)
        })
    }

    /// The same with those that other stages made in places which they have left.
    pub fn outputs_in_place(&self) -> impl Iterator<Item = &Output> {
        self.outputs_of(|_| true)
    }

    fn outputs_of(&self, of: impl Fn(&Record) -> bool) -> impl Iterator<Item = &Output> {
        let left = self.left_behind().iter().filter(move |record| of(record));
        self.made
            .iter()
            .chain(left.filter_map(|record| record.made.as_ref()))
            .flat_map(Outputs::all)
    }

    /// Where the stage has put files: what it noted, and what was made.
    pub fn own_places(&self) -> BTreeSet<PathBuf> {
        let made = self.outputs_in_place().map(|output| output.path.clone());
        self.noted_places().into_iter().chain(made).map(PathBuf::from).collect()
    }

    /// Whether what stands at a path is the stage's own: it is as it was made, or in a place that
    /// was noted.
    pub fn is_own(&self, file: &Path) -> bool {
        let is_unchanged = |o: &Output| self.if_unchanged(o).is_some();
        self.is_noted(file)
            || self.outputs_in_place().any(|o| Path::new(&o.path) == file && is_unchanged(o))
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
        let writes = |files: Files| files.writes.into_iter().map(|(_, path)| path).collect();
        let stages = self.graph.stages();
        self.journal.left_behind(stages.map(|stage| (&stage.id, writes(stage.stage.files()))))
    }
}
