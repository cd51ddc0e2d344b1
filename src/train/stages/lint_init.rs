//! Lints of `init`, before anything is trained: whether the stage that it names makes weights that
//! fit.

use pipe_engine::kind::{Diagnostic, PipelineView};

use super::artifacts::CheckpointPreview;
use super::init::{KEY, OTHER_MODEL, other_network};
use super::lint::{check_is_readable, check_source, no_whole_model};
use crate::architecture::ModelConfig;
use crate::trainer::{InitWeights, TrainingSettings};

/// Lints of the weights that a training begins with. `factors`: LoRA's are trained. `network`: what
/// is trained, or LoRA's base.
pub(super) fn check_init(
    settings: &TrainingSettings,
    factors: bool,
    network: Option<&ModelConfig>,
    pipeline: &PipelineView,
) -> Vec<Diagnostic> {
    let Some(init) = &settings.init else { return Vec::new() };
    let mut found = Vec::new();
    if init.optimizer && init.weights == InitWeights::Ema && settings.ema.enabled {
        let message =
            "the optimizer's state was gathered along the weights, not along their average";
        found.push(
            Diagnostic::warning("init.optimizer", message).note("`weights: raw` goes with it"),
        );
    }
    let Some(stage) = init.stage() else { return found };
    found.extend(check_is_readable(KEY, stage, pipeline));
    found.extend(check_source(KEY, stage, None, pipeline));
    let Some(source) = pipeline.preview::<CheckpointPreview>(stage) else { return found };
    match source.is_adapter {
        Some(true) if !factors => {
            let (message, note) = no_whole_model(stage);
            found.push(Diagnostic::error(KEY, message).note(note));
        }
        Some(false) if factors => {
            let message = format!("`{stage}` makes whole models, not LoRA weights");
            found.push(Diagnostic::error(KEY, message).note("name it as `base`"));
        }
        _ => {}
    }
    let theirs = source.model.as_ref().and_then(|model| model.network.as_ref());
    if let Some(why) = theirs.zip(network).and_then(|(theirs, ours)| other_network(theirs, ours)) {
        found.push(Diagnostic::error(KEY, format!("`{stage}` {why}")).note(OTHER_MODEL));
    }
    found
}
