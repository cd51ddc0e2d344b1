//! `kind: lora`: low-rank adapters on a trained model, fine-tuned on another data set.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::{Module, ParamGroup};
use burn::tensor::Device;
use figment::Figment;
use pipe_core::progress::Event;
use pipe_engine::kind::{
    ArtifactType, ContentContext, Diagnostic, Failure, Files, InspectContext, Inspection, Judge,
    Outcome, PipelineView, Preview, Reference, Rejection, RunContext, Stage, StageError, StageKind,
    StageState,
};
use pipe_engine::policy::Halving;
use pipe_runs::{Checkpoint, Run};
use pipe_trainer::following::{Followed, judge_of};
use serde_json::Value;

use super::artifacts::{
    CHECKPOINT, CheckpointFile, CheckpointPreview, Checkpoints, ModelPreview, checkpoint_reference,
    dataset_reference,
};
use super::class_names;
use super::copy_best::copy_cost;
use super::lint;
use super::lint_init::check_init;
use super::training::{Training, TrainingSetup};
use crate::architecture::{Architectures, LABEL_TABLE};
use crate::checkpoint::{
    self, ADAPTER, BASE_DIGEST, BASE_FILE, BASE_WEIGHTS, BASE_WEIGHTS_DIGEST, LABEL_DROPOUT,
};
use crate::data::{Dataset, DatasetSettings};
use crate::lora::{AdaptedModel, Adapter, HEADER_KEY, LoraPlan};
use crate::nn::Scope;
use crate::trainer::{LoraSettings, ModelInfo, Periods};

pub struct LoraKind(pub Architectures);

impl StageKind for LoraKind {
    fn name(&self) -> &'static str {
        "lora"
    }

    fn length(&self) -> Option<&'static str> {
        Some("epochs")
    }

    fn makes(&self) -> ArtifactType {
        CHECKPOINT
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(LoraSettings)
    }

    fn policies(&self) -> &'static [&'static str] {
        &["checkpoint"]
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings = LoraSettings::of_layers(settings)?;
        settings.validate(&self.0)?;
        settings.validate_then()?;
        Ok(Arc::new(LoraStage {
            periods: settings.periods(),
            settings,
            architectures: self.0.clone(),
        }))
    }
}

struct LoraStage {
    settings: LoraSettings,
    periods: Periods,
    architectures: Architectures,
}

impl Stage for LoraStage {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn deciding_settings(&self) -> Value {
        if !self.settings.then.is_empty() {
            return self.settings();
        }
        serde_json::to_value(self.settings.deciding()).unwrap_or_default()
    }

    fn derived(&self) -> BTreeMap<String, Value> {
        self.periods.derived()
    }

    fn references(&self) -> Vec<Reference> {
        let base = checkpoint_reference("base", &self.settings.base);
        let dataset = dataset_reference("dataset", &self.settings.dataset);
        [base, dataset].into_iter().chain(self.training().init_reference()).collect()
    }

    fn files(&self) -> Files {
        self.training().files()
    }

    fn content(&self, at: &ContentContext) -> Result<BTreeMap<String, String>, StageError> {
        Ok(self.training().content(at.root))
    }

    fn runs(&self) -> Option<PathBuf> {
        Some(self.training().folder())
    }

    fn judge(&self) -> Option<Judge> {
        judge_of(&self.periods.first().settings.checkpoint.monitor)
    }

    fn gpus(&self) -> u32 {
        self.periods.first().settings.gpus()
    }

    fn preview(&self, pipeline: &PipelineView) -> Option<Preview> {
        let LoraSettings { base, dataset, label_dropout, .. } = &self.settings;
        let base = pipeline.preview::<CheckpointPreview>(base).and_then(|base| base.model.clone());
        let data = pipeline.preview::<DatasetSettings>(dataset);
        // An adapter is for the classes of its own data set. What the base has learned without
        // labels stays.
        let model = base.map(|base| ModelPreview {
            classes: match base.classes {
                Some(0) => Some(0),
                _ => data.as_ref().and_then(|data| data.class_count()),
            },
            class_names: data.and_then(|data| data.class_names()),
            label_dropout: base.label_dropout.max(*label_dropout),
            ..base
        });
        let of_training = lint::preview(&self.periods.first().settings, pipeline);
        Some(Arc::new(CheckpointPreview { model, is_adapter: Some(true), ..of_training }))
    }

    fn lint(&self, pipeline: &PipelineView) -> Vec<Diagnostic> {
        let mut found = lint::check_training(&self.periods.first().settings, pipeline);
        found.extend(lint::check_adapter(&self.settings, pipeline));
        let base = pipeline.preview::<CheckpointPreview>(&self.settings.base);
        let network = base.and_then(|base| base.model.as_ref()?.network.clone());
        found.extend(check_init(&self.periods.first().settings, true, network.as_ref(), pipeline));
        found
    }

    fn lint_halving(&self, halving: &Halving, pipeline: &PipelineView) -> Vec<Diagnostic> {
        lint::check_halving(&self.periods.first().settings, halving, pipeline)
    }

    fn inspect(&self, observer: &InspectContext) -> Result<Inspection, StageError> {
        let mut observation = self.training().observe(observer)?;
        observation.prospect = class_names::of_adapter(observer);
        if let StageState::Absent { reason, .. } = &mut observation.state
            && let Some(base) = observer.inputs.get("base").and_then(Checkpoints::best_of)
            && let Ok(file) = std::fs::metadata(&base.path)
        {
            reason.push_str(&copy_cost(file.len()));
        }
        let trained = observation.artifact.as_ref().and_then(|a| a.get::<Checkpoints>());
        match trained.as_ref().and_then(|trained| what_is_missing(trained)) {
            Some(what) => {
                let done = trained.and_then(|t| t.epochs().last().copied()).unwrap_or(0);
                let total = done;
                Ok(StageState::Partial { done, total, reason: format!("{what} is not up to date") }
                    .into())
            }
            _ => Ok(observation),
        }
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let Some(base) = context.inputs.get("base").and_then(Checkpoints::best_of) else {
            return Err(StageError::setting(format!(
                "stage {} has no checkpoint to start from",
                self.settings.base
            ))
            .at("base"));
        };
        let outcome = self.training().run(context, |dataset, device| {
            let start = self.start(base, dataset, device)?;
            if matches!(&start.scope, Scope::Only(names) if names.contains(LABEL_TABLE)) {
                let text =
                    "The classes are others than the base model's: their label table is trained in full"
                        .to_owned();
                context.event(Event::Message { text });
            }
            Ok(start)
        })?;
        // Each new best is written as it comes; this one is for what a crash, or a user, left
        // undone.
        if let Some(trained) = outcome.artifact.as_ref().and_then(|a| a.get::<Checkpoints>())
            && what_is_missing(&trained).is_some()
            && let (Some(best), Some(run)) = (trained.best(), trained.run())
        {
            write_adapter(&best.path, run)?;
        }
        Ok(outcome)
    }
}

impl LoraStage {
    fn training(&self) -> Training<'_> {
        Training {
            settings: &self.periods.first().settings,
            periods: &self.periods,
            value: self.settings(),
            base_dir: "checkpoints/lora",
            factors: true,
        }
    }

    /// The base model with factors beside it, everything else frozen.
    fn start(
        &self,
        base: CheckpointFile,
        dataset: &Dataset,
        device: &Device,
    ) -> Result<TrainingSetup, StageError> {
        let LoraSettings { lora, label_dropout, seed, .. } = &self.settings;
        let input = |message: String| StageError::new(Failure::Input, message);
        let file = Checkpoint::open(&base.path).and_then(|c| c.verify().map(|()| c));
        let file = file.map_err(|e| input(format!("the base model: {e}")))?;
        if file.header().extra.contains_key(HEADER_KEY) {
            let (message, note) = lint::no_whole_model(&self.settings.base);
            return Err(StageError::setting(format!("{message}; {note}")).at("base"));
        }
        let prefix = checkpoint::inference_prefix(&file);
        let classes = dataset.class_names().to_vec();
        let same_classes = checkpoint::class_names(&file) == classes;
        let known = &self.architectures;
        let (model, config) = if same_classes {
            checkpoint::model(known, &file, prefix, device)
        } else {
            checkpoint::model_for_classes(known, &file, prefix, classes.len(), device)
        }
        .map_err(|e| input(format!("the base model: {e}")))?;
        if config.image_size() != dataset.image_size() {
            return Err(StageError::setting(format!(
                "its images are {data} x {data} pixels, the base model's {base} x {base}; set the data \
                 set's image_size to {base}",
                data = dataset.image_size(),
                base = config.image_size()
            )).at("dataset"));
        }
        let labels = dataset.augmentation().labels();
        if labels > 0 && config.augment_labels() != labels {
            return Err(StageError::setting(
                "its augmentation has a `probability`, and the base model was not trained to be told what was \
                 done to an image; leave it out",
            )
            .at("dataset"));
        }
        let plan = LoraPlan::new(lora, &model)
            .map_err(|e| StageError::setting(e.to_string()).at("lora"))?;
        let AdaptedModel { mut model, mut scope } = plan.inject(model, *seed);
        if config.num_classes() > 0 && !same_classes {
            model = model.set_require_grad_group(ParamGroup::from_path(LABEL_TABLE), true);
            if let Scope::Only(names) = &scope {
                let label = BTreeSet::from([LABEL_TABLE.to_owned()]);
                scope = Scope::Only(Arc::new(names.union(&label).cloned().collect()));
            }
        }
        let weights = checkpoint::weights_digest(&file, prefix)
            .map_err(|e| input(format!("the base model: {e}")))?;
        let mut extra = BTreeMap::from([
            (HEADER_KEY.to_owned(), Adapter::describe(lora, &plan)),
            (BASE_DIGEST.to_owned(), file.digest().unwrap_or_default().to_owned()),
            (BASE_WEIGHTS.to_owned(), prefix.to_owned()),
            (BASE_WEIGHTS_DIGEST.to_owned(), weights),
        ]);
        // What the base has learned without labels stays.
        if let Some(of_base) = checkpoint::label_dropout(&file) {
            extra.insert(LABEL_DROPOUT.to_owned(), of_base.max(*label_dropout).to_string());
        }
        Ok(TrainingSetup {
            model,
            scope,
            model_info: ModelInfo { config, classes, extra },
            base: Some(base),
            on_new_best: Some(write_adapter),
        })
    }
}

/// What of a trained run a crash, or a user, has left undone.
fn what_is_missing(trained: &Checkpoints) -> Option<&'static str> {
    let run = trained.run()?;
    if !run.folder.join(BASE_FILE).is_file() {
        return Some(BASE_FILE);
    }
    let best = trained.best().and_then(|best| Checkpoint::open(&best.path).ok())?;
    let adapter = Adapter::read(&run.folder.join(ADAPTER)).ok();
    (adapter.and_then(|a| a.source).as_deref() != best.digest()).then_some(ADAPTER)
}

/// Writes PEFT's files of a LoRA run anew, where what a stage found out made another checkpoint the
/// best one.
pub(super) fn renew_adapter(followed: &Followed) -> Result<(), StageError> {
    let Followed { run, metadata, .. } = followed;
    let trained = Checkpoints::of_run(run.clone(), metadata.clone());
    if run.folder.join(BASE_FILE).is_file() && what_is_missing(&trained) == Some(ADAPTER) {
        write_adapter(&run.best(), run)?;
    }
    Ok(())
}

/// Writes PEFT's files from a LoRA checkpoint into the run's folder: the weights that are sampled
/// with.
fn write_adapter(checkpoint: &Path, run: &Run) -> Result<(), StageError> {
    let failed =
        |e: String| StageError::new(Failure::Storage, format!("failed to write the adapter: {e}"));
    let checkpoint = Checkpoint::open(checkpoint).map_err(|e| failed(e.to_string()))?;
    let adapter = Adapter::from_checkpoint(&checkpoint, checkpoint::inference_prefix(&checkpoint));
    match adapter.map_err(|e| failed(e.to_string()))? {
        Some(adapter) => {
            adapter.write(run.disk(), &run.folder.join(ADAPTER)).map_err(|e| failed(e.to_string()))
        }
        None => Err(StageError::new(Failure::Bug, "the best checkpoint holds no adapter")),
    }
}
