//! The settings of the stages that train. What a change of each one means stands beside it as
//! `x-class`; without one it is `identity`: another experiment.

use figment::Figment;
use pipe_engine::kind::Rejection;
use pipe_engine::policy::{Moment, Span, Until};
use pipe_runs::policy::{CheckpointPolicy, EarlyStopping};
use pipe_trainer::{StoppingRules, UNLIMITED};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ema_settings::EmaSettings;
use super::init_settings::{self, InitForms, InitSettings};
pub use super::optimizer_settings::{OptimizerKind, OptimizerSettings};
use super::precision::Precision;
use super::schedule::Schedule;
use super::then::{LoraEntry, TrainEntry, refuse_fixed};
pub use crate::architecture::ModelSettings;
use crate::architecture::{Architectures, SettingsError};
use crate::device::{DeviceList, DeviceSpec};
use crate::diffusion::Objective;
use crate::lora::LoraConfig;

/// Declares the settings of a stage that trains: its own keys, then those that all training has.
///
/// One list for all of them, so that a key means the same everywhere. (`#[serde(flatten)]` would
/// share a struct, and lose the places in the file from every message.)
macro_rules! training_settings {
    ($(#[$about:meta])* $name:ident { $($(#[$note:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$note])* pub $field: $kind,)*
            /// The `dataset` stage to train on.
            #[schemars(example = &"data")]
            pub dataset: String,
            /// A checkpoint whose weights a new training begins with, at epoch 0: a stage or a file,
            /// or `{from: STAGE, weights: ema, optimizer: false}`. It counts by its content.
            // The content of the checkpoint and what is taken of it count (`derived`), not its name.
            #[serde(default, deserialize_with = "init_settings::read")]
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(with = "Option<InitForms>", extend("x-class" = "runtime"))]
            #[schemars(example = &"base")]
            #[schemars(extend("x-known-as" = ["init_weights", "pretrained", "finetune_from"]))]
            pub init: Option<InitSettings>,
            /// Name shown in the list of runs; the pipeline's name if unset.
            #[serde(default)]
            #[schemars(extend("x-class" = "runtime"))]
            #[schemars(example = &"flowers_64")]
            pub experiment_name: Option<String>,
            /// Total number of passes over the training images, not "more". With `max_steps` alone
            /// there may be any number.
            #[serde(default = "default_epochs", skip_serializing_if = "is_unlimited")]
            #[schemars(range(min = 1), extend("x-class" = "extend"))]
            #[schemars(example = 20)]
            #[schemars(extend("x-known-as" = ["num_epochs", "max_epochs", "num_train_epochs", "n_epochs"]))]
            pub epochs: u64,
            /// Epochs over which the schedule runs, when `epochs` may grow later; `epochs` if
            /// unset.
            #[serde(default)]
            #[schemars(extend("x-class" = "extend"))]
            pub schedule_epochs: Option<u64>,
            /// Optimizer steps in all, after which the training ends, inside an epoch too. With `epochs`
            /// besides, what is reached first ends it.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1), extend("x-class" = "extend"))]
            #[schemars(example = 100_000)]
            pub max_steps: Option<u64>,
            /// Ends the training when a metric gets no better.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(extend("x-class" = "extend"))]
            pub early_stopping: Option<EarlyStopping>,
            /// Training time in all, `30m` or `2h`, after which the training ends and is saved.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(extend("x-class" = "extend"))]
            #[schemars(example = &"2h")]
            pub max_time: Option<Span>,
            /// Training time in all, `30m` or `8h`, in which the training comes to its end: a
            /// `constant_then_decay` schedule falls in time. Without `epochs` there are as many as fit.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(extend("x-class" = "extend"))]
            #[schemars(example = &"8h")]
            pub budget: Option<Span>,
            /// The same by the clock: `07:00`, `2026-12-01 07:00`, or `walltime` for the end of the
            /// job of Slurm.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(extend("x-class" = "extend"))]
            #[schemars(example = &"07:00")]
            pub until: Option<Until>,
            /// Images in one batch.
            #[serde(default = "default_batch_size")]
            #[schemars(range(min = 1))]
            #[schemars(extend("x-known-as" = ["bs", "train_batch_size", "per_device_train_batch_size"]))]
            pub batch_size: usize,
            /// Batches whose gradients are averaged before one optimizer step.
            #[serde(default = "one")]
            #[schemars(range(min = 1))]
            #[schemars(extend("x-known-as" = ["gradient_accumulation_steps", "accumulation_steps", "grad_accum"]))]
            pub accumulate_grad_batches: usize,
            /// Threads that prepare batches ahead of the step; 0 prepares them in the loop itself.
            #[serde(default = "default_workers")]
            #[schemars(extend("x-class" = "runtime"))]
            #[schemars(extend("x-known-as" = ["workers", "dataloader_num_workers"]))]
            pub num_workers: usize,
            /// Peak learning rate.
            #[serde(default = "default_learning_rate")]
            #[schemars(example = 1e-3)]
            #[schemars(example = 3e-4)]
            #[schemars(extend("x-known-as" = ["lr", "max_lr", "peak_lr"]))]
            pub learning_rate: f64,
            #[serde(default)]
            pub optimizer: OptimizerSettings,
            #[serde(default)]
            #[schemars(extend("x-known-as" = ["scheduler", "lr_scheduler", "lr_scheduler_type"]))]
            pub schedule: Schedule,
            /// Largest norm of all gradients together; longer ones are scaled down. Null switches
            /// clipping off.
            #[serde(default = "default_clip")]
            #[schemars(extend("x-known-as" = ["max_grad_norm", "grad_clip", "clip_grad_norm", "gradient_clip"]))]
            pub gradient_clip_val: Option<f64>,
            #[serde(default)]
            pub ema: EmaSettings,
            /// Number format of the forward and backward pass; weights stay in f32.
            #[serde(default)]
            #[schemars(extend("x-known-as" = ["dtype", "mixed_precision"]))]
            pub precision: Precision,
            /// Seed of everything random in this stage.
            #[serde(default = "default_seed")]
            #[schemars(extend("x-known-as" = ["random_seed", "seed_everything"]))]
            pub seed: u64,
            /// Where to compute: `auto`, `cpu`, `gpu`, `gpu:N`.
            #[serde(default)]
            #[schemars(extend("x-class" = "runtime"))]
            pub device: DeviceSpec,
            /// Several devices that share each batch, in the place of `device`: `[0, 1]` for two
            /// GPUs, or `all`.
            #[serde(default)]
            #[schemars(extend("x-class" = "runtime", "x-instead-of" = "device"))]
            #[schemars(extend("x-known-as" = ["gpus", "num_gpus"]))]
            pub devices: Option<DeviceList>,
            /// Optimizer steps between two lines of the logs.
            #[serde(default = "default_log_interval")]
            #[schemars(range(min = 1), extend("x-class" = "runtime"))]
            #[schemars(extend("x-known-as" = ["logging_steps", "log_interval"]))]
            pub log_every_n_steps: u64,
            /// Epochs between two image grids `samples/epoch_NNN.png`; null draws none.
            #[serde(default)]
            #[schemars(range(min = 1), extend("x-class" = "runtime"))]
            #[schemars(example = 5)]
            #[schemars(extend("x-known-as" = ["sample_every", "sample_interval"]))]
            pub sample_every_n_epochs: Option<u64>,
            /// Optimizer steps between two image grids `samples/step_NNNNNNNN.png`, inside epochs
            /// too; null draws none. They change nothing of the training.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1), extend("x-class" = "runtime"))]
            #[schemars(example = 1000)]
            #[schemars(extend("x-known-as" = ["sample_steps"]))]
            pub sample_every_n_steps: Option<u64>,
            /// Optimizer steps between two validations inside an epoch, for the logs; each epoch's
            /// end is validated besides. They change nothing of the training.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1), extend("x-class" = "runtime"))]
            #[schemars(example = 1000)]
            #[schemars(extend("x-known-as" = ["val_check_interval", "eval_steps", "validation_steps"]))]
            pub validate_every_n_steps: Option<u64>,
            #[serde(default)]
            pub checkpoint: CheckpointPolicy,
        }

        impl $name {
            /// The settings that layers give. `max_steps` without `epochs` is all that ends it.
            pub fn of_layers(layers: &Figment) -> Result<Self, Rejection> {
                refuse_fixed(layers)?;
                let mut settings: Self = layers.extract()?;
                let is_ended = settings.max_steps.is_some() || settings.is_ended_by_time();
                if is_ended && layers.find_value("epochs").is_err() {
                    settings.epochs = UNLIMITED;
                }
                Ok(settings)
            }

            /// The settings as they decide a training without `then`: what does nothing beside the
            /// others is the default.
            pub fn deciding(&self) -> Self {
                Self { ema: self.ema.deciding(), schedule: self.schedule.deciding(), ..self.clone() }
            }

            /// Whether it ends in time wherever it runs.
            fn is_ended_by_time(&self) -> bool {
                self.budget.is_some() || self.until.is_some_and(|until| until.moment != Moment::Walltime)
            }

            /// What all training has.
            pub fn training_settings(&self) -> TrainingSettings {
                let s = self.clone();
                TrainingSettings {
                    dataset: s.dataset,
                    init: s.init,
                    experiment_name: s.experiment_name,
                    epochs: s.epochs,
                    schedule_epochs: s.schedule_epochs,
                    max_steps: s.max_steps,
                    early_stopping: s.early_stopping,
                    max_time: s.max_time,
                    budget: s.budget,
                    until: s.until,
                    batch_size: s.batch_size,
                    accumulate_grad_batches: s.accumulate_grad_batches,
                    num_workers: s.num_workers,
                    learning_rate: s.learning_rate,
                    optimizer: s.optimizer,
                    schedule: s.schedule,
                    gradient_clip_val: s.gradient_clip_val,
                    ema: s.ema,
                    precision: s.precision,
                    seed: s.seed,
                    device: s.device,
                    devices: s.devices,
                    log_every_n_steps: s.log_every_n_steps,
                    sample_every_n_epochs: s.sample_every_n_epochs,
                    sample_every_n_steps: s.sample_every_n_steps,
                    validate_every_n_steps: s.validate_every_n_steps,
                    checkpoint: s.checkpoint,
                }
                .keeping_stable_epoch()
            }
        }
    };
}

training_settings! {
    /// What all training has, whatever is trained.
    TrainingSettings {}
}

training_settings! {
    /// Trains a model on a data set, in a numbered run.
    TrainSettings {
        /// Settings that change on the way: a list of entries, each with the epoch after which it
        /// counts. Trainings share the epochs up to the first entry that differs.
        // What changes in which epoch counts (`derived`), as far as the training goes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("x-class" = "runtime"))]
        then: Vec<TrainEntry>,
        #[serde(default)]
        model: ModelSettings,
        /// What the network is asked to learn; EDM's objective unless set. Losses compare within
        /// one objective alone.
        #[serde(default, skip_serializing_if = "is_default")]
        #[schemars(extend("x-known-as" = ["prediction_type", "parameterization", "loss_type"]))]
        objective: Objective,
    }
}

training_settings! {
    /// Fine-tunes a trained model with low-rank adapters (LoRA), in a numbered run.
    LoraSettings {
        /// Settings that change on the way: a list of entries, each with the epoch after which it
        /// counts. Trainings share the epochs up to the first entry that differs.
        // What changes in which epoch counts (`derived`), as far as the training goes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(extend("x-class" = "runtime"))]
        then: Vec<LoraEntry>,
        /// The stage whose model is fine-tuned: any that makes checkpoints of whole models.
        #[schemars(example = &"best")]
        base: String,
        #[serde(default)]
        lora: LoraConfig,
        /// Share of images that are trained without their label, for classifier-free guidance.
        #[serde(default = "default_label_dropout")]
        #[schemars(range(min = 0.0, max = 1.0))]
        label_dropout: f64,
    }
}

impl TrainSettings {
    /// Fills in what depends on the architecture, and refuses what is another one's.
    pub fn resolved(self, known: &Architectures) -> Result<Self, Rejection> {
        Ok(Self { model: self.model.resolved(known).map_err(rejection)?, ..self })
    }

    /// Refuses values that cannot work, naming the key.
    pub fn validate(&self) -> Result<(), Rejection> {
        Rejection::unless("model.label_dropout", is_share(self.model.label_dropout), SHARE)?;
        Rejection::unless(
            "model.dropout",
            (0.0..1.0).contains(&self.model.dropout),
            "a share of the features, from 0 to below 1",
        )?;
        self.objective
            .validate()
            .map_err(|e| Rejection::value(format!("objective.{}", e.key), e.message))?;
        let training = self.training_settings();
        training.validate_then(self.then.is_empty())?;
        training.validate()
    }
}

impl LoraSettings {
    /// Refuses values that cannot work, naming the key. The names of projections are those of the
    /// `known` architectures.
    pub fn validate(&self, known: &Architectures) -> Result<(), Rejection> {
        self.lora.validate(known).map_err(rejection)?;
        Rejection::unless("label_dropout", is_share(self.label_dropout), SHARE)?;
        let training = self.training_settings();
        training.validate_then(self.then.is_empty())?;
        training.validate()
    }
}

/// What the settings of a model refuse, for the stage that has them.
fn rejection(error: SettingsError) -> Rejection {
    match error {
        SettingsError::Form(error) => Rejection::Form(error),
        SettingsError::Value { key, message } => Rejection::Value { key, message },
    }
}

pub(super) const SHARE: &str = "a share between 0 and 1";

pub(super) fn is_share(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
}

impl TrainingSettings {
    /// What ends the training before its last epoch.
    pub fn stopping(&self) -> StoppingRules {
        let Self { early_stopping, max_steps, max_time, checkpoint, .. } = self;
        StoppingRules::of(early_stopping.as_ref(), *max_steps, *max_time, checkpoint)
            .within(self.limits())
    }

    /// With the checkpoint kept from which on a training of another length is another one.
    fn keeping_stable_epoch(mut self) -> Self {
        self.checkpoint.keep_epochs = self.stable_epochs().into_iter().collect();
        self
    }

    /// Where to compute, the main device first.
    pub fn devices(&self) -> DeviceList {
        self.devices.clone().unwrap_or_else(|| DeviceList::These(vec![self.device]))
    }

    /// GPUs that `devices` names.
    pub fn gpus(&self) -> u32 {
        self.devices.as_ref().map_or(0, |list| u32::try_from(list.gpus()).unwrap_or(u32::MAX))
    }
}

/// A setting that came later than others stands in no record and no identity as long as it changes
/// nothing.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_unlimited(epochs: &u64) -> bool {
    *epochs == UNLIMITED
}

fn default_epochs() -> u64 {
    10
}

fn default_batch_size() -> usize {
    32
}

fn default_workers() -> usize {
    1
}

fn default_learning_rate() -> f64 {
    1e-3
}

fn default_seed() -> u64 {
    42
}

fn default_log_interval() -> u64 {
    10
}

fn one() -> usize {
    1
}

fn default_label_dropout() -> f64 {
    0.1
}

fn default_clip() -> Option<f64> {
    Some(1.0)
}
