//! What settings say about a picture before anything is drawn: classes that get no image, guidance
//! that changes nothing.

use pipe_engine::kind::{Concern, Others};
use serde_json::Value;

use super::concerns::{CHAIN, dataset};
use super::sample::SampleSettings;
use crate::fit::{LoraSettings, TrainSettings};
use crate::sample::guidance_in_vain;

/// What is known of a model from the settings that it is trained with.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Known {
    /// 0 for one without classes; `None` where only the images tell.
    classes: Option<usize>,
    label_dropout: f64,
}

/// Of a `sample` stage.
pub(super) fn of_sample(settings: &SampleSettings, others: &Others) -> Vec<Concern> {
    let model = model(&settings.from, others);
    let mut found = Vec::new();
    let named = settings.classes.as_ref().map(Vec::len).filter(|count| *count > 0);
    if let Some(asked) = named.or(model.and_then(|m| m.classes))
        && settings.n < asked
    {
        let n = settings.n;
        let message = format!("{n} images for {asked} classes: the last {} get none", asked - n);
        let note = format!("set n to {asked} or more, or name the classes to draw in `classes`");
        found.push(Concern::warning("n", message).note(note));
    }
    if let Some(Known { classes, label_dropout }) = model
        && let Some(message) = guidance_in_vain(settings.guidance, classes, Some(label_dropout))
    {
        found.push(Concern::warning("guidance", message));
    }
    found
}

/// The model that a stage hands on.
fn model(stage: &str, others: &Others) -> Option<Known> {
    let mut stage = stage.to_owned();
    let mut adapters: Vec<LoraSettings> = Vec::new();
    for _ in 0..CHAIN {
        let (kind, settings) = others.get(&stage)?;
        let next = |key: &str| settings.get(key).and_then(Value::as_str).map(str::to_owned);
        stage = match kind {
            "train" => {
                let training: TrainSettings = serde_json::from_value(settings).ok()?;
                let classes = match training.model.class_conditional {
                    true => dataset(&training.dataset, others).and_then(|data| data.class_count()),
                    false => Some(0),
                };
                let base = Known { classes, label_dropout: training.model.label_dropout };
                return Some(
                    adapters
                        .iter()
                        .rev()
                        .fold(base, |base, adapter| adapted(base, adapter, others)),
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
fn adapted(base: Known, adapter: &LoraSettings, others: &Others) -> Known {
    let classes = match base.classes {
        Some(0) => Some(0),
        _ => dataset(&adapter.dataset, others).and_then(|data| data.class_count()),
    };
    Known { classes, label_dropout: base.label_dropout.max(adapter.label_dropout) }
}
