//! What the schemas say of merge keys, free keys, included files and profiles.

use serde_json::{Map, Value, json};

use crate::pipeline_file::{OF_INCLUDED, OF_PROFILES};

/// Keys at the top of a file that may hold anything.
pub fn free() -> Value {
    json!({"^x-": {"description": "free for anchors; means nothing by itself"}})
}

/// Adds `include` and `profiles` to the properties of a pipeline.
pub fn add_sections(properties: &mut Value) {
    let reference = |section: &str| json!({"$ref": format!("#/properties/{section}")});
    let mut profile = Map::new();
    for section in OF_PROFILES {
        // A profile has some keys of a stage.
        let stages = json!({"type": "object", "additionalProperties": {"type": "object"},
                            "description": "keys of stages that the file has"});
        let schema = if section == "stages" { stages } else { reference(section) };
        profile.insert(section.into(), schema);
    }
    properties["include"] = json!({
        "type": "object",
        "description": "files whose stages, parameters and policies come in under longer names: stage `base` of the file \
                        that is included as `small` is `small_base`",
        "examples": [{"small": {"file": "parts/train.yaml", "params": {"epochs": 3}}}],
        "propertyNames": {"pattern": "^[A-Za-z0-9_-]+$"},
        "additionalProperties": {"anyOf": [
            {"type": "string", "description": "the file, relative to the project's folder"},
            {"type": "object", "additionalProperties": false, "required": ["file"], "properties": {
                "file": {"type": "string", "description": "the file, relative to the project's folder"},
                "params": {"type": "object", "description": "values for its parameters; those of which it says nothing have to be given"},
            }},
        ]},
    });
    properties["profiles"] = json!({
        "type": "object",
        "description": "layers over this file by name; `--profile NAME` chooses one",
        "additionalProperties": {"type": ["object", "null"], "additionalProperties": false, "properties": profile},
    });
}

/// The properties of an included file.
pub fn of_included() -> Value {
    let of_pipelines =
        |section: &&str| json!({"$ref": format!("pipeline.schema.json#/properties/{section}")});
    let mut properties: Map<String, Value> =
        OF_INCLUDED.iter().map(|key| ((*key).to_owned(), of_pipelines(key))).collect();
    properties.insert(
        "params".into(),
        json!({"type": "object", "description": "values for `${params.NAME}` in this file; one without a value has to be given"}),
    );
    Value::Object(properties)
}

/// Lets `<<` stand in every mapping that takes some keys alone.
pub fn allow_merge_keys(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.values_mut().for_each(allow_merge_keys);
            if let Some(Value::String(pattern)) =
                map.get_mut("propertyNames").and_then(|names| names.get_mut("pattern"))
            {
                *pattern = format!("{pattern}|^<<$");
            }
            if map.get("additionalProperties").is_none_or(|more| *more == Value::Bool(true)) {
                return;
            }
            let properties = map.entry("properties").or_insert_with(|| json!({}));
            if let Some(properties) = properties.as_object_mut() {
                properties.insert("<<".into(), json!({"type": ["object", "array"], "description": "mappings whose keys count here too, the earlier ones first"}));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(allow_merge_keys),
        _ => {}
    }
}
