//! Lints of a training's settings, before anything runs: what is legal and probably not meant,
//! and what of several stages does not go together. Knows no files, so what only the images can
//! tell is left to the run.

use std::collections::BTreeSet;

use pipe_core::number_text::counted;
use pipe_engine::kind::{Diagnostic, PipelineView};
use pipe_engine::policy::{Better, Halving};
use pipe_runs::policy::{CheckpointPolicy, Mode, metric};
use pipe_trainer::following::judged_metric;
use pipe_trainer::{lint_mode, lint_patience};

use super::artifacts::{CheckpointPreview, JudgePreview, ProgramPreview, SavedEpochs};
use super::lint_selection::check_judged_metric;
use crate::architecture::{Architectures, ConfigError};
use crate::data::{DatasetSettings, PublishedSplit};
use crate::evaluate::NEAREST;
use crate::lora::LoraPlan;
use crate::trainer::{LoraSettings, TrainSettings, TrainingSettings};

/// Adam's usual peak is 1e-3 and less; above this it does not learn.
const HIGH_RATE: f64 = 0.05;
/// The number of classes matters for no shape.
pub(super) const ANY_CLASSES: usize = 1;

/// What trainings of this crate report, the second where there are validation images.
const METRICS: [&str; 2] = ["train_loss", VAL_LOSS];
pub(super) const VAL_LOSS: &str = "val_loss";

/// The metrics that a training on this data can report.
fn reported(data: Option<&DatasetSettings>) -> BTreeSet<String> {
    let is_validated = data.is_none_or(|data| data.val_split > 0.0);
    let names = METRICS.into_iter().filter(|name| is_validated || *name != VAL_LOSS);
    names.map(str::to_owned).collect()
}

/// Lints of every training.
pub(super) fn check_training(
    settings: &TrainingSettings,
    pipeline: &PipelineView,
) -> Vec<Diagnostic> {
    let data = pipeline.preview::<DatasetSettings>(&settings.dataset);
    let policy = &settings.checkpoint;
    let mut found = Vec::new();
    if data.as_ref().is_some_and(|data| data.split == PublishedSplit::Test) {
        let message = format!("data set `{}` is of test images", settings.dataset);
        let note = "a training needs `split: train`; an `evaluate` stage takes test images";
        found.push(Diagnostic::error("dataset", message).note(note));
    }
    match judged_metric(&policy.monitor) {
        Some((stage, metric)) => found.extend(check_judged(stage, metric, policy.mode, pipeline)),
        None => found.extend(check_own_monitor(settings, data.as_deref())),
    }
    found.extend(check_early_stopping(settings, data.as_deref()));
    if settings.validate_every_n_steps.is_some() {
        let key = "validate_every_n_steps";
        let found_none = check_is_validated(key, "is set", settings, data.as_deref());
        found
            .extend(found_none.map(|found| found.note("set its val_split to a share such as 0.1")));
    }
    if !policy.enabled {
        let message =
            "without checkpoints nothing can be resumed, and no other stage can take the model";
        found.push(Diagnostic::warning("checkpoint.enabled", message));
    }
    if policy.enabled && policy.save_every_n_epochs > settings.epochs {
        let message = format!("of {} only the last is saved", counted(settings.epochs, "epoch"));
        found.push(Diagnostic::warning("checkpoint.save_every_n_epochs", message));
    }
    if let Some(every) = settings.sample_every_n_epochs.filter(|n| *n > settings.epochs) {
        let message = format!(
            "no image grid is sampled in {}, one every {every}",
            counted(settings.epochs, "epoch")
        );
        found.push(Diagnostic::warning("sample_every_n_epochs", message));
    }
    if settings.learning_rate > HIGH_RATE {
        let message = format!("{} is far above what Adam trains with", settings.learning_rate);
        found.push(Diagnostic::warning("learning_rate", message).note("common: 1e-4 to 1e-3"));
    }
    if settings.schedule.depends_on_horizon()
        && let Some(ends) = settings.horizon().filter(|ends| *ends < settings.epochs)
    {
        let kind = settings.schedule.kind.name();
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
    if let Some(images) = data.as_deref().and_then(train_images) {
        if settings.batch_size > images {
            let message =
                format!("{} is more than the {images} training images", settings.batch_size);
            found.push(Diagnostic::warning("batch_size", message));
        }
        let steps = settings.steps_per_epoch(images).saturating_mul(settings.epochs);
        let steps = settings.max_steps.map_or(steps, |max| steps.min(max));
        if settings.schedule.warmup_steps >= steps {
            let message =
                format!("the training has {steps} steps: it would end before the warmup does");
            found.push(Diagnostic::warning("schedule.warmup_steps", message));
        }
    }
    found
}

/// Lints of what ends a training that gets no better.
fn check_early_stopping(
    settings: &TrainingSettings,
    data: Option<&DatasetSettings>,
) -> Vec<Diagnostic> {
    let (Some(rule), policy) = (&settings.early_stopping, &settings.checkpoint) else {
        return Vec::new();
    };
    let monitor = rule.monitor.as_ref().unwrap_or(&policy.monitor);
    if judged_metric(monitor).is_some() {
        let message = format!(
            "{monitor} is found out beside the training, which would end sooner or later by that"
        );
        let note = "set early_stopping.monitor to train_loss or val_loss";
        return vec![Diagnostic::error("early_stopping.monitor", message).note(note)];
    }
    let mut found: Vec<_> =
        check_monitor("early_stopping.monitor", monitor, settings, data).into_iter().collect();
    if rule.mode == Some(Mode::Max) {
        let message = format!("the training would end once {monitor} does not rise any more");
        let note = "losses are better when lower: `min`";
        found.push(Diagnostic::warning("early_stopping.mode", message).note(note));
    }
    found.extend(lint_patience(rule, settings.epochs));
    found
}

/// Lints the metric that a training chooses its best checkpoint by, where that is its own.
fn check_own_monitor(
    settings: &TrainingSettings,
    data: Option<&DatasetSettings>,
) -> Vec<Diagnostic> {
    let CheckpointPolicy { monitor, mode, .. } = &settings.checkpoint;
    let found = check_monitor("checkpoint.monitor", monitor, settings, data);
    let highest = (*mode == Mode::Max).then(|| {
        let message = format!("the highest {monitor} would be the best checkpoint");
        Diagnostic::warning("checkpoint.mode", message).note("losses are better when lower: `min`")
    });
    found.into_iter().chain(highest).collect()
}

/// Lints a metric that a stage finds out about each checkpoint.
fn check_judged(stage: &str, metric: &str, mode: Mode, pipeline: &PipelineView) -> Vec<Diagnostic> {
    if pipeline.each_preview::<JudgePreview>(stage).is_empty() {
        // What is wrong with the stage is told by the engine, which knows whom it judges.
        return Vec::new();
    }
    if let Some(missing) = check_judged_metric("checkpoint.monitor", metric, stage, pipeline) {
        return vec![missing];
    }
    // Pictures that are very near to images were learned by heart, and far ones are poor.
    let has_a_better_side = metric != NEAREST;
    if mode == Mode::Max && has_a_better_side && !metric::is_better_when_higher(metric) {
        let message = format!("the highest {stage}.{metric} would be the best checkpoint");
        return vec![
            Diagnostic::warning("checkpoint.mode", message).note("better when lower: `min`"),
        ];
    }
    lint_mode("checkpoint.mode", &format!("{stage}.{metric}"), mode).into_iter().collect()
}

/// Refuses a stage that keeps one checkpoint where each of a training is to be looked at.
pub(super) fn check_is_trained(
    key: &str,
    from: &str,
    pipeline: &PipelineView,
) -> Option<Diagnostic> {
    let source = pipeline.preview::<CheckpointPreview>(from)?;
    let message = format!("`{from}` has one checkpoint, and none for each epoch");
    let note = "name the stage that trains, or leave each_checkpoint out";
    source.saved.is_none().then(|| Diagnostic::error(key, message).note(note))
}

/// Lints the metric by which trainings are halved.
pub(super) fn check_halving(
    settings: &TrainingSettings,
    halving: &Halving,
    pipeline: &PipelineView,
) -> Vec<Diagnostic> {
    let Halving { monitor, mode, .. } = halving;
    let data = pipeline.preview::<DatasetSettings>(&settings.dataset);
    let found = check_monitor("halving.monitor", monitor, settings, data.as_deref());
    let highest = (*mode == Better::Max).then(|| {
        let message = format!("those with the highest {monitor} would go on");
        Diagnostic::warning("halving.mode", message).note("losses are better when lower: `min`")
    });
    found.into_iter().chain(highest).collect()
}

/// Refuses a metric that the training does not report.
fn check_monitor(
    key: &str,
    monitor: &str,
    settings: &TrainingSettings,
    data: Option<&DatasetSettings>,
) -> Option<Diagnostic> {
    if monitor == VAL_LOSS {
        let found = check_is_validated(key, "is val_loss", settings, data)?;
        return Some(found.note("set its val_split to a share such as 0.1, or monitor train_loss"));
    }
    let error = metric::find(monitor, METRICS, "the training reports").err()?;
    Some(Diagnostic::error(key, error))
}

/// Refuses a setting that needs validation images where there are none.
fn check_is_validated(
    key: &str,
    what: &str,
    settings: &TrainingSettings,
    data: Option<&DatasetSettings>,
) -> Option<Diagnostic> {
    let none = data.is_some_and(|data| data.val_split == 0.0);
    let message = format!("{what}, and data set `{}` has no validation images", settings.dataset);
    none.then(|| Diagnostic::error(key, message))
}

/// Lints of a model that is trained from its first weights.
pub(super) fn check_model(
    settings: &TrainSettings,
    known: &Architectures,
    pipeline: &PipelineView,
) -> Vec<Diagnostic> {
    let mut found = check_label_dropout("model.label_dropout", settings.model.label_dropout);
    if let Some(data) = pipeline.preview::<DatasetSettings>(&settings.dataset)
        && let Ok(config) = settings.model.config(known, data.image_size, ANY_CLASSES)
        && let Err(error) = config.validate()
    {
        let wrong = Diagnostic::error(format!("model.{}", error.key()), error.to_string());
        let is_of_size = matches!(error, ConfigError::Halving { .. } | ConfigError::Window { .. });
        let set = || format!("`image_size` is set in stage `{}`", settings.dataset);
        found.push(if is_of_size { wrong.note(set()) } else { wrong });
    }
    found
}

/// Why a stage that makes LoRA's weights is none to train from, and what to do about it.
pub(super) fn no_whole_model(stage: &str) -> (String, String) {
    let message = format!("`{stage}` makes LoRA weights, which are no model without their base");
    let note = format!(
        "put a stage `{{kind: copy_best, from: {stage}, merge: true, to: …}}` between the two: it makes a whole model \
         of them"
    );
    (message, note)
}

/// What the settings that all training has tell of its checkpoints.
pub(super) fn preview(settings: &TrainingSettings, pipeline: &PipelineView) -> CheckpointPreview {
    let data = pipeline.preview::<DatasetSettings>(&settings.dataset);
    let policy = &settings.checkpoint;
    let judged = judged_metric(&policy.monitor).map(|_| policy.monitor.clone());
    CheckpointPreview {
        metrics: Some(reported(data.as_deref()).into_iter().chain(judged).collect()),
        saved: Some(SavedEpochs {
            enabled: policy.enabled,
            every: policy.save_every_n_epochs.max(1),
            epochs: settings.epochs,
            keep_last_n: policy.keep_last_n,
        }),
        ..CheckpointPreview::default()
    }
}

/// Lints of an adapter.
pub(super) fn check_adapter(settings: &LoraSettings, pipeline: &PipelineView) -> Vec<Diagnostic> {
    let mut found = check_label_dropout("label_dropout", settings.label_dropout);
    found.extend(check_is_readable("base", &settings.base, pipeline));
    let Some(base) = pipeline.preview::<CheckpointPreview>(&settings.base) else { return found };
    if base.is_adapter == Some(true) {
        let (message, note) = no_whole_model(&settings.base);
        found.push(Diagnostic::error("base", message).note(note));
    }
    let network = base.model.as_ref().and_then(|model| model.network.as_ref());
    let Some(network) = network else { return found };
    if let Some(data) = pipeline.preview::<DatasetSettings>(&settings.dataset)
        && data.image_size != network.image_size()
    {
        let (own, theirs) = (data.image_size, network.image_size());
        let message =
            format!("its images are {own} x {own} pixels, the base model's {theirs} x {theirs}");
        let note = format!("set image_size of stage `{}` to {theirs}", settings.dataset);
        found.push(Diagnostic::error("dataset", message).note(note));
    }
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

/// Refuses a checkpoint that only the program which wrote it can read, where a model of this program
/// is wanted.
pub(super) fn check_is_readable(
    key: &str,
    from: &str,
    pipeline: &PipelineView,
) -> Option<Diagnostic> {
    pipeline.preview::<ProgramPreview>(from)?;
    let message = format!(
        "`{from}` trains with a program of its own, and only that program reads its checkpoints"
    );
    let note = "a `trainer` stage with `init`, or a `command`, can go on from them";
    Some(Diagnostic::error(key, message).note(note))
}

/// Lints of a stage that takes a checkpoint of the stage `from`; `epoch`: which one, if not the
/// best or the last.
pub(super) fn check_source(
    key: &str,
    from: &str,
    epoch: Option<u64>,
    pipeline: &PipelineView,
) -> Vec<Diagnostic> {
    let source = pipeline.preview::<CheckpointPreview>(from);
    let Some(SavedEpochs { enabled, every, epochs, keep_last_n }) =
        source.and_then(|source| source.saved)
    else {
        return Vec::new();
    };
    if !enabled {
        let message = format!("`{from}` keeps no checkpoint that could be taken");
        return vec![
            Diagnostic::error(key, message).note("remove `enabled: false` from its `checkpoint`"),
        ];
    }
    let Some(epoch) = epoch else { return Vec::new() };
    // `copy_best` has the epoch in another setting than the stage.
    let key = if key == "from" { "select" } else { key };
    if epoch == 0 || epoch > epochs {
        let message = format!("there is no epoch {epoch}: `{from}` has epochs 1 to {epochs}");
        return vec![Diagnostic::error(key, message)];
    }
    if epoch % every != 0 && epoch != epochs {
        let message = format!("`{from}` saves every {every} epochs, and not epoch {epoch}");
        return vec![Diagnostic::error(key, message)];
    }
    // Those that are saved behind it, the last one among them.
    let behind = (epochs - 1) / every + 1 - (epoch - 1) / every - 1;
    if let Some(kept) = keep_last_n.filter(|kept| behind >= *kept) {
        let message = format!(
            "`{from}` keeps the {kept} newest of its checkpoints, and epoch {epoch} only if it is the best"
        );
        let note = "raise keep_last_n of its `checkpoint`; `keep_last_n: null` keeps all";
        return vec![Diagnostic::warning(key, message).note(note)];
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

/// The images of an epoch, where the settings tell.
fn train_images(data: &DatasetSettings) -> Option<usize> {
    data.source
        .is_synthetic()
        .then(|| ((data.num_images as f64) * (1.0 - data.val_split)).round() as usize)
}
