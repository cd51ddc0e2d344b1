//! Stages that look at each checkpoint of a training while it is made: where the checkpoints are,
//! which ones are still to be looked at, and what becomes of what was found out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pipe_core::ids::StageId;
use pipe_core::progress::Event;
use pipe_engine::graph::Graph;
use pipe_engine::kind::{
    Artifact, DependencyMode, Failure, InspectContext, Judge, Reference, RunContext, StageError,
    Upstream,
};
use pipe_runs::{
    CheckpointManager, CheckpointRecord, CheckpointResults, Metadata, Run, Runs, Status,
};

use crate::artifacts::{CHECKPOINT, CheckpointFile, Checkpoints, checkpoint_reference};

/// The setting of a stage that looks at each checkpoint.
pub const EACH_CHECKPOINT: &str = "each_checkpoint";

/// How long somebody is waited for who has the run after its training has ended.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often it is looked whether there is another checkpoint.
const LOOK: Duration = Duration::from_millis(200);

/// A setting that names a stage of which the best checkpoint is taken, or each one while it is made.
pub fn source_reference(key: &'static str, stage: &str, each_checkpoint: bool) -> Reference {
    if each_checkpoint {
        Reference::of_type(CHECKPOINT, key, stage, DependencyMode::Streaming)
    } else {
        checkpoint_reference(key, stage)
    }
}

/// The stage that a monitor such as `quality.fid` is of, and the metric.
pub fn judged_metric(monitor: &str) -> Option<(&str, &str)> {
    monitor.split_once('.')
}

/// The stage whose metric decides which checkpoint of a training is the best, if it is one's.
pub fn judge_of(monitor: &str) -> Option<Judge> {
    let (stage, _) = judged_metric(monitor)?;
    let advice = "an `evaluate` stage with `each_checkpoint: true` judges the checkpoints of the stage that its \
                  `from` names";
    Some(Judge { key: "checkpoint.monitor", stage: stage.to_owned(), advice })
}

/// A training with what was found out about its checkpoints.
pub struct Followed {
    pub run: Run,
    pub metadata: Metadata,
    pub results: CheckpointResults,
    /// The run, which this process has put in order and still holds.
    pub manager: CheckpointManager,
}

impl Followed {
    /// What was found out about the best checkpoint; about the newest where there is no best one.
    pub fn of_best(&self) -> Option<(u64, &BTreeMap<String, f64>)> {
        let Metadata { best_checkpoint, checkpoints, .. } = &self.metadata;
        let best = best_checkpoint.as_ref().or_else(|| checkpoints.last())?;
        Some((best.epoch, &self.results.of(best)?.metrics))
    }

    /// The epochs that were looked at.
    pub fn epochs(&self) -> impl Iterator<Item = u64> + '_ {
        self.results.checkpoints.iter().map(|c| c.epoch)
    }
}

/// Looks at each checkpoint of the training that the input `from` names, oldest first, until that has
/// ended and all were looked at. `look` finds out about one: metrics by name, of which those that
/// are no finite numbers are left out. `stands`: whether all is there that was made of an epoch's.
///
/// # Errors
/// What `look` says; the training failed; a signal came; the stage keeps no runs.
pub fn follow(
    context: &RunContext,
    from: &str,
    stands: impl Fn(u64) -> bool,
    mut look: impl FnMut(&CheckpointFile) -> Result<BTreeMap<String, f64>, StageError>,
) -> Result<Followed, StageError> {
    let source = Source::of(context, from)?;
    let mut open: Option<(Run, CheckpointResults)> = None;
    let mut is_forced = context.request.force;
    loop {
        // Asked before the checkpoints are listed: of a training that has ended all are there.
        let upstream = context.upstream(from);
        if let Some(run) = source.run(&upstream, open.as_ref().map(|(run, _)| run))
            && open.as_ref().is_none_or(|(before, _)| *before != run)
        {
            let mut results = source.results(&run, std::mem::take(&mut is_forced))?;
            if let Ok(metadata) = run.metadata() {
                let kept: Vec<u64> = metadata.checkpoints.iter().map(|c| c.epoch).collect();
                results.checkpoints.retain(|c| stands(c.epoch) || !kept.contains(&c.epoch));
            }
            open = Some((run, results));
        }
        if let Some((run, results)) = &mut open
            && let Some((record, file)) = next(run, results)?
        {
            match look(&file) {
                Ok(metrics) => {
                    let finite = metrics.into_iter().filter(|(_, value)| value.is_finite());
                    results.push(&record, finite.collect());
                    results.save(run)?;
                    tell(context, run, results, &file);
                }
                // Another process removed it, which does not know that it is waited for.
                Err(_) if !file.path.exists() => {}
                Err(error) => return Err(error),
            }
            continue;
        }
        stopped(context)?;
        match upstream {
            Upstream::Running => {}
            // Which checkpoint is the best is known when those have ended that decide it.
            Upstream::Ended(_) => match context.upstream_judges() {
                None | Some(Upstream::Ended(_)) => break,
                Some(Upstream::Running) => {}
                Some(Upstream::Failed(why)) => return Err(StageError::new(Failure::Input, why)),
            },
            Upstream::Failed(why) => {
                let count = open.as_ref().map_or(0, |(_, results)| results.checkpoints.len());
                let text = format!("{why}; {count} of its checkpoints were looked at");
                return Err(StageError::new(Failure::Input, text));
            }
        }
        context.stop.sleep(LOOK);
    }
    let Some((run, results)) = open else {
        return Err(StageError::setting(format!("stage {} has no checkpoint", source.id)).at(from));
    };
    let manager = settled(context, &source, &run)?;
    Ok(Followed { metadata: run.metadata()?, run, results, manager })
}

/// Tells what was found out about a checkpoint, and whether it is the best by that.
fn tell(context: &RunContext, run: &Run, results: &CheckpointResults, file: &CheckpointFile) {
    let found = results.checkpoints.iter().find(|found| found.epoch == file.epoch);
    let Some(found) = found.filter(|found| !found.metrics.is_empty()) else { return };
    context.event(judged(context, file, &found.metrics));
    let Ok(metadata) = run.metadata() else { return };
    if let Some((monitor, value)) = results.new_best(&metadata, file.epoch) {
        context.event(Event::NewBest { monitor, value, position: file.epoch });
    }
}

/// The event that tells what was found out about a checkpoint, without the details.
pub fn judged(
    context: &RunContext,
    file: &CheckpointFile,
    metrics: &BTreeMap<String, f64>,
) -> Event {
    let path = file.path.strip_prefix(&context.root).unwrap_or(&file.path);
    let main = metrics.iter().filter(|(name, _)| !name.contains('/'));
    let metrics = main.map(|(name, value)| (name.clone(), *value)).collect();
    Event::Judged { file: path.display().to_string(), position: file.epoch, metrics }
}

/// Fails if the stage is to stop.
fn stopped(context: &RunContext) -> Result<(), StageError> {
    let Some(signal) = context.stop.requested() else { return Ok(()) };
    let text = format!("stopped by {}", signal.name());
    Err(StageError::new(Failure::Interrupted(signal), text))
}

/// The run, put in order by what is known of its checkpoints now. Somebody who has it for a moment,
/// such as `pipe runs thin`, is waited for.
fn settled(
    context: &RunContext,
    source: &Source,
    run: &Run,
) -> Result<CheckpointManager, StageError> {
    let followed_by = context.followers_of(&source.id);
    let until = Instant::now() + LONGEST_WAIT;
    loop {
        if let Some(manager) = CheckpointManager::settle_ended(run, &followed_by)? {
            return Ok(manager);
        }
        stopped(context)?;
        if Instant::now() > until {
            let holder = run.holder().map(|holder| holder.0).unwrap_or_default();
            let text = format!(
                "run {} is held by {holder}, so its best checkpoint is not chosen yet",
                run.number
            );
            return Err(StageError::new(Failure::Storage, text));
        }
        context.stop.sleep(LOOK);
    }
}

/// The oldest checkpoint that was not looked at.
fn next(
    run: &Run,
    results: &CheckpointResults,
) -> Result<Option<(CheckpointRecord, CheckpointFile)>, StageError> {
    let Ok(metadata) = run.metadata() else { return Ok(None) };
    let mut standing = metadata.checkpoints.iter().filter(|c| run.file_of(c).exists());
    let Some(record) = standing.find(|c| results.of(c).is_none()).cloned() else {
        return Ok(None);
    };
    let file = Checkpoints::of_run(run.clone(), metadata).of_epoch(record.epoch);
    Ok(file.map(|file| (record, file)))
}

/// The training that is followed.
struct Source<'a> {
    context: &'a RunContext<'a>,
    id: StageId,
    /// The folder of its numbered runs.
    runs: Runs,
}

impl<'a> Source<'a> {
    fn of(context: &'a RunContext, from: &str) -> Result<Self, StageError> {
        let own = context.graph.stage(&context.stage);
        let input = own.and_then(|own| own.inputs.iter().find(|input| input.name == from));
        let source = input.and_then(|input| context.graph.stage(&input.stage));
        let Some((source, folder)) = source.and_then(|s| Some((s, s.stage.runs()?))) else {
            let text = format!("{from}: only a stage that trains has a checkpoint for each epoch");
            return Err(StageError::setting(text));
        };
        let runs = Runs::at(context.root.disk(), context.root.join(folder));
        Ok(Self { context, id: source.id.clone(), runs })
    }

    /// The run whose checkpoints they are, if it is known yet. `known`: which one it was so far.
    fn run(&self, upstream: &Upstream, known: Option<&Run>) -> Option<Run> {
        match upstream {
            Upstream::Ended(artifact) => run_of(artifact.as_ref()?),
            Upstream::Running => {
                let is_held = known.filter(|run| run.holder().is_some());
                is_held.cloned().or_else(|| self.live()).or_else(|| known.cloned())
            }
            Upstream::Failed(_) => known.cloned().or_else(|| self.newest()),
        }
    }

    /// The run that the stage trains in now.
    fn live(&self) -> Option<Run> {
        let held = self.runs.list().into_iter().rev().filter(|run| run.holder().is_some());
        self.own(held, |m| m.status == Status::Running)
    }

    fn newest(&self) -> Option<Run> {
        self.own(self.runs.list().into_iter().rev(), |_| true)
    }

    /// The first run of the stage that fits.
    fn own(
        &self,
        mut runs: impl Iterator<Item = Run>,
        fits: impl Fn(&Metadata) -> bool,
    ) -> Option<Run> {
        let is_own =
            |m: &Metadata| m.pipeline == self.context.pipeline && m.stage == self.id.as_str();
        runs.find(|run| run.metadata().is_ok_and(|m| is_own(&m) && fits(&m)))
    }

    /// What the stage found out about a run's checkpoints before, as it would today. It is noted from
    /// now on that it looks at them, so that they stay until it has.
    fn results(&self, run: &Run, anew: bool) -> Result<CheckpointResults, StageError> {
        let RunContext { pipeline, stage, identity, graph, .. } = self.context;
        let known = CheckpointResults::load(run, pipeline, stage);
        if let Some(known) = known.filter(|known| known.identity == *identity && !anew) {
            return Ok(known);
        }
        let name = metrics_name(graph, stage, &self.id);
        let results = CheckpointResults::new(pipeline, stage, &name, identity);
        results.save(run)?;
        Ok(results)
    }
}

/// What stands before the `.` in the names of a stage's metrics: its name without the values of a
/// matrix, where no other stage of that name looks at the same checkpoints.
fn metrics_name(graph: &Graph, stage: &StageId, source: &StageId) -> String {
    let beside = graph.followers(source).into_iter();
    match beside.filter(|other| other.id.declared() == stage.declared()).count() {
        0 | 1 => stage.declared().to_owned(),
        _ => stage.to_string(),
    }
}

fn run_of(artifact: &Artifact) -> Option<Run> {
    let checkpoints: Arc<Checkpoints> = artifact.get()?;
    checkpoints.run().cloned()
}

/// Why a stage that looks at each checkpoint of the training that the input `from` names has something
/// to do, if it has. `is_noted`: whether the stage's record has what it made of an epoch's, which it
/// gets once all were looked at and the best one is chosen.
pub fn why_open(o: &InspectContext, from: &str, is_noted: impl Fn(u64) -> bool) -> Option<String> {
    match followed_state(o, from) {
        Some(state) => state.reason(is_noted),
        None => Some("its training goes on".to_owned()),
    }
}

/// How many results go where a stage looks anew at each checkpoint of the training that the input
/// `from` names, since those checkpoints are gone.
pub fn lost_results(o: &InspectContext, from: &str) -> usize {
    let checkpoints = o.inputs.get(from).and_then(Artifact::get::<Checkpoints>);
    let Some(Checkpoints::Run { run, metadata }) = checkpoints.as_deref() else { return 0 };
    let Some(results) = CheckpointResults::load(run, o.pipeline, o.stage) else { return 0 };
    let stands = |epoch: u64| {
        metadata.checkpoints.iter().any(|c| c.epoch == epoch && run.file_of(c).exists())
    };
    results.checkpoints.iter().filter(|seen| !stands(seen.epoch)).count()
}

/// How the checkpoints of the training stand. `None`: it has not come to its end.
fn followed_state(o: &InspectContext, from: &str) -> Option<FollowState> {
    let checkpoints: Arc<Checkpoints> = o.inputs.get(from)?.get()?;
    let Checkpoints::Run { run, metadata } = &*checkpoints else { return None };
    let results = CheckpointResults::load(run, o.pipeline, o.stage)
        .filter(|results| results.identity == o.identity);
    let is_seen = |c: &&CheckpointRecord| results.as_ref().is_some_and(|r| r.of(c).is_some());
    let standing = metadata.checkpoints.iter().filter(|c| run.file_of(c).exists());
    let unseen = standing.clone().filter(|c| !is_seen(c)).count();
    let standing = standing.map(|c| c.epoch).collect();
    Some(FollowState { unseen, standing })
}

/// How the checkpoints of a training stand.
struct FollowState {
    /// How many were not looked at.
    unseen: usize,
    /// The epochs of all.
    standing: Vec<u64>,
}

impl FollowState {
    fn reason(&self, is_noted: impl Fn(u64) -> bool) -> Option<String> {
        let (unseen, total) = (self.unseen, self.standing.len());
        if unseen > 0 {
            return Some(format!("{unseen} of {total} checkpoints not looked at yet"));
        }
        let is_open = self.standing.iter().any(|epoch| !is_noted(*epoch));
        is_open.then(|| "it ended before the best checkpoint was chosen".to_owned())
    }
}
