//! `pipe runs export N -o FILE`, `pipe runs import FILE`

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Component, Path, PathBuf};

use pipe_runs::{Run, Runs};
use pipe_upkeep::run_archive::{self, ArchiveError, Manifest, RunExport};

use crate::cli::{CliError, ExitCode, output_file, project, run_folders};
use crate::report::stdout::say;
use crate::report::{message, table};

/// What stands for stdin or stdout.
const STREAM: &str = "-";
/// Where stdout is a file.
const STDOUT: &str = "/dev/stdout";

/// Writes a run as an archive.
pub(super) fn export(run: &Run, output: &Path, overwrite: bool) -> Result<ExitCode, CliError> {
    let target =
        if output == Path::new(STREAM) { PathBuf::from(STDOUT) } else { project::path(output) };
    let is_stdout = output_file::is_output(&target);
    if is_stdout && io::stdout().is_terminal() {
        return Err(CliError::usage("an archive is nothing for a terminal: name a file with -o"));
    }
    if target.is_file() && !is_stdout && !overwrite {
        let text = format!("{} exists; --overwrite replaces it", output.display());
        return Err(CliError::usage(text));
    }
    let export = RunExport::prepare(run, folder_of(run), env!("CARGO_PKG_VERSION"));
    let export = export.map_err(refused)?;
    for name in export.left_out() {
        message::note(&format!("{name} is no file of a run, and stays behind"));
    }
    output_file::write(run.disk(), &target, |out| export.write(out))?;
    if !is_stdout {
        say!("{}: {}", output.display(), contents(export.manifest()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder of a run's siblings, if it lies in the project.
fn folder_of(run: &Run) -> Option<String> {
    let parts = run.folder.parent()?.components().map(|part| match part {
        Component::Normal(part) => part.to_str(),
        _ => None,
    });
    Some(parts.collect::<Option<Vec<_>>>()?.join("/"))
}

/// Takes the run of an archive in.
pub(super) fn import(
    file: &Path,
    to: Option<&Path>,
    number: Option<u32>,
) -> Result<ExitCode, CliError> {
    let root = project::root()?;
    let shown =
        if file == Path::new(STREAM) { "stdin".to_owned() } else { file.display().to_string() };
    let choose = |manifest: &Manifest| {
        let usual = manifest.usual_folder().map(PathBuf::from);
        let folder = to.map(project::path).or(usual).ok_or_else(|| {
            let reason = "it does not say which folder of runs it belongs to: name one with --to";
            ArchiveError::Refused { what: shown.clone(), reason: reason.to_owned() }
        })?;
        Ok(Runs::at(root.disk(), folder))
    };
    let from: Box<dyn Read> = if file == Path::new(STREAM) {
        Box::new(io::stdin().lock())
    } else {
        let opened = File::open(project::path(file));
        Box::new(opened.map_err(|e| CliError::usage(format!("failed to read {shown}: {e}")))?)
    };
    let imported = run_archive::import(root.disk(), from, &shown, number, choose);
    let imported = imported.map_err(refused)?;
    if let Some(folder) = imported.run.folder.parent() {
        run_folders::note_imported(&root, folder)?;
    }
    let (folder, manifest) = (imported.run.folder.display(), &imported.manifest);
    if imported.was_there {
        say!(
            "{folder}: it is {} already; `--run-number N` takes it in once more",
            contents(manifest)
        );
    } else {
        say!("{folder}: from {}", contents(manifest));
    }
    Ok(ExitCode::SUCCESS)
}

/// `run 003, stage base of tiny, 9 files, 1.2 MB`
fn contents(manifest: &Manifest) -> String {
    let Manifest { run_number, stage, pipeline, files, .. } = manifest;
    let bytes = files.iter().filter(|file| file.link.is_none()).map(|file| file.bytes).sum();
    let (count, bytes) = (files.len(), table::bytes(bytes));
    format!("run {run_number:03}, stage {stage} of {pipeline}, {count} files, {bytes}")
}

fn refused(error: ArchiveError) -> CliError {
    match error {
        ArchiveError::Refused { .. } => CliError::usage(error),
        ArchiveError::Store(_) => CliError::failed(error),
    }
}
