//! JSON schemas for editors, made from the settings' types. `schemas/` holds them; a test fails
//! when they drift.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::kind::StageKind;
use crate::pipeline_file::{self, executor_properties, policy_keys};
use crate::policy::{ExecutionOptions, Slurm};

mod reuse;

/// Every schema by name: `pipeline`, `include` for the files that pipelines include, then one for the
/// config files of each stage kind.
pub fn all(kinds: &[Arc<dyn StageKind>]) -> Vec<(String, Value)> {
    let mut schemas =
        vec![("pipeline".to_owned(), pipeline(kinds)), ("include".to_owned(), included())];
    schemas.extend(kinds.iter().map(|kind| (kind.name().to_owned(), config(kind.as_ref()))));
    for (_, schema) in &mut schemas {
        reuse::allow_merge_keys(schema);
        join_lines(schema);
    }
    schemas
}

/// Makes one line of each paragraph of a description: how the source is wrapped says nothing, and
/// editors show line breaks.
fn join_lines(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "description" => {
                        let paragraphs = text.split("\n\n").map(|text| text.replace('\n', " "));
                        *text = paragraphs.collect::<Vec<_>>().join("\n\n");
                    }
                    value => join_lines(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(join_lines),
        _ => {}
    }
}

/// The text of a schema file.
pub fn to_text(schema: &Value) -> String {
    serde_json::to_string_pretty(schema).unwrap_or_default() + "\n"
}

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Under which the schema of pipeline files is to stand in SchemaStore, for files `*.pipe.yaml`.
const PIPELINE_ID: &str = "https://www.schemastore.org/burn-pipe.json";

/// Pipeline files: the outer form, and one alternative for each kind of stage.
fn pipeline(kinds: &[Arc<dyn StageKind>]) -> Value {
    let mut definitions = Map::new();
    definitions.insert(
        "parameter".into(),
        json!({"type": "string", "pattern": "\\$\\{params\\.", "description": "filled in from `params:`"}),
    );
    definitions.insert("Matrix".into(), pipeline_file::matrix_schema());
    let (conduct, inner) = open(schemars::schema_for!(ExecutionOptions));
    definitions.extend(inner);
    let (jobs, inner) = open(schemars::schema_for!(Slurm));
    definitions.extend(inner);
    let of_jobs = jobs.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut policies = Map::new();
    let mut alternatives = Vec::new();
    let policy_keys = policy_keys(kinds);
    for kind in kinds {
        let (stage, inner) = open(kind.schema());
        definitions.extend(inner);
        let stage = stage_schema(kind.as_ref(), stage, &conduct, &policy_keys, &mut policies);
        alternatives.push(Value::Object(stage));
    }
    let mut properties = json!({
        "name": {"type": "string", "description": "the pipeline's name"},
        "params": {"type": "object", "description": "values for `${params.NAME}`; `--set NAME=VALUE` changes them"},
        "policies": {"type": "object", "additionalProperties": false, "properties": policies,
                     "description": "named blocks that stages refer to"},
        "executor": {"description": "where stages run, and what their jobs get unless they say otherwise",
                     "anyOf": [{"enum": ["local", "slurm"]},
                               {"type": "object", "additionalProperties": false, "properties": executor_properties(of_jobs)}]},
        "store": {"type": "string", "examples": ["s3://bucket/my_project", "file:///mnt/nas/my_project"],
                  "description": "where the state is mirrored while the pipeline runs; `--store` is stronger"},
        "fsync": {"enum": ["full", "data", "off"], "default": "full",
                  "description": "what the disk is asked to keep through a power cut: `full`, files and the folders \
                                  that name them; `data`, files alone: what was saved last can be missing \
                                  afterwards, or be as it was before; `off`, nothing, for scratch and tests"},
        "on": {"$ref": "#/$defs/Hooks",
               "description": "commands and addresses that are told what happens to any stage, besides those of the \
                               stage itself; `end` is told once, at the end of the whole run"},
        "budget": {"type": "string", "examples": ["8h"],
                   "description": "training time of all stages together, shared out evenly among those that train"},
        "until": {"type": "string", "examples": ["07:00"],
                  "description": "when all training has come to its end: `07:00`, `2026-12-01 07:00`, or `walltime`; each \
                                  stage takes its part of the time that is left when it begins"},
        "stages": {"type": "object", "minProperties": 1, "description": "the stages by name",
                   "propertyNames": {"pattern": "^[A-Za-z0-9_-]+$"},
                   "additionalProperties": {"oneOf": alternatives}},
    });
    reuse::add_sections(&mut properties);
    json!({
        "$schema": DIALECT,
        "$id": PIPELINE_ID,
        "title": "pipe pipeline",
        "description": "Stages that are resolved into a graph and run in its order. `pipe check` says what is wrong with one.",
        "examples": [{
            "name": "my_model",
            "stages": {
                "data": {"kind": "dataset", "source": "shapes"},
                "base": {"kind": "train", "dataset": "data", "epochs": 20},
            },
        }],
        "type": "object",
        "additionalProperties": false,
        "patternProperties": reuse::free(),
        "required": ["name"],
        "anyOf": [{"required": ["stages"]}, {"required": ["include"]}],
        "properties": properties,
        "$defs": definitions,
    })
}

/// The schema of a stage of one kind: its own keys, and those that every stage has. What can be a
/// policy is added to `policies`.
fn stage_schema(
    kind: &dyn StageKind,
    mut stage: Map<String, Value>,
    conduct: &Map<String, Value>,
    policy_keys: &[&str],
    policies: &mut Map<String, Value>,
) -> Map<String, Value> {
    let properties = stage.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        if let Some(Value::Object(common)) = conduct.get("properties") {
            properties.extend(common.clone());
        }
        for key in policy_keys {
            if let Some(block) = properties.get_mut(*key) {
                let named = json!({"type": "object", "additionalProperties": block.clone()});
                policies.insert((*key).into(), named);
                *block = json!({"anyOf": [block.clone(), {"type": "string", "description": "a policy's name"}]});
            }
        }
        properties.insert("kind".into(), json!({"const": kind.name()}));
        properties.insert(
            "config".into(),
            json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
                   "description": "config file layered under the keys written here, or several, of which later ones win"}),
        );
        properties.insert("matrix".into(), json!({"$ref": "#/$defs/Matrix"}));
        properties.insert(
            "needs".into(),
            json!({"description": "stages to wait for, besides those that settings refer to",
                   "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
        );
    }
    stage.insert("required".into(), json!(["kind"]));
    stage
}

/// Files that pipelines include.
fn included() -> Value {
    json!({
        "$schema": DIALECT,
        "title": "pipe file that pipelines include",
        "description": "Stages, parameters and policies. `include:` of a pipeline brings them in under longer names.",
        "type": "object",
        "additionalProperties": false,
        "patternProperties": reuse::free(),
        "properties": reuse::of_included(),
    })
}

/// Config files of one kind: its keys, bare or under a single outer `training:`.
fn config(kind: &dyn StageKind) -> Value {
    let (mut settings, mut definitions) = open(kind.schema());
    definitions.insert("parameter".into(), json!({"type": "string", "pattern": "\\$\\{params\\."}));
    settings.remove("required");
    let wrapped = json!({"type": "object", "required": ["training"], "additionalProperties": false,
                         "patternProperties": reuse::free(), "properties": {"training": settings.clone()}});
    settings.insert("patternProperties".into(), reuse::free());
    json!({
        "$schema": DIALECT,
        "title": format!("pipe config of a {} stage", kind.name()),
        "anyOf": [settings, wrapped],
        "$defs": definitions,
    })
}

/// A schema with parameters allowed everywhere, and its definitions apart.
fn open(schema: schemars::Schema) -> (Map<String, Value>, Map<String, Value>) {
    let mut schema = schema.to_value();
    let mut root = schema.as_object_mut().map(std::mem::take).unwrap_or_default();
    root.remove("$schema");
    root.remove("title");
    let definitions = match root.remove("$defs") {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let mut definitions: Map<String, Value> = definitions;
    for definition in definitions.values_mut() {
        allow_parameters(definition);
    }
    let mut root = Value::Object(root);
    allow_parameters(&mut root);
    match root {
        Value::Object(map) => (map, definitions),
        _ => (Map::new(), definitions),
    }
}

/// Lets `${params.x}` stand for every property that is not text already.
fn allow_parameters(schema: &mut Value) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for property in properties.values_mut() {
        allow_parameters(property);
        if property.get("type").and_then(Value::as_str) == Some("string") {
            continue;
        }
        let Some(original) = property.as_object_mut().map(std::mem::take) else { continue };
        let mut outer = Map::new();
        let mut inner = original;
        for key in ["description", "default", "examples", "x-class", "x-instead-of", "x-known-as"] {
            if let Some(value) = inner.remove(key) {
                outer.insert(key.into(), value);
            }
        }
        outer.insert("anyOf".into(), json!([inner, {"$ref": "#/$defs/parameter"}]));
        *property = Value::Object(outer);
    }
}
