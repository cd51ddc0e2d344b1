//! `pipe ckpt show|verify|probe FILE`

use std::path::PathBuf;
use std::process::ExitCode;

use pipe_engine::store::Checkpoint;
use pipe_train::checkpoint as model;

use super::CliError;
use crate::report::table;
use crate::say;

#[derive(clap::Args)]
pub struct CkptArguments {
    #[command(subcommand)]
    command: CkptCommand,
}

#[derive(clap::Subcommand)]
enum CkptCommand {
    /// Print the header and the tensors, without reading the data
    Show {
        file: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Recompute the digest of everything in the file
    Verify {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print a digest of the model's outputs on fixed inputs, as JSON
    Probe {
        file: PathBuf,
        /// The weights to use: `state_dict.` or `ema_state_dict.`
        #[arg(long, default_value = "state_dict.")]
        prefix: String,
    },
}

pub fn ckpt(arguments: CkptArguments) -> Result<ExitCode, CliError> {
    match arguments.command {
        CkptCommand::Show { file, json } => show(&open(&file)?, json),
        CkptCommand::Verify { files } => {
            for file in &files {
                let checkpoint = open(file)?;
                checkpoint.verify().map_err(CliError::failed)?;
                say!("{}: good, {}", file.display(), checkpoint.digest().unwrap_or_default());
            }
        }
        CkptCommand::Probe { file, prefix } => {
            let probe = model::probe(&open(&file)?, &prefix).map_err(CliError::failed)?;
            say!("{}", serde_json::to_string(&probe).map_err(CliError::failed)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open(file: &std::path::Path) -> Result<Checkpoint, CliError> {
    Checkpoint::open(file).map_err(CliError::failed)
}

fn show(checkpoint: &Checkpoint, json: bool) {
    let header = checkpoint.header();
    let tensors: Vec<_> = checkpoint.tensors().collect();
    if json {
        let list: Vec<_> = tensors
            .iter()
            .map(
                |t| serde_json::json!({"name": t.name, "dtype": t.dtype, "shape": t.shape, "bytes": t.bytes}),
            )
            .collect();
        let value = serde_json::json!({
            "epoch": header.epoch, "global_step": header.global_step, "step_in_epoch": header.step_in_epoch,
            "metrics": header.metrics, "saved_at": header.saved_at, "identity": header.identity,
            "seed": header.seed, "model_config": header.model_config, "digest": checkpoint.digest(),
            "scheduler_state_dict": header.scheduler_state_dict, "extra": header.extra, "tensors": list,
        });
        say!("{value:#}");
        return;
    }
    let metrics: Vec<String> = header.metrics.iter().map(|(k, v)| format!("{k}={v:.4}")).collect();
    say!("epoch        {}", header.epoch);
    say!("global step  {}", header.global_step);
    if header.step_in_epoch > 0 {
        say!("inside       the next epoch, step {}", header.step_in_epoch);
    }
    say!("metrics      {}", metrics.join(", "));
    say!("saved at     {}", header.saved_at.format("%Y-%m-%d %H:%M:%S UTC"));
    say!("seed         {}", header.seed);
    say!("model        {}", header.model_config);
    say!("identity     {}", header.identity);
    say!("digest       {}\n", checkpoint.digest().unwrap_or_default());
    let rows: Vec<Vec<String>> = tensors
        .iter()
        .map(|t| {
            vec![t.name.clone(), format!("{:?}", t.dtype), format!("{:?}", t.shape), table::bytes(t.bytes)]
        })
        .collect();
    say!("{}", table::table(&["tensor", "dtype", "shape", "size"], &rows));
    say!("\n{} tensors, {}", tensors.len(), table::bytes(tensors.iter().map(|t| t.bytes).sum()));
}
