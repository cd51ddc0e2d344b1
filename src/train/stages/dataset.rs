//! `kind: dataset`: makes a data set ready and hands it to the stages that need it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use figment::Figment;
use pipe_core::number_text::counted;
use pipe_core::progress::Event;
use pipe_engine::kind::{
    ArtifactType, Failure, Files, InspectContext, Inspection, Outcome, PipelineView, Preview,
    Reference, Rejection, RunContext, Stage, StageError, StageKind, StageState, is_inside_project,
};
use serde_json::Value;

use super::artifacts::{DATASET, dataset_artifact, summary_artifact};
use super::progress::Throttled;
use crate::data::{self, DataError, Dataset, DatasetSettings, Progress};

pub struct DatasetKind;

impl StageKind for DatasetKind {
    fn name(&self) -> &'static str {
        "dataset"
    }

    fn makes(&self) -> ArtifactType {
        DATASET
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(DatasetSettings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings: DatasetSettings = settings.extract()?;
        settings.url.iter().for_each(|url| pipe_core::secret::learn_addresses(url));
        settings.validate().map_err(|error| match error {
            DataError::Setting { key, reason } => Rejection::value(key, reason),
            other => Rejection::value("source", other.to_string()),
        })?;
        Ok(Arc::new(DatasetStage { settings }))
    }
}

struct DatasetStage {
    settings: DatasetSettings,
}

impl Stage for DatasetStage {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn deciding_settings(&self) -> Value {
        serde_json::to_value(self.settings.deciding()).unwrap_or_default()
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }

    fn files(&self) -> Files {
        let paths =
            data::input_paths(&self.settings).into_iter().filter(|path| is_inside_project(path));
        let reads = paths.map(|path| ("root".to_owned(), path.display().to_string())).collect();
        Files { reads, writes: Vec::new() }
    }

    fn preview(&self, _: &PipelineView) -> Option<Preview> {
        Some(Arc::new(self.settings.clone()))
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        if o.pending {
            // What is there now is not what a training will see.
            return Ok(StageState::Transient.into());
        }
        let slow = Slow { began: Instant::now(), told: AtomicBool::new(false) };
        let seen = data::summarize(&self.settings, o.root, o.request.data_as_last_seen, &slow)
            .map_err(data_failure)?;
        Ok(Inspection::new(StageState::Transient, seen.map(summary_artifact)))
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let progress = Throttled::new(context);
        let dataset =
            Dataset::open(&self.settings, &context.root, &progress).map_err(data_failure)?;
        dataset.check_images(&progress).map_err(|error| {
            match (&error, context.stop.requested()) {
                (DataError::Stopped, Some(signal)) => {
                    StageError::new(Failure::Interrupted(signal), error.to_string())
                }
                _ => StageError::new(Failure::Input, error.to_string()),
            }
        })?;
        data::save_summary(&self.settings, &context.root, &dataset);
        warn_of_classes(&dataset, &self.settings, context);
        let counts = dataset.counts();
        let (train, validation) =
            counts.iter().fold((0, 0), |(t, v), class| (t + class.train, v + class.validation));
        let images = match (train, validation) {
            (0, 1..) => format!("{validation} test images"),
            (_, 0) => counted(train, "image"),
            _ => format!("{} and {validation} for validation", counted(train, "image")),
        };
        let passed_over = dataset.skipped();
        let summary = format!(
            "{}, {images} in {} at {size} x {size} pixels{passed_over}",
            dataset.source().name(),
            counted(counts.len(), "class"),
            size = dataset.image_size(),
            passed_over = if passed_over.is_empty() {
                String::new()
            } else {
                format!("; passed over: {passed_over}")
            },
        );
        context.event(Event::Message { text: summary.clone() });
        Ok(Outcome { artifact: Some(dataset_artifact(dataset)), summary, next: None })
    }
}

/// Why a data set cannot be read, at the setting that is to blame.
pub fn data_failure(error: DataError) -> StageError {
    match error {
        DataError::Setting { key, reason } => StageError::setting(reason).at(key),
        DataError::Folder { .. } => StageError::new(Failure::Input, error.to_string()).at("root"),
        _ => StageError::new(Failure::Input, error.to_string()),
    }
}

/// A look at images that takes long enough to ask oneself why.
const LONG: Duration = Duration::from_secs(3);

/// Says once why a look at a data set takes so long.
struct Slow {
    began: Instant,
    told: AtomicBool,
}

impl Progress for Slow {
    fn indexed(&self, _: usize) {
        if self.began.elapsed() > LONG && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "reading images to see whether they changed; what did not is not read the next time"
            );
        }
    }
}

/// A class without training images is learned from nothing.
fn warn_of_classes(dataset: &Dataset, settings: &DatasetSettings, context: &RunContext) {
    let without = dataset.classes_without_training();
    if without.is_empty() {
        return;
    }
    let shown = without.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if without.len() > 10 { ", …" } else { "" };
    let (class, have) = if without.len() == 1 { ("class", "has") } else { ("classes", "have") };
    let (with, or) = match settings.val_split {
        0.0 => (String::new(), ""),
        share => (format!(" with `val_split: {share}`"), ", or set a smaller val_split"),
    };
    let text = format!(
        "{} {class} {have} no training image{with}: {shown}{more}; add images{or}",
        without.len()
    );
    context.event(Event::Warning { text });
}
