//! The parts of the engine, each alone: `cargo bench -p pipe-engine --bench parts [-- FILTER]`
//!
//! Criterion says how each changed since it was last run. `graph` and `checkpoint` measure whole plans and the disk.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pipe_engine::command::CommandKind;
use pipe_engine::graph::{Graph, Wanted};
use pipe_engine::identity;
use pipe_engine::kind::StageKind;
use pipe_engine::spec;
use pipe_engine::store::checkpoint::{self, Checkpoint, Header};
use pipe_engine::store::tensor::HostTensor;

criterion_group!(parts, graph, checkpoints);
criterion_main!(parts);

fn graph(criterion: &mut Criterion) {
    const STAGES: usize = 1000;
    let folder = tempfile::tempdir().unwrap();
    let stage = |i: usize| {
        let needs = if i > 0 { format!("    needs: [s{}]\n", i / 2) } else { String::new() };
        format!("  s{i}:\n    kind: command\n    run: ['true']\n{needs}")
    };
    let text = format!("name: many\nstages:\n{}", (0..STAGES).map(stage).collect::<String>());
    std::fs::write(folder.path().join("p.yaml"), text).unwrap();
    let kinds: Vec<Arc<dyn StageKind>> = vec![Arc::new(CommandKind)];
    let load = || spec::load(folder.path(), Path::new("p.yaml"), &kinds, &[]).unwrap();

    let mut group = criterion.benchmark_group("graph");
    group.throughput(Throughput::Elements(STAGES as u64));
    group.bench_function("read", |bench| bench.iter(load));
    group.bench_function("build", |bench| {
        bench.iter_batched(load, |loaded| Graph::build(loaded).unwrap(), BatchSize::LargeInput);
    });
    let graph = Graph::build(load()).unwrap();
    group.bench_function("identities", |bench| bench.iter(|| identity::manifests(&graph)));
    group.bench_function("select", |bench| bench.iter(|| graph.select(&Wanted::default()).unwrap()));
}

fn checkpoints(criterion: &mut Criterion) {
    const TENSORS: usize = 64;
    const EACH: usize = 128 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ckpt");
    let values: Vec<f32> = (0..EACH).map(|i| (i as f32).sin()).collect();
    let tensor = |i: usize| HostTensor::f32(format!("state_dict.{i}.weight"), vec![EACH], &values);
    let tensors: Vec<HostTensor> = (0..TENSORS).map(tensor).collect();
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
    let mut group = criterion.benchmark_group("checkpoint of 32 MB");
    group.throughput(Throughput::Bytes((TENSORS * EACH * 4) as u64)).sample_size(20);
    group.bench_function("write", |bench| {
        bench.iter(|| checkpoint::write(&path, &header, &tensors).unwrap());
    });
    group.bench_function("open", |bench| bench.iter(|| Checkpoint::open(&path).unwrap()));
    group.bench_function("restore", |bench| {
        bench.iter(|| black_box(Checkpoint::open(&path).and_then(Checkpoint::load).unwrap()));
    });
    group.bench_function("one tensor", |bench| {
        bench.iter(|| black_box(Checkpoint::open(&path).unwrap().read("state_dict.7.weight").unwrap()));
    });
}
