//! How long a plan takes and how much it puts on the disk: what stages say of what is left for them,
//! or else how long they took the last time. Pure: the plan and what was found in, numbers out.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use pipe_core::ids::StageId;
use serde::Serialize;

use crate::exec::{Execution, InspectedStage, by_priority, taken};
use crate::inspection::{Forecast, StageState};
use crate::plan::{Action, Plan, Step};

/// A stage of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageForecast {
    pub stage: StageId,
    #[serde(flatten)]
    pub forecast: Forecast,
    /// Seconds from now to its end; `None` where its own time is not known.
    pub ends_in: Option<f64>,
}

/// All of a plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PlanForecast {
    /// Those that run, in the plan's order.
    pub stages: Vec<StageForecast>,
    /// Seconds until the last of them has ended. What is not known counts as nothing.
    pub seconds: f64,
    pub bytes: u64,
    /// Bytes of main memory of the stage that takes most of it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The chain of stages that takes longest: with whatever runs at once it ends no sooner.
    pub critical_path: Vec<StageId>,
    /// Seconds of that chain.
    pub critical_seconds: f64,
    /// The stages whose time is not known.
    pub unknown: Vec<StageId>,
}

/// What a plan comes to, with as many stages at once as `execution` has jobs.
pub fn forecast(
    execution: &Execution,
    plan: &Plan,
    found: &HashMap<StageId, InspectedStage>,
) -> PlanForecast {
    let halved = halved(execution, found);
    let runs = |step: &&Step| {
        step.action != Action::Skip && !found.get(&step.stage).is_some_and(|f| f.is_transient())
    };
    let known: HashMap<&StageId, Forecast> = plan
        .steps
        .iter()
        .filter(runs)
        .map(|step| {
            let share = halved.get(&step.stage).copied().unwrap_or(1.0);
            (&step.stage, of_stage(step, found, share))
        })
        .collect();
    let ends = ends(execution, plan, found, &known);
    let stages: Vec<StageForecast> = plan
        .steps
        .iter()
        .filter_map(|step| {
            let forecast = known.get(&step.stage)?.clone();
            let ends_in = forecast.seconds.and(ends.get(&step.stage).copied());
            Some(StageForecast { stage: step.stage.clone(), forecast, ends_in })
        })
        .collect();
    let unknown = stages.iter().filter(|stage| stage.forecast.seconds.is_none());
    let (critical_path, critical_seconds) = critical_path(execution, plan, &known);
    PlanForecast {
        critical_path,
        critical_seconds,
        memory: stages.iter().filter_map(|stage| stage.forecast.memory).max(),
        unknown: unknown.map(|stage| stage.stage.clone()).collect(),
        seconds: ends.values().copied().fold(0.0, f64::max),
        bytes: stages.iter().filter_map(|stage| stage.forecast.bytes).sum(),
        stages,
    }
}

/// What a stage says itself, or else how long it took the last time.
fn of_stage(step: &Step, found: &HashMap<StageId, InspectedStage>, share: f64) -> Forecast {
    let found = found.get(&step.stage);
    if let Some(own) = found.and_then(|found| found.inspection.forecast.clone()) {
        return Forecast { seconds: own.seconds.map(|seconds| seconds * share), ..own };
    }
    let seconds = found.and_then(|found| taken(found.record.as_ref()?)).map(|ms| ms as f64 / 1e3);
    let from = if seconds.is_some() { "its last time" } else { "nothing: it has not run yet" };
    Forecast { seconds, bytes: None, memory: None, from: from.to_owned() }
}

/// The chain of stages, each of which needs the one before it, that takes longest, and its seconds.
/// One that looks at what another one makes meanwhile takes its time beside it.
fn critical_path(
    execution: &Execution,
    plan: &Plan,
    known: &HashMap<&StageId, Forecast>,
) -> (Vec<StageId>, f64) {
    let graph = execution.graph;
    // Of each stage that runs, in the plan's order: when it can begin and end, and behind which one.
    let mut all: HashMap<&StageId, (f64, f64, Option<&StageId>)> = HashMap::new();
    for step in plan.steps.iter().filter(|step| known.contains_key(&step.stage)) {
        let own = known.get(&step.stage).and_then(|known| known.seconds).unwrap_or(0.0);
        let loaded = graph.stage(&step.stage);
        let (mut begin, mut end, mut behind) = (0.0, own, None);
        for (_, source) in graph.dependencies(&step.stage) {
            let Some((id, &(began, ended, _))) = all.get_key_value(&source.id) else { continue };
            let beside = loaded.is_some_and(|stage| stage.streams_from(&source.id));
            let from = if beside { began } else { ended };
            let until = if beside { ended.max(from + own) } else { from + own };
            begin = f64::max(begin, from);
            if until > end || (until == end && behind.is_none()) {
                (end, behind) = (until, Some(*id));
            }
        }
        all.insert(&step.stage, (begin, end, behind));
    }
    let last = all.iter().max_by(|a, b| a.1.1.total_cmp(&b.1.1).then_with(|| b.0.cmp(a.0)));
    let seconds = last.map_or(0.0, |(_, (_, end, _))| *end);
    let mut path = Vec::new();
    let mut next = last.map(|(stage, _)| *stage);
    while let Some(stage) = next {
        path.push(stage.clone());
        next = all.get(stage).and_then(|(.., behind)| *behind);
    }
    path.reverse();
    (path, seconds)
}

/// By how much the further rungs of a halving make each of its members longer than the rung that it
/// goes to now, if all had an equal part of them.
fn halved(
    execution: &Execution,
    found: &HashMap<StageId, InspectedStage>,
) -> HashMap<StageId, f64> {
    let mut shares = HashMap::new();
    for members in execution.graph.brackets() {
        let Some(halving) = members.first().and_then(|first| first.options.halving.as_ref()) else {
            continue;
        };
        let left = |found: &InspectedStage| match (&found.inspection.state, &found.round) {
            (StageState::Absent { .. }, Some(round)) => (0, round.until),
            (StageState::Partial { done, total, .. }, _) => (*done, total.saturating_sub(*done)),
            (StageState::Extendable { from, to }, _) => (*from, to.saturating_sub(*from)),
            (_, Some(round)) => (round.until, 0),
            _ => (0, 0),
        };
        let all = members.iter().filter_map(|member| found.get(&member.id)).map(left);
        let (done, own) = all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let whole = halving.epochs(members.len()).saturating_sub(done).max(own);
        if own > 0 {
            let share = whole as f64 / own as f64;
            shares.extend(members.iter().map(|member| (member.id.clone(), share)));
        }
    }
    shares
}

/// Seconds from now to the end of each stage, where each begins as soon as what it needs is there
/// and there is room for it, in the order in which the scheduler takes them.
fn ends(
    execution: &Execution,
    plan: &Plan,
    found: &HashMap<StageId, InspectedStage>,
    known: &HashMap<&StageId, Forecast>,
) -> HashMap<StageId, f64> {
    let steps = by_priority(execution, plan, found);
    let places: HashMap<&StageId, usize> =
        steps.iter().enumerate().map(|(place, step)| (&step.stage, place)).collect();
    let in_plan = |id: &StageId| places.get(id).copied();
    let graph = execution.graph;
    let follows = |step: &Step, source: &StageId| {
        graph.stage(&step.stage).is_some_and(|stage| stage.streams_from(source))
    };
    let before: Vec<Vec<usize>> = steps
        .iter()
        .map(|step| graph.dependencies(&step.stage))
        .map(|all| all.iter().filter_map(|(_, stage)| in_plan(&stage.id)).collect())
        .collect();
    let own = |step: &&Step| known.get(&step.stage).and_then(|known| known.seconds).unwrap_or(0.0);
    let own: Vec<u64> = steps.iter().map(|step| (own(step) * 1e3) as u64).collect();
    let followed = |place: usize| -> Vec<usize> {
        let sources = before[place].iter().copied();
        sources.filter(|&source| follows(steps[place], &steps[source].stage)).collect()
    };
    let followed: Vec<Vec<usize>> = (0..steps.len()).map(followed).collect();
    // One that follows another one runs beside it, whatever runs.
    let takes_room = |place: usize| own[place] > 0 && followed[place].is_empty();
    let mut open: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut ready: BTreeSet<usize> = (0..steps.len()).filter(|&place| open[place] == 0).collect();
    let mut running: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut ends: Vec<u64> = vec![0; steps.len()];
    let (mut now, mut room) = (0, execution.jobs.max(1));
    let mut let_go = |place: usize, is_end: bool, ready: &mut BTreeSet<usize>| {
        for next in graph.dependents(&steps[place].stage) {
            let Some(next) = in_plan(&next.id) else { continue };
            if follows(steps[next], &steps[place].stage) != is_end {
                open[next] -= 1;
                if open[next] == 0 {
                    ready.insert(next);
                }
            }
        }
    };
    loop {
        let mut passed = 0;
        while let Some(&place) = ready.range(passed..).next() {
            passed = place + 1;
            if takes_room(place) {
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            ready.remove(&place);
            let sources = followed[place].iter().map(|&source| ends[source]);
            ends[place] = sources.fold(now + own[place], u64::max);
            running.push(Reverse((ends[place], place)));
            let_go(place, false, &mut ready);
            passed = 0;
        }
        let Some(Reverse((end, place))) = running.pop() else { break };
        now = end;
        room += usize::from(takes_room(place));
        let_go(place, true, &mut ready);
    }
    let all = steps.iter().zip(ends).map(|(step, end)| (step.stage.clone(), end as f64 / 1e3));
    all.collect()
}
