//! What settings say about a training before anything runs: what is legal and probably not meant,
//! and what of several stages does not go together. Knows no files, so what only the images can
//! tell is left to the run.

use pipe_engine::kind::{Concern, Others};
use pipe_engine::policy::Mode;
use serde_json::Value;

use crate::data::{DatasetSettings, Source, Split, batches};
use crate::diffit::ConfigError;
use crate::fit::{FitSettings, LoraSettings, TrainSettings};
use crate::lora::Plan;

/// Adam's usual peak is 1e-3 and less; above this it does not learn.
const HIGH_RATE: f64 = 0.05;
/// Stages between a LoRA training and the base model's, at most; a circle is another check's
/// business.
pub(super) const CHAIN: usize = 16;
/// The number of classes matters for no shape.
const ANY_CLASSES: usize = 1;

/// Of all training.
pub(super) fn of_training(fit: &FitSettings, others: &Others) -> Vec<Concern> {
    let data = dataset(&fit.dataset, others);
    let policy = &fit.checkpoint;
    let mut found = Vec::new();
    if policy.monitor == "val_loss" && data.as_ref().is_some_and(|d| d.val_split == 0.0) {
        let message =
            format!("is val_loss, and data set `{}` has no validation images", fit.dataset);
        let note = "set its val_split to a share such as 0.1, or monitor train_loss";
        found.push(Concern::error("checkpoint.monitor", message).note(note));
    }
    if policy.mode == Mode::Max {
        let message = format!("the highest {} would be the best checkpoint", policy.monitor);
        found.push(
            Concern::warning("checkpoint.mode", message)
                .note("losses are better when lower: `min`"),
        );
    }
    if !policy.enabled {
        let message =
            "without checkpoints nothing can be resumed, and no other stage can take the model";
        found.push(Concern::warning("checkpoint.enabled", message));
    }
    if policy.enabled && policy.save_every_n_epochs > fit.epochs {
        let message = format!("of {} epochs only the last is saved", fit.epochs);
        found.push(Concern::warning("checkpoint.save_every_n_epochs", message));
    }
    if let Some(every) = fit.sample_every_n_epochs.filter(|n| *n > fit.epochs) {
        let message = format!("no picture is drawn in {} epochs, one every {every}", fit.epochs);
        found.push(Concern::warning("sample_every_n_epochs", message));
    }
    if fit.learning_rate > HIGH_RATE {
        let message = format!("{} is far above what Adam trains with", fit.learning_rate);
        found.push(Concern::warning("learning_rate", message).note("common: 1e-4 to 1e-3"));
    }
    if fit.schedule.depends_on_horizon() && fit.horizon() < fit.epochs {
        let (kind, ends) = (format!("{:?}", fit.schedule.kind).to_lowercase(), fit.horizon());
        let rest = match fit.schedule.min_lr_ratio * fit.learning_rate {
            0.0 => "is 0, and nothing is learned any more".to_owned(),
            rate => format!("stays at {rate}"),
        };
        let message = format!(
            "the {kind} schedule ends after epoch {ends} of {}: from then on the learning rate {rest}",
            fit.epochs
        );
        let note = "set schedule_epochs to the most epochs that there may ever be, or schedule.kind: constant";
        found.push(Concern::warning("schedule_epochs", message).note(note));
    }
    if fit.ema.enabled && fit.ema.decay == 1.0 {
        let message = "the mean of the weights would stay at the first ones";
        found.push(Concern::warning("ema.decay", message).note("common: 0.999 to 0.9999"));
    }
    if let Some(images) = data.as_ref().and_then(train_images) {
        if fit.batch_size > images {
            let message = format!("{} is more than the {images} training images", fit.batch_size);
            found.push(Concern::warning("batch_size", message));
        }
        let batches = batches(Split::Train, images, fit.batch_size);
        let steps = batches.div_ceil(fit.accumulate_grad_batches) as u64 * fit.epochs;
        if fit.schedule.warmup_steps >= steps {
            let message =
                format!("the training has {steps} steps: it would end before the warmup does");
            found.push(Concern::warning("schedule.warmup_steps", message));
        }
    }
    found
}

/// Of a model that is trained from its first weights.
pub(super) fn of_model(settings: &TrainSettings, others: &Others) -> Vec<Concern> {
    let mut found = of_dropout("model.label_dropout", settings.model.label_dropout);
    if let Some(data) = dataset(&settings.dataset, others)
        && let Err(error) = settings.model.config(data.image_size, ANY_CLASSES).validate()
    {
        found.push(Concern::error(format!("model.{}", key_of(&error)), error.to_string()));
    }
    found
}

/// Of a stage that takes a whole model from another one, which a choice among LoRA trainings is
/// not.
pub(super) fn of_whole_model(key: &str, stage: &str, others: &Others) -> Vec<Concern> {
    let mut stage = stage.to_owned();
    for _ in 0..CHAIN {
        let Some((kind, settings)) = others.get(&stage) else { break };
        let next = match kind {
            "copy_best" => "from",
            "select_best" => "over",
            "lora" => {
                let message =
                    format!("`{stage}` makes LoRA weights, which are no model without their base");
                let note = "a `sample` stage takes them; `pipe ckpt export --merge` makes a whole model of them";
                return vec![Concern::error(key, message).note(note)];
            }
            _ => break,
        };
        let Some(name) = settings.get(next).and_then(Value::as_str) else { break };
        stage = name.to_owned();
    }
    Vec::new()
}

/// Of an adapter.
pub(super) fn of_adapter(settings: &LoraSettings, others: &Others) -> Vec<Concern> {
    let mut found = of_dropout("label_dropout", settings.label_dropout);
    found.extend(of_whole_model("base", &settings.base, others));
    let Some((base, base_data)) = base_training(&settings.base, others) else { return found };
    if let Some(data) = dataset(&settings.dataset, others)
        && data.image_size != base_data.image_size
    {
        let (own, theirs) = (data.image_size, base_data.image_size);
        let message =
            format!("its images are {own} x {own} pixels, the base model's {theirs} x {theirs}");
        let note = format!("set image_size of stage `{}` to {theirs}", settings.dataset);
        found.push(Concern::error("dataset", message).note(note));
    }
    let network = base.model.config(base_data.image_size, ANY_CLASSES);
    // What is wrong with the base model is told of its own stage.
    let Ok(model) = network.skeleton(&burn::tensor::Device::flex()) else { return found };
    let plan = match Plan::new(&settings.lora, &model) {
        Ok(plan) => plan,
        Err(error) => {
            found.push(Concern::error(format!("lora.{}", error.key), error.to_string()));
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
        found.push(Concern::warning(key, message).note(note));
    }
    found
}

/// Of a choice among the trainings of `over` by a figure of their best checkpoints.
pub(super) fn of_choice(over: &str, monitor: &str, others: &Others) -> Vec<Concern> {
    let trainings: Vec<(&str, TrainSettings)> = others
        .each(over)
        .into_iter()
        .filter(|(_, kind, _)| *kind == "train")
        .filter_map(|(id, _, settings)| Some((id, serde_json::from_value(settings).ok()?)))
        .collect();
    let lacks = |training: &TrainSettings| {
        let data = dataset(&training.dataset, others);
        monitor == "val_loss" && data.is_some_and(|data| data.val_split == 0.0)
    };
    let without: Vec<&str> =
        trainings.iter().filter(|(_, t)| lacks(t)).map(|(id, _)| *id).collect();
    let Some(first) = without.first() else { return of_source("over", over, None, others) };
    let note = "set the val_split of its data set to a share such as 0.1, or choose by train_loss";
    let message = match without.len() == trainings.len() {
        true => format!("is {monitor}, and no training of `{over}` has validation images"),
        false => {
            let more = match without.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            let message = format!("`{first}`{more} cannot be chosen: it has no validation images");
            return vec![Concern::warning("monitor", message).note(note)];
        }
    };
    vec![Concern::error("monitor", message).note(note)]
}

/// Of a stage that takes a checkpoint of the training `from`; `epoch`: which one, if not the best
/// or the last.
pub(super) fn of_source(
    key: &str,
    from: &str,
    epoch: Option<u64>,
    others: &Others,
) -> Vec<Concern> {
    let Some(("train" | "lora", settings)) = others.get(from) else { return Vec::new() };
    let number = |path: &str| settings.pointer(path).and_then(Value::as_u64);
    if settings.pointer("/checkpoint/enabled") == Some(&Value::Bool(false)) {
        let message = format!("`{from}` keeps no checkpoint that could be taken");
        return vec![
            Concern::error(key, message).note("remove `enabled: false` from its `checkpoint`"),
        ];
    }
    let (Some(epoch), Some(epochs)) = (epoch, number("/epochs")) else { return Vec::new() };
    let every = number("/checkpoint/save_every_n_epochs").unwrap_or(1).max(1);
    if epoch == 0 || epoch > epochs {
        let message = format!("there is no epoch {epoch}: `{from}` has epochs 1 to {epochs}");
        return vec![Concern::error("select", message)];
    }
    if epoch % every != 0 && epoch != epochs {
        let message = format!("`{from}` saves every {every} epochs, and not epoch {epoch}");
        return vec![Concern::error("select", message)];
    }
    Vec::new()
}

fn of_dropout(key: &str, share: f64) -> Vec<Concern> {
    match share == 1.0 {
        true => {
            vec![Concern::warning(key, "no image keeps its label: the classes are never learned")]
        }
        false => Vec::new(),
    }
}

/// The settings of a `dataset` stage.
pub(super) fn dataset(stage: &str, others: &Others) -> Option<DatasetSettings> {
    others
        .get(stage)
        .filter(|(kind, _)| *kind == "dataset")
        .and_then(|(_, s)| serde_json::from_value(s).ok())
}

/// The images of an epoch, where the settings tell.
fn train_images(data: &DatasetSettings) -> Option<usize> {
    let drawn = matches!(data.source, Source::Shapes | Source::Trees);
    drawn.then(|| ((data.num_images as f64) * (1.0 - data.val_split)).round() as usize)
}

/// The training that the model of a stage comes from, and its data set.
fn base_training(stage: &str, others: &Others) -> Option<(TrainSettings, DatasetSettings)> {
    let mut stage = stage.to_owned();
    for _ in 0..CHAIN {
        let (kind, settings) = others.get(&stage)?;
        let next = |key: &str| settings.get(key).and_then(Value::as_str).map(str::to_owned);
        stage = match kind {
            "train" => {
                let training: TrainSettings = serde_json::from_value(settings).ok()?;
                let data = dataset(&training.dataset, others)?;
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
