//! What random values and `seeds` begin from.

use std::path::Path;

use serde_json::{Map, Value};

use super::reading::DEFAULT_SEED;
use crate::pipeline_file::params::{Used, fill};
use crate::pipeline_file::pipeline::{PipelineFile, StageDeclaration};
use crate::pipeline_file::values::read_document;
use crate::source;

/// The pipeline's seed: its parameter `seed`, if it has one that is a whole number.
pub(crate) fn of_pipeline(params: &Map<String, Value>, used: &Used) -> u64 {
    let seed = params.get("seed").and_then(Value::as_u64);
    if seed.is_some() {
        used.note("params", "seed");
    }
    seed.unwrap_or(DEFAULT_SEED)
}

/// The seed that a stage would have without a matrix: as it is written there or in its config file,
/// else as `schema`, that of its kind, has it, else that of the pipeline. What is wrong with it has its error where the
/// stage is read.
pub(crate) fn of_stage(
    root: &Path,
    file: &PipelineFile,
    schema: Option<&Value>,
    stage: &StageDeclaration,
    used: &Used,
) -> u64 {
    let none = Map::new();
    let names = file.names(stage.scope, &none, used);
    let filled = |value: &Value| fill(value, names).ok();
    let written = |values: &Value| values.get("seed").and_then(&filled).and_then(|v| v.as_u64());
    let in_stage = stage.body.get("seed").and_then(&filled).and_then(|v| v.as_u64());
    let in_config = || {
        let files = filled(stage.body.get("config")?)?;
        let files = files.as_array().map_or_else(|| vec![&files], |files| files.iter().collect());
        files.into_iter().rev().find_map(|file| {
            let path = Path::new(file.as_str()?);
            let document = read_document(&source::read(&root.join(path), path).ok()?).ok()?.values;
            written(document.get("training").unwrap_or(&document))
        })
    };
    let property = schema.and_then(|schema| schema.get("properties")?.get("seed"));
    let of_kind = || property?.get("default")?.as_u64();
    in_stage.or_else(in_config).or_else(of_kind).unwrap_or_else(|| of_pipeline(&file.params, used))
}
