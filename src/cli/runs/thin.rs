//! `pipe runs thin N… --keep K`

use pipe_engine::state::Record;
use pipe_runs::{CheckpointManager, Run, Runs, Status};
use pipe_upkeep::thin::{Thinning, thinning};

use super::named::{Name, one};
use crate::cli::{CliError, ExitCode, clean, project};
use crate::report::stdout::say;
use crate::report::table;

/// Removes the checkpoints of completed runs but the newest, the best, and those that something was
/// made from.
///
/// # Errors
/// One of the runs is not completed; nothing is removed then.
pub(super) fn thin(
    folders: &[Runs],
    names: &[Name],
    keep: usize,
    dry_run: bool,
) -> Result<ExitCode, CliError> {
    let root = project::root()?;
    let runs: Vec<Run> = names.iter().map(|name| one(folders, name)).collect::<Result<_, _>>()?;
    let unfit = runs.iter().filter_map(|run| refusal(run).err());
    if let Some(error) = CliError::all(unfit.collect()) {
        return Err(error);
    }
    let records = Record::all(&root);
    let (mut gone, mut freed) = (0, 0);
    for run in &runs {
        let metadata = run.metadata().map_err(CliError::failed)?;
        let plan = thinning(run, metadata, folders, &records, keep);
        for (path, user) in &plan.needed {
            say!("kept {}: {user} was made from it", path.display());
        }
        if !plan.gone.is_empty() && !dry_run && !remove(run, &plan)? {
            say!("kept {} as it is: somebody uses it since", run.folder.display());
            continue;
        }
        let word = if dry_run { "would remove" } else { "removed" };
        for piece in &plan.gone {
            say!("{word} {} ({})", piece.path.display(), table::bytes(piece.bytes));
        }
        (gone, freed) = (gone + plan.gone.len(), freed + plan.bytes());
    }
    clean::conclude(gone, freed, dry_run);
    Ok(ExitCode::SUCCESS)
}

fn remove(run: &Run, plan: &Thinning) -> Result<bool, CliError> {
    let removed = CheckpointManager::thin(run, &plan.metadata, &plan.epochs());
    let removed = removed.map_err(CliError::failed)?;
    let root = project::root()?;
    for piece in plan.gone.iter().filter(|_| removed) {
        pipe_remote::record_removal(&root, &root.join(&piece.path))?;
    }
    Ok(removed)
}

/// Refuses a run that is being trained, or can be gone on with from any of its checkpoints.
fn refusal(run: &Run) -> Result<(), CliError> {
    let shown = run.folder.display();
    if let Some(holder) = run.holder() {
        return Err(CliError::usage(format!("{shown} is being trained by {}", holder.0))
            .note("only a completed run is thinned"));
    }
    let status = run.current_metadata().map_err(CliError::failed)?.status;
    if status == Status::Completed {
        Ok(())
    } else {
        Err(CliError::usage(format!("{shown} is {}, and can be gone on with", status.name()))
            .note("only a completed run is thinned"))
    }
}
