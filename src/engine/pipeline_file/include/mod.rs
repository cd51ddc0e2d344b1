//! `include:`: the stages of another file, with values for its parameters. All that the file declares
//! comes in under the name of the inclusion: as `small`, its stage `base` is `small_base`, its
//! parameter `epochs` is `small_epochs`, its policy `often` is `small_often`. Who reads the whole
//! afterwards sees one file; see `scope` for the short names.

mod component;
mod included;

use std::path::{Path, PathBuf};

use pipe_core::error::{Gathered, SpecError, SpecErrors};
use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use self::component::Component;
pub(crate) use self::included::Included;
use crate::pipeline_file::params::size_of_value;
use crate::pipeline_file::sections::{OF_INCLUDED, OF_PIPELINES};
use crate::pipeline_file::values::{Document, error_at, mapping, read_document};
use crate::source::{self, Part, Source};

/// The keys of one entry under `include`.
const ENTRY: [&str; 2] = ["file", "params"];
/// How many files may include each other in a row, how many a pipeline may include in all, and how
/// large they may be together, about in bytes.
const DEEPEST: usize = 8;
const MOST: usize = 256;
const LARGEST: usize = 4 << 20;

/// Reads included files.
pub(super) struct Reader<'a> {
    /// The project's folder, to which paths are relative.
    root: &'a Path,
    /// The files that include each other, the pipeline itself first: as shown, and as found.
    open: Vec<(PathBuf, PathBuf)>,
    /// How many files were read, and how large they were.
    read: (usize, usize),
}

/// One entry under `include`.
struct Entry {
    name: String,
    file: String,
    params: Map<String, Value>,
}

impl<'a> Reader<'a> {
    pub fn new(root: &'a Path, pipeline: &Path) -> Self {
        Self { root, open: vec![(pipeline.to_owned(), found(root, pipeline))], read: (0, 0) }
    }

    /// All files that stand under `include` of one.
    pub fn all(
        &mut self,
        source: &Source,
        entries: Option<Value>,
        order: &[String],
        errors: &mut Gathered,
    ) -> Included {
        let mut all = Included::default();
        let mut entries = match entries {
            None | Some(Value::Null) => return all,
            Some(value) => {
                let taken = mapping(source, &["include"], value);
                let example = "such as `include: { small: { file: parts/train.yaml } }`";
                errors.take(taken.map_err(|error| error.note(example))).unwrap_or_default()
            }
        };
        for name in order {
            let Some(value) = entries.remove(name) else { continue };
            let entry = errors.take(Entry::parse(source, name, value));
            if let Some(entry) = entry {
                let read = self.one(source, entry, &mut all, errors);
                errors.take(read);
            }
        }
        all
    }

    /// One file, with those that it includes.
    fn one(
        &mut self,
        source: &Source,
        entry: Entry,
        all: &mut Included,
        errors: &mut Gathered,
    ) -> Result<(), SpecErrors> {
        let shown = PathBuf::from(&entry.file);
        let wrong = |message: String| {
            error_at(source, &["include", &entry.name, "file"], Part::Value, message)
        };
        let path = found(self.root, &shown);
        if let Some(at) = self.open.iter().position(|(_, open)| *open == path) {
            let circle = self.open[at..].iter().map(|(shown, _)| shown).chain([&shown]);
            let circle: Vec<String> = circle.map(|path| path.display().to_string()).collect();
            let message = format!("files include each other in a circle: {}", circle.join(" -> "));
            return Err(wrong(message).into());
        }
        if self.open.len() > DEEPEST {
            return Err(
                wrong(format!("more than {DEEPEST} files include each other in a row")).into()
            );
        }
        if self.read.0 >= MOST {
            return Err(wrong(format!("a pipeline includes {MOST} files at most")).into());
        }
        let read = source::read(&self.root.join(&shown), &shown).map_err(|error| {
            let (message, help) = error.into_parts();
            let error = wrong(format!("failed to read the included file: {message}"));
            help.into_iter()
                .fold(error, SpecError::note)
                .note("the path is relative to the project's folder")
        })?;
        let document = read_document(&read)?;
        self.read.0 += 1;
        self.read.1 += size_of_value(&document.values);
        if self.read.1 > LARGEST {
            let message = format!("what is included comes to more than {} MB", LARGEST >> 20);
            return Err(wrong(message).into());
        }
        self.open.push((shown, path));
        let part = self.part(document, errors);
        self.open.pop();
        part?.add_to(source, entry, all, errors);
        Ok(())
    }

    /// What an included file says.
    fn part(&mut self, document: Document, errors: &mut Gathered) -> Result<Component, SpecErrors> {
        let Document { values, order, source } = document;
        let mut root = mapping(&source, &[], values)?;
        for key in root.keys().filter(|key| !OF_INCLUDED.contains(&key.as_str())) {
            errors.push(if OF_PIPELINES.contains(&key.as_str()) {
                let message = format!("`{key}` belongs into the pipeline that includes this file");
                error_at(&source, &[key], Part::Key, message)
            } else {
                error_at(&source, &[key], Part::Key, "unknown key").candidates(key, OF_INCLUDED)
            });
        }
        let inner = self.all(&source, root.remove("include"), &order.includes, errors);
        inner.check_names(&root, &source, errors);
        let mut section = |key: &str| match root.remove(key) {
            None | Some(Value::Null) => Map::new(),
            Some(value) => errors.take(mapping(&source, &[key], value)).unwrap_or_default(),
        };
        let (params, kinds, mut bodies) =
            (section("params"), section("policies"), section("stages"));
        let mut policies = Vec::new();
        for (kind, named) in kinds {
            let named = errors.take(mapping(&source, &["policies", &kind], named));
            policies.extend(named.map(|named| (kind, named)));
        }
        let stages = order.stages.into_iter();
        let stages = stages.filter_map(|id| bodies.remove(&id).map(|body| (id, body))).collect();
        let source = source.with_pieces(inner.pieces.clone());
        Ok(Component { source, params, policies, stages, inner })
    }
}

/// The file that a path means, by one name however it is written.
fn found(root: &Path, shown: &Path) -> PathBuf {
    let path = root.join(shown);
    path.canonicalize().unwrap_or(path)
}

impl Entry {
    fn parse(source: &Source, name: &str, value: Value) -> Result<Self, SpecErrors> {
        if StageId::new(name).is_none() {
            let message = "the name of an inclusion may hold letters, digits, `_` and `-`";
            return Err(error_at(source, &["include", name], Part::Key, message).into());
        }
        let mut errors = Gathered::default();
        let mut entry = match value {
            file @ Value::String(_) => Map::from_iter([("file".to_owned(), file)]),
            other => mapping(source, &["include", name], other)?,
        };
        for key in entry.keys().filter(|key| !ENTRY.contains(&key.as_str())) {
            let error = error_at(source, &["include", name, key], Part::Key, "unknown key");
            errors.push(error.candidates(key, ENTRY));
        }
        let params = match entry.remove("params") {
            None | Some(Value::Null) => Map::new(),
            Some(value) => {
                let params = mapping(source, &["include", name, "params"], value);
                errors.take(params).unwrap_or_default()
            }
        };
        let wrong = |part: Part, message: &str| {
            // An entry may be the path alone.
            error_at(source, &["include", name, "file"], part, message)
        };
        let file = match entry.remove("file") {
            Some(Value::String(file)) if file.contains("${") => {
                let error = wrong(Part::Value, "no parameter is filled in here");
                errors.push(
                    error.note("which stages there are is the same for all values: write it out"),
                );
                String::new()
            }
            Some(Value::String(file)) if !file.trim().is_empty() => file,
            Some(_) => {
                errors.push(wrong(Part::Value, "expected the path of a file"));
                String::new()
            }
            None => {
                errors.push(wrong(Part::Key, "missing key `file`"));
                String::new()
            }
        };
        errors.or(Self { name: name.to_owned(), file, params })
    }
}
