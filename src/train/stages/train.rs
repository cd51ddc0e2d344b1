//! `kind: train`: a model from initial weights.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use figment::Figment;
use pipe_engine::kind::{
    ArtifactType, ContentContext, Diagnostic, Files, InspectContext, Inspection, Judge, Outcome,
    PipelineView, Preview, Reference, Rejection, RunContext, Stage, StageError, StageKind,
};
use pipe_engine::policy::Halving;
use pipe_trainer::following::judge_of;
use serde_json::Value;

use super::artifacts::{CHECKPOINT, CheckpointPreview, ModelPreview, dataset_reference};
use super::class_names;
use super::lint;
use super::lint::ANY_CLASSES;
use super::lint_init::check_init;
use super::training::{Training, TrainingSetup};
use crate::architecture::{Architectures, ModelConfig, describe};
use crate::checkpoint::LABEL_DROPOUT;
use crate::data::DatasetSettings;
use crate::nn::Scope;
use crate::trainer::{ModelInfo, Periods, TrainSettings};

pub struct TrainKind(pub Architectures);

impl StageKind for TrainKind {
    fn name(&self) -> &'static str {
        "train"
    }

    fn length(&self) -> Option<&'static str> {
        Some("epochs")
    }

    fn makes(&self) -> ArtifactType {
        CHECKPOINT
    }

    fn schema(&self) -> schemars::Schema {
        let mut schema = schemars::schema_for!(TrainSettings);
        describe(&self.0, &mut schema);
        schema
    }

    fn policies(&self) -> &'static [&'static str] {
        &["checkpoint"]
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings = TrainSettings::of_layers(settings)?.resolved(&self.0)?;
        settings.validate()?;
        settings.validate_then()?;
        Ok(Arc::new(TrainStage {
            periods: settings.periods(),
            settings,
            architectures: self.0.clone(),
        }))
    }
}

struct TrainStage {
    settings: TrainSettings,
    periods: Periods,
    architectures: Architectures,
}

impl TrainStage {
    fn training(&self) -> Training<'_> {
        Training {
            settings: &self.periods.first().settings,
            periods: &self.periods,
            value: self.settings(),
            base_dir: "checkpoints/base_training",
            factors: false,
        }
    }
}

impl TrainStage {
    /// The network that it trains, for any number of classes.
    fn network(&self, pipeline: &PipelineView) -> Option<ModelConfig> {
        let data = pipeline.preview::<DatasetSettings>(&self.settings.dataset)?;
        let config = self.settings.model.config(&self.architectures, data.image_size, ANY_CLASSES);
        Some(config.ok()?.with_augment_labels(data.augmentation.labels()))
    }
}

impl Stage for TrainStage {
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
        let dataset = dataset_reference("dataset", &self.settings.dataset);
        [dataset].into_iter().chain(self.training().init_reference()).collect()
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
        let TrainSettings { model, dataset, .. } = &self.settings;
        let data = pipeline.preview::<DatasetSettings>(dataset);
        let (classes, class_names) = if model.class_conditional {
            let data = data.as_ref();
            (data.and_then(|d| d.class_count()), data.and_then(|d| d.class_names()))
        } else {
            (Some(0), None)
        };
        let model = ModelPreview {
            network: self.network(pipeline),
            classes,
            class_names,
            label_dropout: model.label_dropout,
        };
        Some(Arc::new(CheckpointPreview {
            model: Some(model),
            is_adapter: Some(false),
            ..lint::preview(&self.periods.first().settings, pipeline)
        }))
    }

    fn lint(&self, pipeline: &PipelineView) -> Vec<Diagnostic> {
        let mut found = lint::check_training(&self.periods.first().settings, pipeline);
        found.extend(lint::check_model(&self.settings, &self.architectures, pipeline));
        let network = self.network(pipeline);
        found.extend(check_init(&self.periods.first().settings, false, network.as_ref(), pipeline));
        found
    }

    fn lint_halving(&self, halving: &Halving, pipeline: &PipelineView) -> Vec<Diagnostic> {
        lint::check_halving(&self.periods.first().settings, halving, pipeline)
    }

    fn inspect(&self, observer: &InspectContext) -> Result<Inspection, StageError> {
        let found = self.training().observe(observer)?;
        let is_conditional = self.settings.model.class_conditional;
        Ok(found.with_prospect(class_names::of_training(observer, is_conditional)))
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let TrainSettings { model, objective, seed, .. } = &self.settings;
        self.training().run(context, |dataset, device| {
            let classes = dataset.class_names().to_vec();
            let refused = |e: String| StageError::setting(e).at("model");
            let config = model.config(&self.architectures, dataset.image_size(), classes.len());
            let config = config.map_err(|e| refused(e.to_string()))?;
            let labels = dataset.augmentation().labels();
            let config = config.with_augment_labels(labels);
            if config.augment_labels() != labels {
                let arch = config.arch();
                return Err(StageError::setting(format!(
                    "a {arch} cannot be told what the augmentation did to an image; leave its `probability` out"
                )).at("dataset"));
            }
            let network = config.init(*seed, device).map_err(|e| refused(e.to_string()))?;
            let network = network.with_objective(*objective);
            let extra =
                BTreeMap::from([(LABEL_DROPOUT.to_owned(), model.label_dropout.to_string())]);
            Ok(TrainingSetup {
                model: network,
                scope: Scope::All,
                model_info: ModelInfo { config, classes, extra },
                base: None,
                on_new_best: None,
            })
        })
    }
}
