//! `pipe sample CKPT`, `pipe sample RUN`

use std::path::{Path, PathBuf};

use pipe_core::progress::{Event, Unit};
use pipe_core::stop::Stop;
use pipe_engine::kind::{Failure, StageError, StageId};
use pipe_fs::Disk;
use pipe_models::architecture::Architectures;
use pipe_models::burn::tensor::Device;
use pipe_models::diffusion::Sampler;
use pipe_runs::Run;
use pipe_train::checkpoint::{self, SamplingModel, load_guide};
use pipe_train::device::{self, DeviceSpec, GpuAssignment};
use pipe_train::sampling::{
    Format, GridRequest, GuidanceCheck, ModelView, PictureRequest, Seeds, Target, Which,
    check_replaces, sampler_in_words,
};

use super::live::PictureSource;
use super::runs::named::Name;
use super::sampler_arguments::SamplerArguments;
use super::{CliError, ExitCode, files, live, output_file, project, signals};
use crate::report::stdout::say;
use crate::report::{self, Output, message};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe sample checkpoints/base_training/run_001/checkpoints/best.ckpt --n 32\n  pipe sample base.ckpt --lora checkpoints/lora/run_001/adapter --class oak --guidance 2 -o oaks.png\n  pipe sample 3"
)]
pub struct SampleArguments {
    /// Checkpoint to sample from, of a training or of LoRA; of a run's folder, and of a run's name
    /// such as `3` or `base/3`, the best. A run that is being trained is asked for a picture of its own
    #[arg(value_name = "CHECKPOINT|RUN")]
    checkpoint: PathBuf,
    /// Adapter to put on it: a folder in PEFT's format or a LoRA checkpoint
    #[arg(long, value_name = "ADAPTER")]
    lora: Option<PathBuf>,
    /// Images in all, shared out among the classes; 16 if unset, or one for each class if there are
    /// more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    n: Option<u16>,
    /// A picture of its own for each of these seeds, such as 0-49999 or 1,5,7-9, in a folder, a .zip
    /// or an .npz file. Pictures that are there already are not made again
    #[arg(long, value_name = "SEEDS", conflicts_with_all = ["n", "seed"])]
    seeds: Option<Seeds>,
    /// Of the grid that the other options make the images of these numbers, as pictures of their own
    #[arg(long, value_name = "NUMBERS", conflicts_with_all = ["seeds", "strip"])]
    numbers: Option<Seeds>,
    /// In place of a grid a strip of so many columns for each image: what it was estimated to be
    /// while it was denoised, and what it became
    #[arg(long, value_name = "N", conflicts_with = "seeds", value_parser = clap::value_parser!(u16).range(2..=1000))]
    strip: Option<u16>,
    /// File to write: a .png, .jpg or .webp; samples.png if unset. With --seeds or --numbers a folder,
    /// a .zip or an .npz file; the folder `samples` if unset
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Sample this class only; can be given several times
    #[arg(long = "class", value_name = "NAME")]
    classes: Vec<String>,
    #[command(flatten)]
    sampler: SamplerArguments,
    /// Checkpoint of a worse model of the same images, an earlier or a smaller one, which guides in
    /// the place of the estimate without a class (autoguidance)
    #[arg(long, value_name = "CHECKPOINT")]
    guide: Option<PathBuf>,
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
    fn title(&self, checkpoint: &Path, sampler: &Sampler) -> String {
        let guide = self.guide.as_ref().map(|guide| format!(", guided by {}", guide.display()));
        let (sampler, guide) = (sampler_in_words(sampler), guide.unwrap_or_default());
        format!("{}, {sampler}{guide}, seed {}", checkpoint.display(), self.seed)
    }

    /// Images of a grid, for a model of so many classes.
    fn images(&self, classes: usize) -> usize {
        let named = if self.classes.is_empty() { classes } else { self.classes.len() };
        self.n.map_or(named.clamp(GRID, MOST), usize::from)
    }

    /// Has it sample from a checkpoint of the project, from whose folder paths count now.
    fn is_of(&mut self, checkpoint: PathBuf) {
        self.checkpoint = checkpoint;
        self.lora = self.lora.as_deref().map(project::path);
        self.guide = self.guide.as_deref().map(project::path);
    }

    /// What is to be written, for a model of so many classes.
    fn wanted(&self, output: &Path) -> Result<Wanted, CliError> {
        let wrong = |e: String| CliError::usage(format!("--output {e}"));
        let pictures = self.seeds.is_some() || self.numbers.is_some();
        Ok(if pictures {
            Wanted::Pictures(Target::of(output).map_err(wrong)?)
        } else {
            Wanted::Grid(Format::of_file(output).map_err(wrong)?)
        })
    }
}

/// Images of a grid where no number is given; more where there are more classes, up to `MOST`.
const GRID: usize = 16;
const MOST: usize = 10_000;

pub fn sample(
    arguments: SampleArguments,
    output: &Output,
    architectures: &Architectures,
) -> Result<ExitCode, CliError> {
    let mut a = arguments;
    if let Some(name) = Name::of_word(&a.checkpoint) {
        match live::picture_source(&name)? {
            PictureSource::Training(run) => return picture_of(&run, &a),
            PictureSource::Checkpoint(best) => a.is_of(best),
        }
    }
    let sampler = a.sampler.sampler()?;
    if let Some(strip) = a.strip.filter(|strip| usize::from(*strip) > sampler.steps.max(2)) {
        let steps = sampler.steps;
        return Err(CliError::usage(format!("--strip {strip}: expected up to --steps, {steps}")));
    }
    let unset = if a.seeds.is_some() || a.numbers.is_some() { "samples" } else { "samples.png" };
    let named_output = a.output.clone().unwrap_or_else(|| PathBuf::from(unset));
    let output_path = project::path(&named_output);
    let wanted = a.wanted(&output_path)?;
    wanted.make_room(&output_path)?;
    let path = files::checkpoint(&a.checkpoint)?;
    let adapter = a.lora.as_deref().map(files::adapter);
    let device =
        device::resolve(a.device, GpuAssignment::default()).map_err(CliError::usage)?.device;
    let mut opened =
        checkpoint::load_for_sampling(architectures, &path, adapter.as_deref(), !a.no_ema, &device)
            .map_err(CliError::failed)?;
    let guide = a.guide.as_deref().map(files::checkpoint).transpose()?;
    let guide = guide.map(|file| load_guide(architectures, &file, !a.no_ema, &device, &mut opened));
    let guide = guide.transpose().map_err(|e| CliError::failed(format!("--guide: {e}")))?;
    if let Some(warning) = &opened.warning {
        message::warning(warning);
    }
    let check = GuidanceCheck {
        guidance: sampler.guidance,
        has_interval: sampler.guidance_interval.is_some(),
        has_guide: guide.is_some(),
        classes: Some(opened.config.num_classes()),
        label_dropout: opened.label_dropout,
    };
    check.doubts().iter().for_each(|(_, text)| message::warning(text));
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
                unit: Unit::Steps,
            },
        );
        stop.requested().is_none()
    };
    let model = Model { opened: &opened, guide: guide.as_ref(), device: &device, sampler };
    let written = match wanted {
        Wanted::Grid(format) => {
            model.grid(&a, a.title(&path, &sampler), (&output_path, format), after)
        }
        Wanted::Pictures(target) => model.pictures(&a, &target, after),
    };
    report.finish();
    if !written? {
        let code = stop.requested().map_or(1, |signal| signal.exit_code());
        return Ok(ExitCode::from(code));
    }
    if !output_file::is_output(&named_output) {
        say!("{}", named_output.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What is to be written.
enum Wanted {
    Grid(Format),
    Pictures(Target),
}

impl Wanted {
    /// Checks that it can be put there, and that nothing of anybody's is lost with what is there.
    fn make_room(&self, path: &Path) -> Result<(), CliError> {
        match self {
            Self::Pictures(Target::Folder(_)) if path.is_file() => {
                let path = path.display();
                Err(CliError::usage(format!(
                    "{path} is a file: name a folder, a .zip or an .npz file"
                )))
            }
            Self::Pictures(Target::Folder(_)) => Ok(()),
            _ => {
                output_file::make_room(&Disk::default(), path)?;
                check_replaces(path).map_err(refused)
            }
        }
    }
}

/// A model that is opened, on its device.
struct Model<'a> {
    opened: &'a SamplingModel,
    guide: Option<&'a SamplingModel>,
    device: &'a Device,
    sampler: Sampler,
}

impl Model<'_> {
    fn view(&self) -> ModelView<'_> {
        ModelView::of(self.opened, self.guide)
    }

    /// Writes an image grid. Whether it was not stopped.
    fn grid(
        &self,
        a: &SampleArguments,
        title: String,
        (path, format): (&Path, Format),
        after: impl FnMut(u64, u64) -> bool + Send,
    ) -> Result<bool, CliError> {
        let classes = self.opened.config.num_classes();
        let request = GridRequest {
            title,
            n: a.images(classes),
            classes: a.classes.clone(),
            seed: a.seed,
            sampler: self.sampler,
            batch_size: usize::from(a.batch_size),
            strip: a.strip.map(usize::from),
        };
        if let Some(part) = request.class_subset(classes) {
            message::warning(&format!(
                "--n {}: {part} are sampled; each needs an image",
                request.n
            ));
        }
        let grid = request.sample(self.view(), self.device, after);
        let Some(grid) = grid.map_err(refused)? else { return Ok(false) };
        let bytes = format.encode_sampled(&grid.render()).map_err(CliError::failed)?;
        output_file::write(&Disk::default(), path, |out| out.write_all(&bytes))?;
        Ok(true)
    }

    /// Writes pictures of their own. Whether it was not stopped.
    fn pictures(
        &self,
        a: &SampleArguments,
        target: &Target,
        after: impl FnMut(u64, u64) -> bool + Send,
    ) -> Result<bool, CliError> {
        let of_grid = |numbers: Seeds| Which::OfGrid {
            n: a.images(self.opened.config.num_classes()),
            seed: a.seed,
            numbers,
        };
        let numbers = a.numbers.clone().map(of_grid);
        let Some(which) = a.seeds.clone().map(Which::Seeds).or(numbers) else { return Ok(true) };
        let request = PictureRequest {
            which,
            classes: a.classes.clone(),
            sampler: self.sampler,
            batch_size: usize::from(a.batch_size),
            source: self.opened.source.clone(),
        };
        if let Target::Folder(folder) = target {
            request.check_alone(folder, self.view()).map_err(refused)?;
        }
        let written = request.write(&Disk::default(), target, self.view(), self.device, after);
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
fn picture_of(run: &Run, a: &SampleArguments) -> Result<ExitCode, CliError> {
    let drawing = a.lora.is_some()
        || a.output.is_some()
        || !a.classes.is_empty()
        || a.no_ema
        || a.guide.is_some()
        || a.n.is_some()
        || a.seeds.is_some()
        || a.numbers.is_some()
        || a.strip.is_some();
    let numbers = (a.seed, a.batch_size) != (0, 16);
    if drawing || numbers || !a.sampler.is_unset() || a.device != DeviceSpec::default() {
        let message = "a run that is being trained draws its own picture, and takes no options";
        return Err(CliError::usage(message).note("name a checkpoint's file to draw from it"));
    }
    match live::sample(run)? {
        Some(path) => say!("{}", path.display()),
        None => return Ok(live::interrupted()),
    }
    Ok(ExitCode::SUCCESS)
}
