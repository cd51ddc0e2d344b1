//! Lints of a training's settings, before anything runs: what is legal and probably not meant,
//! and what of several stages does not go together. Knows no files, so what only the images can
//! tell is left to the run.

use pipe_engine::kind::{Diagnostic, PipelineView};
use pipe_runs::policy::Mode;
use serde_json::Value;

use crate::data::{DatasetSettings, Split, batches_per_epoch};
use crate::diffit::ConfigError;
use crate::lora::LoraPlan;
use crate::trainer::{LoraSettings, TrainSettings, TrainingSettings};

/// Adam's usual peak is 1e-3 and less; above this it does not learn.
const HIGH_RATE: f64 = 0.05;
/// Stages between a LoRA training and the base model's, at most; a circle is another check's
/// business.
pub(super) const CHAIN: usize = 16;
/// The number of classes matters for no shape.
const ANY_CLASSES: usize = 1;

/// Lints of every training.
pub(super) fn check_training(
    settings: &TrainingSettings,
    pipeline: &PipelineView,
) -> Vec<Diagnostic> {
    let data = dataset(&settings.dataset, pipeline);
    let policy = &settings.checkpoint;
    let mut found = Vec::new();
    if policy.monitor == "val_loss" && data.as_ref().is_some_and(|d| d.val_split == 0.0) {
        let message =
            format!("is val_loss, and data set `{}` has no validation images", settings.dataset);
        let note = "set its val_split to a share such as 0.1, or monitor train_loss";
        found.push(Diagnostic::error("checkpoint.monitor", message).note(note));
    }
    if policy.mode == Mode::Max {
        let message = format!("the highest {} would be the best checkpoint", policy.monitor);
        found.push(
            Diagnostic::warning("checkpoint.mode", message)
                .note("losses are better when lower: `min`"),
        );
    }
    if !policy.enabled {
        let message =
            "without checkpoints nothing can be resumed, and no other stage can take the model";
        found.push(Diagnostic::warning("checkpoint.enabled", message));
    }
    if policy.enabled && policy.save_every_n_epochs > settings.epochs {
        let message = format!("of {} epochs only the last is saved", settings.epochs);
        found.push(Diagnostic::warning("checkpoint.save_every_n_epochs", message));
    }
    if let Some(every) = settings.sample_every_n_epochs.filter(|n| *n > settings.epochs) {
        let message =
            format!("no image grid is sampled in {} epochs, one every {every}", settings.epochs);
        found.push(Diagnostic::warning("sample_every_n_epochs", message));
    }
    if settings.learning_rate > HIGH_RATE {
        let message = format!("{} is far above what Adam trains with", settings.learning_rate);
        found.push(Diagnostic::warning("learning_rate", message).note("common: 1e-4 to 1e-3"));
    }
    if settings.schedule.depends_on_horizon() && settings.horizon() < settings.epochs {
        let (kind, ends) =
            (format!("{:?}", settings.schedule.kind).to_lowercase(), settings.horizon());
        let rest = match settings.schedule.min_lr_ratio * settings.learning_rate {
            0.0 => "is 0, and nothing is learned any more".to_owned(),
            rate => format!("stays at {rate}"),
        };
        let message = format!(
            "the {kind} schedule ends after epoch {ends} of {}: from then on the learning rate {rest}",
            settings.epochs
        );
        let note = "set schedule_epochs to the most epochs that there may ever be, or schedule.kind: constant";
        found.push(Diagnostic::warning("schedule_epochs", message).note(note));
    }
    if settings.ema.enabled && settings.ema.decay == 1.0 {
        let message = "the mean of the weights would stay at the first ones";
        found.push(Diagnostic::warning("ema.decay", message).note("common: 0.999 to 0.9999"));
    }
    if let Some(images) = data.as_ref().and_then(train_images) {
        if settings.batch_size > images {
            let message =
                format!("{} is more than the {images} training images", settings.batch_size);
            found.push(Diagnostic::warning("batch_size", message));
        }
        let batches_per_epoch = batches_per_epoch(Split::Train, images, settings.batch_size);
        let steps =
            batches_per_epoch.div_ceil(settings.accumulate_grad_batches) as u64 * settings.epochs;
        if settings.schedule.warmup_steps >= steps {
            let message =
                format!("the training has {steps} steps: it would end before the warmup does");
            found.push(Diagnostic::warning("schedule.warmup_steps", message));
        }
    }
    found
}

/// Lints of a model that is trained from its first weights.
pub(super) fn check_model(settings: &TrainSettings, pipeline: &PipelineView) -> Vec<Diagnostic> {
    let mut found = check_label_dropout("model.label_dropout", settings.model.label_dropout);
    if let Some(data) = dataset(&settings.dataset, pipeline)
        && let Err(error) = settings.model.config(data.image_size, ANY_CLASSES).validate()
    {
        found.push(Diagnostic::error(format!("model.{}", key_of(&error)), error.to_string()));
    }
    found
}

/// Lints of a stage that takes a whole model from another one, which a choice among LoRA trainings
/// is not.
pub(super) fn check_whole_model(
    key: &str,
    stage: &str,
    pipeline: &PipelineView,
) -> Vec<Diagnostic> {
    let mut stage = stage.to_owned();
    for _ in 0..CHAIN {
        let Some((kind, settings)) = pipeline.get(&stage) else { break };
        let next = match kind {
            "copy_best" => "from",
            "select_best" => "over",
            "lora" => {
                let message =
                    format!("`{stage}` makes LoRA weights, which are no model without their base");
                let note = "a `sample` stage takes them; `pipe ckpt export --merge` makes a whole model of them";
                return vec![Diagnostic::error(key, message).note(note)];
            }
            _ => break,
        };
        let Some(name) = settings.get(next).and_then(Value::as_str) else { break };
        stage = name.to_owned();
    }
    Vec::new()
}

/// Lints of an adapter.
pub(super) fn check_adapter(settings: &LoraSettings, pipeline: &PipelineView) -> Vec<Diagnostic> {
    let mut found = check_label_dropout("label_dropout", settings.label_dropout);
    found.extend(check_whole_model("base", &settings.base, pipeline));
    let Some((base, base_data)) = base_training(&settings.base, pipeline) else { return found };
    if let Some(data) = dataset(&settings.dataset, pipeline)
        && data.image_size != base_data.image_size
    {
        let (own, theirs) = (data.image_size, base_data.image_size);
        let message =
            format!("its images are {own} x {own} pixels, the base model's {theirs} x {theirs}");
        let note = format!("set image_size of stage `{}` to {theirs}", settings.dataset);
        found.push(Diagnostic::error("dataset", message).note(note));
    }
    let network = base.model.config(base_data.image_size, ANY_CLASSES);
    // What is wrong with the base model is told of its own stage.
    let Ok(model) = network.skeleton(&burn::tensor::Device::flex()) else { return found };
    let plan = match LoraPlan::new(&settings.lora, &model) {
        Ok(plan) => plan,
        Err(error) => {
            found.push(Diagnostic::error(format!("lora.{}", error.key), error.to_string()));
            return found;
        }
    };
    let above = plan.above_full_rank(&model);
    if let Some((path, [outputs, inputs])) = above.first() {
        let more = match above.len() {
            1 => String::new(),
            2 => " and of one other".to_owned(),
            n => format!(" and of {} others", n - 1),
        };
        let rank = plan.ranks.get(path).copied().unwrap_or_default();
        let message =
            format!("rank {rank} is above the size of `{path}` ({outputs} x {inputs}){more}");
        let key = if rank == settings.lora.r { "lora.r" } else { "lora.rank_pattern" };
        let note = format!("above {} there is nothing more to learn", inputs.min(outputs));
        found.push(Diagnostic::warning(key, message).note(note));
    }
    found
}

/// Lints of a choice among the trainings of `over` by a metric of their best checkpoints.
pub(super) fn check_selection(
    over: &str,
    monitor: &str,
    pipeline: &PipelineView,
) -> Vec<Diagnostic> {
    let trainings: Vec<(&str, TrainSettings)> = pipeline
        .each(over)
        .into_iter()
        .filter(|(_, kind, _)| *kind == "train")
        .filter_map(|(id, _, settings)| Some((id, serde_json::from_value(settings).ok()?)))
        .collect();
    let lacks = |training: &TrainSettings| {
        let data = dataset(&training.dataset, pipeline);
        monitor == "val_loss" && data.is_some_and(|data| data.val_split == 0.0)
    };
    let without: Vec<&str> =
        trainings.iter().filter(|(_, t)| lacks(t)).map(|(id, _)| *id).collect();
    let Some(first) = without.first() else { return check_source("over", over, None, pipeline) };
    let note = "set the val_split of its data set to a share such as 0.1, or choose by train_loss";
    let message = if without.len() == trainings.len() {
        format!("is {monitor}, and no training of `{over}` has validation images")
    } else {
        let more = match without.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        let message = format!("`{first}`{more} cannot be chosen: it has no validation images");
        return vec![Diagnostic::warning("monitor", message).note(note)];
    };
    vec![Diagnostic::error("monitor", message).note(note)]
}

/// Lints of a stage that takes a checkpoint of the training `from`; `epoch`: which one, if not the
/// best or the last.
pub(super) fn check_source(
    key: &str,
    from: &str,
    epoch: Option<u64>,
    pipeline: &PipelineView,
) -> Vec<Diagnostic> {
    let Some(("train" | "lora", settings)) = pipeline.get(from) else { return Vec::new() };
    let number = |path: &str| settings.pointer(path).and_then(Value::as_u64);
    if settings.pointer("/checkpoint/enabled") == Some(&Value::Bool(false)) {
        let message = format!("`{from}` keeps no checkpoint that could be taken");
        return vec![
            Diagnostic::error(key, message).note("remove `enabled: false` from its `checkpoint`"),
        ];
    }
    let (Some(epoch), Some(epochs)) = (epoch, number("/epochs")) else { return Vec::new() };
    let every = number("/checkpoint/save_every_n_epochs").unwrap_or(1).max(1);
    if epoch == 0 || epoch > epochs {
        let message = format!("there is no epoch {epoch}: `{from}` has epochs 1 to {epochs}");
        return vec![Diagnostic::error("select", message)];
    }
    if epoch % every != 0 && epoch != epochs {
        let message = format!("`{from}` saves every {every} epochs, and not epoch {epoch}");
        return vec![Diagnostic::error("select", message)];
    }
    Vec::new()
}

fn check_label_dropout(key: &str, share: f64) -> Vec<Diagnostic> {
    if share == 1.0 {
        vec![Diagnostic::warning(key, "no image keeps its label: the classes are never learned")]
    } else {
        Vec::new()
    }
}

/// The settings of a `dataset` stage.
pub(super) fn dataset(stage: &str, pipeline: &PipelineView) -> Option<DatasetSettings> {
    pipeline
        .get(stage)
        .filter(|(kind, _)| *kind == "dataset")
        .and_then(|(_, s)| serde_json::from_value(s).ok())
}

/// The images of an epoch, where the settings tell.
fn train_images(data: &DatasetSettings) -> Option<usize> {
    data.source
        .is_synthetic()
        .then(|| ((data.num_images as f64) * (1.0 - data.val_split)).round() as usize)
}

/// The training that the model of a stage comes from, and its data set.
fn base_training(stage: &str, pipeline: &PipelineView) -> Option<(TrainSettings, DatasetSettings)> {
    let mut stage = stage.to_owned();
    for _ in 0..CHAIN {
        let (kind, settings) = pipeline.get(&stage)?;
        let next = |key: &str| settings.get(key).and_then(Value::as_str).map(str::to_owned);
        stage = match kind {
            "train" => {
                let training: TrainSettings = serde_json::from_value(settings).ok()?;
                let data = dataset(&training.dataset, pipeline)?;
                return Some((training, data));
            }
            "copy_best" => next("from")?,
            "select_best" => next("over")?,
            _ => return None,
        };
    }
    None
}

/// The setting to blame.
fn key_of(error: &ConfigError) -> &'static str {
    match error {
        ConfigError::Zero { key } => key,
        ConfigError::Levels { .. } => "depths",
        ConfigError::Channels { why, .. } if *why == "`heads`" => "heads",
        ConfigError::Channels { .. } | ConfigError::Dim { .. } => "dim",
        ConfigError::Halving { .. } => "mults",
        ConfigError::Window { .. } => "window",
    }
}
