//! `pipe logs FILE STAGE`

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use pipe_core::error::SpecError;
use pipe_core::progress::Event;
use pipe_engine::exec::slurm::last_lines;
use pipe_engine::kind::StageId;
use pipe_engine::pipeline_file::PipelineFile;
use pipe_engine::source;
use pipe_engine::state::{Job, Jobs, Record, logs_folder};

use super::{CliError, ExitCode, pipeline_name, project};
use crate::report::narrator::{Manner, Narrator};
use crate::report::stdout::say;
use crate::report::style;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe logs pipelines/base_to_lora.yaml base\n  pipe logs pipelines/base_to_lora.yaml base --tail 20"
)]
pub struct LogsArguments {
    /// Pipeline file, or its name
    file: PathBuf,
    /// The stage; the name of a matrix means all its stages
    #[arg(value_name = "STAGE")]
    stage: String,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
}

pub fn logs(arguments: LogsArguments) -> Result<ExitCode, CliError> {
    let file = pipeline_name::resolve(&arguments.file)?;
    for (stage, newest) in newest(&file, &arguments.stage)? {
        match newest {
            Newest::Here(log) => {
                let lines = told(&stage, &log).map_err(|e| wrong(&stage, &log, &e))?;
                let skipped = arguments.tail.map_or(0, |count| lines.len().saturating_sub(count));
                lines.iter().skip(skipped).for_each(|line| say!("{line}"));
            }
            Newest::Job(job) => {
                let path = project::root()?.join(&job.log);
                job_log(&path, arguments.tail).map_err(|e| {
                    let place = path.display();
                    CliError::failed(format!(
                        "job {} of stage {stage} has no log yet: {place}: {e}",
                        job.id
                    ))
                })?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where a stage wrote last.
enum Newest {
    Here(PathBuf),
    Job(Job),
}

/// What the stages of this name wrote last.
fn newest(file: &Path, named: &str) -> Result<Vec<(StageId, Newest)>, CliError> {
    project::enter(Some(file))?;
    let (root, path) = (project::root()?, project::path(file));
    let pipeline = PipelineFile::parse(source::read(&root.join(&path), &path)?)?.name;
    let jobs = Jobs::load(&root, &pipeline);
    let mut logs = stage_logs(&logs_folder(&root, &pipeline));
    // Of a stage in a job its file has more: also what others in the job wrote.
    logs.retain(|stage, _| {
        Record::load(&root, &pipeline, stage).is_none_or(|record| record.job.is_none())
    });
    let known: BTreeSet<&StageId> =
        jobs.iter().map(|(stage, _)| stage).chain(logs.keys()).collect();
    let mut found = Vec::new();
    for stage in &known {
        if stage.as_str() != named && stage.declared() != named {
            continue;
        }
        let newest = match (logs.get(*stage), jobs.get(stage)) {
            (Some(log), _) => Newest::Here(log.clone()),
            (None, Some(job)) => Newest::Job(job.clone()),
            (None, None) => continue,
        };
        found.push(((*stage).clone(), newest));
    }
    if found.is_empty() {
        let error = SpecError::plain(format!("stage `{named}` has not run yet, or not here"));
        return Err(error.candidates(named, known.iter().map(|stage| stage.as_str())).into());
    }
    Ok(found)
}

/// The logs of stages that ran here, by the stage that their first line names.
fn stage_logs(folder: &Path) -> BTreeMap<StageId, PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let stage = |path: &Path| {
        let mut first = String::new();
        BufReader::new(File::open(path).ok()?).take(LONGEST).read_line(&mut first).ok()?;
        let event: serde_json::Value = serde_json::from_str(&first).ok()?;
        let name = event.get("stage")?.as_str()?;
        StageId::new(name).or_else(|| StageId::of_matrix(name))
    };
    files.filter_map(|path| Some((stage(&path)?, path))).collect()
}

/// What a stage told, in the words that it had on the terminal.
fn told(stage: &StageId, log: &Path) -> std::io::Result<Vec<String>> {
    let manner = Manner { verbose: true, concurrent: false, colours: style::stdout_colours() };
    let mut narrator = Narrator::new(manner);
    let mut told = Vec::new();
    lines(File::open(log)?, |line| {
        // A last line that a crash cut off, or one of a later version, is passed over.
        let Ok(event) = serde_json::from_str::<Event>(line) else { return };
        told.extend(narrator.tell(stage, &event));
        if let Event::Failed { message, .. } = &event {
            told.push(format!("{stage}: {message}"));
        }
    })?;
    told.extend(narrator.rest().into_iter().map(|(_, line)| line));
    Ok(told.iter().flat_map(|text| text.split('\n')).map(str::to_owned).collect())
}

fn wrong(stage: &StageId, path: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!(
        "failed to read the log of stage {stage}: {}: {error}",
        path.display()
    ))
}

/// Prints what a job wrote.
fn job_log(path: &Path, tail: Option<usize>) -> std::io::Result<()> {
    match tail {
        Some(count) => last_lines(path, count)?.iter().for_each(|line| say!("{line}")),
        None => lines(File::open(path)?, |line| say!("{line}"))?,
    }
    Ok(())
}

/// Bytes of a line that is shown in one piece.
const LONGEST: u64 = 1 << 20;

/// Reads a log line by line, whatever its length: a longer line than [`LONGEST`] comes in pieces.
fn lines(file: File, mut show: impl FnMut(&str)) -> std::io::Result<()> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)? > 0 {
        show(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
    Ok(())
}
