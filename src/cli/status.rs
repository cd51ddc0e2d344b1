//! `pipe status [FILE]`

use std::collections::HashMap;

use pipe_core::failure::on_one_line;
use pipe_core::progress::NullListener;
use pipe_core::stop::Stop;
use pipe_engine::exec::InspectedStage;
use pipe_engine::kind::{Metrics, StageId, StageState};
use pipe_engine::state::{Progress, Record, stage_holder};
use pipe_runs::Status;

use super::pipeline_args::{PipelineArgs, PipelineSession};
use super::{CliError, ExitCode, Kinds, jobs, store};
use crate::report::stage_status::{JobStatus, StageStatus};
use crate::report::stdout::say;
use crate::report::table;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe status pipelines/base_to_lora.yaml\n  pipe status pipelines/base_to_lora.yaml lora --json"
)]
pub struct StatusArguments {
    #[command(flatten)]
    args: PipelineArgs,
    /// As JSON, one record for each stage
    #[arg(long)]
    json: bool,
}

pub fn status(arguments: StatusArguments, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let loaded = arguments.args.resolved()?.load(kinds)?;
    store::pull(&loaded, None)?;
    let stop = Stop::default();
    let observed = loaded.inspect(&loaded.session.execution(&stop, &NullListener))?;
    let mut all = stage_statuses(&loaded, &observed);
    let mut jobs = jobs::job_statuses(&loaded.session.root, &loaded.session.graph.pipeline.name);
    for status in &mut all {
        status.job = jobs.remove(&status.stage);
    }
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&all).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    let with_jobs = all.iter().any(|status| status.job.is_some());
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|s| {
            let time = s.updated_at.as_ref().map(table::time);
            let mut row =
                vec![s.stage.to_string(), s.status.to_owned(), time.unwrap_or_else(|| "-".into())];
            row.extend(with_jobs.then(|| s.job.as_ref().map_or("-".into(), JobStatus::cell)));
            row.push(s.detail.clone());
            row
        })
        .collect();
    let headings: &[&str] = if with_jobs {
        &["Stage", "Status", "Changed", "Job", ""]
    } else {
        &["Stage", "Status", "Changed", ""]
    };
    say!("{}", table::with_status(headings, &rows, 1));
    Ok(ExitCode::SUCCESS)
}

/// How each stage stands, in the graph's order.
pub fn stage_statuses(
    loaded: &PipelineSession,
    observed: &HashMap<StageId, InspectedStage>,
) -> Vec<StageStatus> {
    let pipeline = &loaded.session.graph.pipeline.name;
    // The first stage before each that is not up to date.
    let mut open: HashMap<&StageId, &StageId> = HashMap::new();
    let stages = loaded.session.graph.stages().filter_map(|stage| {
        let found = observed.get(&stage.id)?;
        let before = stage.inputs.iter().find_map(|input| open.get(&input.stage).copied());
        let state = &found.inspection.state;
        let is_done = matches!(state, StageState::Done { .. } | StageState::Transient);
        if let Some(cause) = before.or((!is_done).then_some(&stage.id)) {
            open.insert(&stage.id, cause);
        }
        let holder = stage_holder(&loaded.session.root, pipeline, &stage.id).map(|h| h.0);
        let mut status = stage_status(stage.id.clone(), stage.kind.clone(), found, holder);
        if let Some(cause) = before.filter(|_| status.status == "done") {
            status.detail = format!("{}; {cause} before it is not", status.detail);
        }
        Some(status)
    });
    stages.collect()
}

fn stage_status(
    stage: StageId,
    kind: String,
    found: &InspectedStage,
    holder: Option<String>,
) -> StageStatus {
    let record = found.record.as_ref();
    let failed = record.filter(|r| r.status == Status::Failed);
    let message = |r: &Record| on_one_line(r.message.as_deref().unwrap_or_default());
    let mut progress = None;
    let (status, detail) = match (&found.inspection.state, &holder) {
        (_, Some(holder)) => {
            progress = record.and_then(|r| r.progress);
            let done = progress
                .map(|p| format!("epoch {}/{}, ", p.position, p.target))
                .unwrap_or_default();
            ("running", format!("{done}by {holder}"))
        }
        (StageState::Done { reason }, None) => ("done", reason.clone()),
        (StageState::Partial { done, total, reason }, None) => {
            progress = Some(Progress { position: *done, target: *total });
            let status = if failed.is_some() { "failed" } else { "partial" };
            (status, format!("epoch {done}/{total}, {reason}"))
        }
        (StageState::Extendable { from, to }, None) => {
            progress = Some(Progress { position: *from, target: *to });
            ("partial", format!("epoch {from}/{to}, done until more epochs were asked for"))
        }
        (StageState::Absent { reason, .. }, None) => match (failed, record) {
            (Some(record), _) => ("failed", message(record)),
            (None, Some(record)) if record.status == Status::Completed => ("stale", reason.clone()),
            _ => ("not run", reason.clone()),
        },
        (StageState::Transient, None) => match failed {
            Some(record) => ("failed", message(record)),
            None => ("on demand", "made ready when a stage needs it".to_owned()),
        },
    };
    let detail = match found.round.as_ref().filter(|_| holder.is_none()) {
        Some(round) => format!("{detail}; {}", round.in_words()),
        None => detail,
    };
    let updated_at = record.map(|r| r.updated_at);
    let artifact = found.inspection.artifact.as_ref();
    let metrics = artifact.and_then(|artifact| artifact.get::<Metrics>());
    StageStatus {
        stage,
        kind,
        status,
        detail,
        progress,
        metrics: metrics.map(|metrics| (*metrics).clone()),
        holder,
        updated_at,
        record: record.cloned(),
        job: None,
    }
}
