//! `pipe ckpt show|verify|probe|export|ema|import FILE`, `pipe ckpt again RUN`

use std::collections::BTreeMap;
use std::path::PathBuf;

use pipe_fs::Disk;
use pipe_models::architecture::Architectures;
use pipe_runs::Checkpoint;
use pipe_runs::checkpoint::Written;
use pipe_train::checkpoint::{self as model, PostHocError};

use super::ckpt_again::{AgainArguments, again};
use super::{CliError, ExitCode, Kinds, files, hub, output_file, project};
use crate::report::stdout::say;
use crate::report::{Output, message, table};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe ckpt show checkpoints/base_training/run_001/checkpoints/best.ckpt\n  pipe ckpt show 3\n  pipe ckpt verify checkpoints/base_training/run_001/checkpoints/last.ckpt\n  pipe ckpt export best.ckpt --weights-only -o weights.ckpt\n  pipe ckpt export best.ckpt --hub my_model\n  pipe ckpt ema checkpoints/base_training/run_001 --length 0.075 -o averaged.ckpt\n  pipe ckpt again 3 --epoch 7\n  pipe ckpt again base/3 --epoch 7 -o epoch_7.ckpt\n  pipe ckpt import model.pt --image-size 32 -o model.ckpt\n  pipe ckpt import last.ckpt --map names.yaml --image-size 32 -o model.ckpt"
)]
pub struct CkptArguments {
    #[command(subcommand)]
    command: CkptCommand,
}

#[derive(clap::Subcommand)]
enum CkptCommand {
    /// Print the header and what there is of tensors, without reading the data
    Show {
        /// A checkpoint; of a run's folder, and of a run's name such as `3` or `base/3`, the best
        #[arg(value_name = "CHECKPOINT|RUN")]
        file: PathBuf,
        /// Each tensor with its type and shape
        #[arg(long)]
        tensors: bool,
        /// As JSON, with each tensor
        #[arg(long)]
        json: bool,
    },
    /// Recompute the digest of everything in the file
    Verify {
        /// Checkpoints; of a run's folder, and of a run's name such as `3` or `base/3`, the best
        #[arg(required = true, value_name = "CHECKPOINT|RUN")]
        files: Vec<PathBuf>,
    },
    /// Print a digest of the model's outputs on fixed inputs, as JSON
    Probe {
        /// A checkpoint; of a run's folder, and of a run's name such as `3` or `base/3`, the best
        #[arg(value_name = "CHECKPOINT|RUN")]
        file: PathBuf,
        /// The weights to use: `state_dict.` or `ema_state_dict.`
        #[arg(long, default_value = "state_dict.")]
        prefix: String,
    },
    /// Write a checkpoint for others: its weights alone, or with LoRA weights folded in
    #[command(group = clap::ArgGroup::new("what").required(true))]
    Export {
        /// A checkpoint, for `--lora` the base model; of a run's folder, and of a run's name such as `3`
        /// or `base/3`, the best
        #[arg(value_name = "CHECKPOINT|RUN")]
        file: PathBuf,
        /// File to write
        #[arg(
            short,
            long,
            value_name = "FILE",
            required_unless_present = "hub",
            conflicts_with = "hub"
        )]
        output: Option<PathBuf>,
        /// The weights and the EMA weights, without the optimizer's state
        #[arg(long, group = "what")]
        weights_only: bool,
        /// A folder as model hubs take it: the weights that are sampled from, their configuration,
        /// and a model card with data, settings, metrics and pictures
        #[arg(long, group = "what", value_name = "DIR")]
        hub: Option<PathBuf>,
        /// A picture for the card; the run's own newest if unset
        #[arg(long = "picture", value_name = "FILE", requires = "hub")]
        pictures: Vec<PathBuf>,
        /// Whole weights with the LoRA weights folded in
        #[arg(long, group = "what")]
        merge: bool,
        /// Fold in this adapter: a folder in PEFT's format or a LoRA checkpoint
        #[arg(long, value_name = "ADAPTER", requires = "merge")]
        lora: Option<PathBuf>,
        /// Write over a file that exists
        #[arg(long)]
        overwrite: bool,
    },
    /// Write the weights of a run averaged over any length, from its snapshots
    Ema {
        /// The run's name or folder, trained with `ema: { lengths: [0.05, 0.1] }`
        run: PathBuf,
        /// Standard deviation of the times that the average is of, as a share of the training
        #[arg(long, value_name = "SHARE")]
        length: f64,
        /// At the end of this epoch, in the place of the last snapshot's
        #[arg(long, value_name = "N")]
        epoch: Option<u64>,
        /// File to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Write over a file that exists
        #[arg(long)]
        overwrite: bool,
    },
    /// Make a checkpoint again that a run no longer keeps, and compare it with what was recorded of it
    ///
    /// Trains from the nearest kept checkpoint before it, with the run's own settings, in a folder
    /// aside. Nothing else of the run changes.
    Again(AgainArguments),
    /// Convert a file of PyTorch or Lightning, or a safetensors file, of a model of this program's
    /// architectures (DiffiT, U-Net); no code in it is executed
    Import {
        /// A `.pt`, `.pth`, `.ckpt` or `.safetensors` file
        file: PathBuf,
        /// File to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Side of the images that the model was trained on, which its tensors do not tell
        #[arg(long, value_name = "PIXELS")]
        image_size: usize,
        /// Names of its classes in the order of their labels
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        classes: Vec<String>,
        /// A file that says which of its tensors is which of ours, for other names than ours; the
        /// optimizer's state, epoch and step are taken over too
        #[arg(long, value_name = "MAPPING")]
        map: Option<PathBuf>,
        /// Write over a file that exists
        #[arg(long)]
        overwrite: bool,
    },
}

pub fn ckpt(
    arguments: CkptArguments,
    output: &Output,
    (kinds, architectures): (&Kinds, &Architectures),
) -> Result<ExitCode, CliError> {
    match arguments.command {
        CkptCommand::Again(a) => return again(a, output, kinds),
        CkptCommand::Show { file, tensors, json } => {
            let checkpoint = open(&file)?;
            if json { show_json(&checkpoint) } else { show(&checkpoint, tensors) }
        }
        CkptCommand::Verify { files } => {
            for file in &files {
                let checkpoint = open(file)?;
                checkpoint.verify().map_err(CliError::failed)?;
                say!("{}: good, {}", file.display(), files::digest(&checkpoint));
            }
        }
        CkptCommand::Probe { file, prefix } => {
            let probe =
                model::probe(architectures, &open(&file)?, &prefix).map_err(CliError::failed)?;
            say!("{}", serde_json::to_string(&probe).map_err(CliError::failed)?);
        }
        CkptCommand::Export { file, hub: Some(folder), pictures, overwrite, .. } => {
            let checkpoint = open(&file)?;
            let pictures: Vec<PathBuf> = pictures.iter().map(|path| project::path(path)).collect();
            let folder = project::path(&folder);
            hub::export(architectures, &checkpoint, &folder, &pictures, overwrite)?;
        }
        CkptCommand::Export { file, output, merge, lora, overwrite, .. } => {
            let checkpoint = open(&file)?;
            let output = output.unwrap_or_default();
            let target = free(&output, overwrite)?;
            let adapter = lora.map(|path| files::adapter(&project::path(&path)));
            let adapter = adapter.map(|path| model::adapter(&path, true)).transpose();
            let adapter = adapter.map_err(CliError::failed)?;
            if let Some(adapter) = &adapter
                && let Some(warning) =
                    model::other_base(&checkpoint, adapter).map_err(CliError::failed)?
            {
                message::warning(&warning);
            }
            let disk = Disk::default();
            let written = if merge {
                model::merged(&disk, architectures, &checkpoint, adapter.as_ref(), &target)
            } else {
                model::weights_only(&disk, &checkpoint, &target)
            };
            report(&output, written.map_err(CliError::failed)?);
        }
        CkptCommand::Ema { run, length, epoch, output, overwrite } => {
            let run = files::run_folder(&run)?;
            let target = free(&output, overwrite)?;
            average(&run, length, epoch, &target, &output)?;
        }
        CkptCommand::Import { file, output, image_size, classes, map, overwrite } => {
            let target = free(&output, overwrite)?;
            let options = model::ImportOptions { image_size, class_names: classes };
            let disk = Disk::default();
            let Some(map) = map else {
                let written = model::import(&disk, architectures, &file, &target, &options);
                report(&output, written.map_err(CliError::failed)?);
                return Ok(ExitCode::SUCCESS);
            };
            let mapping = model::Mapping::read(&map).map_err(CliError::failed)?;
            let imported =
                model::import_mapped(&disk, architectures, &file, &target, &mapping, &options)
                    .map_err(CliError::failed)?;
            taken_over(&imported);
            report(&output, imported.written);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes averaged weights, and says of what they are a sum.
fn average(
    run: &std::path::Path,
    length: f64,
    epoch: Option<u64>,
    target: &std::path::Path,
    output: &std::path::Path,
) -> Result<(), CliError> {
    /// From here on a person should know.
    const FAR: f64 = 0.1;
    let made = model::averaged(&Disk::default(), run, length, epoch, target);
    let made = made.map_err(|e| match e {
        PostHocError::Read(_) | PostHocError::Write(_) => CliError::failed(e),
        _ => CliError::usage(e),
    })?;
    let (error, epoch, snapshots) = (100.0 * made.error, made.epoch, made.snapshots);
    if made.error > FAR {
        message::warning(&format!(
            "the weighting is off by {error:.0} % of that of length {length}: more snapshots, or lengths nearer to it, \
             would be better"
        ));
    }
    say!("epoch {epoch}, length {length}: of {snapshots} averages, off by {error:.2} %");
    report(output, made.written);
    Ok(())
}

/// The file to write. Refuses to write over one that nobody spoke of.
pub(super) fn free(file: &std::path::Path, overwrite: bool) -> Result<PathBuf, CliError> {
    let place = project::path(file);
    let target = output_file::target(&place)?;
    if place.exists() && !overwrite {
        Err(CliError::usage(format!("{} exists; --overwrite replaces it", file.display())))
    } else {
        Ok(target)
    }
}

fn taken_over(imported: &model::Imported) {
    let parts =
        [("EMA weights", imported.has_ema), ("the optimizer's state", imported.has_optimizer)];
    let parts = parts.iter().filter(|(_, there)| *there).map(|(part, _)| format!(", {part}"));
    let (epoch, step) = (imported.epoch, imported.global_step);
    say!("taken over: weights{}; epoch {epoch}, step {step}", parts.collect::<String>());
}

fn report(file: &std::path::Path, written: Written) {
    say!("{}: {}, {}", file.display(), table::bytes(written.bytes), written.file_digest);
}

fn open(file: &std::path::Path) -> Result<Checkpoint, CliError> {
    Checkpoint::open(&files::checkpoint_or_run(file)?).map_err(CliError::failed)
}

fn show_json(checkpoint: &Checkpoint) {
    let header = checkpoint.header();
    let list: Vec<_> = checkpoint
        .tensors()
        .map(
            |t| serde_json::json!({"name": t.name, "dtype": t.dtype, "shape": t.shape, "bytes": t.bytes}),
        )
        .collect();
    let value = serde_json::json!({
        "epoch": header.epoch, "global_step": header.global_step, "step_in_epoch": header.step_in_epoch,
        "metrics": header.metrics, "saved_at": header.saved_at, "identity": header.identity,
        "seed": header.seed, "model_config": header.model_config, "digest": files::digest(checkpoint),
        "scheduler_state_dict": header.scheduler_state_dict, "extra": header.extra, "tensors": list,
    });
    say!("{value:#}");
}

/// The header, and the tensors by what they are of, or each.
fn show(checkpoint: &Checkpoint, each: bool) {
    let header = checkpoint.header();
    let tensors: Vec<_> = checkpoint.tensors().collect();
    say!("epoch        {}", header.epoch);
    say!("global step  {}", header.global_step);
    if header.step_in_epoch > 0 {
        say!("inside       the next epoch, step {}", header.step_in_epoch);
    }
    say!("metrics      {}", table::metrics(&header.metrics));
    say!("saved at     {}", header.saved_at.format("%Y-%m-%d %H:%M:%S UTC"));
    say!("seed         {}", header.seed);
    if !checkpoint.is_of_program() {
        say!("model        {}", header.model_config);
    }
    say!("identity     {}", header.identity);
    say!("digest       {}\n", files::digest(checkpoint));
    if checkpoint.is_of_program() {
        let (files, bytes) = (checkpoint.files().len(), table::bytes(checkpoint.bytes()));
        say!("written by a training program in a form of its own; files: {files}, {bytes}");
        return;
    }
    if !each {
        let mut groups: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
        for tensor in &tensors {
            let of = tensor.name.split('.').next().unwrap_or(&tensor.name);
            let (count, bytes) = groups.entry(of).or_default();
            (*count, *bytes) = (*count + 1, *bytes + tensor.bytes);
        }
        let rows: Vec<Vec<String>> = groups
            .iter()
            .map(|(of, (count, size))| {
                vec![(*of).to_owned(), count.to_string(), table::bytes(*size)]
            })
            .collect();
        say!("{}", table::table(&["of", "tensors", "size"], &rows));
        return;
    }
    let rows: Vec<Vec<String>> = tensors
        .iter()
        .map(|t| {
            vec![
                t.name.clone(),
                format!("{:?}", t.dtype),
                format!("{:?}", t.shape),
                table::bytes(t.bytes),
            ]
        })
        .collect();
    say!("{}", table::table(&["tensor", "dtype", "shape", "size"], &rows));
    say!("\n{} tensors, {}", tensors.len(), table::bytes(tensors.iter().map(|t| t.bytes).sum()));
}
