//! `pipe runs prune`, `pipe runs rm`, `pipe gc`: what can go.

use std::path::PathBuf;

use pipe_engine::state::Record;
use pipe_runs::{Labels, Run, Runs};
use pipe_upkeep::clean::PruneDecision;
use pipe_upkeep::{clean, removal};

use super::{CliError, ExitCode, project, run_folders};
use crate::report::stdout::say;
use crate::report::table;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe gc --dry-run\n  pipe gc --dir checkpoints/lora\n  pipe gc --cache"
)]
pub struct GcArguments {
    /// Folder of numbered runs; all of the project if unset
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Remove the cache of file digests and decoded images too
    #[arg(long)]
    cache: bool,
    /// Say what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn gc(arguments: GcArguments) -> Result<ExitCode, CliError> {
    project::enter(None)?;
    let root = project::root()?;
    let mut garbage = clean::garbage(&run_folders::to_clean(arguments.dir.as_deref())?);
    if arguments.dir.is_none() {
        garbage.extend(clean::halves_of_outputs(&root));
    }
    if arguments.cache {
        garbage.extend(clean::cache(&root));
    }
    let word = if arguments.dry_run { "would remove" } else { "removed" };
    let mut gone = Vec::new();
    for piece in &garbage {
        if !arguments.dry_run {
            if !clean::remove(root.disk(), piece).map_err(CliError::failed)? {
                // Used, or removed, by another process since it was found.
                continue;
            }
            pipe_remote::record_removal(&root, &root.join(&piece.path))?;
        }
        gone.push(piece.bytes);
        say!("{word} {} ({}, {})", piece.path.display(), piece.why, table::bytes(piece.bytes));
    }
    conclude(gone.len(), gone.iter().sum(), arguments.dry_run);
    Ok(ExitCode::SUCCESS)
}

pub fn prune(folders: &[Runs], keep: usize, dry_run: bool) -> Result<ExitCode, CliError> {
    let (mut gone, mut freed) = (0, 0);
    let root = project::root()?;
    for (run, fate) in clean::prune_decisions(folders, &Record::all(&root), keep) {
        let shown = run.folder.display().to_string();
        match marked(&run, fate) {
            PruneDecision::Stays { why } => say!("kept {shown}: {why}"),
            PruneDecision::Goes { bytes, metadata, mut foreign } => {
                if !dry_run {
                    let removed = removal::remove_needless(&run, &metadata);
                    let Some(left) = removed.map_err(CliError::failed)? else {
                        say!("kept {shown}: somebody uses it since");
                        continue;
                    };
                    pipe_remote::record_removal(&root, &root.join(&run.folder))?;
                    foreign = left;
                }
                let word = if dry_run { "would remove" } else { "removed" };
                say!("{word} {shown} ({})", table::bytes(bytes));
                say_left(&foreign);
                (gone, freed) = (gone + 1, freed + bytes);
            }
        }
    }
    conclude(gone, freed, dry_run);
    Ok(ExitCode::SUCCESS)
}

/// Says what stays of a run's folder.
fn say_left(foreign: &[PathBuf]) {
    for path in foreign {
        say!("kept {}: it is no file of a run", path.display());
    }
}

/// What people wrote of a run keeps it.
fn marked(run: &Run, fate: PruneDecision) -> PruneDecision {
    let why = match Labels::load(run) {
        Ok(labels) if labels.is_empty() => return fate,
        Ok(labels) => labels.in_words(),
        Err(_) => "its note and tags cannot be read".to_owned(),
    };
    match fate {
        PruneDecision::Goes { .. } => PruneDecision::Stays { why },
        stays => stays,
    }
}

pub fn remove(run: Run, folders: &[Runs], force: bool) -> Result<ExitCode, CliError> {
    let shown = run.folder.display().to_string();
    let others: Vec<Run> = folders.iter().flat_map(Runs::list).collect();
    let metadata: Vec<_> = others.iter().map(|r| r.metadata().ok()).collect();
    if let (false, Ok(own)) = (force, run.metadata()) {
        let records = Record::all(&project::root()?);
        if let Some(user) = clean::user_of(&run, &own, &records, others.iter().zip(&metadata)) {
            return Err(CliError::usage(format!(
                "{user} was made from {shown}; `--force` removes it all the same"
            )));
        }
        let stage = clean::stage_done_by(&run, &records);
        // One that is being trained goes with no option: who trains it is told below.
        if let Some(stage) = stage.filter(|_| run.holder().is_none()) {
            return Err(CliError::usage(format!(
                "{stage} stands on {shown}; `--force` removes it all the same"
            )));
        }
    }
    let left = removal::remove_run(&run).map_err(CliError::failed)?;
    let root = project::root()?;
    pipe_remote::record_removal(&root, &root.join(&run.folder))?;
    say!("removed {shown}");
    say_left(&left);
    Ok(ExitCode::SUCCESS)
}

/// Says what came free.
pub fn conclude(count: usize, bytes: u64, dry_run: bool) {
    match (count, dry_run) {
        (0, _) => say!("nothing to remove"),
        (_, true) => say!("{} would be free", table::bytes(bytes)),
        (_, false) => say!("{} are free", table::bytes(bytes)),
    }
}
