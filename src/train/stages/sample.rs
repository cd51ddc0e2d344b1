//! `kind: sample`: an image grid from a trained model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use figment::Figment;
use pipe_core::progress::Event;
use pipe_engine::kind::{
    ContentContext, Diagnostic, Failure, Files, InspectContext, Inspection, Outcome, PipelineView,
    Reference, Rejection, RunContext, Stage, StageError, StageKind, StageState,
};
use pipe_engine::state::{Output, Outputs};
use pipe_fs::atomic;
use pipe_trainer::epoch_places::EpochPlaces;
use pipe_trainer::following::source_reference;
use serde_json::Value;

use super::artifacts::{CheckpointFile, Checkpoints};
use super::copy_best::inside_project;
use super::progress::{tell_sampling, unless_stopped};
use super::result_files::{remove_former, write_over, write_result};
use super::sample_guide::{self, GuideSettings};
use super::sample_settings::{SampleSettings, default_n};
use super::{class_names, lint, lint_sample};
use crate::architecture::Architectures;
use crate::checkpoint::{self, SamplingModel, load_guide};
use crate::device::{self, GpuAssignment};
use crate::diffusion::Sampler;
use crate::sampling::{
    Format, GridRequest, ModelView, PictureRequest, Seeds, Target, Which, sampler_in_words,
};

pub struct SampleKind(pub Architectures);

impl StageKind for SampleKind {
    fn name(&self) -> &'static str {
        "sample"
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(SampleSettings)
    }

    fn resolve(&self, given: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings: SampleSettings = given.extract()?;
        inside_project(&settings.to).map_err(|message| Rejection::value("to", message))?;
        let (key, checked) = match &settings.seeds {
            None => ("to", Format::of(&settings.to).map(drop)),
            Some(_) => ("seeds", Target::of(&settings.to).map(drop)),
        };
        checked.map_err(|message| Rejection::value(key, message))?;
        // The file of a run has the defaults, too.
        let SampleSettings { n, seed, strip, .. } = settings;
        let set = [("n", n != default_n()), ("seed", seed != 0), ("strip", strip.is_some())];
        for (key, is_set) in set {
            let is_unused = settings.seeds.is_some() && is_set && given.contains(key);
            Rejection::if_unused(key, is_unused, "`seeds` says which pictures are sampled")?;
        }
        Rejection::unless("n", (1..=10_000).contains(&settings.n), "1 to 10000 images")?;
        let SampleSettings { steps, guidance, guidance_interval, .. } = settings;
        let sampler = settings.sampler.sampler(steps, guidance, guidance_interval)?;
        let fits = strip.is_none_or(|columns| (2..=steps.max(2)).contains(&columns));
        Rejection::unless("strip", fits, "2 columns or more, and not more than `steps`")?;
        settings.guide.as_ref().map_or(Ok(()), GuideSettings::validate)?;
        Rejection::unless("batch_size", settings.batch_size >= 1, "at least 1")?;
        Ok(Arc::new(SampleStage { settings, sampler, architectures: self.0.clone() }))
    }
}

pub(super) struct SampleStage {
    pub(super) settings: SampleSettings,
    sampler: Sampler,
    architectures: Architectures,
}

impl Stage for SampleStage {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn derived(&self) -> BTreeMap<String, Value> {
        self.settings.guide.iter().filter_map(GuideSettings::decides).collect()
    }

    fn references(&self) -> Vec<Reference> {
        let SampleSettings { from, each_checkpoint, .. } = &self.settings;
        let from = source_reference("from", from, *each_checkpoint);
        let guide = self.settings.guide.as_ref().and_then(GuideSettings::reference);
        [from].into_iter().chain(guide).collect()
    }

    fn content(&self, at: &ContentContext) -> Result<BTreeMap<String, String>, StageError> {
        let guide = self.settings.guide.as_ref();
        Ok(guide.map(|guide| guide.content(at.root)).unwrap_or_default())
    }

    fn lint(&self, pipeline: &PipelineView) -> Vec<Diagnostic> {
        let mut found = lint::check_source("from", &self.settings.from, None, pipeline);
        found.extend(lint::check_is_readable("from", &self.settings.from, pipeline));
        if self.settings.each_checkpoint {
            found.extend(lint::check_is_trained("from", &self.settings.from, pipeline));
        }
        found.extend(lint_sample::check_sample(&self.settings, pipeline));
        let guide = self.settings.guide.as_ref();
        found.extend(guide.map(|g| g.lint(&self.settings.from, pipeline)).unwrap_or_default());
        found
    }

    fn files(&self) -> Files {
        let reads = self.settings.guide.iter().filter_map(GuideSettings::read).collect();
        Files { reads, writes: vec![("to".to_owned(), self.settings.to.clone())] }
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let found = self.inspect_made(o)?;
        if class_names::is_open(&found, o) {
            class_names::check(self.settings.classes.as_deref(), o)?;
        }
        Ok(found)
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let s = &self.settings;
        if s.each_checkpoint {
            return self.sample_each(context);
        }
        let Some(file) = context.inputs.get("from").and_then(Checkpoints::best_of) else {
            return Err(
                StageError::setting(format!("stage {} has no checkpoint", s.from)).at("from")
            );
        };
        let Written { files, inputs, summary } = self.sample(context, &file, &s.to)?;
        self.record(context, &files, inputs)?;
        Ok(Outcome { artifact: None, summary, next: None })
    }
}

/// What was sampled from a checkpoint.
pub(super) struct Written {
    /// Relative to the project.
    pub(super) files: Vec<PathBuf>,
    /// See [`Sampled::inputs`].
    pub(super) inputs: Vec<Output>,
    summary: String,
}

/// What a stage samples from.
struct Sampled<'a> {
    opened: &'a SamplingModel,
    guide: Option<&'a SamplingModel>,
    /// The guide's.
    file: Option<&'a CheckpointFile>,
}

impl Sampled<'_> {
    fn view(&self) -> ModelView<'_> {
        ModelView::of(self.opened, self.guide)
    }

    /// What the stage reads besides what counts already: the guide, where it is not its stage's best
    /// checkpoint.
    fn inputs(&self, context: &RunContext) -> Result<Vec<Output>, StageError> {
        let Some(file) = self.file else { return Ok(Vec::new()) };
        let Ok(path) = file.path.strip_prefix(&*context.root) else { return Ok(Vec::new()) };
        Ok(vec![context.output(&path.display().to_string(), Some(&file.digest))?])
    }
}

impl SampleStage {
    fn inspect_made(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let Some(made) = o.made else { return Ok(StageState::absent("not sampled yet").into()) };
        let mut changes = o.changes_since(&made.manifest);
        changes.retain(|change| change.key != sample_guide::KEY || !self.is_same_guide(o, made));
        let as_made = |output: &Output| o.if_unchanged(output).ok_or_else(|| output.path.clone());
        let standing: Result<Vec<Output>, String> = made.outputs.iter().map(as_made).collect();
        let state = match (changes.is_empty(), standing) {
            (false, _) => StageState::changed(changes),
            (true, Err(gone)) => StageState::absent(format!("{gone} is not there, or was changed")),
            (true, Ok(_)) if let Some(reason) = self.is_open(o) => StageState::absent(reason),
            (true, Ok(outputs)) => {
                o.confirm(Outputs { outputs, ..made.clone() });
                StageState::Done { reason: "up to date".into() }
            }
        };
        Ok(state.into())
    }

    /// Samples from one checkpoint. `to`: relative to the project.
    pub(super) fn sample(
        &self,
        context: &RunContext,
        file: &CheckpointFile,
        to: &Path,
    ) -> Result<Written, StageError> {
        let s = &self.settings;
        let device = device::resolve(s.device, GpuAssignment::of(context))
            .map_err(|e| StageError::setting(e.to_string()))?
            .device;
        let opened =
            checkpoint::load_for_sampling(&self.architectures, &file.path, None, s.ema, &device);
        let mut opened = opened.map_err(|e| StageError::new(Failure::Input, e.to_string()))?;
        let guide = s.guide.as_ref().map(|guide| guide.checkpoint(&context.inputs, &context.root));
        let guide = guide.transpose()?;
        let guiding = guide
            .as_ref()
            .map(|guide| load_guide(&self.architectures, &guide.path, s.ema, &device, &mut opened));
        let guiding = guiding
            .transpose()
            .map_err(|e| StageError::new(Failure::Input, e.to_string()).at(sample_guide::KEY))?;
        let classes = Some(opened.config.num_classes());
        for (_, text) in s.guidance_check(classes, opened.label_dropout).doubts() {
            context.event(Event::Message { text });
        }
        let sampled = Sampled { opened: &opened, guide: guiding.as_ref(), file: guide.as_ref() };
        let (files, summary) = match &s.seeds {
            None => self.grid(context, &sampled, &device, to)?,
            Some(seeds) => self.pictures(seeds, context, &sampled, &device, to)?,
        };
        Ok(Written { files, inputs: sampled.inputs(context)?, summary })
    }

    /// Notes the files that it made, in the place of those that it made before.
    pub(super) fn record(
        &self,
        context: &RunContext,
        files: &[PathBuf],
        inputs: Vec<Output>,
    ) -> Result<(), StageError> {
        let to = &self.settings.to;
        let is_of_it = |file: &Path| file.starts_with(to) || self.epoch_of(file).is_some();
        remove_former(context, is_of_it, files)?;
        let outputs = files.iter().map(|file| context.output(&file.display().to_string(), None));
        context.record_outputs(outputs.collect::<Result<_, _>>()?, inputs, Vec::new())
    }

    /// Whether the guide is of one epoch, and that checkpoint is what it was, whichever is the best
    /// of its stage now.
    fn is_same_guide(&self, o: &InspectContext, made: &Outputs) -> bool {
        let guide = self.settings.guide.as_ref().filter(|guide| guide.decides().is_some());
        let now = guide.and_then(|guide| guide.checkpoint(o.inputs, o.root).ok());
        now.is_some_and(|now| made.inputs.iter().any(|input| input.digest == now.digest))
    }

    /// What stands above the images.
    fn title(&self, pipeline: &str, epoch: u64) -> String {
        let SampleSettings { from, guide, seed, .. } = &self.settings;
        let guide = guide.as_ref().map(|guide| format!(", guided by {guide}"));
        let guide = guide.unwrap_or_default();
        let sampler = sampler_in_words(&self.sampler);
        format!("{from} of {pipeline}, epoch {epoch}, {sampler}{guide}, seed {seed}")
    }

    /// An image grid.
    fn grid(
        &self,
        context: &RunContext,
        sampled: &Sampled,
        device: &Device,
        to: &Path,
    ) -> Result<(Vec<PathBuf>, String), StageError> {
        let s = &self.settings;
        let request = GridRequest {
            title: self.title(&context.pipeline, sampled.opened.epoch),
            n: s.n,
            classes: s.classes.clone().unwrap_or_default(),
            seed: s.seed,
            sampler: self.sampler,
            batch_size: s.batch_size,
            strip: s.strip,
        };
        let after = |done, total| tell_sampling(context, done, total);
        let grid = request.sample(sampled.view(), device, after)?;
        let grid = unless_stopped(context, grid)?;
        let format = Format::of(to).map_err(StageError::setting)?;
        write_result(context, to, &format.encode_sampled(&grid.render())?)?;
        let classes = sampled.opened.config.num_classes();
        let part = request.class_subset(classes).map(|part| format!(" of {part}"));
        let summary = format!("{} images{}: {}", s.n, part.unwrap_or_default(), to.display());
        Ok((vec![to.to_owned()], summary))
    }

    /// A picture of its own for each seed.
    fn pictures(
        &self,
        seeds: &Seeds,
        context: &RunContext,
        sampled: &Sampled,
        device: &Device,
        to: &Path,
    ) -> Result<(Vec<PathBuf>, String), StageError> {
        let s = &self.settings;
        let request = PictureRequest {
            which: Which::Seeds(seeds.clone()),
            classes: s.classes.clone().unwrap_or_default(),
            sampler: self.sampler,
            batch_size: s.batch_size,
            source: sampled.opened.source.clone(),
        };
        let target = Target::of(&context.root.join(to)).map_err(StageError::setting)?;
        let path = target.path();
        let disk = context.root.disk();
        atomic::create_folder(disk, path.parent().unwrap_or(&context.root))?;
        let after = |done, total| tell_sampling(context, done, total);
        let write = || {
            let written = request.write(disk, &target, sampled.view(), device, after)?;
            unless_stopped(context, written)
        };
        let written = if let Target::Folder(_) = target {
            // A picture says of itself that it was sampled.
            context.note_place(to)?;
            if let Err(other) = request.check_alone(path, sampled.view()) {
                let text = format!("{}; whoever reads the folder has it, too", other.message);
                context.event(Event::Warning { text });
            }
            write()?
        } else {
            write_over(context, to, write)?
        };
        let files = written.files.iter().map(|name| to.join(name));
        let files: Vec<PathBuf> = match target {
            Target::Folder(_) => files.collect(),
            _ => vec![to.to_owned()],
        };
        let summary = format!("{} pictures: {}", seeds.count(), to.display());
        Ok((files, summary))
    }
}
