//! `pipe logs FILE STAGE`, `pipe logs RUN`

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use chrono::{DateTime, FixedOffset};
use pipe_core::error::SpecError;
use pipe_core::progress::Event;
use pipe_core::shell::CommandLine;
use pipe_engine::exec::slurm::last_lines;
use pipe_engine::kind::StageId;
use pipe_engine::pipeline_file::PipelineFile;
use pipe_engine::source;
use pipe_engine::state::{Job, Jobs, Record, logs_folder};
use pipe_fs::STATE_FOLDER;
use serde_json::Value;

use super::pipeline_name::{self, HERE};
use super::runs::named::Name;
use super::{CliError, ExitCode, files, project};
use crate::report::narrator::{Manner, Narrator};
use crate::report::stdout::say;
use crate::report::style;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe logs base\n  pipe logs 1\n  pipe logs pipelines/base_to_lora.yaml base\n  pipe logs pipelines/base_to_lora.yaml base --tail 20"
)]
pub struct LogsArguments {
    /// Pipeline file, or its name; may be left out where one only has the stage. A run (`1`,
    /// `base/1`) alone means what its stage wrote when it last trained that run
    file: Option<PathBuf>,
    /// The stage; the name of a matrix means all its stages. May be left out where only one has
    /// run, or only one has trained
    #[arg(value_name = "STAGE")]
    stage: Option<String>,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
}

pub fn logs(arguments: LogsArguments) -> Result<ExitCode, CliError> {
    let file = arguments.file.as_deref();
    let (file, stage) = match (file, arguments.stage.as_deref()) {
        // One word is a run or a stage if it is no file.
        (Some(word), None) if !word.is_file() => {
            if let Some(run) = Name::of_word(word) {
                let (stage, events) = of_run(&run)?;
                print(&stage, &events, arguments.tail);
                return Ok(ExitCode::SUCCESS);
            }
            let stage = word.to_string_lossy();
            let line = CommandLine::new(["pipe", "logs"]);
            (pipeline_name::with_stage_named(&stage, line)?, word.to_str())
        }
        (file, stage) => (pipeline_name::resolve(file.unwrap_or(Path::new(HERE)))?, stage),
    };
    for (stage, newest) in newest(&file, stage)? {
        match newest {
            Newest::Here(events) => print(&stage, &events, arguments.tail),
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

/// Prints what a stage told.
fn print(stage: &StageId, events: &[Event], tail: Option<usize>) {
    let lines = in_words(stage, events);
    let skipped = tail.map_or(0, |count| lines.len().saturating_sub(count));
    lines.iter().skip(skipped).for_each(|line| say!("{line}"));
}

/// What a stage told when it trained a run for the last time.
fn of_run(name: &Name) -> Result<(StageId, Vec<Event>), CliError> {
    let run = files::named_run(name)?;
    let root = project::root()?;
    let metadata = run.metadata().map_err(CliError::failed)?;
    let is_of_run = |event: &Event| matches!(event, Event::WorkOpened { number, .. } if *number == run.number.0);
    let of_stage = |stage: &StageId| stage.as_str() == metadata.stage;
    // What it told when it ran last has also what programs printed.
    let told = told_here(&root, &metadata.pipeline).map_err(CliError::failed)?;
    let last = told.into_iter().find(|(stage, _)| of_stage(stage));
    if let Some(last) = last.filter(|(_, events)| events.iter().any(is_of_run)) {
        return Ok(last);
    }
    let (mut told, mut found) = (Vec::new(), None);
    each_event(&events_file(&root), &metadata.pipeline, |stage, (_, event)| {
        if !of_stage(&stage) {
            return;
        }
        if let Event::Started { .. } = event {
            let earlier = std::mem::take(&mut told);
            found = Some(earlier).filter(|events| events.iter().any(is_of_run)).or(found.take());
        }
        told.push(event);
    })
    .map_err(CliError::failed)?;
    let stage = StageId::new(&metadata.stage).or_else(|| StageId::of_matrix(&metadata.stage));
    stage.zip(found).ok_or_else(|| {
        CliError::usage(format!(
            "nothing is known here of what was said while run {name} was trained"
        ))
    })
}

fn events_file(root: &Path) -> PathBuf {
    root.join(STATE_FOLDER).join("events.jsonl")
}

/// Where a stage wrote last.
enum Newest {
    Here(Vec<Event>),
    Job(Job),
}

/// What the stages of this name wrote last; without a name those of the only one that wrote.
fn newest(file: &Path, named: Option<&str>) -> Result<Vec<(StageId, Newest)>, CliError> {
    project::enter(Some(file))?;
    let (root, path) = (project::root()?, project::path(file));
    let pipeline = PipelineFile::parse(source::read(&root.join(&path), &path)?)?.name;
    let jobs = Jobs::load(&root, &pipeline);
    let mut told = told_here(&root, &pipeline).map_err(CliError::failed)?;
    // Of a stage in a job its file has more: also what others in the job wrote.
    told.retain(|stage, _| {
        Record::load(&root, &pipeline, stage).is_none_or(|record| record.job.is_none())
    });
    let known: BTreeSet<StageId> =
        jobs.iter().map(|(stage, _)| stage).chain(told.keys()).cloned().collect();
    let declared: BTreeSet<&str> = known.iter().map(StageId::declared).collect();
    let is_training = |(stage, events): (&StageId, &Vec<Event>), name: &str| {
        let opened = events.iter().any(|event| matches!(event, Event::WorkOpened { .. }));
        opened && stage.declared() == name
    };
    // Beside one training, what the others wrote is a line or two.
    let trained = declared.iter().filter(|name| told.iter().any(|told| is_training(told, name)));
    let trained: Vec<&str> = trained.copied().collect();
    let named = match (named, declared.first(), declared.len(), &trained[..]) {
        (Some(named), ..) => named,
        (None, None, ..) => return Err(CliError::usage("no stage has run yet, or not here")),
        (None, Some(only), 1, _) => only,
        (.., [only]) if jobs.iter().next().is_none() => only,
        _ => {
            let first = declared.first().copied().unwrap_or_default();
            let line = CommandLine::new(["pipe", "logs"]).path(file).word(first);
            let all = declared.iter().copied().collect::<Vec<_>>().join(", ");
            return Err(CliError::usage(format!("name a stage too, such as `{line}`: {all}")));
        }
    };
    let is_named = |stage: &StageId| stage.as_str() == named || stage.declared() == named;
    if !known.iter().any(is_named) {
        let error = SpecError::plain(format!("stage `{named}` has not run yet, or not here"));
        return Err(error.candidates(named, known.iter().map(StageId::as_str)).into());
    }
    let newest = |stage: StageId| {
        let here = told.remove(&stage).map(Newest::Here);
        let newest = here.or_else(|| Some(Newest::Job(jobs.get(&stage)?.clone())));
        Some((stage, newest?))
    };
    let all: Vec<StageId> = known.iter().filter(|stage| is_named(stage)).cloned().collect();
    Ok(all.into_iter().filter_map(newest).collect())
}

/// An event with its time.
type Told = (DateTime<FixedOffset>, Event);

/// What the stages of a pipeline told since they last began, with what their programs printed.
fn told_here(root: &Path, pipeline: &str) -> std::io::Result<BTreeMap<StageId, Vec<Event>>> {
    let mut told: BTreeMap<StageId, Vec<Told>> = BTreeMap::new();
    each_event(&events_file(root), pipeline, |stage, event| {
        let of_stage = told.entry(stage).or_default();
        if let Event::Started { .. } = event.1 {
            of_stage.clear();
        }
        of_stage.push(event);
    })?;
    for file in std::fs::read_dir(logs_folder(root, pipeline)).into_iter().flatten().flatten() {
        each_event(&file.path(), pipeline, |stage, event| {
            // Older lines are of a time before the last one, in which nothing was printed.
            if let Some(of_stage) = told.get_mut(&stage)
                && of_stage.first().is_some_and(|first| first.0 <= event.0)
            {
                of_stage.push(event);
            }
        })?;
    }
    let in_order = |(stage, mut told): (StageId, Vec<Told>)| {
        told.sort_by_key(|(time, _)| *time);
        (stage, told.into_iter().map(|(_, event)| event).collect())
    };
    Ok(told.into_iter().map(in_order).collect())
}

/// Reads the events of a pipeline in a log. A last line that a crash cut off, or one of a later
/// version, is passed over.
fn each_event(
    path: &Path,
    pipeline: &str,
    mut take: impl FnMut(StageId, Told),
) -> std::io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let read = |line: &str| {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| value.get(key)?.as_str();
        let stage = text("stage").filter(|_| text("pipeline") == Some(pipeline))?;
        let stage = StageId::new(stage).or_else(|| StageId::of_matrix(stage))?;
        let time = DateTime::parse_from_rfc3339(text("time")?).ok()?;
        Some((stage, (time, serde_json::from_value(value).ok()?)))
    };
    lines(File::open(path)?, |line| {
        if let Some((stage, event)) = read(line) {
            take(stage, event);
        }
    })
}

/// What a stage told, in the words that it had on the terminal.
fn in_words(stage: &StageId, events: &[Event]) -> Vec<String> {
    let manner = Manner { verbose: true, concurrent: false, colours: style::stdout_colours() };
    let mut narrator = Narrator::new(manner);
    let mut told = Vec::new();
    for event in events {
        told.extend(narrator.tell(stage, event));
        if let Event::Failed { message, .. } = event {
            told.push(format!("{stage}: {message}"));
        }
    }
    told.extend(narrator.rest().into_iter().map(|(_, line)| line));
    told.iter().flat_map(|text| text.split('\n')).map(str::to_owned).collect()
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
