//! Runs as the page shows them. Reads their folders and keeps no lock, so a training may go on
//! meanwhile.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::UNIX_EPOCH;

use pipe_engine::state::Record;
use pipe_fs::ProjectRoot;
use pipe_runs::{
    ChangeRecord, CheckpointResults, EpochRecord, Labels, Metadata, Run, Runs, main_metrics,
};
use pipe_train::checkpoint::BASE_FILE;
use serde_json::Value;

use super::samples::ImageGrid;
use super::{Follower, RunData, StageNode, drawn, samples};

/// Points of one curve that the page gets; more cannot be told apart.
const POINTS: usize = 600;
/// What a training takes of its machine, inside epochs too.
const USAGE: [&str; 3] = ["cpu_percent", "memory_bytes", "gpu_memory_bytes"];

/// The runs of these folders that belong to the pipeline, or all of them; and what could not be
/// read.
pub fn runs_in(folders: &[Runs], pipeline: Option<&str>) -> (Vec<RunData>, Vec<String>) {
    let (mut runs, mut warnings) = (Vec::new(), Vec::new());
    let all: Vec<Run> = folders.iter().flat_map(Runs::list).collect();
    for run in &all {
        match run.current_metadata() {
            Ok(metadata) if pipeline.is_none_or(|name| name == metadata.pipeline) => {
                let labels = Labels::load(run).unwrap_or_else(|error| {
                    warnings.push(error.to_string());
                    Labels::default()
                });
                runs.push(run_data(run, metadata, labels, all.len()));
            }
            Ok(_) => {}
            // Its process has just begun, or ended before it wrote anything.
            Err(_) if !run.is_started() => {}
            Err(error) => warnings.push(error.to_string()),
        }
    }
    link_bases(&mut runs);
    (runs, warnings)
}

/// Text that changes when one of the files behind [`runs_in`] does.
pub fn stamp(folders: &[Runs]) -> String {
    let mut text = String::new();
    for run in folders.iter().flat_map(Runs::list) {
        for name in ["metadata.json", "labels.json", "logs/metrics.jsonl", "samples"] {
            let found = std::fs::metadata(run.folder.join(name));
            let time = found
                .as_ref()
                .ok()
                .and_then(|m| m.modified().ok()?.duration_since(UNIX_EPOCH).ok());
            let bytes = found.map_or(0, |m| m.len());
            let _ = write!(text, "{}/{name} {bytes} {time:?};", run.folder.display());
        }
        // A training that ends without a word changes nothing else.
        text.push(if run.holder().is_some() { '+' } else { '-' });
    }
    text
}

/// `runs`: how many share the page.
fn run_data(run: &Run, metadata: Metadata, labels: Labels, runs: usize) -> RunData {
    let m = metadata;
    let monitor = m.settings.pointer("/checkpoint/monitor").and_then(Value::as_str);
    let mode = m.settings.pointer("/checkpoint/mode").and_then(Value::as_str);
    let kind = m.manifest.get("kind").and_then(Value::as_str);
    let (samples, samples_left_out) = samples::of_run(&run.folder, &m.history, runs);
    RunData {
        folder: run.folder.display().to_string(),
        number: run.number.0,
        kind: kind.unwrap_or("train").to_owned(),
        monitor: monitor.unwrap_or("train_loss").to_owned(),
        mode: mode.unwrap_or("min").to_owned(),
        seconds: m.history.iter().map(|h| h.seconds).sum(),
        curves: curves(run, &m),
        timeline: timeline(&m.history),
        samples,
        samples_left_out,
        image_grids: Vec::new(),
        followers: followers(run),
        base: None,
        has_base: run.folder.join(BASE_FILE).is_file(),
        config: std::fs::read_to_string(run.config_path()).unwrap_or_default(),
        experiment: m.experiment_name,
        pipeline: m.pipeline,
        stage: m.stage,
        status: m.status.name(),
        message: m.message,
        changes: m.changes.iter().map(ChangeRecord::in_words).collect(),
        note: labels.note,
        tags: labels.tags.into_iter().collect(),
        created_at: m.created_at,
        updated_at: m.updated_at,
        version: m.version,
        git_commit: m.git_commit,
        device: m.device,
        seed: m.seed,
        epochs: m.epochs,
        identity: m.identity,
        settings: m.manifest,
        dataset: m.dataset,
        best: m.best_checkpoint,
        checkpoints: m.checkpoints,
    }
}

/// The stages that looked at each of its checkpoints.
fn followers(run: &Run) -> Vec<Follower> {
    let follower = |results: CheckpointResults| {
        let looked_at = results.checkpoints.iter().map(|found| found.made_at).max()?;
        let CheckpointResults { pipeline, stage, .. } = results;
        Some(Follower { pipeline, stage: stage.to_string(), looked_at })
    };
    CheckpointResults::all(run).into_iter().filter_map(follower).collect()
}

/// Every epoch's metrics, and the loss of single steps.
fn curves(run: &Run, metadata: &Metadata) -> BTreeMap<String, Vec<(f64, f64)>> {
    let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut add = |name: &str, epoch: f64, value: f64| {
        // What JSON cannot say cannot be drawn either.
        if epoch.is_finite() && value.is_finite() {
            curves.entry(name.to_owned()).or_default().push((epoch, value));
        }
    };
    for h in &metadata.history {
        let epoch = h.epoch as f64;
        h.metrics.iter().for_each(|(name, value)| add(name, epoch, *value));
        add("learning_rate", epoch, h.learning_rate);
        add("images_per_second", epoch, h.images_per_second);
        add("epoch_seconds", epoch, h.seconds);
        add("data_wait", epoch, h.data_wait);
    }
    let text = std::fs::read_to_string(run.logs().join("metrics.jsonl")).unwrap_or_default();
    for line in text.lines() {
        let Ok(Value::Object(line)) = serde_json::from_str(line) else { continue };
        let number = |key: &str| line.get(key).and_then(Value::as_f64);
        let at = number("step").and_then(|step| epoch_at(&metadata.history, step));
        let Some(epoch) = at else { continue };
        // A validation inside an epoch; those at epochs' ends are in the history.
        let is_end = number("epoch_seconds").is_some();
        for name in USAGE.into_iter().chain(["train_loss_step", "val_loss"]) {
            if let Some(value) = number(name).filter(|_| name != "val_loss" || !is_end) {
                add(name, epoch, value);
            }
        }
    }
    curves.values_mut().for_each(|points| points.sort_by(|(a, _), (b, _)| a.total_cmp(b)));
    curves.into_iter().map(|(name, points)| (name, thinned(points))).collect()
}

/// The place of an optimizer step in epochs: between the ends of the epochs around it, and behind
/// the last one as in that. `None` as long as no epoch has ended.
fn epoch_at(history: &[EpochRecord], step: f64) -> Option<f64> {
    let place = |h: &EpochRecord| (h.global_step as f64, h.epoch as f64);
    let next = history.iter().position(|h| h.global_step as f64 >= step);
    let last = next.or(history.len().checked_sub(1))?;
    let (to_step, to) = place(history.get(last)?);
    let before = last.checked_sub(1).and_then(|index| history.get(index));
    let (from_step, from) = before.map_or((0.0, 0.0), place);
    let share = (step - from_step) / (to_step - from_step);
    Some(if share.is_finite() { from + share * (to - from) } else { to })
}

fn timeline(history: &[EpochRecord]) -> Vec<(u64, u64, f64)> {
    let mut seconds = 0.0;
    let end = |h: &EpochRecord| {
        seconds += h.seconds;
        (h.epoch, h.global_step, seconds)
    };
    history.iter().map(end).collect()
}

/// At most [`POINTS`] of the points, evenly, the last among them.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let count = points.len();
    if count > POINTS {
        (0..POINTS).filter_map(|i| points.get(i * (count - 1) / (POINTS - 1)).copied()).collect()
    } else {
        points
    }
}

/// Gives each run the images that stages drew from its checkpoints, and returns those drawn from
/// others. The digest of the checkpoint is in the stage's record; a stage that looks at each
/// checkpoint has noted in the run what it looked at.
pub fn image_grids_in(
    root: &ProjectRoot,
    pipeline: Option<&str>,
    runs: &mut [RunData],
) -> Vec<ImageGrid> {
    let by_digest = by_digest(runs);
    let mut others = Vec::new();
    for record in Record::all(root) {
        if pipeline.is_some_and(|name| name != record.pipeline) {
            continue;
        }
        // What names a checkpoint, by its digest, and made images: these were drawn from it.
        let Some(made) = &record.made else { continue };
        let folder = if drawn::follows(made) {
            followed(runs, &record)
        } else {
            let Some(from) = made.manifest.get("from").and_then(Value::as_str) else { continue };
            by_digest.get(from).cloned()
        };
        let run = runs.iter_mut().find(|run| Some(&run.folder) == folder.as_ref());
        let best = run.as_ref().and_then(|run| run.best.as_ref()).map(|best| best.epoch);
        let image_grids = drawn::of_record(root, &record, made, best);
        match run {
            Some(run) => run.image_grids.extend(image_grids),
            None => others.extend(image_grids),
        }
    }
    others
}

/// The folder of the run whose checkpoints a stage looked at last.
fn followed(runs: &[RunData], record: &Record) -> Option<String> {
    let looked = runs.iter().flat_map(|run| {
        let own = run.followers.iter();
        let own = own.filter(|f| f.pipeline == record.pipeline && f.stage == record.stage);
        own.map(move |follower| (follower.looked_at, &run.folder))
    });
    looked.max().map(|(_, folder)| folder.clone())
}

/// Gives each run what stages found out about one of its checkpoints, as a point of a curve that is
/// called `STAGE.METRIC`. Names with a `/` are details.
pub fn join_metrics(stages: &[StageNode], runs: &mut [RunData]) {
    for StageNode { status, .. } in stages {
        let made = status.record.as_ref().and_then(|record| record.made.as_ref());
        let from = made.and_then(|made| made.manifest.get("from")).and_then(Value::as_str);
        let (Some(from), Some(metrics)) = (from, &status.metrics) else { continue };
        let found = runs.iter_mut().find_map(|run| {
            let checkpoint = run.checkpoints.iter().chain(&run.best).find(|c| c.digest == from)?;
            Some((checkpoint.epoch as f64, &mut run.curves))
        });
        let Some((epoch, curves)) = found else { continue };
        for (metric, value) in main_metrics(&metrics.0) {
            let curve = curves.entry(format!("{}.{metric}", status.stage.declared())).or_default();
            if value.is_finite() && curve.iter().all(|(at, _)| *at != epoch) {
                curve.push((epoch, *value));
                curve.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            }
        }
    }
}

/// The folder of the run that each checkpoint is of.
fn by_digest(runs: &[RunData]) -> BTreeMap<String, String> {
    let of = |run: &RunData| {
        let checkpoints = run.checkpoints.iter().chain(&run.best);
        checkpoints.map(|c| (c.digest.clone(), run.folder.clone())).collect::<Vec<_>>()
    };
    runs.iter().flat_map(of).collect()
}

/// A run that keeps a base model is shown beside the one whose checkpoint it began with: the base's digest is in
/// its settings.
fn link_bases(runs: &mut [RunData]) {
    let by_digest = by_digest(runs);
    let trained: Vec<(String, String)> = runs
        .iter()
        .filter(|r| !r.has_base)
        .map(|r| (r.pipeline.clone(), r.folder.clone()))
        .collect();
    for run in runs.iter_mut().filter(|run| run.has_base) {
        let named = run
            .settings
            .iter()
            .filter(|(key, _)| key.as_str() == "base" || key.starts_with("base."));
        let digests = named.filter_map(|(_, value)| value.as_str());
        // Else the newest training of the same pipeline: its checkpoint may be gone since.
        run.base =
            digests.filter_map(|digest| by_digest.get(digest).cloned()).next().or_else(|| {
                let own = trained.iter().rev().find(|(pipeline, _)| *pipeline == run.pipeline);
                own.map(|(_, folder)| folder.clone())
            });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_stand_between_the_epochs_around_them() {
        let epoch = |epoch, global_step| EpochRecord {
            epoch,
            global_step,
            metrics: BTreeMap::new(),
            learning_rate: 0.0,
            seconds: 2.0,
            images_per_second: 0.0,
            data_wait: 0.0,
            saved: None,
        };
        // The third has half the batches.
        let history = [epoch(1, 10), epoch(2, 20), epoch(3, 25)];
        for (step, place) in [(5.0, 0.5), (10.0, 1.0), (15.0, 1.5), (22.5, 2.5), (30.0, 4.0)] {
            assert_eq!(epoch_at(&history, step), Some(place), "step {step}");
        }
        assert_eq!(epoch_at(&[], 3.0), None);
        assert_eq!(timeline(&history), [(1, 10, 2.0), (2, 20, 4.0), (3, 25, 6.0)]);
    }
}
