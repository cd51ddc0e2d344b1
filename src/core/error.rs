//! Errors of what people wrote: files, settings, references. One message says where, what, what was
//! expected, and what to do next; all that is wrong with a file is said at once.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::excerpt::excerpt;
use crate::source::{Part, Position, Source};

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
    /// Pieces of text that no message repeats.
    hidden: Vec<String>,
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
        Self(Box::new(Details { message, key, place, notes: Vec::new(), hidden: Vec::new() }))
    }

    /// An error that belongs to no place in a file.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::new(message.into(), Vec::new(), None)
    }

    /// An error at a place in a file.
    pub fn at(
        source: &Source,
        at: Option<Position>,
        key: Vec<String>,
        message: impl Into<String>,
    ) -> Self {
        // A line with the values of `env:` is not repeated.
        let is_open = |line: &&str| !line.contains("env:") && !key.iter().any(|key| key == "env");
        let line =
            at.filter(|_| source.is_quotable()).and_then(|p| source.line(p.line)).filter(is_open);
        let excerpt = line.map(str::to_owned);
        let place = Place { path: source.path().to_owned(), position: at, excerpt };
        Self::new(message.into(), key, Some(place))
    }

    /// An error at a key of a document, wherever that stands, or at the nearest one around it.
    pub fn on(source: &Source, key: Vec<String>, part: Part, message: impl Into<String>) -> Self {
        match source.find(&key, part) {
            Some((source, at)) => Self::at(&source, Some(at), key, message),
            None => Self::at(source, None, key, message),
        }
    }

    /// Adds a line of help.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.0.notes.push(hide(&note.into(), &self.0.hidden));
        self
    }

    /// Takes pieces of text out of the message, and out of all that is added later.
    pub fn hiding(mut self, hidden: &[String]) -> Self {
        let details = &mut self.0;
        details.hidden.extend_from_slice(hidden);
        details.message = hide(&details.message, hidden);
        details.notes.iter_mut().for_each(|note| *note = hide(note, hidden));
        self
    }

    /// Without the line of the file: what is wrong does not stand there.
    pub fn without_excerpt(mut self) -> Self {
        if let Some(place) = &mut self.0.place {
            place.excerpt = None;
        }
        self
    }

    /// Says what was probably meant, before all other help, unless that is said already.
    pub fn suggest(mut self, meant: &str) -> Self {
        if !self.0.notes.iter().any(|note| note.starts_with("did you mean ")) {
            let note = format!("did you mean {meant}?");
            self.0.notes.insert(0, hide(&note, &self.0.hidden));
        }
        self
    }

    /// Adds "did you mean" when a candidate is near, and the candidates: those nearest if there are
    /// many.
    pub fn candidates<'a>(self, wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Self {
        let valid: Vec<&str> = valid.into_iter().collect();
        let joined = wrong.split_once(':').filter(|(key, _)| valid.contains(key));
        if let Some((key, value)) = joined {
            return self.note(format!("a space is missing after the colon: `{key}: {value}`"));
        }
        let this = match nearest(wrong, valid.iter().copied()) {
            Some(near) => self.note(format!("did you mean `{near}`?")),
            None => self,
        };
        this.nearest_of(wrong, valid)
    }

    /// Adds the candidates: those nearest if there are more than a line takes.
    pub fn nearest_of<'a>(self, wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Self {
        const FEW: usize = 5;
        const LINE: usize = 120;
        let mut valid: Vec<&str> = valid.into_iter().collect();
        let length: usize = valid.iter().map(|name| name.len() + 2).sum();
        if valid.is_empty() {
            return self;
        }
        if length <= LINE || valid.len() <= FEW {
            return self.note(format!("expected one of: {}", valid.join(", ")));
        }
        let wrong = wrong.to_lowercase();
        valid.sort_by(|a, b| likeness(&wrong, b).total_cmp(&likeness(&wrong, a)));
        let (few, more) = (valid[..FEW].join(", "), valid.len() - FEW);
        self.note(format!("expected one of: {few}, and {more} more"))
    }

    /// Whether it names some of the candidates only.
    pub fn is_shortened(&self) -> bool {
        self.0
            .notes
            .last()
            .is_some_and(|note| note.starts_with("expected one of: ") && note.ends_with(" more"))
    }

    /// The message alone, and the help.
    pub fn into_parts(self) -> (String, Vec<String>) {
        (self.0.message, self.0.notes)
    }

    /// The file and the place in it, to put errors in order: those without a place come first.
    fn place(&self) -> (Option<&PathBuf>, Option<(usize, usize)>) {
        let place = self.0.place.as_ref();
        (place.map(|p| &p.path), place.and_then(|p| p.position).map(|p| (p.line, p.column)))
    }

    /// The file that it is about.
    pub fn file(&self) -> Option<&Path> {
        self.0.place.as_ref().map(|place| place.path.as_path())
    }

    /// Line and column in that file, counted from 1.
    pub fn position(&self) -> Option<(usize, usize)> {
        self.place().1
    }

    /// What is wrong, alone.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Lines of help.
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// The key path.
    pub fn path(&self) -> &[String] {
        &self.0.key
    }

    /// Whether both say the same of one place in a file, but for numbers and names.
    pub fn is_alike(&self, other: &Self) -> bool {
        let words = |error: &Self| -> String {
            let plain = error.0.message.split('`').step_by(2);
            plain.flat_map(str::chars).filter(|c| !c.is_ascii_digit() && *c != '.').collect()
        };
        let placed = self.place().1.is_some();
        placed
            && self.place() == other.place()
            && self.0.key == other.0.key
            && words(self) == words(other)
    }

    /// Whether both say the same in the same words; of one place in a file whatever the key is
    /// called.
    fn says_the_same(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        let placed = self.place().1.is_some();
        self == other
            || placed && a.place == b.place && a.message == b.message && a.notes == b.notes
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
    /// In the order in which they are told.
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
pub struct Gathered(Vec<SpecError>);

impl Gathered {
    /// Notes an error.
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

    /// Notes several errors.
    pub fn extend(&mut self, errors: impl IntoIterator<Item = SpecError>) {
        self.0.extend(errors);
    }

    /// Changes each of them.
    pub fn map(&mut self, change: impl Fn(SpecError) -> SpecError) {
        self.0 = std::mem::take(&mut self.0).into_iter().map(change).collect();
    }

    /// Whether nothing was wrong so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value if nothing was wrong.
    pub fn or<T>(self, value: T) -> Result<T, SpecErrors> {
        if self.0.is_empty() { Ok(value) } else { Err(SpecErrors(in_order(self.0))) }
    }
}

/// In the order of the places. What was found twice, such as by two stages in one config file, by
/// all stages of a matrix or in a file that is included twice, stands there once.
pub fn in_order(mut all: Vec<SpecError>) -> Vec<SpecError> {
    all.sort_by(|a, b| a.place().cmp(&b.place()));
    let mut once: Vec<SpecError> = Vec::new();
    for error in all {
        // Those at one place stand together.
        let at_place = once.iter().rev().take_while(|said| said.place() == error.place());
        if !at_place.into_iter().any(|said| said.says_the_same(&error)) {
            once.push(error);
        }
    }
    once
}

/// The candidate nearest to what was `typed`, if any is near enough to be a slip of the fingers.
/// That itself is not what was meant, even where it is a candidate, as a link that leads nowhere.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = typed.to_lowercase();
    let slips = (wrong.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|name| *name != typed)
        .map(|name| {
            let lower = name.to_lowercase();
            (
                strsim::damerau_levenshtein(&wrong, &lower),
                strsim::jaro_winkler(&wrong, &lower),
                name,
            )
        })
        .filter(|(edits, alike, _)| *edits <= slips || *alike > 0.85)
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, _, name)| name)
}

/// How alike two names are, from 0 to 1. One inside the other is more alike than the letters say.
fn likeness(wrong: &str, name: &str) -> f64 {
    let inside = wrong.len() > 2 && name.contains(wrong) || name.len() > 2 && wrong.contains(name);
    strsim::jaro_winkler(wrong, name).max(if inside { 0.9 } else { 0.0 })
}

/// Whether a name is another one but for a slip of the fingers or two; one that is short counts to
/// the letter.
pub fn slips(wrong: &str, name: &str) -> bool {
    let most = match wrong.chars().count().min(name.chars().count()) {
        0..=3 => 0,
        4..=7 => 1,
        _ => 2,
    };
    strsim::damerau_levenshtein(wrong, &name.to_lowercase()) <= most
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
            write!(f, "\n{}", excerpt(line, p.line, p.column))?;
        }
        for note in &self.0.notes {
            write!(f, "\n  = {note}")?;
        }
        Ok(())
    }
}

/// A text without the pieces that are to be hidden, each with `…` in its place. A piece inside a
/// longer word stays, and so does a letter or two that could be a word of the message itself,
/// unless it is quoted.
pub fn hide(text: &str, hidden: &[String]) -> String {
    let mut text = text.to_owned();
    for piece in hidden {
        let short = piece.chars().count() < 3 && piece.chars().all(char::is_alphabetic);
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(piece.as_str()) {
            let (before, after) = (&rest[..at], &rest[at + piece.len()..]);
            let left = before.chars().next_back().or(out.chars().next_back());
            let right = after.chars().next();
            let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let joined =
                |edge: Option<char>, beside: Option<char>| is_word(edge) && is_word(beside);
            let inside =
                joined(piece.chars().next(), left) || joined(piece.chars().next_back(), right);
            let quoted = matches!((left, right), (Some('"'), Some('"')) | (Some('`'), Some('`')));
            out.push_str(before);
            out.push_str(if inside || (short && !quoted) { piece } else { "…" });
            rest = after;
        }
        out.push_str(rest);
        text = out;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_place_key_excerpt_and_help() {
        let source = Source::new("p.yaml", "name: x\nstages:\n  base:\n    epocs: 5\n");
        let at = Some(Position { line: 4, column: 5 });
        let key = ["stages", "base", "epocs"].map(String::from).to_vec();
        let error =
            SpecError::at(&source, at, key, "unknown key").candidates("epocs", ["epochs", "kind"]);
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
