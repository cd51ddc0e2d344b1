//! `kind: evaluate`: how good a trained model is.

mod feature_judge;
mod judge;
mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use pipe_core::number_text::counted;
use pipe_core::progress::Event;
use pipe_engine::command::{InputFiles, input_files};
use pipe_engine::identity::in_words;
use pipe_engine::kind::{
    ArtifactType, ContentContext, Diagnostic, Failure, Files, InspectContext, Inspection, Metrics,
    Outcome, PipelineView, Preview, Reference, Rejection, RunContext, Stage, StageError, StageKind,
    StageState,
};
use pipe_engine::state::{Output, Outputs};
use pipe_fs::atomic;
use pipe_runs::main_metrics;
use pipe_trainer::epoch_places::{EpochPlaces, epoch_below, epoch_name};
use pipe_trainer::follow_state::{lost_results, why_open};
use pipe_trainer::following::{Looked, follow, judged, source_reference};
use serde_json::Value;

use self::judge::{Judge, METRICS_FILE, PICTURES, SHEET_FILE, write_metrics};
use self::settings::{EvaluateSettings, Metric, RealImages};
use super::artifacts::{
    CheckpointFile, CheckpointPreview, Checkpoints, JudgePreview, dataset_reference,
};
use super::result_files::{files_of, no_checkpoint, remove_former};
use super::{class_names, lint, lint_sample, lora};
use crate::architecture::Architectures;
use crate::checkpoint;
use crate::data::{Dataset, DatasetSettings, PublishedSplit};
use crate::device::{self, GpuAssignment};
use crate::diffusion::Sampler;
use crate::evaluate::weights::digest_in_name;
use crate::sampling::GuidanceCheck;

/// Prefix of the keys of a manifest that are digests of files.
const CONTENT: &str = "content.";

pub struct EvaluateKind(pub Architectures);

impl StageKind for EvaluateKind {
    fn name(&self) -> &'static str {
        "evaluate"
    }

    fn makes(&self) -> ArtifactType {
        ArtifactType::METRICS
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(EvaluateSettings)
    }

    fn resolve(&self, given: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings: EvaluateSettings = given.extract()?;
        let sampler = settings.check()?;
        let of_pictures =
            ["seeds", "classes", "steps", "guidance", "guidance_interval", "sampler", "split"];
        let is_set = |key: &str| given.contains(key) && settings.is_set(key);
        for key in of_pictures {
            let message =
                "only metrics of pictures use it: `fid`, `kid`, `precision`, `recall`, `nearest`";
            Rejection::if_unused(key, !settings.samples() && is_set(key), message)?;
        }
        for key in ["features", "resize"] {
            let message = "only `fid`, `kid`, `precision` and `recall` use it";
            Rejection::if_unused(key, !settings.uses_features() && is_set(key), message)?;
        }
        Ok(Arc::new(EvaluateStage { settings, sampler, architectures: self.0.clone() }))
    }
}

struct EvaluateStage {
    settings: EvaluateSettings,
    sampler: Sampler,
    architectures: Architectures,
}

impl Stage for EvaluateStage {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn references(&self) -> Vec<Reference> {
        let EvaluateSettings { from, dataset, .. } = &self.settings;
        let from = source_reference("from", from, self.settings.each_checkpoint);
        vec![from, dataset_reference("dataset", dataset)]
    }

    fn preview(&self, _pipeline: &PipelineView) -> Option<Preview> {
        let metrics = self.settings.metrics.iter().map(|metric| metric.name().to_owned());
        Some(Arc::new(JudgePreview(metrics.collect())))
    }

    fn lint(&self, pipeline: &PipelineView) -> Vec<Diagnostic> {
        let EvaluateSettings { from, dataset, .. } = &self.settings;
        let mut found = lint::check_source("from", from, None, pipeline);
        found.extend(lint::check_is_readable("from", from, pipeline));
        if self.settings.each_checkpoint {
            found.extend(lint::check_is_trained("from", from, pipeline));
        }
        let data = pipeline.preview::<DatasetSettings>(dataset);
        found.extend(data.iter().flat_map(|data| self.check_split(data)));
        let source = pipeline.preview::<CheckpointPreview>(from);
        let model = source.as_ref().and_then(|source| source.model.as_ref());
        if let (Some(data), Some(network)) = (&data, model.and_then(|m| m.network.as_ref()))
            && data.image_size != network.image_size()
        {
            let (theirs, size) = (data.image_size, network.image_size());
            let message = format!("its images have {theirs} pixels, and the model {size}");
            let note = format!("set its image_size to {size}");
            found.push(Diagnostic::error("dataset", message).note(note));
        }
        if let Some(data) = data.as_ref().filter(|_| self.settings.has(Metric::ValLoss)) {
            found.extend(lint_sample::check_labels(data, model));
        }
        found.extend(lint_sample::check_classes(self.settings.classes.as_deref(), model));
        if let Some(model) = model {
            let doubts = self.guidance_check(model.classes, Some(model.label_dropout)).doubts();
            found.extend(doubts.into_iter().map(|(key, text)| Diagnostic::warning(key, text)));
        }
        found
    }

    fn content(&self, at: &ContentContext) -> Result<BTreeMap<String, String>, StageError> {
        let s = &self.settings;
        let mut found = BTreeMap::new();
        if let Some(digest) = digest_in_name(&s.features).filter(|_| s.uses_features()) {
            found.insert(format!("{CONTENT}features"), format!("sha256:{digest}"));
        }
        for (key, output) in self.inputs(at)? {
            found.insert(format!("{CONTENT}{key}"), output.digest);
        }
        Ok(found)
    }

    fn files(&self) -> Files {
        let reads = self.read_files().into_iter();
        let reads = reads.map(|(key, path)| (key.to_owned(), path)).collect();
        Files { reads, writes: vec![("to".to_owned(), self.settings.to.clone())] }
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let found = self.inspect_made(o)?;
        if class_names::is_open(&found, o) {
            class_names::check(self.settings.classes.as_deref(), o)?;
            if self.settings.has(Metric::ValLoss) {
                class_names::check_labels("dataset", o)?;
            }
        }
        Ok(found)
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let s = &self.settings;
        if s.each_checkpoint {
            return self.judge_each(context);
        }
        let Some(file) = context.inputs.get("from").and_then(Checkpoints::best_of) else {
            return Err(
                StageError::setting(format!("stage {} has no checkpoint", s.from)).at("from")
            );
        };
        let (metrics, files) = self.judge(context, &file, &s.to)?;
        let files: Vec<PathBuf> = files.iter().map(|file| s.to.join(file)).collect();
        self.record(context, &files)?;
        context.event(judged(context, &file, &metrics.0));
        let summary = format!("epoch {}: {}", file.epoch, self.shown(&metrics));
        Ok(Outcome { artifact: Some(metrics.artifact()), summary, next: None })
    }
}

impl EpochPlaces for EvaluateStage {
    fn place(&self, epoch: u64) -> PathBuf {
        self.settings.to.join(epoch_name(epoch))
    }

    fn epoch_of(&self, file: &Path) -> Option<u64> {
        epoch_below(&self.settings.to, file)
    }

    fn there(&self, root: &Path, epoch: u64) -> Vec<PathBuf> {
        let sheet = self.settings.has(Metric::Nearest).then_some(SHEET_FILE);
        let names = [METRICS_FILE].into_iter().chain(sheet);
        let files: Vec<PathBuf> = names.map(|name| self.place(epoch).join(name)).collect();
        let is_whole = files.iter().all(|file| root.join(file).is_file());
        if is_whole { files } else { Vec::new() }
    }

    fn left(&self, root: &Path, epoch: u64) -> Vec<PathBuf> {
        let place = self.place(epoch);
        let pictures = files_of(root, place.join(PICTURES));
        [METRICS_FILE, SHEET_FILE]
            .map(|name| place.join(name))
            .into_iter()
            .chain(pictures)
            .collect()
    }
}

impl EvaluateStage {
    fn inspect_made(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let Some(made) = o.made else { return Ok(StageState::absent("not judged yet").into()) };
        let changes = o.changes_since(&made.manifest);
        if !changes.is_empty() {
            let lost = if self.settings.each_checkpoint { lost_results(o, "from") } else { 0 };
            let mut reason = in_words(&changes);
            if lost > 0 {
                let lost = counted(lost, "checkpoint");
                reason.push_str(&format!("; what was found of {lost} that are gone goes"));
            }
            return Ok(StageState::Absent { reason, changes }.into());
        }
        let mut standing = Vec::new();
        for output in &made.outputs {
            match o.if_unchanged(output) {
                Some(output) => standing.push(output),
                None => {
                    let reason = format!("{} is not there, or was changed", output.path);
                    return Ok(StageState::absent(reason).into());
                }
            }
        }
        let metrics = match self.read(&o.root.join(self.settings.to.join(METRICS_FILE))) {
            Ok(metrics) => metrics,
            Err(reason) => return Ok(StageState::absent(reason).into()),
        };
        if self.settings.each_checkpoint
            && let Some(reason) = why_open(o, "from", self, |best| best.metrics == metrics.0)
        {
            return Ok(StageState::absent(reason).into());
        }
        o.confirm(Outputs { outputs: standing, ..made.clone() });
        let reason = format!("up to date, {}", self.shown(&metrics));
        let state = StageState::Done { reason };
        Ok(Inspection::new(state, Some(metrics.artifact())))
    }

    /// Finds out about one checkpoint. The files that were written are relative to the folder.
    fn judge(
        &self,
        context: &RunContext,
        file: &CheckpointFile,
        folder: &Path,
    ) -> Result<(Metrics, Vec<PathBuf>), StageError> {
        let s = &self.settings;
        let dataset = context.inputs.get("dataset").and_then(|a| a.get::<Arc<Dataset>>());
        let Some(dataset) = dataset else {
            return Err(StageError::setting(format!("{} is no data set", s.dataset)).at("dataset"));
        };
        let device = device::resolve(s.device, GpuAssignment::of(context))
            .map_err(|e| StageError::setting(e.to_string()))?
            .device;
        let model =
            checkpoint::load_for_sampling(&self.architectures, &file.path, None, s.ema, &device);
        let model = model.map_err(|e| StageError::new(Failure::Input, e.to_string()))?;
        let (pixels, wanted) = (dataset.image_size(), model.config.image_size());
        if pixels != wanted {
            return Err(StageError::setting(format!(
                "images of {pixels} pixels cannot judge a model of {wanted}; set `image_size: {wanted}`"
            )).at("dataset"));
        }
        let classes = Some(model.config.num_classes());
        for (_, text) in self.guidance_check(classes, model.label_dropout).doubts() {
            context.event(Event::Message { text });
        }
        let sampler = self.sampler;
        let dataset = &dataset;
        Judge { settings: s, folder, sampler, context, model, dataset, device }.run()
    }

    /// Finds out about each checkpoint while they are made, and in the end about the best one.
    fn judge_each(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let s = &self.settings;
        let (root, disk) = (&context.root, context.root.disk());
        let followed = follow(context, "from", self, |file| {
            let folder = self.place(file.epoch);
            let (metrics, files) = self.judge(context, file, &folder)?;
            // Pictures are many, and are sampled again where they are wanted again.
            let pictures = root.join(&folder).join(PICTURES);
            if pictures.exists() {
                atomic::remove_tree(disk, &pictures)?;
            }
            let text = format!("Epoch {}: {}", file.epoch, self.shown(&metrics));
            context.event(Event::Message { text });
            let files = files.iter().map(|name| folder.join(name)).collect();
            Ok(Looked { metrics: metrics.0, files })
        })?;
        lora::renew_adapter(&followed)?;
        let Some((best, metrics)) = followed.of_best() else {
            return Err(no_checkpoint(&s.from));
        };
        let metrics = Metrics(metrics.clone());
        atomic::remove_temporary_files(disk, &root.join(&s.to));
        let of_best = s.to.join(METRICS_FILE);
        write_metrics(context, &s.to, &metrics)?;
        let all = followed.files().values().flatten().cloned().chain([of_best]);
        // Once the stage is noted as done, nobody looks for them.
        followed.remove_others(context)?;
        self.record(context, &all.collect::<Vec<_>>())?;
        let of_run = Checkpoints::of_run(followed.run.clone(), followed.metadata.clone());
        if let Some(file) = of_run.of_epoch(best) {
            context.event(judged(context, &file, &metrics.0));
        }
        let count = counted(followed.count(), "checkpoint");
        let summary = format!("{count}; of the best, epoch {best}: {}", self.shown(&metrics));
        Ok(Outcome { artifact: Some(metrics.artifact()), summary, next: None })
    }

    /// Notes the files that it made, in the place of those that it made before.
    fn record(&self, context: &RunContext, files: &[PathBuf]) -> Result<(), StageError> {
        let inputs = self.inputs(&context.content_context())?.into_values().collect();
        remove_former(context, |file| file.starts_with(&self.settings.to), files)?;
        let outputs = files.iter().map(|file| context.output(&file.display().to_string(), None));
        context.record_outputs(outputs.collect::<Result<_, _>>()?, inputs, Vec::new())
    }

    fn guidance_check(&self, classes: Option<usize>, label_dropout: Option<f64>) -> GuidanceCheck {
        let has_interval = self.settings.guidance_interval.is_some();
        let guidance = self.settings.guidance;
        GuidanceCheck { guidance, has_interval, has_guide: false, classes, label_dropout }
    }

    /// The files that it reads and that count by their content, by the setting that names them. What
    /// a name tells of a content need not be read.
    fn read_files(&self) -> BTreeMap<&'static str, String> {
        let s = &self.settings;
        let is_own = s.uses_features() && digest_in_name(&s.features).is_none();
        let features = is_own.then(|| ("features", s.features.display().to_string()));
        let statistics =
            s.statistics.as_ref().map(|path| ("statistics", path.display().to_string()));
        features.into_iter().chain(statistics).collect()
    }

    /// Those of them that are there.
    fn inputs(&self, at: &ContentContext) -> Result<BTreeMap<&'static str, Output>, StageError> {
        let files = self.read_files();
        let patterns: Vec<String> = files.values().cloned().collect();
        let found = input_files(at, &patterns, &[])?;
        let first = |input: InputFiles| input.files.and_then(|files| files.into_iter().next());
        let found = files.into_keys().zip(found);
        Ok(found.filter_map(|(key, input)| Some((key, first(input)?))).collect())
    }

    /// Whether the data set has the images that are wanted.
    fn check_split(&self, data: &DatasetSettings) -> Vec<Diagnostic> {
        let s = &self.settings;
        let is_test = data.split == PublishedSplit::Test;
        let none = format!("data set `{}` has no validation images", s.dataset);
        let note =
            "set its val_split to a share such as 0.1, or name a data set with `split: test`";
        let mut found = Vec::new();
        let has_validation = is_test || data.val_split > 0.0;
        if s.has(Metric::ValLoss) && !has_validation {
            let message = format!("val_loss is of validation images, and {none}");
            found.push(Diagnostic::error("metrics", message).note(note));
        }
        match s.split {
            Some(RealImages::Validation) if !has_validation => {
                found.push(Diagnostic::error("split", none).note(note));
            }
            Some(RealImages::Train) if is_test => {
                let message = format!("data set `{}` is of test images", s.dataset);
                let note = "leave `split` out: pictures are compared with them then";
                found.push(Diagnostic::error("split", message).note(note));
            }
            _ => {}
        }
        found
    }

    /// What was found, as its file says it.
    fn read(&self, path: &std::path::Path) -> Result<Metrics, String> {
        let shown = path.display();
        let bytes = std::fs::read(path).map_err(|e| format!("failed to read {shown}: {e}"))?;
        let metrics: BTreeMap<String, f64> =
            serde_json::from_slice(&bytes).map_err(|e| format!("failed to read {shown}: {e}"))?;
        Ok(Metrics(metrics))
    }

    /// The metrics that were asked for, without their details.
    fn shown(&self, metrics: &Metrics) -> String {
        let main = main_metrics(&metrics.0);
        Metrics(main.map(|(name, value)| (name.clone(), *value)).collect()).shown()
    }
}
