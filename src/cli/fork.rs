//! `pipe fork RUN --at N --set KEY=VALUE`: a new run that shares a run's epochs up to one, and goes on
//! from there with other settings.

use std::path::PathBuf;
use std::time::Instant;

use pipe_core::shell::CommandLine;
use pipe_core::stop::Stop;
use pipe_engine::exec::{LocalExecutor, Summary};
use pipe_engine::kind::{Failure, Fork, Request, StageError, StageId, StageState};
use pipe_engine::pipeline_file::Override;
use pipe_engine::session::{Inspected, Session};
use pipe_runs::{Metadata, Run};
use serde_json::{Map, Value, json};

use super::recorded_run::{require_epoch, session};
use super::run_folders::folders;
use super::runs::named::{Name, one};
use super::{CliError, ExitCode, Kinds, plan, project, signals};
use crate::report::stdout::say;
use crate::report::{self, Output, message, progress_line};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe fork 1 --at 20 --set learning_rate=1e-4\n  pipe fork base/1 --at 20 --set schedule.kind=linear --set batch_size=64 --epochs 40\n  pipe fork 1 --at 20 --set ema.decay=0.9999 --dry-run\n\nThe run that is named stays as it is. The new one is that of `then` in the pipeline file, which is printed."
)]
pub struct ForkArguments {
    /// The run: its number; `STAGE/N` or `FOLDER/N` where several have it
    #[arg(value_name = "RUN")]
    run: Name,
    /// The last epoch that both have in common
    #[arg(long, value_name = "EPOCH", value_parser = clap::value_parser!(u64).range(1..))]
    at: u64,
    /// A setting of its stage from then on: `learning_rate=1e-4`, `optimizer.weight_decay=0.1`
    #[arg(long, value_name = "KEY=VALUE", required = true)]
    set: Vec<String>,
    /// Total epochs of the new run; as many as the other one's if unset
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,
    /// Folder of numbered runs; all of the project if unset
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the plan and the lines for the pipeline file, and stop
    #[arg(long)]
    dry_run: bool,
}

pub fn fork(a: ForkArguments, output: &Output, kinds: &Kinds) -> Result<ExitCode, CliError> {
    project::enter(None)?;
    let run = one(&folders(a.dir.as_deref())?, &a.run)?;
    let metadata = run.current_metadata().map_err(CliError::failed)?;
    a.check(&run, &metadata)?;
    let then = a.then(&metadata)?;
    let (session, stage) = session(&run, &metadata, kinds, &a.overrides(&metadata, &then))?;
    require_unchanged(&run, &metadata)?;
    let fork = Fork { stage: stage.clone(), run_number: run.number.0 };
    let session = session.request(Request { fork: Some(fork), ..Request::default() });
    let stop = Stop::default();
    let report = report::reporter(output, false);
    let execution = session.execution(&stop, report.as_ref());
    let planned = session.plan(&execution);
    let (plan, inspected) = planned.map_err(|(stage, e)| CliError::stage(stage.as_str(), &e))?;
    require_inputs(&session, &stage, &inspected)?;
    if a.dry_run {
        plan::print(&plan);
        a.tell_lines(&stage, &metadata, &then);
        return Ok(ExitCode::SUCCESS);
    }
    signals::watch(stop.clone())?;
    let started = Instant::now();
    let summary = session.run(&LocalExecutor, &execution, &plan, inspected);
    let summary = summary.map_err(CliError::failed)?;
    report.finish();
    report::stderr::flush();
    if let Some(code) = a.tell_end(&summary, &stop)? {
        return Ok(code);
    }
    message::note(&format!("took {}", progress_line::duration(started.elapsed().as_secs_f64())));
    a.tell_lines(&stage, &metadata, &then);
    Ok(ExitCode::SUCCESS)
}

/// Refuses where a stage that the training needs would have to run first: its result would be
/// another one than the run had.
fn require_inputs(
    session: &Session,
    stage: &StageId,
    inspected: &Inspected,
) -> Result<(), CliError> {
    for before in session.graph.upstream(stage).into_iter().filter(|before| before != stage) {
        let state = inspected.get(&before).map(|seen| &seen.inspection.state);
        if !matches!(state, Some(StageState::Done { .. } | StageState::Transient)) {
            let text = format!("it is not up to date, and stage {stage} needs it: run it first");
            return Err(CliError::stage(before.as_str(), &StageError::setting(text)));
        }
    }
    Ok(())
}

/// Refuses a run that is no training from the beginning.
fn require_unchanged(run: &Run, metadata: &Metadata) -> Result<(), CliError> {
    let Some(change) = metadata.changes.first() else { return Ok(()) };
    let text = format!(
        "run {} went on with changed settings {}: it equals no training from the beginning, and `then` cannot tell it",
        run.number,
        change.in_words()
    );
    let note = "checkpoint.resume_checkpoint begins a new run with one of its checkpoints";
    Err(CliError::usage(text).note(note))
}

impl ForkArguments {
    /// Refuses runs and epochs that nothing can be branched off from.
    fn check(&self, run: &Run, metadata: &Metadata) -> Result<(), CliError> {
        let at = self.at;
        require_epoch(run, metadata, at)?;
        let epochs = self.epochs.unwrap_or(metadata.epochs);
        if at >= epochs {
            let text = format!(
                "--at {at}: of {epochs} epochs in all nothing would be left to train; add --epochs {} or more",
                at + 1
            );
            return Err(CliError::usage(text));
        }
        Ok(())
    }

    /// `then` of the new run: that of the other one with the new settings.
    fn then(&self, metadata: &Metadata) -> Result<Vec<Value>, CliError> {
        let mut given = Map::new();
        for text in &self.set {
            let (key, value) = self.setting(text, metadata)?;
            merge(&mut given, value.nested(&key));
        }
        let own = metadata.settings.get("then").and_then(Value::as_array).cloned();
        let mut entries: Vec<Map<String, Value>> =
            own.into_iter().flatten().filter_map(|entry| entry.as_object().cloned()).collect();
        let from = |entry: &Map<String, Value>| entry.get("from").and_then(Value::as_u64);
        match entries.iter_mut().find(|entry| from(entry) == Some(self.at)) {
            Some(entry) => merge(entry, given),
            None => {
                given.insert("from".to_owned(), self.at.into());
                entries.push(given);
                entries.sort_by_key(from);
            }
        }
        Ok(entries.into_iter().map(Value::Object).collect())
    }

    /// Key and value of a `--set`; the stage may stand before the key.
    fn setting(
        &self,
        text: &str,
        metadata: &Metadata,
    ) -> Result<(Vec<String>, Override), CliError> {
        let shown = format!("--set {text}");
        let own =
            text.strip_prefix(metadata.stage.as_str()).and_then(|rest| rest.strip_prefix('.'));
        let value = Override::parse(own.unwrap_or(text), shown.clone()).map_err(CliError::usage)?;
        match value.path.first().map(String::as_str) {
            Some("epochs") => {
                Err(CliError::usage(format!("{shown}: say how long it is to be with --epochs")))
            }
            Some("from") => {
                Err(CliError::usage(format!("{shown}: say where it branches off with --at")))
            }
            _ => Ok((value.path.clone(), value)),
        }
    }

    /// What is set on top of the run's own settings.
    fn overrides(&self, metadata: &Metadata, then: &[Value]) -> Vec<Override> {
        let stage = metadata.stage.as_str();
        let set = |path: &[&str], value: Value, shown: String| {
            let mut given = Override::value("then", value, shown);
            // A stage's name may have dots in it.
            given.path = path.iter().map(|key| (*key).to_owned()).collect();
            given
        };
        let shown: Vec<String> = self.set.iter().map(|text| format!("--set {text}")).collect();
        let mut all = vec![set(&[stage, "then"], json!(then), shown.join(" "))];
        let epochs =
            self.epochs.map(|n| set(&[stage, "epochs"], n.into(), format!("--epochs {n}")));
        all.extend(epochs);
        // The run that they name is the other one.
        for key in ["run_number", "resume_from_run"] {
            if !metadata.settings["checkpoint"][key].is_null() {
                all.push(set(&[stage, "checkpoint", key], Value::Null, String::new()));
            }
        }
        all
    }

    /// Tells how it ended. An exit code, if a signal ended it.
    fn tell_end(&self, summary: &Summary, stop: &Stop) -> Result<Option<ExitCode>, CliError> {
        let broken = |error: &StageError| !matches!(error.failure, Failure::Interrupted(_));
        let failed = summary.failed.iter().filter(|(_, error)| broken(error));
        let failed = failed.map(|(id, error)| CliError::stage(id.as_str(), error)).collect();
        if let Some(error) = CliError::all(failed) {
            let note = format!("when that is mended, go on with: {}", self.again());
            return Err(error.note(note));
        }
        for (stage, line) in &summary.finished {
            message::note(&format!("{stage}: {line}"));
        }
        let Some(signal) = stop.requested() else { return Ok(None) };
        message::note(&format!("stopped by {}; go on with: {}", signal.name(), self.again()));
        Ok(Some(ExitCode::from(signal.exit_code())))
    }

    /// The command as one types it once more.
    fn again(&self) -> CommandLine {
        let set = self.set.iter().map(|text| format!("--set={text}"));
        let epochs = self.epochs.map(|epochs| format!("--epochs={epochs}"));
        let dir = self.dir.as_ref().map(|dir| format!("--dir={}", dir.display()));
        let line = CommandLine::new(["pipe", "fork"]).word(&self.run.to_string());
        let at = std::iter::once(format!("--at={}", self.at));
        line.options(at.chain(set).chain(epochs).chain(dir))
    }

    /// Prints what one would write into the pipeline file.
    fn tell_lines(&self, stage: &StageId, metadata: &Metadata, then: &[Value]) {
        let Metadata { pipeline, .. } = metadata;
        message::note(&format!("to keep it in pipeline {pipeline}, write under `{stage}`:"));
        if let Some(epochs) = self.epochs {
            say!("epochs: {epochs}");
        }
        say!("then: {}", flow(&Value::Array(then.to_vec())));
    }
}

fn merge(into: &mut Map<String, Value>, new: Map<String, Value>) {
    for (key, value) in new {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// A value as one writes it in YAML on a line.
fn flow(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            // The epoch first.
            let (from, rest): (Vec<_>, Vec<_>) = map.iter().partition(|(key, _)| *key == "from");
            let items = from.into_iter().chain(rest);
            let items: Vec<String> = items.map(|(key, v)| format!("{key}: {}", flow(v))).collect();
            format!("{{{}}}", items.join(", "))
        }
        other => other.to_string(),
    }
}
