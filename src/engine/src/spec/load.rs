//! From a pipeline file to stages with typed settings: layers, parameters, policies, references.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::SpecError;
use crate::identity::{self, Manifest};
use crate::kind::{Counts, Files, Stage, StageId, StageKind};
use crate::parallel;
use crate::policy::Conduct;
use crate::source::{Part, Source};
use crate::spec::layers::{Layer, Origin, StageLayers};
use crate::spec::matrix::{self, Member};
use crate::spec::overrides::{Override, Strength};
use crate::spec::params::{Names, fill};
use crate::spec::pipeline::{PipelineFile, StageDeclaration, error_at, mapping, read_document};

/// Stage keys whose value may be the name of a policy.
pub(crate) const POLICY_KEYS: [&str; 4] = ["checkpoint", "retry", "timeout", "resume"];
/// Keys of every stage that say how it is carried out: those of [`Conduct`].
pub(crate) const CONDUCT_KEYS: [&str; 5] = ["retry", "timeout", "on_failure", "resume", "resources"];
/// Further keys of every stage, whatever its kind.
pub(crate) const COMMON_KEYS: [&str; 4] = ["kind", "config", "needs", "matrix"];

/// A pipeline with everything filled in and checked.
pub struct LoadedPipeline {
    pub name: String,
    pub source: Source,
    /// In the file's order.
    pub stages: Vec<LoadedStage>,
    /// Legal, and probably not meant.
    pub warnings: Vec<String>,
    /// The stages that came of each declared one with a `matrix`.
    pub(crate) matrices: BTreeMap<StageId, Vec<StageId>>,
}

/// A stage with typed settings.
pub struct LoadedStage {
    pub id: StageId,
    pub kind: String,
    pub stage: Arc<dyn Stage>,
    /// What its own settings decide.
    pub manifest: Manifest,
    pub conduct: Conduct,
    /// What other stages hand to it.
    pub inputs: Vec<Input>,
    /// Files of the project that it reads and writes.
    pub files: Files,
    /// The stages it needs: the key that says so, and the stage. References first, then `needs`, then those that make
    /// its files.
    pub needs: Vec<(Vec<String>, StageId)>,
}

/// Something that another stage hands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The setting's key; with the stage's name behind it where the setting may name several.
    pub name: String,
    pub stage: StageId,
    pub counts: Counts,
}

/// Reads and checks the pipeline file `path`. Relative paths inside it belong to `root`, the project's folder.
pub fn load(
    root: &Path,
    path: &Path,
    kinds: &[Arc<dyn StageKind>],
    overrides: &[Override],
) -> Result<LoadedPipeline, SpecError> {
    let source = Source::read(&root.join(path), path)?;
    let file = PipelineFile::parse(source)?;
    let mut warnings = Vec::new();
    let kinds = Kinds(kinds.iter().map(|k| (k.name(), (k.as_ref(), k.schema()))).collect());
    let (params, for_stages) = apply_overrides(&file, &kinds, overrides, &mut warnings)?;
    for kind in file.policies.keys() {
        if !POLICY_KEYS.contains(&kind.as_str()) {
            return Err(error_at(&file.source, &["policies", kind], Part::Key, "unknown kind of policy")
                .candidates(kind, POLICY_KEYS));
        }
    }
    let declared = Declared::of(&file, &params)?;
    let loading = Loading { root, file: &file, kinds: &kinds, params: &params, overrides: &for_stages };
    let stages = parallel::map(&declared.stages, |one| loading.stage(one, &declared));
    let mut stages = stages.into_iter().collect::<Result<Vec<_>, _>>()?;
    connect_files(&file.source, &mut stages)?;
    let matrices = declared.matrices;
    Ok(LoadedPipeline { name: file.name, source: file.source, stages, warnings, matrices })
}

/// Stage kinds by name, each with its schema, which takes a while to make.
struct Kinds<'a>(BTreeMap<&'static str, (&'a dyn StageKind, schemars::Schema)>);

impl Kinds<'_> {
    /// The settings of a kind.
    fn keys(&self, kind: &str) -> impl Iterator<Item = &String> {
        let schema = self.0.get(kind).map(|(_, schema)| schema);
        let properties = schema.and_then(|s| s.get("properties")).and_then(Value::as_object);
        properties.into_iter().flat_map(|p| p.keys())
    }
}

/// One stage to load.
struct Single<'a> {
    id: StageId,
    declared: &'a StageDeclaration,
    /// Its values in the matrix, by keys as written there.
    values: Map<String, Value>,
}

/// The stages of a file, matrices unfolded.
struct Declared<'a> {
    stages: Vec<Single<'a>>,
    matrices: BTreeMap<StageId, Vec<StageId>>,
    /// The kind of each stage, by its name.
    kinds: HashMap<StageId, &'a str>,
}

impl<'a> Declared<'a> {
    fn of(file: &'a PipelineFile, params: &Map<String, Value>) -> Result<Self, SpecError> {
        let mut this = Self { stages: Vec::new(), matrices: BTreeMap::new(), kinds: HashMap::new() };
        for declared in &file.stages {
            let members = match declared.body.get("matrix") {
                None => vec![Member { id: declared.id.clone(), values: Map::new() }],
                Some(matrix) => {
                    let at = ["stages", declared.id.as_str(), "matrix"].map(str::to_owned);
                    let names = Names { params, matrix: &Map::new() };
                    let matrix = filled_value(&file.source, &at, matrix, names)?;
                    let members = matrix::members(&file.source, &declared.id, &matrix)?;
                    let ids = members.iter().map(|m| m.id.clone()).collect();
                    this.matrices.insert(declared.id.clone(), ids);
                    members
                }
            };
            for Member { id, values } in members {
                this.kinds.insert(id.clone(), &declared.kind);
                this.stages.push(Single { id, declared, values });
            }
        }
        Ok(this)
    }

    /// All names that a reference may use.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().map(|s| s.id.as_str())
    }
}

/// Adds what follows from files: a stage needs the one that makes a file that it reads.
fn connect_files(source: &Source, stages: &mut [LoadedStage]) -> Result<(), SpecError> {
    let mut makers: BTreeMap<PathBuf, StageId> = BTreeMap::new();
    for stage in stages.iter() {
        for (key, path) in &stage.files.writes {
            let path: PathBuf = path.components().collect();
            if let Some(other) = makers.insert(path.clone(), stage.id.clone())
                && other != stage.id
            {
                let at = ["stages", stage.id.declared(), key];
                let message = format!("{} is written by stage `{other}` too", path.display());
                return Err(error_at(source, &at, Part::Value, message));
            }
        }
    }
    if makers.is_empty() {
        return Ok(());
    }
    for stage in stages.iter_mut() {
        for (key, pattern) in &stage.files.reads {
            for maker in makers_of(pattern, &makers) {
                if *maker != stage.id && !stage.needs.iter().any(|(_, id)| id == maker) {
                    stage.needs.push((vec![key.clone()], maker.clone()));
                }
            }
        }
    }
    Ok(())
}

/// The stages that make what a path or pattern means: the file itself, a folder around it, or files inside it.
fn makers_of<'a>(pattern: &str, makers: &'a BTreeMap<PathBuf, StageId>) -> Vec<&'a StageId> {
    let is_plain = |c: &Component| !c.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let plain: PathBuf = Path::new(pattern).components().take_while(is_plain).collect();
    if let Some(maker) = plain.ancestors().find_map(|folder| makers.get(folder)) {
        return vec![maker];
    }
    let whole = Path::new(pattern).components().all(|c| is_plain(&c));
    let matcher = glob::Pattern::new(pattern).ok();
    let matches = |path: &Path| whole || matcher.as_ref().is_some_and(|m| m.matches_path(path));
    let inside = makers.range(plain.clone()..).take_while(|(path, _)| path.starts_with(&plain));
    inside.filter(|(path, _)| matches(path)).map(|(_, maker)| maker).collect()
}

/// Overrides for stage settings, by stage, weakest first.
type ByStage = BTreeMap<StageId, Vec<Layer>>;

/// Sorts overrides into parameters and settings of stages.
fn apply_overrides(
    file: &PipelineFile,
    kinds: &Kinds,
    overrides: &[Override],
    warnings: &mut Vec<String>,
) -> Result<(Map<String, Value>, ByStage), SpecError> {
    let mut params = file.params.clone();
    let mut by_stage = ByStage::new();
    for given in overrides {
        let path: Vec<&str> = given.key.split('.').collect();
        let param_path = if path[0] == "params" { &path[1..] } else { &path[..] };
        if param_path.first().is_some_and(|p| params.contains_key(*p)) && file.stage(path[0]).is_none() {
            merge(&mut params, given.nested(param_path));
            continue;
        }
        let layer = |path: &[&str]| Layer {
            origin: Origin::Outside { shown: given.shown.clone() },
            values: given.nested(path),
        };
        if let (Some(stage), true) = (file.stage(path[0]), path.len() > 1) {
            by_stage.entry(stage.id.clone()).or_default().push(layer(&path[1..]));
            continue;
        }
        let knowing = file.stages.iter().filter(|s| kinds.keys(&s.kind).any(|k| k == path[0]));
        let mut known = false;
        for stage in knowing {
            by_stage.entry(stage.id.clone()).or_default().push(layer(&path));
            known = true;
        }
        if !known {
            let message =
                format!("{}: no parameter, stage or setting is called `{}`", given.shown, given.key);
            match given.strength {
                Strength::Environment => warnings.push(format!("{message}; ignored")),
                Strength::CommandLine => {
                    let mut names: Vec<String> = params.keys().cloned().collect();
                    names.extend(file.stages.iter().map(|s| format!("{}.KEY", s.id)));
                    names.extend(file.stages.iter().flat_map(|s| kinds.keys(&s.kind)).cloned());
                    names.sort();
                    names.dedup();
                    return Err(
                        SpecError::plain(message).candidates(path[0], names.iter().map(String::as_str))
                    );
                }
            }
        }
    }
    Ok((params, by_stage))
}

/// Lays `over` on `base`, mapping by mapping.
fn merge(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// What loading a stage looks at.
struct Loading<'a> {
    root: &'a Path,
    file: &'a PipelineFile,
    kinds: &'a Kinds<'a>,
    params: &'a Map<String, Value>,
    overrides: &'a ByStage,
}

impl Loading<'_> {
    /// The values of a matrix that are settings of the stage. The others must stand somewhere in it as `${matrix.…}`.
    fn settings_of(&self, single: &Single) -> Result<Map<String, Value>, SpecError> {
        let mut settings = Map::new();
        for (key, value) in &single.values {
            let first = key.split('.').next().unwrap_or_default();
            if self.kinds.keys(&single.declared.kind).any(|k| k == first) {
                settings.insert(key.clone(), value.clone());
            } else if !Value::Object(single.declared.body.clone())
                .to_string()
                .contains(&format!("${{matrix.{key}}}"))
            {
                let at = ["stages", single.declared.id.as_str(), "matrix", key];
                let message = "neither a setting of the stage nor used in it";
                return Err(error_at(&self.file.source, &at, Part::Key, message)
                    .note(format!("write `${{matrix.{key}}}` where the value belongs"))
                    .candidates(key, self.kinds.keys(&single.declared.kind).map(String::as_str)));
            }
        }
        Ok(settings)
    }

    fn stage(&self, single: &Single, all: &Declared) -> Result<LoadedStage, SpecError> {
        let Loading { root, file, kinds, params, overrides } = self;
        let declared = single.declared;
        let id = declared.id.as_str();
        let source = &file.source;
        let Some((kind, schema)) = kinds.0.get(declared.kind.as_str()) else {
            return Err(error_at(
                source,
                &["stages", id, "kind"],
                Part::Value,
                format!("unknown kind `{}`", declared.kind),
            )
            .candidates(&declared.kind, kinds.0.keys().copied()));
        };

        // The stage's own keys, parameters filled in.
        let base = vec!["stages".to_owned(), id.to_owned()];
        let names = Names { params, matrix: &single.values };
        let own = declared.body.iter().filter(|(key, _)| *key != "matrix");
        let mut body = filled(source, &base, own, names)?;
        let needs_value = body.remove("needs");
        let config = body.remove("config");

        // Layers, weakest first: config file, stage, environment and command line.
        let mut layers = Vec::new();
        if let Some(config) = config {
            let Value::String(config) = config else {
                return Err(error_at(
                    source,
                    &["stages", id, "config"],
                    Part::Value,
                    "expected the path of a config file",
                ));
            };
            layers.push(config_layer(root, file, id, &config, names)?);
        }
        layers.push(Layer {
            origin: Origin::File { source: source.clone(), base, moved: Vec::new() },
            values: body,
        });
        layers.extend(overrides.get(&declared.id).cloned().unwrap_or_default());
        if !single.values.is_empty() {
            let base = ["stages", id, "matrix"].map(str::to_owned).to_vec();
            layers.push(Layer {
                origin: Origin::File { source: source.clone(), base, moved: Vec::new() },
                values: matrix::nested(self.settings_of(single)?),
            });
        }
        for layer in &mut layers {
            name_policies(file, names, layer)?;
        }
        let layers = StageLayers { stage: declared.id.clone(), pipeline: source.clone(), layers };

        let of_conduct = |key: &str| CONDUCT_KEYS.contains(&key);
        let stage = kind.resolve(&layers.figment(|key| !of_conduct(key)));
        let stage = stage.map_err(|rejection| layers.explain(rejection))?;
        let conduct = match layers.layers.iter().any(|l| l.values.keys().any(|k| of_conduct(k))) {
            true => layers.figment(of_conduct).extract().map_err(|e| layers.explain(e.into()))?,
            false => Conduct::default(),
        };
        let (inputs, needs) = resolve_needs(file, &layers, stage.as_ref(), needs_value, all)?;
        let files = stage.files();
        let manifest = identity::of_settings(&declared.kind, stage.as_ref(), schema);
        Ok(LoadedStage {
            id: single.id.clone(),
            kind: declared.kind.clone(),
            stage,
            manifest,
            conduct,
            inputs,
            files,
            needs,
        })
    }
}

/// Reads the file named by `config:`. A single outer key `training:` is taken off.
fn config_layer(
    root: &Path,
    file: &PipelineFile,
    stage: &str,
    config: &str,
    names: Names,
) -> Result<Layer, SpecError> {
    let shown = PathBuf::from(config);
    let source = Source::read(&root.join(&shown), &shown).map_err(|error| {
        let message = format!("failed to read the config file: {error}");
        error_at(&file.source, &["stages", stage, "config"], Part::Value, message)
            .note("the path is relative to the folder in which pipe is started")
    })?;
    let (document, _) = read_document(&source)?;
    let mut values = match document {
        Value::Null => Map::new(),
        other => mapping(&source, &[], other)?,
    };
    let mut base = Vec::new();
    if values.len() == 1
        && let Some(inner) = values.remove("training")
    {
        values = mapping(&source, &["training"], inner)?;
        base.push("training".to_owned());
    }
    for key in COMMON_KEYS {
        if values.contains_key(key) {
            let path: Vec<&str> = base.iter().map(String::as_str).chain([key]).collect();
            return Err(error_at(
                &source,
                &path,
                Part::Key,
                format!("`{key}` belongs into the pipeline file"),
            ));
        }
    }
    let values = filled(&source, &base, &values, names)?;
    Ok(Layer { origin: Origin::File { source, base, moved: Vec::new() }, values })
}

fn filled<'a>(
    source: &Source,
    base: &[String],
    values: impl IntoIterator<Item = (&'a String, &'a Value)>,
    names: Names,
) -> Result<Map<String, Value>, SpecError> {
    let one = |(key, value): (&'a String, &'a Value)| {
        let at = [base, std::slice::from_ref(key)].concat();
        Ok((key.clone(), filled_value(source, &at, value, names)?))
    };
    values.into_iter().map(one).collect()
}

fn filled_value(source: &Source, base: &[String], value: &Value, names: Names) -> Result<Value, SpecError> {
    fill(value, names).map_err(|bad| {
        let path = [base, &bad.path].concat();
        let at = source.locate(&path, Part::Value).or_else(|| source.locate_nearest(&path));
        let error = SpecError::at(source, at, path, bad.message);
        match bad.unknown {
            Some(name) => {
                error.candidates(&name, names.params.keys().chain(names.matrix.keys()).map(String::as_str))
            }
            None => error,
        }
    })
}

/// Puts a policy where its name stands.
fn name_policies(file: &PipelineFile, names: Names, layer: &mut Layer) -> Result<(), SpecError> {
    for key in POLICY_KEYS {
        let Some(Value::String(name)) = layer.values.get(key) else { continue };
        let named = file.policies.get(key).and_then(Value::as_object);
        let Some(policy) = named.and_then(|n| n.get(name)) else {
            if is_a_value_by_itself(key, name) {
                continue;
            }
            let message = format!("no policy `{name}` under `policies.{key}`");
            let error = match &layer.origin {
                Origin::Outside { shown } => SpecError::plain(format!("{shown}: {message}")),
                Origin::File { source, base, .. } => {
                    let path: Vec<&str> = base.iter().map(String::as_str).chain([key]).collect();
                    error_at(source, &path, Part::Value, message)
                }
            };
            return Err(error.candidates(name, named.into_iter().flat_map(|n| n.keys()).map(String::as_str)));
        };
        let path = vec!["policies".to_owned(), key.to_owned(), name.clone()];
        let policy = filled_value(&file.source, &path, policy, names)?;
        layer.values.insert(key.to_owned(), policy);
        if let Origin::File { moved, .. } = &mut layer.origin {
            moved.push((key.to_owned(), file.source.clone(), path));
        }
    }
    Ok(())
}

/// A time limit begins with a digit, and resuming has its own words; other names are those of policies.
fn is_a_value_by_itself(key: &str, text: &str) -> bool {
    match key {
        "timeout" => text.trim_start().starts_with(|c: char| c.is_ascii_digit()),
        "resume" => ["auto", "never", "must"].contains(&text),
        _ => false,
    }
}

/// A key of a stage and the stage that it names.
type Needs = Vec<(Vec<String>, StageId)>;

/// What is handed to a stage and what it waits for, each checked to exist and to be of a kind that fits.
fn resolve_needs(
    file: &PipelineFile,
    layers: &StageLayers,
    stage: &dyn Stage,
    needs: Option<Value>,
    all: &Declared,
) -> Result<(Vec<Input>, Needs), SpecError> {
    let (mut inputs, mut resolved) = (Vec::new(), Vec::new());
    for reference in stage.references() {
        let key = vec![reference.key.to_owned()];
        let members = all.matrices.get(reference.stage.as_str());
        let targets: Vec<&StageId> = match (members, all.kinds.get_key_value(reference.stage.as_str())) {
            (Some(members), _) if reference.many => members.iter().collect(),
            (Some(members), _) => {
                let names: Vec<&str> = members.iter().map(StageId::as_str).collect();
                let error = layers.error_at(
                    &key,
                    format!(
                        "stage `{}` is a matrix of {} stages; one is needed here",
                        reference.stage,
                        names.len()
                    ),
                );
                return Err(error
                    .note("name one of them, or take the best with a stage `{kind: select_best, over: …}`")
                    .candidates("", names));
            }
            (None, Some((id, _))) => vec![id],
            (None, None) => {
                return Err(layers
                    .error_at(&key, format!("no stage is called `{}`", reference.stage))
                    .candidates(&reference.stage, all.names()));
            }
        };
        for target in targets {
            let kind = all.kinds.get(target).copied().unwrap_or_default();
            if !reference.kinds.contains(&kind) {
                let kinds = reference.kinds.join(" or ");
                let message = format!("stage `{target}` is of kind `{kind}`; expected one of kind {kinds}");
                return Err(layers.error_at(&key, message));
            }
            let name = match reference.many {
                true => format!("{}.{target}", reference.key),
                false => reference.key.to_owned(),
            };
            inputs.push(Input { name, stage: target.clone(), counts: reference.counts });
            resolved.push((key.clone(), target.clone()));
        }
    }
    let list = match needs {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(one)) => vec![Value::String(one)],
        Some(Value::Array(list)) => list,
        Some(_) => {
            return Err(layers.error_at(&["needs".into()], "expected a stage's name or a list of names"));
        }
    };
    for (index, item) in list.iter().enumerate() {
        let id = layers.stage.as_str();
        let index = index.to_string();
        let wrong =
            |message: String| error_at(&file.source, &["stages", id, "needs", &index], Part::Value, message);
        let Value::String(name) = item else { return Err(wrong("expected a stage's name".into())) };
        let key = vec!["needs".to_owned(), index.clone()];
        if let Some(members) = all.matrices.get(name.as_str()) {
            resolved.extend(members.iter().map(|m| (key.clone(), m.clone())));
        } else if let Some((target, _)) = all.kinds.get_key_value(name.as_str()) {
            resolved.push((key, target.clone()));
        } else {
            return Err(wrong(format!("no stage is called `{name}`")).candidates(name, all.names()));
        }
    }
    Ok((inputs, resolved))
}
