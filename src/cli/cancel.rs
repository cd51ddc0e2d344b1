//! `pipe cancel [FILE] [STAGE…]`

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use pipe_engine::exec::slurm::{Cluster, Slurm};
use pipe_engine::state::JobId;

use super::pipeline_name::HERE;
use super::{CliError, ExitCode, jobs, pipeline_name};
use crate::report::stdout::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe cancel pipelines/base_to_lora.yaml\n  pipe cancel pipelines/base_to_lora.yaml lora"
)]
pub struct CancelArguments {
    /// Pipeline file, or its name; the project's only one if there is none
    #[arg(default_value = HERE, hide_default_value = true)]
    file: PathBuf,
    /// Only the jobs of these stages; those that wait for them end too
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
}

pub fn cancel(arguments: CancelArguments) -> Result<ExitCode, CliError> {
    let jobs = jobs::of(&pipeline_name::resolve(&arguments.file)?, &arguments.stages)?;
    let open: BTreeMap<JobId, String> = jobs
        .into_iter()
        .filter(|(_, job)| job.ended.is_none())
        .map(|(stage, job)| (job.id, stage.to_string()))
        .collect();
    let states = Slurm.states(&open.keys().copied().collect()).map_err(CliError::failed)?;
    let live: BTreeSet<JobId> = open
        .keys()
        .filter(|id| states.get(id).is_some_and(|state| state.is_live()))
        .copied()
        .collect();
    if live.is_empty() {
        say!("no job is left to cancel");
        return Ok(ExitCode::SUCCESS);
    }
    Slurm.cancel(&live).map_err(CliError::failed)?;
    for (id, stage) in open.iter().filter(|(id, _)| live.contains(id)) {
        say!("cancelled job {id} ({stage})");
    }
    Ok(ExitCode::SUCCESS)
}
