//! Lints of an image grid's settings, before anything is sampled: classes that get no image,
//! guidance that changes nothing.

use pipe_engine::kind::{Diagnostic, PipelineView};
use serde_json::Value;

use super::lint::{CHAIN, dataset};
use super::sample::SampleSettings;
use crate::sampling::ineffective_guidance;
use crate::trainer::{LoraSettings, TrainSettings};

/// What is known of a model from the settings that it is trained with.
#[derive(Debug, Clone, Copy, PartialEq)]
struct KnownModel {
    /// 0 for one without classes; `None` where only the images tell.
    classes: Option<usize>,
    label_dropout: f64,
}

/// Lints of a `sample` stage.
pub(super) fn check_sample(settings: &SampleSettings, pipeline: &PipelineView) -> Vec<Diagnostic> {
    let model = model(&settings.from, pipeline);
    let mut found = Vec::new();
    let named = settings.classes.as_ref().map(Vec::len).filter(|count| *count > 0);
    if let Some(asked) = named.or(model.and_then(|m| m.classes))
        && settings.n < asked
    {
        let n = settings.n;
        let message = format!("{n} images for {asked} classes: the last {} get none", asked - n);
        let note = format!("set n to {asked} or more, or name the classes to sample in `classes`");
        found.push(Diagnostic::warning("n", message).note(note));
    }
    if let Some(KnownModel { classes, label_dropout }) = model
        && let Some(message) = ineffective_guidance(settings.guidance, classes, Some(label_dropout))
    {
        found.push(Diagnostic::warning("guidance", message));
    }
    found
}

/// The model that a stage hands on.
fn model(stage: &str, pipeline: &PipelineView) -> Option<KnownModel> {
    let mut stage = stage.to_owned();
    let mut adapters: Vec<LoraSettings> = Vec::new();
    for _ in 0..CHAIN {
        let (kind, settings) = pipeline.get(&stage)?;
        let next = |key: &str| settings.get(key).and_then(Value::as_str).map(str::to_owned);
        stage = match kind {
            "train" => {
                let training: TrainSettings = serde_json::from_value(settings).ok()?;
                let classes = if training.model.class_conditional {
                    dataset(&training.dataset, pipeline).and_then(|data| data.class_count())
                } else {
                    Some(0)
                };
                let base = KnownModel { classes, label_dropout: training.model.label_dropout };
                return Some(
                    adapters
                        .iter()
                        .rev()
                        .fold(base, |base, adapter| adapted(base, adapter, pipeline)),
                );
            }
            "lora" => {
                let adapter: LoraSettings = serde_json::from_value(settings).ok()?;
                let base = adapter.base.clone();
                adapters.push(adapter);
                base
            }
            "copy_best" => next("from")?,
            "select_best" => next("over")?,
            _ => return None,
        };
    }
    None
}

/// An adapter is for the classes of its own data set. What the base has learned without labels
/// stays.
fn adapted(base: KnownModel, adapter: &LoraSettings, pipeline: &PipelineView) -> KnownModel {
    let classes = match base.classes {
        Some(0) => Some(0),
        _ => dataset(&adapter.dataset, pipeline).and_then(|data| data.class_count()),
    };
    KnownModel { classes, label_dropout: base.label_dropout.max(adapter.label_dropout) }
}
