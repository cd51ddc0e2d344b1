//! Parts of a checkpoint, each alone: `cargo bench -p burn-pipe-runs --bench parts [-- FILTER]`
//!
//! `checkpoint` measures the disk.

use std::path::Path;

use divan::Bencher;
use divan::counter::BytesCount;
use pipe_runs::checkpoint;
use pipe_runs::checkpoint::{Checkpoint, Header};
use pipe_runs::tensor::HostTensor;

fn main() {
    divan::main();
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
        checkpoint::write(&Default::default(), path, &header, tensors).unwrap();
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
