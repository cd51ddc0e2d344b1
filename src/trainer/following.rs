//! Stages that look at each checkpoint of a training while it is made: where the checkpoints are,
//! which ones are still to be looked at, and what becomes of what was found out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pipe_core::ids::StageId;
use pipe_core::progress::Event;
use pipe_engine::graph::Graph;
use pipe_engine::kind::{
    DependencyMode, Failure, Judge, Reference, RunContext, StageError, Upstream,
};
use pipe_runs::{
    CheckpointManager, CheckpointRecord, CheckpointResult, CheckpointResults, Metadata, Run, Runs,
    Status, main_metrics,
};

use crate::artifacts::{
    CHECKPOINT, CheckpointFile, Checkpoints, best_record, checkpoint_reference,
};
use crate::epoch_places::{EpochFiles, EpochPlaces, digest_on_disk};

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

/// What a stage finds out about a checkpoint.
pub struct Looked {
    /// By name. Those that are no finite numbers are left out.
    pub metrics: BTreeMap<String, f64>,
    /// The files that it made, relative to the project.
    pub files: Vec<PathBuf>,
}

/// A training with what was found out about its checkpoints.
pub struct Followed<'a> {
    pub run: Run,
    pub metadata: Metadata,
    pub results: CheckpointResults,
    /// The run, which this process has put in order and still holds.
    pub manager: CheckpointManager,
    made: EpochFiles<'a>,
}

impl Followed<'_> {
    /// What was found out about the best checkpoint; about the newest where there is no best one.
    pub fn of_best(&self) -> Option<(u64, &BTreeMap<String, f64>)> {
        let best = of_best(&self.metadata, &self.results)?;
        Some((best.epoch, &best.metrics))
    }

    /// How many checkpoints were looked at.
    pub fn count(&self) -> usize {
        self.results.checkpoints.len()
    }

    /// The files that were made of the run's checkpoints and are there, by epoch.
    pub fn files(&self) -> &BTreeMap<u64, Vec<PathBuf>> {
        &self.made.files
    }

    /// Removes files that the stage made of checkpoints of other runs: the places are those of this
    /// one now.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove_others(&self, context: &RunContext) -> Result<(), StageError> {
        self.made.remove_others(context)
    }
}

/// What was found out about the best checkpoint; about the newest where there is no best one.
pub(crate) fn of_best<'a>(
    metadata: &Metadata,
    results: &'a CheckpointResults,
) -> Option<&'a CheckpointResult> {
    results.of(best_record(metadata)?)
}

/// A run that is followed.
struct Open<'a> {
    run: Run,
    /// What is handed on of it, where that is not all.
    part: Option<Metadata>,
    results: CheckpointResults,
    made: EpochFiles<'a>,
}

impl Open<'_> {
    /// Looks at a checkpoint, and notes what was found out and made.
    fn look(
        &mut self,
        record: &CheckpointRecord,
        file: &CheckpointFile,
        look: &mut impl FnMut(&CheckpointFile) -> Result<Looked, StageError>,
    ) -> Result<(), StageError> {
        let Self { run, results, made, .. } = self;
        let Looked { metrics, files } = look(file)?;
        let finite = metrics.into_iter().filter(|(_, value)| value.is_finite());
        results.push(record, finite.collect(), digest_on_disk(made.root(), &files));
        results.save(run)?;
        made.files.insert(file.epoch, files);
        Ok(())
    }
}

/// Looks at each checkpoint of the training that the input `from` names, oldest first, until that has
/// ended and all were looked at. `look` finds out about one, and notes where it puts files
/// ([`RunContext::note_place`]).
///
/// # Errors
/// What `look` says; the training failed; a signal came; the stage keeps no runs.
pub fn follow<'a>(
    context: &RunContext,
    from: &str,
    places: &'a dyn EpochPlaces,
    mut look: impl FnMut(&CheckpointFile) -> Result<Looked, StageError>,
) -> Result<Followed<'a>, StageError> {
    let source = Source::of(context, from)?;
    let mut open: Option<Open> = None;
    let mut is_forced = context.request.force;
    loop {
        // Asked before the checkpoints are listed: of a training that has ended all are there.
        let upstream = context.upstream(from);
        if let Some(run) = source.run(&upstream, open.as_ref().map(|open| &open.run))
            && open.as_ref().is_none_or(|before| before.run != run)
        {
            let mut results = source.results(&run, std::mem::take(&mut is_forced))?;
            let mut made = EpochFiles::of(context, places);
            made.compare(&mut results, run.metadata().ok().as_ref());
            let part = part_of(&upstream, &run);
            if let Some(part) = &part {
                made.files.retain(|epoch, _| *epoch <= part.epochs);
            }
            open = Some(Open { run, part, results, made });
        }
        if let Some(open) = &mut open
            && let Some((record, file)) = next(&open.run, open.part.as_ref(), &open.results)?
        {
            match open.look(&record, &file, &mut look) {
                Ok(()) => tell(context, &open.run, &open.results, &file),
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
                let count = open.as_ref().map_or(0, |open| open.results.checkpoints.len());
                let text = format!("{why}; {count} of its checkpoints were looked at");
                return Err(StageError::new(Failure::Input, text));
            }
        }
        context.stop.sleep(LOOK);
    }
    let Some(Open { run, part, results, made }) = open else {
        return Err(StageError::setting(format!("stage {} has no checkpoint", source.id)).at(from));
    };
    let manager = settled(context, &source, &run)?;
    let metadata = part.map_or_else(|| run.metadata(), Ok)?;
    Ok(Followed { metadata, run, results, manager, made })
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
    let main = main_metrics(metrics);
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

/// The oldest checkpoint that was not looked at, of a run or of a part of it.
fn next(
    run: &Run,
    part: Option<&Metadata>,
    results: &CheckpointResults,
) -> Result<Option<(CheckpointRecord, CheckpointFile)>, StageError> {
    let Ok(metadata) = part.map_or_else(|| run.metadata(), |part| Ok(part.clone())) else {
        return Ok(None);
    };
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
            Upstream::Ended(artifact) => Some(Checkpoints::run_of(artifact.as_ref()?)?.0),
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

/// What a training that has ended hands on of a run, where that is its first epochs alone.
fn part_of(upstream: &Upstream, run: &Run) -> Option<Metadata> {
    let Upstream::Ended(Some(artifact)) = upstream else { return None };
    let (_, part) = Checkpoints::run_of(artifact)?;
    run.metadata().is_ok_and(|whole| part.epochs < whole.epochs).then_some(part)
}
