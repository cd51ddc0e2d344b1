//! `on:` of a pipeline file: who is told of what happens to any of its stages, and of its end.

use pipe_core::error::Gathered;
use pipe_core::ids::StageId;
use serde_json::Value;

use crate::pipeline_file::layers::{Layer, Origin, StageLayers};
use crate::pipeline_file::params::{Names, filled_value};
use crate::pipeline_file::pipeline::PipelineFile;
use crate::pipeline_file::values::mapping;
use crate::policy::Hooks;

/// What `on:` says, with what the environment and the command line say on top. What is wrong is
/// told and left out.
pub(super) fn read(
    file: &PipelineFile,
    names: Names,
    over: Vec<Layer>,
    errors: &mut Gathered,
) -> Hooks {
    let base = vec!["on".to_owned()];
    let mut layers = Vec::new();
    if let Some(written) = &file.on {
        let filled = filled_value(&file.source, &base, written, names);
        let filled: Option<Value> = errors.take(filled);
        let block = filled.and_then(|value| errors.take(mapping(&file.source, &["on"], value)));
        layers.extend(block.map(|values| {
            let source = file.source.clone();
            Layer { origin: Origin::File { source, base, moved: Vec::new() }, values }
        }));
    }
    layers.extend(over);
    let Some(stage) = StageId::new("on").filter(|_| !layers.is_empty()) else {
        return Hooks::default();
    };
    let mut layers = StageLayers { stage, pipeline: file.source.clone(), layers };
    let read = layers.typed(|_| true, |settings| Ok(settings.extract()?));
    errors.take(read.map_err(|rejection| layers.explain(rejection))).unwrap_or_default()
}
