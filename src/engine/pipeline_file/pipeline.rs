//! The outer form of a pipeline file: `name`, `params`, `policies`, `executor`, `store`, `fsync`,
//! `on`, `stages`. What stands inside a stage is its kind's business.

use pipe_core::error::{Gathered, SpecError, SpecErrors, nearest};
use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use crate::pipeline_file::document;
use crate::pipeline_file::overrides::OverrideSource;
use crate::source::{Part, Position, Source};

/// A parsed pipeline file; nothing filled in yet.
#[derive(Debug, Clone)]
pub struct PipelineFile {
    pub source: Source,
    pub name: String,
    pub params: Map<String, Value>,
    /// The same before parameters in them were filled in; empty until then.
    pub(crate) written_params: Map<String, Value>,
    /// By kind of policy (such as `checkpoint`), then by name.
    pub policies: Map<String, Value>,
    /// Where stages run, as written.
    pub executor: Option<Value>,
    /// Where its state is mirrored, as written.
    pub store: Option<Value>,
    /// What is synced, as written.
    pub fsync: Option<Value>,
    /// Who is told of what happens, as written.
    pub on: Option<Value>,
    /// In the file's order.
    pub stages: Vec<StageDeclaration>,
}

/// One entry under `stages`.
#[derive(Debug, Clone)]
pub struct StageDeclaration {
    pub id: StageId,
    pub kind: String,
    pub body: Map<String, Value>,
    /// What is swept over besides its matrix.
    pub(crate) swept: Vec<Swept>,
}

/// A key with several values from outside, each for a stage of its own.
#[derive(Debug, Clone)]
pub(crate) struct Swept {
    pub key: String,
    pub values: Vec<Value>,
    pub by: OverrideSource,
    /// It is a setting of another stage, which this one refers to.
    pub is_inherited: bool,
}

/// Policies that are one value each.
const SCALAR_POLICIES: [&str; 2] = ["timeout", "resume"];

const TOP_LEVEL: [&str; 8] =
    ["name", "params", "policies", "executor", "store", "fsync", "on", "stages"];

impl PipelineFile {
    /// The file's form is checked as a whole: what is wrong with it is said at once. Which kinds of
    /// policies there are is not known here.
    pub fn parse(source: Source) -> Result<Self, SpecErrors> {
        Self::read(source, None)
    }

    /// The same for stages of known kinds, which have policies under these keys.
    pub(super) fn parse_with(source: Source, policy_keys: &[&str]) -> Result<Self, SpecErrors> {
        Self::read(source, Some(policy_keys))
    }

    fn read(source: Source, policy_keys: Option<&[&str]>) -> Result<Self, SpecErrors> {
        let mut errors = Gathered::default();
        let (document, order) = read_document(&source)?;
        let mut root = mapping(&source, &[], document)?;
        let mut misspelt = false;
        for key in root.keys().filter(|key| !TOP_LEVEL.contains(&key.as_str())) {
            misspelt |= nearest(key, TOP_LEVEL) == Some("stages");
            errors.push(
                error_at(&source, &[key], Part::Key, "unknown key").candidates(key, TOP_LEVEL),
            );
        }
        let name = errors.take(read_name(&source, &root)).unwrap_or_default();
        let executor = root.remove("executor").filter(|value| !value.is_null());
        let store = root.remove("store").filter(|value| !value.is_null());
        let fsync = root.remove("fsync").filter(|value| !value.is_null());
        let on = root.remove("on").filter(|value| !value.is_null());
        let mut section = |key: &str| match root.remove(key) {
            None | Some(Value::Null) => Some(Map::new()),
            Some(value) => errors.take(mapping(&source, &[key], value)),
        };
        let (params, policies, stages) =
            (section("params"), section("policies"), section("stages"));
        let (params, policies) = (params.unwrap_or_default(), policies.unwrap_or_default());
        check_policies(&source, &policies, policy_keys, &mut errors);
        if stages.as_ref().is_some_and(Map::is_empty) && !misspelt {
            errors.push(
                error_at(&source, &["stages"], Part::Key, "a pipeline needs at least one stage")
                    .note("add `stages:` with an entry such as `data: {kind: dataset, source: shapes}`"),
            );
        }
        let mut bodies = stages.unwrap_or_default();
        let stages = order
            .iter()
            .filter_map(|id| Some((id, bodies.remove(id)?)))
            .filter_map(|(id, body)| errors.take(StageDeclaration::parse(&source, id, body)))
            .collect();
        let written_params = Map::new();
        errors.or(Self {
            source,
            name,
            params,
            written_params,
            policies,
            executor,
            store,
            fsync,
            on,
            stages,
        })
    }

    /// The declared stage of that name.
    pub fn stage(&self, id: &str) -> Option<&StageDeclaration> {
        self.stages.iter().find(|s| s.id.as_str() == id)
    }
}

impl StageDeclaration {
    /// Whether it makes several stages.
    pub(crate) fn is_several(&self) -> bool {
        self.body.contains_key("matrix") || !self.swept.is_empty()
    }

    fn parse(source: &Source, id: &str, body: Value) -> Result<Self, SpecError> {
        let Some(stage) = StageId::new(id).or_else(|| StageId::of_matrix(id)) else {
            return Err(error_at(
                source,
                &["stages", id],
                Part::Key,
                "a stage's name may hold letters, digits, `_` and `-`",
            ));
        };
        let mut body = mapping(source, &["stages", id], body)?;
        match body.remove("kind") {
            Some(Value::String(kind)) => Ok(Self { id: stage, kind, body, swept: Vec::new() }),
            Some(_) => Err(error_at(
                source,
                &["stages", id, "kind"],
                Part::Value,
                "expected the name of a stage kind",
            )),
            None => Err(error_at(source, &["stages", id], Part::Key, "missing key `kind`")
                .note("a stage says what it is, such as `kind: train`")),
        }
    }
}

/// The pipeline's name.
fn read_name(source: &Source, root: &Map<String, Value>) -> Result<String, SpecError> {
    match root.get("name") {
        Some(Value::String(name)) if name.contains("${") => {
            let text = "no parameter is filled in here";
            let note =
                "records are found by this name, so it is the same for all values: write it out";
            Err(error_at(source, &["name"], Part::Value, text).note(note))
        }
        Some(Value::String(name)) if !name.trim().is_empty() => Ok(name.clone()),
        Some(_) => {
            let text = "expected a name, such as `my_run`";
            Err(error_at(source, &["name"], Part::Value, text))
        }
        None => {
            let error = error_at(source, &["name"], Part::Key, "missing key `name`");
            Err(error.note("add a line such as `name: my_run` at the top"))
        }
    }
}

/// Gathers what is wrong with the forms of named policies; what is in them is for the stages that
/// refer to them.
fn check_policies(
    source: &Source,
    policies: &Map<String, Value>,
    policy_keys: Option<&[&str]>,
    errors: &mut Gathered,
) {
    for (kind, named) in policies {
        let Some(named) = errors.take(mapping(source, &["policies", kind], named.clone())) else {
            continue;
        };
        if let Some(known) = policy_keys.filter(|known| !known.contains(&kind.as_str())) {
            let error = error_at(source, &["policies", kind], Part::Key, "unknown kind of policy");
            errors.push(error.candidates(kind, known.iter().copied()));
            continue;
        }
        // A time limit and a word about resuming are values, the others blocks.
        for (name, block) in named.iter().filter(|_| !SCALAR_POLICIES.contains(&kind.as_str())) {
            errors.take(mapping(source, &["policies", kind, name], block.clone()));
        }
    }
}

/// The document as JSON values, and the names under `stages` in the file's order.
pub(crate) fn read_document(source: &Source) -> Result<(Value, Vec<String>), SpecError> {
    if let Some(read) = document::read(source.text()) {
        return Ok(read);
    }
    let document = source.parse()?;
    let order = stage_order(&document);
    Ok((to_json(source, document, &mut Vec::new())?, order))
}

/// The names under `stages` in the order of the file, which JSON maps do not keep.
fn stage_order(document: &serde_yaml::Value) -> Vec<String> {
    let stages = document.get("stages").and_then(|s| s.as_mapping());
    stages.into_iter().flatten().filter_map(|(key, _)| key.as_str().map(str::to_owned)).collect()
}

/// YAML to JSON: the settings model. Refuses what JSON cannot say (tags, keys that are not text,
/// infinities).
pub(crate) fn to_json(
    source: &Source,
    value: serde_yaml::Value,
    path: &mut Vec<String>,
) -> Result<Value, SpecError> {
    use serde_yaml::Value as Yaml;
    let refuse = |path: &[String], message: &str| {
        let at = source.locate(path, Part::Value).or_else(|| source.locate_nearest(path));
        Err(SpecError::at(source, at, path.to_vec(), message))
    };
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => Value::Bool(b),
        Yaml::String(s) => Value::String(s),
        Yaml::Number(n) => {
            match (n.as_u64(), n.as_i64(), n.as_f64().and_then(serde_json::Number::from_f64)) {
                (Some(u), _, _) => Value::from(u),
                (_, Some(i), _) => Value::from(i),
                (_, _, Some(f)) => Value::Number(f),
                _ => return refuse(path, "expected a finite number"),
            }
        }
        Yaml::Sequence(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                path.push(index.to_string());
                list.push(to_json(source, item, path)?);
                path.pop();
            }
            Value::Array(list)
        }
        Yaml::Mapping(mapping) => {
            let mut object = Map::new();
            for (key, item) in mapping {
                let Yaml::String(key) = key else {
                    return refuse(
                        path,
                        "expected keys that are text; put quotes around numbers and words like `yes`",
                    );
                };
                path.push(key.clone());
                let item = to_json(source, item, path)?;
                path.pop();
                object.insert(key, item);
            }
            Value::Object(object)
        }
        Yaml::Tagged(_) => return refuse(path, "YAML tags (`!name`) have no meaning here"),
    })
}

/// The value as a mapping, or an error that says what stands there instead.
pub(crate) fn mapping(
    source: &Source,
    path: &[&str],
    value: Value,
) -> Result<Map<String, Value>, SpecError> {
    match value {
        Value::Object(map) => Ok(map),
        // The whole file as one text is not to be repeated.
        Value::String(_) if path.is_empty() => Err(error_at(
            source,
            path,
            Part::Value,
            "expected a mapping (`key: value` lines), found text",
        )),
        other => {
            let message =
                format!("expected a mapping (`key: value` lines), found {}", describe(&other));
            Err(error_at(source, path, Part::Value, message))
        }
    }
}

/// A value's type and content in a few words.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(b) => format!("`{b}`"),
        Value::Number(n) => format!("number {n}"),
        Value::String(s) => format!("text {:?}", shortened(s)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}

/// The beginning of a text, as much as fits into a message.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

pub(crate) fn error_at(
    source: &Source,
    path: &[&str],
    part: Part,
    message: impl Into<String>,
) -> SpecError {
    let path: Vec<String> = path.iter().map(|s| s.to_string()).collect();
    let start = Position { line: 1, column: 1 };
    let at = source.locate(&path, part).or_else(|| source.locate_nearest(&path)).unwrap_or(start);
    SpecError::at(source, Some(at), path, message)
}
