//! A YAML file that was read, and where a key stands in it. Knows nothing of what the keys mean.
//!
//! Settings lose their positions when layers are merged, so a position is found again from the key
//! path: the file is walked once more with a reader that fails on purpose at the wanted node, and
//! the YAML library says where that was.
//!
//! A document may be put together of pieces that stand elsewhere, in this file or in others. Then a
//! source knows of each piece where that is, and keys are those of the whole.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::SpecError;
pub use crate::position::Position;
use crate::yaml_slips;

/// A file's text together with the path that messages show.
#[derive(Debug, Clone)]
pub struct Source(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    text: Arc<str>,
    /// The same without pieces from elsewhere, and those.
    below: Option<(Source, Pieces)>,
}

/// Keys of a document that stand elsewhere, with all that is below them: in which file, under which
/// key of it.
pub type Pieces = BTreeMap<Vec<String>, (Source, Vec<String>)>;

/// Which part of a mapping entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Key,
    Value,
}

impl Source {
    /// A source from text at hand. The mark that some editors put before it (BOM) is no part of it.
    pub fn new(shown: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        Self(Arc::new(Inner { path: shown.into(), text: text.into(), below: None }))
    }

    /// The source of a document of which some pieces stand elsewhere.
    pub fn with_pieces(&self, pieces: Pieces) -> Self {
        if pieces.is_empty() {
            return self.clone();
        }
        let (path, text) = (self.0.path.clone(), self.0.text.clone());
        Self(Arc::new(Inner { path, text, below: Some((self.clone(), pieces)) }))
    }

    /// The file in which what the document has at `path` stands, and under which key of it.
    pub fn origin(&self, path: &[String]) -> (Self, Vec<String>) {
        let Some((plain, pieces)) = &self.0.below else { return (self.clone(), path.to_vec()) };
        let piece = (1..=path.len()).rev().find_map(|n| Some((pieces.get(&path[..n])?, n)));
        match piece {
            Some(((source, at), n)) => source.origin(&[at.as_slice(), &path[n..]].concat()),
            None => plain.origin(path),
        }
    }

    /// Whether some of the document stands in the file of that path.
    pub fn holds(&self, file: &Path) -> bool {
        let in_pieces = |(plain, pieces): &(Source, Pieces)| {
            plain.holds(file) || pieces.values().any(|(source, _)| source.holds(file))
        };
        self.path() == file || self.0.below.as_ref().is_some_and(in_pieces)
    }

    /// Whether the document has a node at `path`.
    pub fn has(&self, path: &[String]) -> bool {
        let (source, at) = self.origin(path);
        source.locate(&at, Part::Key).is_some()
    }

    /// Where the node at `path` stands, or else the nearest one around it: the file, and the place
    /// in it.
    pub fn find(&self, path: &[String], part: Part) -> Option<(Self, Position)> {
        let place = |n: usize, part: Part| {
            let (source, at) = self.origin(&path[..n]);
            let position = source.locate(&at, part)?;
            Some((source, position))
        };
        place(path.len(), part).or_else(|| (1..=path.len()).rev().find_map(|n| place(n, Part::Key)))
    }

    /// The path that messages show.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The whole text, without a BOM.
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
            let twice = at.and_then(|at| yaml_slips::twice(self.text(), at, &message));
            let at = twice.map_or(at, |(_, second)| Some(second));
            let help = yaml_slips::help(self.text(), at, &message);
            let first = twice.map(|(first, _)| format!("it stands in line {first} already"));
            let error = SpecError::at(self, at, Vec::new(), message);
            first.into_iter().chain(help).fold(error, SpecError::note)
        })?;
        Ok(value)
    }

    /// Where the node at `path` of this file alone stands; `None` if there is no such node. Sequence
    /// items are named by index.
    pub fn locate(&self, path: &[String], part: Part) -> Option<Position> {
        let document = serde_yaml::Deserializer::from_str(self.text());
        let error = Seek { path, part }.deserialize(document).err()?;
        let message = error.to_string();
        if !message.contains(FOUND) {
            return None;
        }
        error.location().map(|l| Position { line: l.line(), column: l.column() })
    }

    /// Whether a message may repeat lines of it: those of a file that is not meant for us are its
    /// owner's business.
    pub fn is_quotable(&self) -> bool {
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
                seq.next_element_seed(Seek { path: rest, part: self.part })?.is_some()
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
    fn a_piece_is_found_in_the_file_in_which_it_stands() {
        let path = |keys: &[&str]| keys.iter().map(|key| key.to_string()).collect::<Vec<_>>();
        let part = Source::new("part.yaml", "x: &x\n  one: 1\nstages:\n  base:\n    <<: *x\n");
        let one = (
            path(&["stages", "base", "one"]),
            (part.clone(), path(&["stages", "base", "<<", "one"])),
        );
        let part = part.with_pieces([one].into());
        let base = (path(&["stages", "a_base"]), (part, path(&["stages", "base"])));
        let whole = Source::new("p.yaml", TEXT).with_pieces([base].into());
        let found = |keys: &[&str]| {
            let (source, at) = whole.find(&path(keys), Part::Key).unwrap();
            (source.path().to_owned(), at.line, at.column)
        };
        assert_eq!(found(&["stages", "a_base", "one"]), ("part.yaml".into(), 2, 3));
        assert_eq!(found(&["stages", "a_base", "two"]), ("part.yaml".into(), 4, 3));
        assert_eq!(found(&["stages", "base", "kind"]), ("p.yaml".into(), 5, 5));
        assert_eq!(found(&["stages", "c_base"]), ("p.yaml".into(), 2, 1));
        assert!(whole.holds(Path::new("part.yaml")) && !whole.holds(Path::new("q.yaml")));
    }

    #[test]
    fn a_node_that_is_not_there_has_no_position() {
        assert_eq!(place(&["stages", "lora"], Part::Key), None);
        assert_eq!(place(&["name", "deeper"], Part::Value), None);
    }
}
