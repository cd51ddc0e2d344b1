//! `kind: train`: a model from initial weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use pipe_engine::kind::{
    DependencyMode, Diagnostic, Files, InspectContext, Inspection, Outcome, PipelineView,
    Reference, Rejection, RunContext, Stage, StageError, StageKind,
};
use serde_json::Value;

use super::lint;
use super::training::{Training, TrainingSetup};
use crate::checkpoint::LABEL_DROPOUT;
use crate::diffit::Scope;
use crate::trainer::{ModelInfo, TrainSettings, TrainingSettings};

pub struct TrainKind;

impl StageKind for TrainKind {
    fn name(&self) -> &'static str {
        "train"
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(TrainSettings)
    }

    fn policies(&self) -> &'static [&'static str] {
        &["checkpoint"]
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings = settings.extract::<TrainSettings>()?.resolved()?;
        settings.validate()?;
        Ok(Arc::new(TrainStage { training_settings: settings.training_settings(), settings }))
    }
}

struct TrainStage {
    settings: TrainSettings,
    training_settings: TrainingSettings,
}

impl TrainStage {
    fn training(&self) -> Training<'_> {
        Training {
            settings: &self.training_settings,
            value: self.settings(),
            base_dir: "checkpoints/base_training",
        }
    }
}

impl Stage for TrainStage {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn derived(&self) -> BTreeMap<String, Value> {
        self.training_settings.derived()
    }

    fn references(&self) -> Vec<Reference> {
        vec![Reference::to(
            "dataset",
            &self.settings.dataset,
            &["dataset"],
            DependencyMode::FingerprintAndContent,
        )]
    }

    fn files(&self) -> Files {
        self.training().files()
    }

    fn content(&self, root: &Path) -> BTreeMap<String, String> {
        self.training().content(root)
    }

    fn runs(&self) -> Option<PathBuf> {
        Some(self.training().folder())
    }

    fn gpus(&self) -> u32 {
        self.training_settings.gpus()
    }

    fn lint(&self, pipeline: &PipelineView) -> Vec<Diagnostic> {
        let mut found = lint::check_training(&self.training_settings, pipeline);
        found.extend(lint::check_model(&self.settings, pipeline));
        found
    }

    fn inspect(&self, observer: &InspectContext) -> Result<Inspection, StageError> {
        self.training().observe(observer)
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let TrainSettings { model, seed, .. } = &self.settings;
        self.training().run(context, |dataset, device| {
            let classes = dataset.class_names().to_vec();
            let config = model.config(dataset.image_size(), classes.len());
            let network = config
                .init(*seed, device)
                .map_err(|e| StageError::setting(format!("model: {e}")))?;
            let extra =
                BTreeMap::from([(LABEL_DROPOUT.to_owned(), model.label_dropout.to_string())]);
            Ok(TrainingSetup {
                model: network,
                scope: Scope::All,
                model_info: ModelInfo { config, classes, extra },
                label_dropout: model.label_dropout,
                lora_dropout: 0.0,
                base: None,
                on_new_best: None,
            })
        })
    }
}
