//! What is read from the disk to get at the weights of a checkpoint. A process of its own, since
//! the system counts by process.
#![cfg(target_os = "linux")]

use std::path::Path;

use pipe_fs::Disk;
use pipe_runs::checkpoint::{self, Checkpoint, Header};
use pipe_runs::tensor::HostTensor;
use serde_json::Value;

const VALUES: usize = 50_000;

#[test]
fn weights_are_read_without_the_mean_and_the_moments() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ckpt");
    let parts = ["state_dict.", "ema_state_dict.", "optimizer_state_dict."];
    let tensors: Vec<HostTensor> = parts
        .iter()
        .flat_map(|part| {
            (0..5).map(move |i| HostTensor::f32(format!("{part}{i}"), vec![VALUES], &[0.5; VALUES]))
        })
        .collect();
    write(&path, &tensors);
    let header = std::fs::metadata(&path).unwrap().len() - 4 * (tensors.len() * VALUES) as u64;

    let itself = read_by(|| ());
    let read = read_by(|| {
        let checkpoint = Checkpoint::open(&path).unwrap();
        for i in 0..5 {
            let tensor = checkpoint.read(&format!("state_dict.{i}")).unwrap();
            assert_eq!(tensor.to_f32().unwrap(), [0.5; VALUES]);
        }
    });
    assert_eq!(read - itself, header + 5 * 4 * VALUES as u64);
}

fn write(path: &Path, tensors: &[HostTensor]) {
    let header = Header {
        epoch: 1,
        global_step: 1,
        step_in_epoch: 0,
        metrics: Default::default(),
        scheduler_state_dict: Value::Null,
        loop_state: Value::Null,
        saved_at: Default::default(),
        identity: "test".into(),
        seed: 0,
        model_config: Value::Null,
        extra: Default::default(),
    };
    checkpoint::write(&Disk::default(), path, &header, tensors).unwrap();
}

/// Bytes that this process reads by system calls during `work`, with those of looking it up once.
fn read_by(work: impl FnOnce()) -> u64 {
    let count = || {
        let told = std::fs::read_to_string("/proc/self/io").unwrap();
        told.lines().find_map(|l| l.strip_prefix("rchar: ")).unwrap().parse::<u64>().unwrap()
    };
    let before = count();
    work();
    count() - before
}
