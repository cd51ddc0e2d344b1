//! `pipe runs path N`

use std::path::{Path, PathBuf};

use pipe_runs::found::checkpoint_files;
use pipe_runs::{Metadata, Run};

use crate::cli::{CliError, ExitCode, project};
use crate::report::stdout::say;

/// Which checkpoint of a run is meant: the best unless something else is said.
#[derive(clap::Args)]
pub(super) struct Wanted {
    /// The best one, which is meant if nothing else is said
    #[arg(long, group = "wanted")]
    best: bool,
    /// The newest one
    #[arg(long, group = "wanted")]
    last: bool,
    /// The one at the end of this epoch
    #[arg(long, group = "wanted", value_name = "N")]
    epoch: Option<u64>,
}

/// Prints where a checkpoint of a run is, as one types it where the program was started.
///
/// # Errors
/// It is not there; the message lists what is.
pub(super) fn path(run: &Run, wanted: &Wanted, json: bool) -> Result<ExitCode, CliError> {
    let metadata = run.current_metadata().map_err(CliError::failed)?;
    let (what, found) = wanted.find(run, &metadata);
    let found = found.filter(|path| path.exists()).ok_or_else(|| missing(run, &what))?;
    let shown = project::from_root(&found);
    if json {
        say!("{:#}", serde_json::json!({"run_number": run.number, "path": shown}));
    } else {
        say!("{}", shown.display());
    }
    Ok(ExitCode::SUCCESS)
}

impl Wanted {
    /// What is meant, in words, and where it should be.
    fn find(&self, run: &Run, metadata: &Metadata) -> (String, Option<PathBuf>) {
        if let Some(epoch) = self.epoch {
            let record = metadata.checkpoints.iter().find(|c| c.epoch == epoch);
            (format!("checkpoint of epoch {epoch}"), record.map(|record| run.file_of(record)))
        } else if self.last {
            ("newest checkpoint".to_owned(), Some(run.last()))
        } else {
            ("best checkpoint".to_owned(), Some(run.best()))
        }
    }
}

fn missing(run: &Run, what: &str) -> CliError {
    let files = checkpoint_files(run).into_iter().map(|(_, path)| path);
    let links = [run.best(), run.last()].into_iter().filter(|path| path.exists());
    let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let names: Vec<String> = files.chain(links).filter_map(name).collect();
    let error = CliError::usage(format!("{} has no {what}", run.folder.display()));
    error.note(if names.is_empty() {
        "it has no checkpoint at all".to_owned()
    } else {
        let folder = run.checkpoints();
        let folder = folder.strip_prefix(&run.folder).unwrap_or(Path::new("")).display();
        format!("in its folder {folder} there is {}", names.join(", "))
    })
}
