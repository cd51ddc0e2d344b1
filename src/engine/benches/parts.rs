//! The parts of the engine, each alone: `cargo bench -p burn-pipe-engine --bench parts [-- FILTER]`
//!
//! `graph` measures whole plans.

use std::path::Path;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use pipe_engine::command::CommandKind;
use pipe_engine::graph::{Graph, Targets};
use pipe_engine::identity;
use pipe_engine::kind::StageKind;
use pipe_engine::pipeline_file::{self, LoadedPipeline};

fn main() {
    divan::main();
}

/// A pipeline of a thousand stages, each of which needs one before it.
#[divan::bench_group(sample_count = 30, sample_size = 1)]
mod graph {
    use super::*;

    const STAGES: usize = 1000;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let stage = |i: usize| {
            let needs = if i > 0 { format!("    needs: [s{}]\n", i / 2) } else { String::new() };
            format!("  s{i}:\n    kind: command\n    run: ['true']\n{needs}")
        };
        let text = format!("name: many\nstages:\n{}", (0..STAGES).map(stage).collect::<String>());
        std::fs::write(folder.path().join("p.yaml"), text).unwrap();
        folder
    }

    fn load(folder: &Path) -> LoadedPipeline {
        let kinds: [Arc<dyn StageKind>; 1] = [Arc::new(CommandKind)];
        pipeline_file::load(folder, Path::new("p.yaml"), &kinds, &[]).unwrap()
    }

    #[divan::bench]
    fn read(bencher: Bencher) {
        let folder = folder();
        bencher.counter(ItemsCount::new(STAGES)).bench_local(|| load(folder.path()));
    }

    #[divan::bench]
    fn build(bencher: Bencher) {
        let folder = folder();
        bencher
            .counter(ItemsCount::new(STAGES))
            .with_inputs(|| load(folder.path()))
            .bench_local_values(|loaded| Graph::build(loaded).unwrap());
    }

    #[divan::bench]
    fn identities(bencher: Bencher) {
        let graph = Graph::build(load(folder().path())).unwrap();
        bencher.counter(ItemsCount::new(STAGES)).bench_local(|| {
            graph.stages().map(|stage| stage.manifest.digest().len()).sum::<usize>()
                + identity::manifests(&graph).len()
        });
    }

    #[divan::bench]
    fn select(bencher: Bencher) {
        let graph = Graph::build(load(folder().path())).unwrap();
        let wanted =
            Targets { until: vec![format!("s{}", STAGES - 1)], from: vec!["s0".to_owned()] };
        bencher.counter(ItemsCount::new(STAGES)).bench_local(|| graph.select(&wanted).unwrap());
    }
}
