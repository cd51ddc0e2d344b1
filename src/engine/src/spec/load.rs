//! From a pipeline file to stages with typed settings: layers, parameters, policies, references.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::SpecError;
use crate::kind::{Stage, StageId, StageKind};
use crate::source::{Part, Source};
use crate::spec::layers::{Layer, Origin, StageLayers};
use crate::spec::overrides::{Override, Strength};
use crate::spec::params::fill;
use crate::spec::pipeline::{PipelineFile, StageDeclaration, error_at, mapping, to_json};

/// Stage keys whose value may be the name of a policy.
pub(crate) const POLICY_KEYS: [&str; 1] = ["checkpoint"];
/// Keys of every stage, whatever its kind.
pub(crate) const COMMON_KEYS: [&str; 3] = ["kind", "config", "needs"];

/// A pipeline with everything filled in and checked.
pub struct LoadedPipeline {
    pub name: String,
    pub source: Source,
    /// In the file's order.
    pub stages: Vec<LoadedStage>,
    /// Legal, and probably not meant.
    pub warnings: Vec<String>,
}

/// A stage with typed settings.
pub struct LoadedStage {
    pub id: StageId,
    pub kind: String,
    pub stage: Arc<dyn Stage>,
    /// What the kind's settings look like, with the class of each.
    pub schema: schemars::Schema,
    /// The stages it needs: the key that says so, and the stage. References first, then `needs`.
    pub needs: Vec<(Vec<String>, StageId)>,
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
    let (params, for_stages) = apply_overrides(&file, kinds, overrides, &mut warnings)?;
    for kind in file.policies.keys() {
        if !POLICY_KEYS.contains(&kind.as_str()) {
            return Err(error_at(&file.source, &["policies", kind], Part::Key, "unknown kind of policy")
                .candidates(kind, POLICY_KEYS));
        }
    }
    let mut stages = Vec::new();
    for declared in &file.stages {
        stages.push(load_stage(root, &file, declared, kinds, &params, &for_stages)?);
    }
    Ok(LoadedPipeline { name: file.name, source: file.source, stages, warnings })
}

/// Overrides for stage settings, by stage, weakest first.
type ByStage = BTreeMap<StageId, Vec<Layer>>;

/// Sorts overrides into parameters and settings of stages.
fn apply_overrides(
    file: &PipelineFile,
    kinds: &[Arc<dyn StageKind>],
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
        let knowing = file.stages.iter().filter(|s| keys_of(kinds, &s.kind).iter().any(|k| k == path[0]));
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
                    names.extend(file.stages.iter().flat_map(|s| keys_of(kinds, &s.kind)));
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

fn keys_of(kinds: &[Arc<dyn StageKind>], kind: &str) -> Vec<String> {
    let schema = kinds.iter().find(|k| k.name() == kind).map(|k| k.schema());
    let properties = schema.as_ref().and_then(|s| s.get("properties")).and_then(Value::as_object);
    properties.map(|p| p.keys().cloned().collect()).unwrap_or_default()
}

fn load_stage(
    root: &Path,
    file: &PipelineFile,
    declared: &StageDeclaration,
    kinds: &[Arc<dyn StageKind>],
    params: &Map<String, Value>,
    overrides: &ByStage,
) -> Result<LoadedStage, SpecError> {
    let id = declared.id.as_str();
    let source = &file.source;
    let Some(kind) = kinds.iter().find(|k| k.name() == declared.kind) else {
        return Err(error_at(
            source,
            &["stages", id, "kind"],
            Part::Value,
            format!("unknown kind `{}`", declared.kind),
        )
        .candidates(&declared.kind, kinds.iter().map(|k| k.name())));
    };

    // The stage's own keys, parameters filled in.
    let base = vec!["stages".to_owned(), id.to_owned()];
    let mut body = filled(source, &base, &declared.body, params)?;
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
        layers.push(config_layer(root, file, id, &config, params)?);
    }
    layers.push(Layer {
        origin: Origin::File { source: source.clone(), base, moved: Vec::new() },
        values: body,
    });
    layers.extend(overrides.get(&declared.id).cloned().unwrap_or_default());
    for layer in &mut layers {
        name_policies(file, params, layer)?;
    }
    let layers = StageLayers { stage: declared.id.clone(), pipeline: source.clone(), layers };

    let stage = kind.resolve(&layers.figment()).map_err(|rejection| layers.explain(rejection))?;
    let needs = resolve_needs(file, &layers, stage.as_ref(), needs_value)?;
    Ok(LoadedStage {
        id: declared.id.clone(),
        kind: declared.kind.clone(),
        stage,
        schema: kind.schema(),
        needs,
    })
}

/// Reads the file named by `config:`. A single outer key `training:` is taken off.
fn config_layer(
    root: &Path,
    file: &PipelineFile,
    stage: &str,
    config: &str,
    params: &Map<String, Value>,
) -> Result<Layer, SpecError> {
    let shown = PathBuf::from(config);
    let source = Source::read(&root.join(&shown), &shown).map_err(|error| {
        let message = format!("failed to read the config file: {error}");
        error_at(&file.source, &["stages", stage, "config"], Part::Value, message)
            .note("the path is relative to the folder in which pipe is started")
    })?;
    let document = source.parse()?;
    let document = to_json(&source, document, &mut Vec::new())?;
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
    let values = filled(&source, &base, &values, params)?;
    Ok(Layer { origin: Origin::File { source, base, moved: Vec::new() }, values })
}

fn filled(
    source: &Source,
    base: &[String],
    values: &Map<String, Value>,
    params: &Map<String, Value>,
) -> Result<Map<String, Value>, SpecError> {
    match fill(&Value::Object(values.clone()), params) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Ok(Map::new()),
        Err(bad) => {
            let path = [base, &bad.path].concat();
            let at = source.locate(&path, Part::Value).or_else(|| source.locate_nearest(&path));
            let error = SpecError::at(source, at, path, bad.message);
            Err(match bad.unknown {
                Some(name) => error.candidates(&name, params.keys().map(String::as_str)),
                None => error,
            })
        }
    }
}

/// Puts a policy's block where its name stands.
fn name_policies(
    file: &PipelineFile,
    params: &Map<String, Value>,
    layer: &mut Layer,
) -> Result<(), SpecError> {
    for key in POLICY_KEYS {
        let Some(Value::String(name)) = layer.values.get(key) else { continue };
        let named = file.policies.get(key).and_then(Value::as_object);
        let Some(block) = named.and_then(|n| n.get(name)).and_then(Value::as_object) else {
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
        let block = filled(&file.source, &path, block, params)?;
        layer.values.insert(key.to_owned(), Value::Object(block));
        if let Origin::File { moved, .. } = &mut layer.origin {
            moved.push((key.to_owned(), file.source.clone(), path));
        }
    }
    Ok(())
}

/// The stages that this one waits for, each checked to exist and to be of a kind that fits.
fn resolve_needs(
    file: &PipelineFile,
    layers: &StageLayers,
    stage: &dyn Stage,
    needs: Option<Value>,
) -> Result<Vec<(Vec<String>, StageId)>, SpecError> {
    let names = || file.stages.iter().map(|s| s.id.as_str());
    let mut resolved = Vec::new();
    for reference in stage.references() {
        let key = vec![reference.key.to_owned()];
        let Some(target) = file.stage(&reference.stage) else {
            return Err(layers
                .error_at(&key, format!("no stage is called `{}`", reference.stage))
                .candidates(&reference.stage, names()));
        };
        if !reference.kinds.contains(&target.kind.as_str()) {
            let message = format!(
                "stage `{}` is of kind `{}`; expected one of kind {}",
                target.id,
                target.kind,
                reference.kinds.join(" or ")
            );
            return Err(layers.error_at(&key, message));
        }
        resolved.push((key, target.id.clone()));
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
        let Some(target) = file.stage(name) else {
            return Err(wrong(format!("no stage is called `{name}`")).candidates(name, names()));
        };
        resolved.push((vec!["needs".into(), index], target.id.clone()));
    }
    Ok(resolved)
}
