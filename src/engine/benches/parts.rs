//! The parts of the engine, each alone: `cargo bench -p burn-pipe-engine --bench parts [-- FILTER]`
//!
//! `graph` and `checkpoint` measure whole plans and the disk.

use std::path::Path;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use pipe_engine::command::CommandKind;
use pipe_engine::graph::{Graph, Targets};
use pipe_engine::identity;
use pipe_engine::kind::StageKind;
use pipe_engine::pipeline_file::{self, LoadedPipeline};
use pipe_fs::Disk;
use pipe_runs::checkpoint;
use pipe_runs::checkpoint::{Checkpoint, Header};
use pipe_runs::tensor::HostTensor;

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

/// A checkpoint of 32 MB in 64 tensors.
#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod checkpoints {
    use super::*;

    const TENSORS: usize = 64;
    const EACH: usize = 128 * 1024;

    fn tensors() -> Vec<HostTensor> {
        let values: Vec<f32> = (0..EACH).map(|i| (i as f32).sin()).collect();
        (0..TENSORS)
            .map(|i| HostTensor::f32(format!("state_dict.{i}.weight"), vec![EACH], &values))
            .collect()
    }

    fn save(path: &Path, tensors: &[HostTensor]) {
        let header = Header {
            epoch: 1,
            global_step: 1,
            step_in_epoch: 0,
            metrics: Default::default(),
            scheduler_state_dict: serde_json::Value::Null,
            loop_state: serde_json::Value::Null,
            saved_at: Default::default(),
            identity: "bench".into(),
            seed: 0,
            model_config: serde_json::Value::Null,
            extra: Default::default(),
        };
        checkpoint::write(&Disk::default(), path, &header, tensors).unwrap();
    }

    /// Measures `work` on the checkpoint's path.
    fn saved<R>(bencher: Bencher, bytes: usize, work: impl Fn(&Path) -> R) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ckpt");
        save(&path, &tensors());
        bencher.counter(BytesCount::new(bytes)).bench_local(|| work(&path));
    }

    #[divan::bench]
    fn write(bencher: Bencher) {
        let tensors = tensors();
        saved(bencher, 4 * EACH * TENSORS, |path| save(path, &tensors));
    }

    #[divan::bench]
    fn restore(bencher: Bencher) {
        saved(bencher, 4 * EACH * TENSORS, |path| {
            Checkpoint::open(path).and_then(Checkpoint::load).unwrap()
        });
    }

    #[divan::bench]
    fn one_tensor(bencher: Bencher) {
        saved(bencher, 4 * EACH, |path| {
            Checkpoint::open(path).unwrap().read("state_dict.7.weight").unwrap()
        });
    }
}
