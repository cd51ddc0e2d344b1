//! What is said of a setting from outside that belongs nowhere.

use pipe_core::error::{SpecError, slips};

use super::Finder;
use crate::pipeline_file::overrides::OverrideSource;
use crate::pipeline_file::paths::Place;

impl Finder<'_> {
    /// All first words that mean something.
    fn names(&self) -> Vec<String> {
        let file = self.file;
        let mut names: Vec<String> = file.params.keys().cloned().collect();
        names.extend(file.stages.iter().flat_map(|s| self.kinds.keys(&s.kind)).cloned());
        let told = file.stages.iter().filter_map(|stage| self.kinds.of_program(stage));
        names.extend(told.flat_map(|(_, keys)| keys).map(str::to_owned));
        names.extend(["executor", "store", "fsync", "on"].map(str::to_owned));
        names
    }

    /// A key of the command line that means nothing.
    pub(super) fn unknown(&self) -> SpecError {
        let OverrideSource { shown, .. } = &self.given.by;
        let error = SpecError::plain(format!(
            "{shown}: no parameter, stage or setting is called `{}`",
            self.key()
        ));
        let wanted = &self.given.path[0];
        if wanted == "profile" && !self.file.profiles.is_empty() {
            return error.note("a profile is chosen with `--profile NAME`");
        }
        let mut names = self.names();
        // A key further down is meant where none up here is called so but for a slip.
        let is_slip = names.iter().any(|name| slips(&wanted.to_lowercase(), name));
        let elsewhere = self.file.stages.iter().filter(|_| !is_slip).find_map(|stage| {
            let meant = Place::root(self.kinds.schema(&stage.kind)?).suggestion(wanted)?;
            Some(format!("did you mean `{}`?", meant.join(".")))
        });
        names.extend(self.file.stages.iter().map(|s| format!("{}.KEY", s.id)));
        names.sort();
        names.dedup();
        let names = names.iter().map(String::as_str);
        match elsewhere.filter(|_| self.given.path.len() == 1) {
            Some(meant) => error.note(meant).nearest_of(wanted, names),
            None => error.candidates(wanted, names),
        }
    }

    /// A word about a variable that may have been meant for this pipeline. Others are passed over.
    pub(super) fn likely_misspelt(&self) -> Option<SpecError> {
        let path = &self.given.path;
        let first = self.plain(&path[0]);
        let inside =
            ["params", "executor"].contains(&first.as_str()) || self.stage(&path[0]).is_some();
        let names = self.names();
        let near = names.iter().filter(|name| slips(&first, name)).min();
        if !(path.len() > 1 && inside) && near.is_none() {
            return None;
        }
        let message = format!(
            "{}: no parameter, stage or setting is called `{}`; ignored",
            self.given.by.shown,
            self.key()
        );
        let error = SpecError::plain(message);
        Some(match near.filter(|_| path.len() == 1) {
            Some(near) => error.note(format!("did you mean `PIPE_{}`?", near.to_uppercase())),
            None => error,
        })
    }
}
