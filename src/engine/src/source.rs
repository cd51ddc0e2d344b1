//! A YAML file that was read, and where a key stands in it. Knows nothing of what the keys mean.
//!
//! Settings lose their positions when layers are merged, so a position is found again from the key
//! path: the file is walked once more with a reader that fails on purpose at the wanted node, and
//! the YAML library says where that was.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::bounded_read;
use crate::error::{SpecError, nearest};

/// A file's text together with the path that messages show.
#[derive(Debug, Clone)]
pub struct Source(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    text: String,
}

/// Line and column of a node, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// Which part of a mapping entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Key,
    Value,
}

/// The content of a file. What a pipe that the shell made gives, as for `<(…)`, is kept: it comes
/// once only.
fn contents(path: &Path) -> std::io::Result<Vec<u8>> {
    static GIVEN: Mutex<BTreeMap<PathBuf, Vec<u8>>> = Mutex::new(BTreeMap::new());
    if std::fs::metadata(path).map_or(true, |found| found.is_file() || found.is_dir()) {
        return bounded_read::read(path, bounded_read::TEXT);
    }
    if !["/dev/stdin", "/dev/fd", "/proc"].iter().any(|place| path.starts_with(place)) {
        let text =
            "it is a pipe or a device, not a file; name a file, or `/dev/stdin` and lead it there";
        return Err(std::io::Error::other(text));
    }
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bytes) = given.get(path) {
        return Ok(bytes.clone());
    }
    let bytes = bounded_read::read(path, bounded_read::TEXT)?;
    given.insert(path.to_owned(), bytes.clone());
    Ok(bytes)
}

impl Source {
    /// Reads a file. `shown` is the path that messages print, `path` the one that is opened.
    pub fn read(path: &Path, shown: &Path) -> Result<Self, SpecError> {
        let bytes = contents(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let error = SpecError::plain(format!("{}: no such file", shown.display()));
                match neighbour(path) {
                    Some(name) => error
                        .note(format!("did you mean `{}`?", shown.with_file_name(name).display())),
                    None => error,
                }
            }
            _ => SpecError::plain(format!("failed to read {}: {error}", shown.display())),
        })?;
        let wide = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
        let text = String::from_utf8(bytes).map_err(|_| {
            let error = SpecError::plain(format!("{}: not a UTF-8 text file", shown.display()));
            if wide { error.note("it is UTF-16: save it as UTF-8") } else { error }
        })?;
        Ok(Self::new(shown, text))
    }

    /// A source from text at hand. The mark that some editors put before it (BOM) is no part of it.
    pub fn new(shown: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        Self(Arc::new(Inner { path: shown.into(), text }))
    }

    pub fn path(&self) -> &Path {
        &self.0.path
    }

    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Parses the whole file. Syntax errors, duplicate keys and too deep nesting are reported with
    /// their place.
    pub fn parse(&self) -> Result<serde_yaml::Value, SpecError> {
        let value: serde_yaml::Value = serde_yaml::from_str(self.text()).map_err(|error| {
            let at = error.location().map(|l| Position { line: l.line(), column: l.column() });
            let message = error.to_string();
            // The library ends its messages with the position, which stands in front of ours
            // already.
            let mut message = message.split(" at line ").next().unwrap_or(&message).to_owned();
            if message.contains("as u128") || message.contains("as i128") {
                message = format!("a whole number above {} is too large for any setting", u64::MAX);
            }
            let line = at.and_then(|at| self.line(at.line)).unwrap_or_default();
            let help = help(&message, line);
            let error = SpecError::at(self, at, Vec::new(), message);
            help.into_iter().fold(error, SpecError::note)
        })?;
        Ok(value)
    }

    /// Where the node at `path` stands; `None` if there is no such node. Sequence items are named
    /// by index.
    pub fn locate(&self, path: &[String], part: Part) -> Option<Position> {
        let document = serde_yaml::Deserializer::from_str(self.text());
        let error = Seek { path, part }.deserialize(document).err()?;
        let message = error.to_string();
        if !message.contains(FOUND) {
            return None;
        }
        error.location().map(|l| Position { line: l.line(), column: l.column() })
    }

    /// The nearest existing ancestor of `path`, and how much of the path it covers.
    pub fn locate_nearest(&self, path: &[String]) -> Option<Position> {
        (1..=path.len()).rev().find_map(|n| self.locate(&path[..n], Part::Key))
    }

    /// Whether a message may repeat lines of it: those of a file that is not meant for us are its
    /// owner's business.
    pub(crate) fn is_quotable(&self) -> bool {
        let is_ours =
            |line: &str| ["name:", "stages:", "training:"].iter().any(|key| line.starts_with(key));
        let extension =
            self.path().extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let named = ["yaml", "yml", "json"].iter().any(|ours| extension.eq_ignore_ascii_case(ours));
        named || self.text().lines().any(is_ours)
    }

    /// The text of one line, counted from 1, without its line end.
    pub fn line(&self, line: usize) -> Option<&str> {
        self.text().lines().nth(line.checked_sub(1)?)
    }
}

/// A file beside a missing one that has nearly its name.
fn neighbour(missing: &Path) -> Option<String> {
    let name = missing.file_name()?.to_str()?;
    let folder = missing.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).ok()?;
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
}

/// What to do about a message of the YAML library.
fn help(message: &str, line: &str) -> Option<&'static str> {
    let has = |piece: &str| message.contains(piece);
    if line.trim_start_matches(' ').starts_with('\t') {
        Some("YAML is indented with spaces, not with tabs")
    } else if has("expected ',' or") {
        Some("a bracket before this place is not closed, or a comma is missing")
    } else if has("expected key") || has("block mapping") || has("not allowed in this context") {
        Some("keys of one mapping begin in the same column, deeper ones further to the right")
    } else {
        None
    }
}

/// How many characters the key or value takes that begins at `column` (counted from 1) of a line,
/// as far as the line goes; at least 1. YAML's words, quotes, lists and mappings as people write
/// them; only marks under an excerpt depend on it.
pub(crate) fn token(line: &str, column: usize) -> usize {
    let line: Vec<char> = line.trim_end().chars().collect();
    let (before, rest) = line.split_at(column.saturating_sub(1).min(line.len()));
    let Some(&first) = rest.first() else { return 1 };
    let length = match first {
        '"' | '\'' => rest.iter().skip(1).position(|c| *c == first).map(|at| at + 2),
        '[' | '{' => closing(rest),
        '|' | '>' => Some(1),
        _ => {
            let inside = before.iter().any(|c| matches!(c, '[' | '{'));
            let ends = |at: usize| match rest[at] {
                ':' => rest.get(at + 1).is_none_or(|c| c.is_whitespace()),
                '#' => at > 0 && rest[at - 1].is_whitespace(),
                ',' | ']' | '}' => inside,
                _ => false,
            };
            let end = (0..rest.len()).find(|at| ends(*at)).unwrap_or(rest.len());
            Some(rest[..end].iter().rposition(|c| !c.is_whitespace()).map_or(1, |last| last + 1))
        }
    };
    length.unwrap_or(rest.len()).max(1)
}

/// The length of a list or mapping in brackets, if it ends on this line.
fn closing(text: &[char]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    for (at, c) in text.iter().enumerate() {
        match (quote, c) {
            (Some(open), c) if open == *c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(*c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') if depth == 1 => return Some(at + 1),
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
    }
    None
}

const FOUND: &str = "\u{1}node found\u{1}";

/// Walks towards `path` and fails with [`FOUND`] when it gets there.
struct Seek<'a> {
    path: &'a [String],
    part: Part,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any node")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.path.split_first() else { return Err(found()) };
        let wants_key = rest.is_empty() && self.part == Part::Key;
        while let Some(matched) = map.next_key_seed(SeekKey { name: first, stop: wants_key })? {
            if matched {
                map.next_value_seed(Seek { path: rest, part: self.part })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((first, rest)) = self.path.split_first() else { return Err(found()) };
        let wanted: Option<usize> = first.parse().ok();
        let mut index = 0;
        loop {
            let more = if wanted == Some(index) {
                seq.next_element_seed(Seek { path: rest, part: Part::Value })?.is_some()
            } else {
                seq.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.scalar()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<(), E> {
        self.scalar()
    }

    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<(), E> {
        self.scalar()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.scalar()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.scalar()
    }
}

impl Seek<'_> {
    fn scalar<E: serde::de::Error>(self) -> Result<(), E> {
        if self.path.is_empty() { Err(found()) } else { Ok(()) }
    }
}

/// Compares a key; fails with [`FOUND`] at the key itself when `stop` is set.
struct SeekKey<'a> {
    name: &'a str,
    stop: bool,
}

impl<'de> DeserializeSeed<'de> for SeekKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for SeekKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        match key == self.name {
            true if self.stop => Err(found()),
            matched => Ok(matched),
        }
    }
}

fn found<E: serde::de::Error>() -> E {
    E::custom(FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name: demo\nstages:\n  data: { kind: dataset, classes: [a, b] }\n  base:\n    kind: train\n    model:\n      dim: 16\n";

    fn place(path: &[&str], part: Part) -> Option<(usize, usize)> {
        let path: Vec<String> = path.iter().map(|s| s.to_string()).collect();
        Source::new("p.yaml", TEXT).locate(&path, part).map(|p| (p.line, p.column))
    }

    #[test]
    fn finds_keys_and_values_in_block_and_flow_style() {
        assert_eq!(place(&["name"], Part::Key), Some((1, 1)));
        assert_eq!(place(&["name"], Part::Value), Some((1, 7)));
        assert_eq!(place(&["stages", "data", "classes"], Part::Key), Some((3, 26)));
        assert_eq!(place(&["stages", "data", "classes", "1"], Part::Value), Some((3, 39)));
        assert_eq!(place(&["stages", "base", "model", "dim"], Part::Key), Some((7, 7)));
        assert_eq!(place(&["stages", "base", "model", "dim"], Part::Value), Some((7, 12)));
    }

    #[test]
    fn a_node_that_is_not_there_has_no_position() {
        assert_eq!(place(&["stages", "lora"], Part::Key), None);
        assert_eq!(place(&["name", "deeper"], Part::Value), None);
    }

    #[test]
    fn a_token_is_a_word_a_quoted_text_or_what_stands_in_brackets() {
        let lengths = [
            ("    epocs: 5", 5, 5),
            ("    epocs: 5", 12, 1),
            ("name: two words   # why", 7, 9),
            ("name: 'it is: so' # why", 7, 11),
            ("a: { kind: dataset, n: [1, '}'] } # x", 4, 30),
            ("a: { kind: data set, n: [1, 2] }", 12, 8),
            ("a: { kind: dataset", 4, 15),
            ("a: b:c", 4, 3),
            ("text: |", 7, 1),
            ("äé: ü", 5, 1),
            ("", 1, 1),
            ("short", 99, 1),
        ];
        for (line, column, length) in lengths {
            assert_eq!(token(line, column), length, "{line:?} at {column}");
        }
    }
}
