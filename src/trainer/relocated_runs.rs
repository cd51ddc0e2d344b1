//! Runs of a stage that lie in other folders than today's: where they were trained before
//! `checkpoint.base_dir` was another one, which changes no result. The project's journal knows
//! every folder that a run was opened in.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use pipe_engine::kind::StageId;
use pipe_engine::state::Record;
use pipe_fs::{ProjectRoot, STATE_FOLDER};
use pipe_runs::{Metadata, Run, Runs};
use serde_json::Value;

/// The stage's runs with their metadata in all folders but `today`, relative folders below `root`;
/// the newest last.
pub(crate) fn runs(
    root: &ProjectRoot,
    today: &Path,
    pipeline: &str,
    stage: &StageId,
) -> Vec<(Run, Metadata)> {
    // Without a record it was never begun, and the journal need not be read.
    if Record::load(root, pipeline, stage).is_none() {
        return Vec::new();
    }
    let all = folders(root, pipeline, stage).into_iter().filter(|folder| folder != today);
    let runs = all.flat_map(|folder| Runs::at(root.disk(), folder).list());
    let own = |run: Run| {
        let metadata = run.metadata().ok()?;
        (metadata.pipeline == pipeline && metadata.stage == stage.as_str())
            .then_some((run, metadata))
    };
    runs.filter_map(own).collect()
}

fn folders(root: &Path, pipeline: &str, stage: &StageId) -> Vec<PathBuf> {
    let Ok(journal) = std::fs::File::open(root.join(STATE_FOLDER).join("events.jsonl")) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = Vec::new();
    for line in BufReader::new(journal).lines().map_while(Result::ok) {
        if !line.contains("run_opened") {
            continue;
        }
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        let is_own = text("event") == Some("run_opened")
            && text("pipeline") == Some(pipeline)
            && text("stage") == Some(stage.as_str());
        let Some(folder) =
            text("directory").and_then(|run| Path::new(run).parent()).filter(|_| is_own)
        else {
            continue;
        };
        let folder = root.join(folder);
        found.retain(|known| *known != folder);
        found.push(folder);
    }
    found
}
