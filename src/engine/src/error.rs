//! Errors of what people wrote: files, settings, references. One message says where, what, what was expected,
//! and what to do next; all that is wrong with a file is said at once.

use std::fmt;
use std::path::PathBuf;

use crate::source::{Position, Source, token};

/// An error in a pipeline file, a config file or a setting. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError(Box<Details>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Details {
    message: String,
    /// Key path such as `stages.base.epochs`; empty when the whole file is meant.
    key: Vec<String>,
    place: Option<Place>,
    /// Short lines under the message: what was expected, what to try.
    notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    position: Option<Position>,
    excerpt: Option<String>,
}

impl std::error::Error for SpecError {}

impl SpecError {
    fn new(message: String, key: Vec<String>, place: Option<Place>) -> Self {
        Self(Box::new(Details { message, key, place, notes: Vec::new() }))
    }

    /// An error that belongs to no place in a file.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::new(message.into(), Vec::new(), None)
    }

    /// An error at a place in a file.
    pub fn at(source: &Source, at: Option<Position>, key: Vec<String>, message: impl Into<String>) -> Self {
        let excerpt = at.and_then(|p| source.line(p.line)).map(str::to_owned);
        let place = Place { path: source.path().to_owned(), position: at, excerpt };
        Self::new(message.into(), key, Some(place))
    }

    /// Adds a line of help.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.0.notes.push(note.into());
        self
    }

    /// Adds "did you mean" when a candidate is near, and the list of candidates when it is short enough to read.
    pub fn candidates<'a>(self, wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Self {
        let valid: Vec<&str> = valid.into_iter().collect();
        let this = match nearest(wrong, valid.iter().copied()) {
            Some(near) => self.note(format!("did you mean `{near}`?")),
            None => self,
        };
        match valid.len() {
            0 => this,
            1..=40 => this.note(format!("expected one of: {}", valid.join(", "))),
            n => this.note(format!("{n} names are valid here; `pipe schema` prints them")),
        }
    }

    /// The message alone, and the help.
    pub(crate) fn into_parts(self) -> (String, Vec<String>) {
        (self.0.message, self.0.notes)
    }

    /// The file and the place in it, to put errors in order: those without a place come first.
    fn place(&self) -> (Option<&PathBuf>, Option<(usize, usize)>) {
        let place = self.0.place.as_ref();
        (place.map(|p| &p.path), place.and_then(|p| p.position).map(|p| (p.line, p.column)))
    }

    /// The key path, joined by dots.
    pub fn key(&self) -> String {
        self.0.key.join(".")
    }
}

/// All that is wrong with a pipeline: at least one error, in the order of the places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecErrors(Vec<SpecError>);

impl SpecErrors {
    pub fn iter(&self) -> std::slice::Iter<'_, SpecError> {
        self.0.iter()
    }
}

impl std::error::Error for SpecErrors {}

impl From<SpecError> for SpecErrors {
    fn from(error: SpecError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(SpecError::to_string).collect();
        f.write_str(&all.join("\n"))
    }
}

/// Errors that were met while reading went on.
#[derive(Debug, Default)]
pub(crate) struct Gathered(Vec<SpecError>);

impl Gathered {
    pub fn push(&mut self, error: SpecError) {
        self.0.push(error);
    }

    /// The value, or nothing and one error, or several, more.
    pub fn take<T>(&mut self, result: Result<T, impl Into<SpecErrors>>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(errors) => {
                self.0.extend(errors.into().0);
                None
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value if nothing was wrong.
    pub fn or<T>(self, value: T) -> Result<T, SpecErrors> {
        match self.0.is_empty() {
            true => Ok(value),
            false => Err(SpecErrors(in_order(self.0))),
        }
    }
}

/// In the order of the places. What was found twice, such as by two stages in one config file or by all stages of a
/// matrix, stands there once.
pub(crate) fn in_order(mut all: Vec<SpecError>) -> Vec<SpecError> {
    all.sort_by(|a, b| a.place().cmp(&b.place()));
    let mut once: Vec<SpecError> = Vec::new();
    for error in all {
        // Those at one place stand together.
        let at_place = once.iter().rev().take_while(|said| said.place() == error.place());
        if !at_place.into_iter().any(|said| *said == error) {
            once.push(error);
        }
    }
    once
}

/// The candidate nearest to `wrong`, if any is near enough to be a slip of the fingers.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let slips = (wrong.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|name| {
            let lower = name.to_lowercase();
            (strsim::damerau_levenshtein(&wrong, &lower), strsim::jaro_winkler(&wrong, &lower), name)
        })
        .filter(|(edits, alike, _)| *edits <= slips || *alike > 0.85)
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, _, name)| name)
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some(place) = &self.0.place {
            write!(f, "{}", place.path.display())?;
            if let Some(p) = place.position {
                write!(f, ":{}:{}", p.line, p.column)?;
            }
            f.write_str(": ")?;
        }
        if !self.0.key.is_empty() {
            write!(f, "{}: ", self.0.key.join("."))?;
        }
        f.write_str(&self.0.message)?;
        if let Some(Place { position: Some(p), excerpt: Some(line), .. }) = &self.0.place {
            let number = p.line.to_string();
            let indent = " ".repeat(number.len());
            // The marker is placed by characters, as terminals show them.
            let lead: String = line
                .chars()
                .take(p.column.saturating_sub(1))
                .map(|c| if c == '\t' { c } else { ' ' })
                .collect();
            let marks = "^".repeat(token(line, p.column));
            write!(f, "\n{indent} |\n{number} | {}\n{indent} | {lead}{marks}", line.trim_end())?;
        }
        for note in &self.0.notes {
            write!(f, "\n  = {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_place_key_excerpt_and_help() {
        let source = Source::new("p.yaml", "name: x\nstages:\n  base:\n    epocs: 5\n");
        let at = Some(Position { line: 4, column: 5 });
        let key = ["stages", "base", "epocs"].map(String::from).to_vec();
        let error = SpecError::at(&source, at, key, "unknown key").candidates("epocs", ["epochs", "kind"]);
        assert_eq!(
            error.to_string(),
            "p.yaml:4:5: stages.base.epocs: unknown key\n  |\n4 |     epocs: 5\n  |     ^^^^^\n  = did you mean `epochs`?\n  = expected one of: epochs, kind"
        );
    }

    #[test]
    fn nothing_near_is_suggested_for_a_far_name() {
        assert_eq!(nearest("zzz", ["epochs", "kind"]), None);
    }
}
