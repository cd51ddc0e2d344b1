//! What a plan takes: the longest way through it, with as much at once as there is room for.

use std::collections::HashMap;

use pipe_core::progress::NullListener;
use pipe_core::stop::Stop;
use pipe_engine::exec::{Execution, InspectedStage, inspect};
use pipe_engine::forecast::{PlanForecast, forecast};
use pipe_engine::graph::{Graph, Targets};
use pipe_engine::identity;
use pipe_engine::kind::{Forecast, StageId};
use pipe_engine::plan::plan;

use crate::fake::Project;

/// What a plan comes to whose stages take so many seconds.
pub fn of(graph: &Graph, project: &Project, jobs: usize, seconds: &[(&str, f64)]) -> PlanForecast {
    let stop = Stop::default();
    let manifests = identity::manifests(graph);
    let execution = Execution {
        jobs,
        ..Execution::new(&project.root, graph, &manifests, &stop, &NullListener)
    };
    let selection = graph.select(&Targets::default()).unwrap();
    let mut found: HashMap<StageId, InspectedStage> =
        inspect(&execution, &selection.stages).unwrap();
    for (stage, seconds) in seconds {
        let found = found.get_mut(*stage).unwrap();
        let (seconds, bytes) = (Some(*seconds), Some(1000));
        found.inspection.forecast =
            Some(Forecast { seconds, bytes, memory: None, from: "run 001".into() });
    }
    let plan = plan(graph, &selection, &Default::default(), &found);
    forecast(&execution, &plan, &found)
}

const FORK: &str = "\
name: p
stages:
  data: { kind: source }
  a: { kind: work, dataset: data, learning_rate: 1 }
  b: { kind: work, dataset: data, learning_rate: 2 }
  c: { kind: work, dataset: a, learning_rate: 3 }
  d: { kind: work, dataset: b, needs: [c], learning_rate: 4 }
";

#[test]
fn the_end_depends_on_what_runs_at_once() {
    let project = Project::new(FORK);
    let graph = project.load().unwrap();
    let all = [("a", 10.0), ("b", 25.0), ("c", 5.0), ("d", 1.0)];
    let ends = |jobs: usize| -> Vec<(String, f64)> {
        let found = of(&graph, &project, jobs, &all);
        assert_eq!((found.bytes, found.unknown.len()), (4000, 0));
        let longest: Vec<&str> = found.critical_path.iter().map(|stage| stage.as_str()).collect();
        assert_eq!(
            (longest, found.critical_seconds),
            (vec!["b", "d"], 26.0),
            "whatever runs at once"
        );
        let end =
            |s: &pipe_engine::forecast::StageForecast| (s.stage.to_string(), s.ends_in.unwrap());
        found.stages.iter().map(end).collect()
    };
    let named = |all: [(&str, f64); 4]| all.map(|(name, end)| (name.to_owned(), end)).to_vec();
    assert_eq!(ends(1), named([("a", 10.0), ("b", 35.0), ("c", 40.0), ("d", 41.0)]));
    assert_eq!(ends(2), named([("a", 10.0), ("b", 25.0), ("c", 15.0), ("d", 26.0)]));
}

#[test]
fn what_is_not_known_is_named_and_counts_as_nothing() {
    let project = Project::new(FORK);
    let graph = project.load().unwrap();
    let found = of(&graph, &project, 1, &[("a", 10.0), ("d", 1.0)]);
    let unknown: Vec<&str> = found.unknown.iter().map(StageId::as_str).collect();
    assert_eq!((unknown, found.seconds), (vec!["b", "c"], 11.0));
    assert_eq!(found.stages[1].ends_in, None);
}
