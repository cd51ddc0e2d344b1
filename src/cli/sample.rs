//! `pipe sample CKPT`, `pipe sample RUN`

use std::path::{Path, PathBuf};

use pipe_core::progress::{Event, Unit};
use pipe_core::stop::Stop;
use pipe_engine::kind::{Failure, StageError, StageId};
use pipe_fs::Disk;
use pipe_models::architecture::Architectures;
use pipe_models::burn::tensor::Device;
use pipe_models::diffusion::Sampler;
use pipe_train::checkpoint::{self, SamplingModel};
use pipe_train::device::{self, DeviceSpec, GpuAssignment};
use pipe_train::sampling::{
    Format, GridRequest, PictureRequest, Seeds, Target, ineffective_guidance,
};

use super::runs::named::Name;
use super::{CliError, ExitCode, files, live, output_file, signals};
use crate::report::stdout::say;
use crate::report::{self, Output, message};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe sample checkpoints/base_training/run_001/checkpoints/best.ckpt --n 32\n  pipe sample base.ckpt --lora checkpoints/lora/run_001/adapter --class oak --guidance 2 -o oaks.png\n  pipe sample 3"
)]
pub struct SampleArguments {
    /// Checkpoint to sample from, of a training or of LoRA; of a run's folder the best. The name of a
    /// run that is being trained, such as `3` or `base/3`, asks it for a picture of its own now
    #[arg(value_name = "CHECKPOINT|RUN")]
    checkpoint: PathBuf,
    /// Adapter to put on it: a folder in PEFT's format or a LoRA checkpoint
    #[arg(long, value_name = "ADAPTER")]
    lora: Option<PathBuf>,
    /// Images in all, shared out among the classes
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    n: u16,
    /// A picture of its own for each of these seeds, such as 0-49999 or 1,5,7-9, in a folder, a .zip
    /// or an .npz file. Pictures that are there already are not made again
    #[arg(long, value_name = "SEEDS", conflicts_with_all = ["n", "seed"])]
    seeds: Option<Seeds>,
    /// File to write: a .png, .jpg or .webp; samples.png if unset. With --seeds a folder, a .zip or an
    /// .npz file; the folder `samples` if unset
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Sample this class only; can be given several times
    #[arg(long = "class", value_name = "NAME")]
    classes: Vec<String>,
    /// Noise levels of the sampler
    #[arg(long, default_value_t = 18, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    /// Weight of the class: 1 takes it as it is, more exaggerates it
    #[arg(long, default_value_t = 1.0, value_name = "W")]
    guidance: f64,
    /// Seed of the noise that the images begin as
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Use the weights themselves, not the EMA weights
    #[arg(long)]
    no_ema: bool,
    /// Images that are sampled at once
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Where to compute: auto, cpu, gpu, gpu:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: DeviceSpec,
}

impl SampleArguments {
    /// What stands above the pictures.
    fn title(&self, checkpoint: &Path) -> String {
        let Self { steps, guidance, seed, .. } = self;
        format!("{}, {steps} steps, guidance {guidance}, seed {seed}", checkpoint.display())
    }
}

pub fn sample(
    arguments: SampleArguments,
    output: &Output,
    architectures: &Architectures,
) -> Result<ExitCode, CliError> {
    let a = arguments;
    if let Some(name) = live::named(&a.checkpoint) {
        return picture_of(&name, &a);
    }
    if !(a.guidance >= 0.0 && a.guidance.is_finite()) {
        return Err(CliError::usage("--guidance: expected 0 or more"));
    }
    let unset = if a.seeds.is_some() { "samples" } else { "samples.png" };
    let output_path = a.output.clone().unwrap_or_else(|| PathBuf::from(unset));
    let wrong = |e: String| CliError::usage(format!("--output {e}"));
    let wanted = match &a.seeds {
        None => Wanted::Grid(Format::of(&output_path).map_err(wrong)?),
        Some(seeds) => Wanted::Pictures(seeds.clone(), Target::of(&output_path).map_err(wrong)?),
    };
    let path = files::checkpoint(&a.checkpoint)?;
    let adapter = a.lora.as_deref().map(files::adapter);
    let device =
        device::resolve(a.device, GpuAssignment::default()).map_err(CliError::usage)?.device;
    let opened =
        checkpoint::load_for_sampling(architectures, &path, adapter.as_deref(), !a.no_ema, &device)
            .map_err(CliError::failed)?;
    if let Some(warning) = &opened.warning {
        message::warning(warning);
    }
    let classes = opened.config.num_classes();
    if let Some(text) = ineffective_guidance(a.guidance, Some(classes), opened.label_dropout) {
        message::warning(&text);
    }
    let stop = Stop::default();
    signals::watch(stop.clone())?;
    let report = report::reporter(output, false);
    let id = StageId::new("sample").ok_or_else(|| CliError::failed("no name for the progress"))?;
    let after = |done: u64, total: u64| {
        report.event(
            &id,
            &Event::Preparing {
                what: "sampling".into(),
                done,
                total: Some(total),
                unit: Unit::Items,
            },
        );
        stop.requested().is_none()
    };
    let model = Model { opened: &opened, device: &device };
    let written = match wanted {
        Wanted::Grid(format) => model.grid(&a, a.title(&path), (&output_path, format), after),
        Wanted::Pictures(seeds, target) => model.pictures(&a, seeds, &target, after),
    };
    report.finish();
    if !written? {
        let code = stop.requested().map_or(1, |signal| signal.exit_code());
        return Ok(ExitCode::from(code));
    }
    if !output_file::is_output(&output_path) {
        say!("{}", output_path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What is to be written.
enum Wanted {
    Grid(Format),
    Pictures(Seeds, Target),
}

/// A model that is opened, on its device.
struct Model<'a> {
    opened: &'a SamplingModel,
    device: &'a Device,
}

impl Model<'_> {
    fn sampler(a: &SampleArguments) -> Sampler {
        Sampler { steps: usize::from(a.steps), guidance: a.guidance, ..Sampler::default() }
    }

    /// Writes an image grid. Whether it was not stopped.
    fn grid(
        &self,
        a: &SampleArguments,
        title: String,
        (path, format): (&Path, Format),
        after: impl FnMut(u64, u64) -> bool + Send,
    ) -> Result<bool, CliError> {
        let SamplingModel { net, config, class_names, .. } = self.opened;
        let request = GridRequest {
            title,
            n: usize::from(a.n),
            classes: a.classes.clone(),
            seed: a.seed,
            sampler: Self::sampler(a),
            batch_size: usize::from(a.batch_size),
        };
        if let Some(part) = request.class_subset(config.num_classes()) {
            message::warning(&format!(
                "--n {}: {part} are sampled; each needs an image",
                request.n
            ));
        }
        let grid = request.sample(net, config, class_names, self.device, after);
        let Some(grid) = grid.map_err(refused)? else { return Ok(false) };
        let bytes = format.encode(&grid.render()).map_err(CliError::failed)?;
        output_file::write(&Disk::default(), path, |out| out.write_all(&bytes))?;
        Ok(true)
    }

    /// Writes a picture for each seed. Whether it was not stopped.
    fn pictures(
        &self,
        a: &SampleArguments,
        seeds: Seeds,
        target: &Target,
        after: impl FnMut(u64, u64) -> bool + Send,
    ) -> Result<bool, CliError> {
        let SamplingModel { net, config, class_names, source, .. } = self.opened;
        let request = PictureRequest {
            seeds,
            classes: a.classes.clone(),
            sampler: Self::sampler(a),
            batch_size: usize::from(a.batch_size),
            source: source.clone(),
        };
        let model = (net, config, &class_names[..]);
        let written = request.write(&Disk::default(), target, model, self.device, after);
        let Some(written) = written.map_err(refused)? else { return Ok(false) };
        if written.kept > 0 {
            let (kept, all) = (written.kept, written.files.len());
            message::note(&format!("{kept} of {all} pictures were there already"));
        }
        Ok(true)
    }
}

fn refused(e: StageError) -> CliError {
    match e.failure {
        Failure::Setting => CliError::usage(e),
        _ => CliError::failed(e),
    }
}

/// Asks a run that is being trained. What is in the picture is the training's to say.
fn picture_of(name: &Name, a: &SampleArguments) -> Result<ExitCode, CliError> {
    let drawing = a.lora.is_some()
        || a.output.is_some()
        || !a.classes.is_empty()
        || a.no_ema
        || a.seeds.is_some();
    let numbers = (a.n, a.steps, a.guidance, a.seed, a.batch_size) != (16, 18, 1.0, 0, 16);
    if drawing || numbers || a.device != DeviceSpec::default() {
        let message = "a run that is being trained draws its own picture, and takes no options";
        return Err(CliError::usage(message).note("name a checkpoint's file to draw from it"));
    }
    match live::sample(name)? {
        Some(path) => say!("{}", path.display()),
        None => return Ok(live::interrupted()),
    }
    Ok(ExitCode::SUCCESS)
}
