//! `then`: settings that a training has from an epoch on.

use figment::Figment;
use figment::value::{Dict, Value};
use pipe_engine::kind::Rejection;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::precision::Precision;
use super::schedule::ScheduleKind;
use crate::diffusion::Times;

/// Declares the entries of `then` of a stage: its own keys, then those that all training has.
macro_rules! entries {
    ($(#[$about:meta])* $name:ident { $($(#[$note:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The last epoch with the settings before it: what is trained after this epoch has those
            /// of this entry.
            #[schemars(range(min = 1), example = 20)]
            pub from: u64,
            $($(#[$note])*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub $field: Option<$kind>,)*
            /// Peak learning rate.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(example = 1e-4)]
            pub learning_rate: Option<f64>,
            /// Images in one batch.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1))]
            pub batch_size: Option<usize>,
            /// Batches whose gradients are averaged before one optimizer step.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1))]
            pub accumulate_grad_batches: Option<usize>,
            /// Of the optimizer; its kind stays.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub optimizer: Option<OptimizerChange>,
            /// Of the schedule. Steps are counted from the first one of the training.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub schedule: Option<ScheduleChange>,
            /// Largest norm of all gradients together; null switches clipping off.
            #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
            #[schemars(with = "Option<f64>")]
            pub gradient_clip_val: Option<Option<f64>>,
            /// Of the EMA weights.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub ema: Option<EmaChange>,
            /// Number format of the forward and backward pass.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub precision: Option<Precision>,
        }
    };
}

entries! {
    /// Settings of a `train` stage from an epoch on. What is not given stays as it was.
    TrainEntry {
        /// Of the model; what decides its weights stays.
        model: ModelChange,
        /// Of what the network is asked to learn; what its output means stays.
        objective: ObjectiveChange,
    }
}

entries! {
    /// Settings of a `lora` stage from an epoch on. What is not given stays as it was.
    LoraEntry {
        /// Share of images that are trained without their label.
        label_dropout: f64,
        /// Of the factors; what decides their shapes stays.
        lora: LoraChange,
    }
}

/// Declares a block of settings of which some can change.
macro_rules! change {
    ($(#[$about:meta])* $name:ident { $($(#[$note:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$note])*
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $field: Option<$kind>,)*
        }
    };
}

change! {
    /// What of an optimizer can change.
    OptimizerChange {
        /// Decay of the moving averages of gradients and squared gradients.
        betas: [f64; 2],
        /// Added to the denominator.
        eps: f64,
        /// Decoupled for AdamW, added to the gradient for Adam.
        weight_decay: f64,
    }
}

change! {
    /// What of a schedule can change: all of it.
    ScheduleChange {
        kind: ScheduleKind,
        /// Optimizer steps in which the rate rises from 0 to its peak.
        warmup_steps: u64,
        /// Where `cosine`, `linear` and `constant_then_decay` end, as a share of the peak.
        min_lr_ratio: f64,
        /// Of `inverse_sqrt`: the optimizer step from which on the rate falls.
        reference_steps: u64,
        /// Of `constant_then_decay`: the share of all epochs in which the rate falls.
        decay_share: f64,
    }
}

change! {
    /// What of the EMA weights can change.
    EmaChange {
        /// Share of the old average kept at each step.
        decay: f64,
    }
}

change! {
    /// What of a model can change.
    ModelChange {
        /// Share of images that are trained without their label.
        label_dropout: f64,
        /// Share of the features that is dropped in training.
        dropout: f64,
    }
}

change! {
    /// What of an objective can change.
    ObjectiveChange {
        /// Of `flow`: how the times of training are drawn.
        times: Times,
        /// Of `edm` and of times that are `logit_normal`: mean of ln σ in training.
        p_mean: f64,
        /// Of the same: standard deviation of ln σ in training.
        p_std: f64,
        /// Weighs the squared error of the denoised image with 1 / σ², this at most.
        min_snr_gamma: f64,
    }
}

change! {
    /// What of LoRA's factors can change.
    LoraChange {
        /// Share of their inputs that is dropped in training.
        lora_dropout: f64,
    }
}

/// A setting whose null is a value.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

const WHOLE: &str =
    "it is one for all epochs of the training, so no entry changes it: set it beside `then`";
const WITHOUT_EFFECT: &str =
    "it changes no bit of the training, so no entry needs it: set it beside `then`";
const HELD: &str = "it decides what all epochs of the training are made of, or what its checkpoints hold, so no entry \
                    can change it: that is another training, which `init` can begin with the weights of this one";

/// Settings of stages that no entry changes, each with the reason.
const FIXED: [(&str, &str); 24] = [
    ("epochs", WHOLE),
    ("schedule_epochs", WHOLE),
    ("max_steps", WHOLE),
    ("max_time", WHOLE),
    ("early_stopping", WHOLE),
    ("checkpoint", WHOLE),
    ("seed", HELD),
    ("dataset", HELD),
    ("init", HELD),
    ("base", HELD),
    ("optimizer.kind", HELD),
    ("ema.enabled", HELD),
    ("ema.lengths", HELD),
    ("objective.kind", HELD),
    ("objective.sigma_data", HELD),
    ("ema.snapshot_every_n_epochs", WITHOUT_EFFECT),
    ("num_workers", WITHOUT_EFFECT),
    ("device", WITHOUT_EFFECT),
    ("devices", WITHOUT_EFFECT),
    ("experiment_name", WITHOUT_EFFECT),
    ("log_every_n_steps", WITHOUT_EFFECT),
    ("sample_every_n_epochs", WITHOUT_EFFECT),
    ("sample_every_n_steps", WITHOUT_EFFECT),
    ("validate_every_n_steps", WITHOUT_EFFECT),
];

/// Blocks whose keys are an architecture's or LoRA's own, with those that an entry changes.
const MOSTLY_FIXED: [(&str, &[&str]); 2] =
    [("model", &["label_dropout", "dropout"]), ("lora", &["lora_dropout"])];

/// Refuses settings of the stage that no entry changes, with the reason.
pub(super) fn refuse_fixed(layers: &Figment) -> Result<(), Rejection> {
    let Ok(Value::Array(_, entries)) = layers.find_value("then") else { return Ok(()) };
    for (number, entry) in entries.iter().enumerate() {
        let Value::Dict(_, entry) = entry else { continue };
        let refuse = |key: &str, why: &str| {
            Err(Rejection::value(format!("then.{number}.{key}"), why.to_owned()))
        };
        if let Some((key, why)) = FIXED.iter().find(|(key, _)| has(entry, key)) {
            return refuse(key, why);
        }
        for (block, free) in MOSTLY_FIXED {
            let Some(Value::Dict(_, given)) = entry.get(block) else { continue };
            if let Some(key) = given.keys().find(|key| !free.contains(&key.as_str())) {
                let names = free.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
                let text =
                    format!("of `{block}` an entry changes {} alone: {HELD}", names.join(" and "));
                return refuse(&format!("{block}.{key}"), &text);
            }
        }
    }
    Ok(())
}

fn has(entry: &Dict, key: &str) -> bool {
    match key.split_once('.') {
        Some((block, key)) => {
            matches!(entry.get(block), Some(Value::Dict(_, given)) if given.contains_key(key))
        }
        None => entry.contains_key(key),
    }
}
