//! What a plan costs with many stages, phase by phase: `cargo bench -p burn-pipe-engine --bench
//! graph -- 10000`

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pipe_core::progress::NullListener;
use pipe_core::stop::Stop;
use pipe_engine::command::CommandKind;
use pipe_engine::exec::{Execution, execute, inspect};
use pipe_engine::graph::{Graph, Targets};
use pipe_engine::kind::StageKind;
use pipe_engine::plan::plan;
use pipe_engine::{identity, pipeline_file};

fn main() {
    let count = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(10_000);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.yaml"), pipeline(count)).unwrap();
    println!("{count} stages, each of which needs one before it\n");
    once(folder.path(), "first run");
    for _ in 0..8 {
        once(folder.path(), "everything up to date");
    }
}

fn pipeline(count: usize) -> String {
    let stage = |i: usize| {
        let needs = if i > 0 { format!("    needs: [s{}]\n", i / 2) } else { String::new() };
        format!("  s{i}:\n    kind: command\n    run: ['true']\n{needs}")
    };
    format!("name: many\nstages:\n{}", (0..count).map(stage).collect::<String>())
}

fn once(root: &Path, what: &str) {
    println!("{what}");
    let kinds: Vec<Arc<dyn StageKind>> = vec![Arc::new(CommandKind)];
    let begun = Instant::now();
    let loaded =
        timed("read", || pipeline_file::load(root, Path::new("p.yaml"), &kinds, &[]).unwrap());
    let graph = timed("graph", || Graph::build(loaded).unwrap());
    let manifests = timed("identities", || identity::manifests(&graph));
    let (root, stop) = (root.into(), Stop::default());
    let execution = Execution::new(&root, &graph, &manifests, &stop, &NullListener);
    let selection = timed("select", || graph.select(&Targets::default()).unwrap());
    let observed = timed("observe", || {
        inspect(&execution, &selection.stages).unwrap_or_else(|(_, e)| panic!("{e}"))
    });
    let plan = timed("plan", || plan(&graph, &selection, &Default::default(), &observed));
    println!("  {:10} {:8.1} ms", "all", begun.elapsed().as_secs_f64() * 1e3);
    let summary = timed("execute", || execute(&execution, &plan, observed).unwrap());
    println!("  {} finished, {} skipped\n", summary.finished.len(), summary.skipped.len());
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    println!("  {what:10} {:8.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    result
}
