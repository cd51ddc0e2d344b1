//! The stages that a file declares, with every matrix unfolded, and the kinds that they can have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use pipe_core::error::{Gathered, SpecError};
use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use crate::artifact::ArtifactType;
use crate::kind::{Stage, StageKind};
use crate::pipeline_file::keys::policy_keys;
use crate::pipeline_file::matrix::{self, Member, Portion, Reading, Unfolded, seeds};
use crate::pipeline_file::params::{Used, filled_value};
use crate::pipeline_file::pipeline::{PipelineFile, StageDeclaration};
use crate::policy::ExecutionOptions;

/// Stage kinds by name, each with its schema, which takes a while to make.
pub(super) struct Kinds<'a> {
    by_name: BTreeMap<&'static str, (&'a dyn StageKind, schemars::Schema)>,
    execution_options: OnceLock<schemars::Schema>,
    /// See [`policy_keys`].
    pub policy_keys: Vec<&'static str>,
}

impl<'a> Kinds<'a> {
    pub fn new(kinds: &'a [Arc<dyn StageKind>]) -> Self {
        let by_name = kinds.iter().map(|k| (k.name(), (k.as_ref(), k.schema()))).collect();
        Self { by_name, execution_options: OnceLock::new(), policy_keys: policy_keys(kinds) }
    }

    pub fn get(&self, kind: &str) -> Option<&(&'a dyn StageKind, schemars::Schema)> {
        self.by_name.get(kind)
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.by_name.keys().copied()
    }

    /// Names of the kinds whose stages make it.
    pub fn that_make(&self, wanted: ArtifactType) -> impl Iterator<Item = &'static str> {
        self.names().filter(move |name| self.get(name).is_some_and(|(k, _)| can_make(*k, wanted)))
    }

    pub fn schema(&self, kind: &str) -> Option<&Value> {
        self.by_name.get(kind).map(|(_, schema)| schema.as_value())
    }

    /// The schema of the keys that every stage has besides.
    pub fn option_schema(&self) -> &Value {
        self.execution_options.get_or_init(|| schemars::schema_for!(ExecutionOptions)).as_value()
    }

    /// The settings of a kind.
    pub fn keys(&self, kind: &str) -> impl Iterator<Item = &String> {
        let properties =
            self.schema(kind).and_then(|s| s.get("properties")).and_then(Value::as_object);
        properties.into_iter().flat_map(|p| p.keys())
    }

    /// The setting that holds keys of a program's own (marked with `x-passes-on`), where `key` is one
    /// of those that the stage declares there.
    pub fn passed_on<'s>(&'s self, declared: &'s StageDeclaration, key: &str) -> Option<&'s str> {
        let properties = self.schema(&declared.kind)?.get("properties")?.as_object()?;
        let (name, mut inside) = self.of_program(declared)?;
        (!properties.contains_key(key) && inside.any(|known| known == key)).then_some(name)
    }

    /// The keys that a stage declares for its program, and the setting that holds them.
    pub fn of_program<'s>(
        &'s self,
        declared: &'s StageDeclaration,
    ) -> Option<(&'s str, impl Iterator<Item = &'s str>)> {
        let properties = self.schema(&declared.kind)?.get("properties")?.as_object()?;
        let (name, _) = properties.iter().find(|(_, p)| p.get("x-passes-on").is_some())?;
        let inside = declared.body.get(name)?.as_object()?;
        Some((name, inside.keys().map(String::as_str)))
    }

    /// Pairs of settings that stand for each other: a key, and the one that its `x-instead-of`
    /// names.
    pub fn alternatives(&self, kind: &str) -> impl Iterator<Item = (&str, &str)> {
        let properties =
            self.schema(kind).and_then(|s| s.get("properties")).and_then(Value::as_object);
        let all = properties.into_iter().flatten();
        all.filter_map(|(key, property)| {
            Some((key.as_str(), property.get("x-instead-of")?.as_str()?))
        })
    }
}

/// Whether stages of the kind make it, at least with some settings.
pub(super) fn can_make(kind: &dyn StageKind, wanted: ArtifactType) -> bool {
    kind.makes() == wanted || kind.makes_with().is_some_and(|(made, _)| made == wanted)
}

/// What a stage with these settings makes, and with which key it would make something else.
pub(super) fn makes(
    kind: &dyn StageKind,
    stage: &dyn Stage,
) -> (ArtifactType, Option<(ArtifactType, &'static str)>) {
    let Some((other, key)) = kind.makes_with() else { return (kind.makes(), None) };
    let is_given = stage.settings().get(key).is_some_and(|value| !value.is_null());
    if is_given { (other, None) } else { (kind.makes(), Some((other, key))) }
}

/// What the matrix of a stage comes to. `first_seed` is asked where it has `seeds`.
pub(super) fn unfolded(
    file: &PipelineFile,
    stage: &StageDeclaration,
    used: &Used,
    first_seed: impl FnOnce() -> u64,
) -> Result<Unfolded, SpecError> {
    let at = ["stages", stage.id.as_str(), "matrix"].map(str::to_owned);
    let none = Map::new();
    let names = file.names(stage.scope, &none, used);
    let matrix = stage.body.get("matrix");
    let matrix = matrix.map(|m| filled_value(&file.source, &at, m, names)).transpose()?;
    let value = |key: &str| matrix.as_ref().and_then(|matrix| matrix.get(key));
    let asks = |key: &str| value(key).is_some_and(|value| !value.is_array());
    let reading = Reading {
        source: &file.source,
        stage: &stage.id,
        seed: if asks("random") { seeds::of_pipeline(&file.params, used) } else { 0 },
        first_seed: if asks(matrix::SEEDS) { first_seed() } else { 0 },
    };
    matrix::unfold(reading, matrix.as_ref(), &stage.swept)
}

/// One stage to load.
pub(super) struct Single<'a> {
    pub id: StageId,
    pub declared: &'a StageDeclaration,
    /// Its values in the matrix, by keys as written there.
    pub values: Map<String, Value>,
    /// The same by where they stand.
    pub portions: Vec<Portion>,
}

/// What a stage is swept over from outside, and the name that it has with that.
type SweptMember = (Map<String, Value>, StageId);

/// The stages of a file, matrices unfolded.
pub(super) struct Declared<'a> {
    file: &'a PipelineFile,
    pub stages: Vec<Single<'a>>,
    /// The stages of each matrix, and of each included file.
    pub matrices: BTreeMap<StageId, Vec<StageId>>,
    /// The names of included files.
    pub groups: BTreeSet<StageId>,
    /// What became of stages that are swept over from outside: the values, and the stage's name.
    by_plain: BTreeMap<StageId, Vec<SweptMember>>,
    /// The kind of each stage, by its name.
    pub kinds: HashMap<StageId, &'a str>,
}

impl<'a> Declared<'a> {
    pub fn of(
        root: &Path,
        file: &'a PipelineFile,
        kinds: &Kinds,
        used: &Used,
        (errors, warnings): (&mut Gathered, &mut Vec<SpecError>),
    ) -> Self {
        let mut this = Self {
            file,
            stages: Vec::new(),
            matrices: BTreeMap::new(),
            groups: BTreeSet::new(),
            by_plain: BTreeMap::new(),
            kinds: HashMap::new(),
        };
        for declared in &file.stages {
            let id = &declared.id;
            if !declared.is_several() {
                if let Some(matrix) = StageId::new(id.declared()).filter(|matrix| matrix != id) {
                    this.matrices.entry(matrix).or_default().push(id.clone());
                }
                this.kinds.insert(id.clone(), &declared.kind);
                this.stages.push(Single {
                    id: id.clone(),
                    declared,
                    values: Map::new(),
                    portions: Vec::new(),
                });
                continue;
            }
            let first_seed = || {
                let schema = kinds.schema(&declared.kind);
                seeds::of_stage(root, file, schema, declared, used)
            };
            let unfolded = unfolded(file, declared, used, first_seed);
            let Some(Unfolded { members, warnings: doubts }) = errors.take(unfolded) else {
                // Those that refer to it have no error of their own.
                this.kinds.insert(id.clone(), &declared.kind);
                continue;
            };
            warnings.extend(doubts);
            this.matrices.insert(id.clone(), members.iter().map(|m| m.id.clone()).collect());
            for Member { id, values, portions, plain, swept } in members {
                if let Some(plain) = plain {
                    this.by_plain.entry(plain).or_default().push((swept, id.clone()));
                }
                this.kinds.insert(id.clone(), &declared.kind);
                this.stages.push(Single { id, declared, values, portions });
            }
        }
        for (plain, members) in &this.by_plain {
            let ids = || members.iter().map(|(_, id)| id.clone()).collect();
            this.matrices.entry(plain.clone()).or_insert_with(ids);
        }
        for (name, stages) in &file.groups {
            let Some(name) = StageId::new(name) else { continue };
            let of = |single: &&Single| stages.iter().any(|s| s == single.declared.id.as_str());
            let members = this.stages.iter().filter(of).map(|single| single.id.clone()).collect();
            this.matrices.insert(name.clone(), members);
            this.groups.insert(name);
        }
        this
    }

    /// Whether stages of that name are swept over from outside.
    pub fn is_swept(&self, name: &str) -> bool {
        self.by_plain.contains_key(name)
    }

    /// Of the stages that one of that name became, the one with the values that `single` has.
    pub fn beside(&self, single: &Single, name: &str) -> Option<&StageId> {
        let has = |(swept, _): &&(Map<String, Value>, StageId)| {
            swept.iter().all(|(key, value)| single.values.get(key) == Some(value))
        };
        self.by_plain.get(name)?.iter().find(has).map(|(_, id)| id)
    }

    /// The kind of the stage of that name, if it is known.
    pub fn kind<'k>(&self, stage: &str, kinds: &Kinds<'k>) -> Option<&'k dyn StageKind> {
        kinds.get(self.kinds.get(stage)?).map(|(kind, _)| *kind)
    }

    /// The names that a reference in a stage may have meant: in an included file those of its own
    /// stages, as they are written there, and of the pipeline's.
    pub fn names_for<'s>(&'s self, stage: &StageId) -> Vec<&'s str> {
        let scope = self.file.stage(stage.declared()).and_then(|s| self.file.scope(s.scope));
        let Some(scope) = scope else { return self.names().collect() };
        let written = |single: &'s Single<'a>| -> Option<&'s str> {
            let name = single.id.as_str();
            let own = name.strip_prefix(scope.prefix.as_str());
            own.or(single.declared.scope.is_none().then_some(name))
        };
        self.stages.iter().filter_map(written).collect()
    }

    /// All names that there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().map(|s| s.id.as_str())
    }
}
