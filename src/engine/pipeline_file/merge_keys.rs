//! `<<`: the keys of other mappings, as YAML 1.1 has it. Keys that a mapping has itself win, and those
//! of an earlier mapping win over those of a later one. And keys at the top of a file that begin with
//! `x-`, which hold what anchors name and mean nothing by themselves.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use pipe_core::error::{Gathered, SpecError, SpecErrors};
use serde_json::{Map, Value};

use crate::pipeline_file::document::MERGE_KEY;
use crate::pipeline_file::words::describe;
use crate::source::{Part, Pieces, Source};

/// Whether a key at the top of a file is free for anything.
pub(crate) fn is_free(key: &str) -> bool {
    key.starts_with("x-")
}

/// The document with merge keys in their effect, and a source that knows where merged keys stand.
///
/// # Errors
/// All merge keys whose values are no mappings.
pub(super) fn merged(source: &Source, document: Value) -> Result<(Value, Source), SpecErrors> {
    let Value::Object(mut root) = document else { return Ok((document, source.clone())) };
    root.retain(|key, _| !is_free(key));
    if !source.text().contains(MERGE_KEY) {
        return Ok((Value::Object(root), source.clone()));
    }
    let mut merging = Merging { source, pieces: Pieces::new(), errors: Gathered::default() };
    let values = merging.mapping(root, &[], &[]);
    // One that comes by a merge key is as free as one that is written.
    let values = values.into_iter().filter(|(key, _)| !is_free(key)).collect();
    let source = source.with_pieces(merging.pieces);
    merging.errors.or((Value::Object(values), source))
}

/// Values by their keys, each with the path at which it stands in the file.
type Entries = BTreeMap<String, (Value, Vec<String>)>;

struct Merging<'a> {
    source: &'a Source,
    pieces: Pieces,
    errors: Gathered,
}

impl Merging<'_> {
    /// `at`: the mapping's path in the document. `stands`: its path in the file.
    fn mapping(
        &mut self,
        map: Map<String, Value>,
        at: &[String],
        stands: &[String],
    ) -> Map<String, Value> {
        let mut entries = Entries::new();
        self.gather(map, stands, &mut entries);
        let mut all = Map::new();
        for (key, (value, stands_there)) in entries {
            let at = [at, std::slice::from_ref(&key)].concat();
            if stands_there[..stands_there.len() - 1] != *stands {
                self.pieces.insert(at.clone(), (self.source.clone(), stands_there.clone()));
            }
            let value = self.value(value, &at, &stands_there);
            all.insert(key, value);
        }
        all
    }

    fn value(&mut self, value: Value, at: &[String], stands: &[String]) -> Value {
        match value {
            Value::Object(map) => Value::Object(self.mapping(map, at, stands)),
            Value::Array(items) => {
                let item = |(index, item): (usize, Value)| {
                    let below = |path: &[String]| [path, &[index.to_string()]].concat();
                    self.value(item, &below(at), &below(stands))
                };
                Value::Array(items.into_iter().enumerate().map(item).collect())
            }
            scalar => scalar,
        }
    }

    /// Adds what is not there yet: the keys of the mapping itself, then those that it merges.
    fn gather(&mut self, mut map: Map<String, Value>, stands: &[String], entries: &mut Entries) {
        let merged = map.remove(MERGE_KEY);
        for (key, value) in map {
            let path = [stands, std::slice::from_ref(&key)].concat();
            if let Entry::Vacant(place) = entries.entry(key) {
                place.insert((value, path));
            }
        }
        let path = [stands, &[MERGE_KEY.to_owned()]].concat();
        match merged {
            None => {}
            Some(Value::Array(items)) => {
                for (index, item) in items.into_iter().enumerate() {
                    let path = [path.as_slice(), &[index.to_string()]].concat();
                    self.one(item, path, entries);
                }
            }
            Some(one) => self.one(one, path, entries),
        }
    }

    fn one(&mut self, value: Value, path: Vec<String>, entries: &mut Entries) {
        match value {
            Value::Object(map) => self.gather(map, &path, entries),
            other => {
                let found = describe(&other);
                let message =
                    format!("expected a mapping, or a list of mappings, to merge, found {found}");
                let error = SpecError::on(self.source, path, Part::Value, message);
                self.errors
                    .push(error.note(
                        "an anchor names a mapping: `x-base: &base { … }`, then `<<: *base`",
                    ));
            }
        }
    }
}
