//! `kind: train`: a model from initial weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use pipe_engine::kind::{
    Concern, Counts, Files, Observation, Observer, Others, Outcome, Reference, Rejection,
    RunContext, Stage, StageError, StageKind,
};
use serde_json::Value;

use super::concerns;
use super::training::{Start, Training, setting};
use crate::checkpoint::LABEL_DROPOUT;
use crate::diffit::Scope;
use crate::fit::{About, FitSettings, TrainSettings};

pub struct TrainKind;

impl StageKind for TrainKind {
    fn name(&self) -> &'static str {
        "train"
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(TrainSettings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings = settings.extract::<TrainSettings>()?.resolved()?;
        settings.validate()?;
        Ok(Arc::new(TrainStage { fit: settings.fit(), settings }))
    }
}

struct TrainStage {
    settings: TrainSettings,
    fit: FitSettings,
}

impl TrainStage {
    fn training(&self) -> Training<'_> {
        Training {
            settings: &self.fit,
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
        self.fit.derived()
    }

    fn references(&self) -> Vec<Reference> {
        vec![Reference::to(
            "dataset",
            &self.settings.dataset,
            &["dataset"],
            Counts::SettingsAndContent,
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
        self.fit.gpus()
    }

    fn concerns(&self, others: &Others) -> Vec<Concern> {
        let mut found = concerns::of_training(&self.fit, others);
        found.extend(concerns::of_model(&self.settings, others));
        found
    }

    fn observe(&self, observer: &Observer) -> Result<Observation, StageError> {
        self.training().observe(observer)
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let TrainSettings { model, seed, .. } = &self.settings;
        self.training().run(context, |dataset, device| {
            let classes = dataset.class_names().to_vec();
            let config = model.config(dataset.image_size(), classes.len());
            let network = config.init(*seed, device).map_err(|e| setting(format!("model: {e}")))?;
            let extra =
                BTreeMap::from([(LABEL_DROPOUT.to_owned(), model.label_dropout.to_string())]);
            Ok(Start {
                model: network,
                scope: Scope::All,
                about: About { config, classes, extra },
                label_dropout: model.label_dropout,
                lora_dropout: 0.0,
                base: None,
                after_best: None,
            })
        })
    }
}
