//! `kind: sample`: an image grid from a trained model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use figment::Figment;
use pipe_core::progress::{Event, Unit};
use pipe_engine::kind::{
    Diagnostic, Failure, Files, InspectContext, Inspection, Outcome, PipelineView, Reference,
    Rejection, RunContext, Stage, StageError, StageKind, StageState,
};
use pipe_engine::state::{Output, Outputs};
use pipe_fs::atomic;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::artifacts::{Checkpoints, checkpoint_reference};
use super::copy_best::inside_project;
use super::{lint, lint_sample};
use crate::architecture::Architectures;
use crate::checkpoint::{self, SamplingModel};
use crate::device::{self, DeviceSpec, GpuAssignment};
use crate::diffusion::Sampler;
use crate::sampling::{Format, GridRequest, PictureRequest, Seeds, Target, ineffective_guidance};

/// Samples images from a trained model into an image grid, a row for each class.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SampleSettings {
    /// The stage whose model is used: any that makes checkpoints.
    pub(super) from: String,
    /// The file to write, relative to the project: a .png, .jpg or .webp. With `seeds`: a folder, a
    /// .zip or an .npz file.
    to: PathBuf,
    /// A picture of its own for each of these seeds, `0-49999` or `1,5,7-9`, in place of a grid of
    /// `n`. Seeds go round the classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seeds: Option<Seeds>,
    /// Images in all, shared out among the classes: at least one for each, or the last ones get
    /// none.
    #[serde(default = "default_n")]
    #[schemars(range(min = 1, max = 10_000))]
    #[schemars(extend("x-known-as" = ["num_samples"]))]
    pub(super) n: usize,
    /// The classes to sample, by name; all of them if unset.
    #[serde(default)]
    pub(super) classes: Option<Vec<String>>,
    /// Noise levels of EDM's Heun sampler; the network is evaluated `2 steps - 1` times.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1, max = 1000))]
    #[schemars(extend("x-known-as" = ["num_inference_steps", "sampling_steps", "num_steps"]))]
    steps: usize,
    /// Weight of the class (classifier-free guidance): 1 takes it as it is, more exaggerates it.
    #[serde(default = "default_guidance")]
    #[schemars(extend("x-known-as" = ["guidance_scale", "cfg", "cfg_scale"]))]
    pub(super) guidance: f64,
    /// Seed of the noise that the images begin as.
    #[serde(default)]
    seed: u64,
    /// Sample with the EMA weights where there are any.
    #[serde(default = "yes")]
    ema: bool,
    /// Images that are sampled at once.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1), extend("x-class" = "runtime"))]
    batch_size: usize,
    /// Where to compute: `auto`, `cpu`, `gpu`, `gpu:N`.
    #[serde(default)]
    #[schemars(extend("x-class" = "runtime"))]
    device: DeviceSpec,
}

fn default_n() -> usize {
    32
}

fn default_steps() -> usize {
    Sampler::default().steps
}

fn default_guidance() -> f64 {
    Sampler::default().guidance
}

fn default_batch_size() -> usize {
    16
}

fn yes() -> bool {
    true
}

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
        for key in ["n", "seed"].into_iter().filter(|_| settings.seeds.is_some()) {
            let message = "`seeds` says which pictures are sampled";
            Rejection::unless(key, !given.contains(key), message)?;
        }
        Rejection::unless("n", (1..=10_000).contains(&settings.n), "1 to 10000 images")?;
        Rejection::unless("steps", (1..=1000).contains(&settings.steps), "1 to 1000")?;
        Rejection::unless(
            "guidance",
            settings.guidance >= 0.0 && settings.guidance.is_finite(),
            "0 or more",
        )?;
        Rejection::unless("batch_size", settings.batch_size >= 1, "at least 1")?;
        Ok(Arc::new(SampleStage { settings, architectures: self.0.clone() }))
    }
}

struct SampleStage {
    settings: SampleSettings,
    architectures: Architectures,
}

impl Stage for SampleStage {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn references(&self) -> Vec<Reference> {
        vec![checkpoint_reference("from", &self.settings.from)]
    }

    fn lint(&self, pipeline: &PipelineView) -> Vec<Diagnostic> {
        let mut found = lint::check_source("from", &self.settings.from, None, pipeline);
        found.extend(lint::check_is_readable("from", &self.settings.from, pipeline));
        found.extend(lint_sample::check_sample(&self.settings, pipeline));
        found
    }

    fn files(&self) -> Files {
        Files { reads: Vec::new(), writes: vec![("to".to_owned(), self.settings.to.clone())] }
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let Some(made) = o.made else { return Ok(StageState::absent("not sampled yet").into()) };
        let changes = o.changes_since(&made.manifest);
        let standing: Option<Vec<Output>> =
            made.outputs.iter().map(|output| o.if_unchanged(output)).collect();
        let state = match (changes.is_empty(), standing) {
            (false, _) => StageState::changed(changes),
            (true, None) => StageState::absent(format!(
                "{} is not there, or was changed",
                self.settings.to.display()
            )),
            (true, Some(outputs)) => {
                o.confirm(Outputs { outputs, ..made.clone() });
                StageState::Done { reason: "up to date".into() }
            }
        };
        Ok(state.into())
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let s = &self.settings;
        let Some(file) = context.inputs.get("from").and_then(Checkpoints::best_of) else {
            return Err(StageError::setting(format!("from: stage {} has no checkpoint", s.from)));
        };
        let device = device::resolve(s.device, GpuAssignment::of(context))
            .map_err(|e| StageError::setting(e.to_string()))?
            .device;
        let opened =
            checkpoint::load_for_sampling(&self.architectures, &file.path, None, s.ema, &device);
        let opened = opened.map_err(|e| StageError::new(Failure::Input, e.to_string()))?;
        let classes = Some(opened.config.num_classes());
        if let Some(text) = ineffective_guidance(s.guidance, classes, opened.label_dropout) {
            context.event(Event::Message { text });
        }
        match &s.seeds {
            None => self.grid(context, &opened, &device),
            Some(seeds) => self.pictures(seeds, context, &opened, &device),
        }
    }
}

impl SampleStage {
    fn sampler(&self) -> Sampler {
        let SampleSettings { steps, guidance, .. } = self.settings;
        Sampler { steps, guidance, ..Sampler::default() }
    }

    /// Tells how far it is, and whether to go on.
    fn after(context: &RunContext, done: u64, total: u64) -> bool {
        context.event(Event::Preparing {
            what: "sampling".into(),
            done,
            total: Some(total),
            unit: Unit::Items,
        });
        context.stop.requested().is_none()
    }

    fn stopped(context: &RunContext) -> StageError {
        let signal = context.stop.requested().unwrap_or(pipe_core::stop::Signal::Terminate);
        StageError::new(Failure::Interrupted(signal), format!("stopped by {}", signal.name()))
    }

    /// An image grid.
    fn grid(
        &self,
        context: &RunContext,
        opened: &SamplingModel,
        device: &Device,
    ) -> Result<Outcome, StageError> {
        let s = &self.settings;
        let request = GridRequest {
            title: format!("{} of {}, epoch {}", s.from, context.pipeline, opened.epoch),
            n: s.n,
            classes: s.classes.clone().unwrap_or_default(),
            seed: s.seed,
            sampler: self.sampler(),
            batch_size: s.batch_size,
        };
        let after = |done, total| Self::after(context, done, total);
        let grid =
            request.sample(&opened.net, &opened.config, &opened.class_names, device, after)?;
        let grid = grid.ok_or_else(|| Self::stopped(context))?;
        let target = context.root.join(&s.to);
        let format = Format::of(&s.to).map_err(StageError::setting)?;
        let bytes = format.encode(&grid.render())?;
        atomic::create_folder(context.root.disk(), target.parent().unwrap_or(&context.root))?;
        atomic::remove_temporary_files_for(context.root.disk(), &target);
        atomic::write(context.root.disk(), &target, |out| out.write_all(&bytes))?;
        let path = s.to.display().to_string();
        let output = context.output(&path, None)?;
        context.record_outputs(vec![output], Vec::new(), Vec::new())?;
        let part =
            request.class_subset(opened.config.num_classes()).map(|part| format!(" of {part}"));
        let summary = format!("{} images{}: {path}", s.n, part.unwrap_or_default());
        Ok(Outcome { artifact: None, summary, next: None })
    }

    /// A picture of its own for each seed.
    fn pictures(
        &self,
        seeds: &Seeds,
        context: &RunContext,
        opened: &SamplingModel,
        device: &Device,
    ) -> Result<Outcome, StageError> {
        let s = &self.settings;
        let request = PictureRequest {
            seeds: seeds.clone(),
            classes: s.classes.clone().unwrap_or_default(),
            sampler: self.sampler(),
            batch_size: s.batch_size,
            source: opened.source.clone(),
        };
        let target = Target::of(&context.root.join(&s.to)).map_err(StageError::setting)?;
        let path = target.path();
        let disk = context.root.disk();
        atomic::create_folder(disk, path.parent().unwrap_or(&context.root))?;
        let after = |done, total| Self::after(context, done, total);
        let model = (&opened.net, &opened.config, &opened.class_names[..]);
        let written = request.write(disk, &target, model, device, after)?;
        let written = written.ok_or_else(|| Self::stopped(context))?;
        let files = written.files.iter().map(|name| s.to.join(name));
        let files: Vec<PathBuf> = match target {
            Target::Folder(_) => files.collect(),
            _ => vec![s.to.clone()],
        };
        // Pictures of other seeds that the stage made before are not its result any more.
        let before = context.made.iter().flat_map(|made| &made.outputs).map(|o| Path::new(&o.path));
        for old in before.filter(|old| old.starts_with(&s.to) && !files.iter().any(|f| f == old)) {
            atomic::remove(disk, &context.root.join(old))?;
        }
        let outputs = files.iter().map(|file| context.output(&file.display().to_string(), None));
        context.record_outputs(outputs.collect::<Result<_, _>>()?, Vec::new(), Vec::new())?;
        let summary = format!("{} pictures: {}", seeds.count(), s.to.display());
        Ok(Outcome { artifact: None, summary, next: None })
    }
}
