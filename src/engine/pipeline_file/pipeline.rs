//! The outer form of a pipeline file: `name`, `include`, `params`, `policies`, `profiles`,
//! `executor`, `store`, `fsync`, `on`, `budget`, `until`, `stages`. What stands inside a stage is its kind's business.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pipe_core::error::{Gathered, SpecError, SpecErrors, nearest};
use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use crate::pipeline_file::document::Order;
use crate::pipeline_file::include::{self, Included};
use crate::pipeline_file::overrides::{Override, OverrideSource};
use crate::pipeline_file::profiles;
use crate::pipeline_file::scope::Scope;
use crate::pipeline_file::sections::{OF_PIPELINES, TIME_LIMITS};
use crate::pipeline_file::values::{Document, error_at, mapping, read_document};
use crate::source::{Part, Source};

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
    /// The time that its trainings have together, by key, as written.
    pub time_limits: Map<String, Value>,
    /// In the file's order, those of included files first.
    pub stages: Vec<StageDeclaration>,
    /// The names of its profiles.
    pub(crate) profiles: Vec<String>,
    /// The files that it includes, each as often as it does.
    pub(crate) scopes: Vec<Scope>,
    /// The scope of each policy that an included file declares, by kind and name.
    pub(crate) scope_of_policy: BTreeMap<(String, String), usize>,
    /// The scope in which the value of a parameter was written that an included file declares; none
    /// is the pipeline's.
    pub(crate) scope_of_parameter: BTreeMap<String, Option<usize>>,
    /// The stages of each inclusion, by its name.
    pub(crate) groups: BTreeMap<String, Vec<String>>,
}

/// One entry under `stages`.
#[derive(Debug, Clone)]
pub struct StageDeclaration {
    pub id: StageId,
    pub kind: String,
    pub body: Map<String, Value>,
    /// What is swept over besides its matrix.
    pub(crate) swept: Vec<Swept>,
    /// That of the included file which declares it.
    pub(crate) scope: Option<usize>,
}

/// What a pipeline file is read with.
pub(super) struct Reading<'a> {
    /// The project's folder.
    pub root: &'a Path,
    pub policy_keys: &'a [&'a str],
    /// Which may choose profiles.
    pub overrides: &'a [Override],
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

impl PipelineFile {
    /// The file's form is checked as a whole: what is wrong with it is said at once. Which kinds of
    /// policies there are is not known here, and the files that it includes are not read.
    pub fn parse(source: Source) -> Result<Self, SpecErrors> {
        Self::read(source, None)
    }

    /// The same for stages of known kinds, with included files and the chosen profiles.
    pub(super) fn parse_with(source: Source, reading: &Reading) -> Result<Self, SpecErrors> {
        Self::read(source, Some(reading))
    }

    fn read(source: Source, reading: Option<&Reading>) -> Result<Self, SpecErrors> {
        let mut errors = Gathered::default();
        let Document { values, order: Order { stages: mut order, includes }, source } =
            read_document(&source)?;
        let mut root = mapping(&source, &[], values)?;
        let mut misspelt = false;
        for key in root.keys().filter(|key| !OF_PIPELINES.contains(&key.as_str())) {
            misspelt |= nearest(key, OF_PIPELINES) == Some("stages");
            let error = error_at(&source, &[key], Part::Key, "unknown key");
            errors.push(error.candidates(key, OF_PIPELINES));
        }
        let include = root.remove("include").filter(|include| !include.is_null());
        let may_be_empty = misspelt || include.is_some();
        let mut included = Included::default();
        let policy_keys = reading.map(|reading| reading.policy_keys);
        let (mut source, mut profiles, mut given) = (source, Vec::new(), BTreeSet::new());
        if let Some(reading) = reading {
            let mut reader = include::Reader::new(reading.root, source.path());
            included = reader.all(&source, include, &includes, &mut errors);
            included.check_names(&root, &source, &mut errors);
            source = included.add_to_document(&mut root, &mut order, &source);
            let applied = profiles::apply(&mut root, source, reading.overrides, &mut errors);
            profiles::Applied { names: profiles, source, params: given } = applied;
        }
        let name = errors.take(read_name(&source, &root)).unwrap_or_default();
        let executor = root.remove("executor").filter(|value| !value.is_null());
        let store = root.remove("store").filter(|value| !value.is_null());
        let fsync = root.remove("fsync").filter(|value| !value.is_null());
        let on = root.remove("on").filter(|value| !value.is_null());
        let time_limits = TIME_LIMITS
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), root.remove(key)?)))
            .collect();
        let mut section = |key: &str| match root.remove(key) {
            None | Some(Value::Null) => Some(Map::new()),
            Some(value) => errors.take(mapping(&source, &[key], value)),
        };
        let (params, policies, stages) =
            (section("params"), section("policies"), section("stages"));
        let (params, policies) = (params.unwrap_or_default(), policies.unwrap_or_default());
        check_policies(&source, &policies, policy_keys, &mut errors);
        if stages.as_ref().is_some_and(Map::is_empty) && !may_be_empty {
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
            .map(|stage| {
                let scope = included.scope_of_stage.get(stage.id.as_str()).copied();
                StageDeclaration { scope, ..stage }
            })
            .collect();
        let written_params = Map::new();
        let Included { scopes, scope_of_policy, mut scope_of_parameter, groups, .. } = included;
        scope_of_parameter.retain(|name, _| !given.contains(name));
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
            time_limits,
            stages,
            profiles,
            scopes,
            scope_of_policy,
            scope_of_parameter,
            groups,
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
            Some(Value::String(kind)) => {
                Ok(Self { id: stage, kind, body, swept: Vec::new(), scope: None })
            }
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
