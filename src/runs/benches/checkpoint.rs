//! What a checkpoint costs the disk: `cargo bench -p burn-pipe-runs --bench checkpoint -- [MB]
//! [ROUNDS] [DIR]`
//!
//! Writes a checkpoint of that size (default 256 MB, as 96 tensors) and a plain file of as many
//! bytes with fsync, in turn, and reads both back with every byte checked and without, with nothing
//! of them left in the system's cache ("cold") and with all of it. Prints the median of each and
//! the median of the pairs' ratios. With `--pair FILE` it does one write of a checkpoint to FILE,
//! for `benches/peers.sh`, and prints the seconds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use pipe_fs::Disk;
use pipe_runs::checkpoint::{self, Checkpoint, Header};
use pipe_runs::tensor::{Dtype, HostTensor};
use serde_json::Value;

const TENSORS: usize = 96;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let number =
        |i: usize, default| arguments.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (megabytes, rounds) = (number(0, 256), number(1, 7));
    let tensors = tensors(megabytes << 20);
    if let Some(i) = arguments.iter().position(|a| a == "--pair") {
        println!("{}", timed(|| write(Path::new(&arguments[i + 1]), &tensors)));
        return;
    }
    let folder = arguments.get(2).map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(folder).unwrap();
    let (ours, plain) = (folder.path().join("a.ckpt"), folder.path().join("plain"));
    let mut table = Table::default();
    for _ in 0..rounds {
        for path in [&ours, &plain] {
            let _ = std::fs::remove_file(path);
        }
        let pair = [timed(|| write(&ours, &tensors)), timed(|| write_plain(&plain, &tensors))];
        table.add("write and fsync", pair);
        for cache in ["cold", "warm"] {
            let mut pair = [0.0; 2];
            for (seconds, path) in pair.iter_mut().zip([&ours, &plain]) {
                if cache == "cold" {
                    drop_cache(path);
                }
                *seconds = if path == &ours {
                    timed(|| restore(path))
                } else {
                    timed(|| read_plain(path))
                };
            }
            table.add(&format!("restore, {cache}"), pair);
        }
    }
    println!("{megabytes} MB in {TENSORS} tensors, median of {rounds} rounds\n");
    table.print(megabytes as f64);
}

fn tensors(bytes: usize) -> Vec<HostTensor> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state.to_le_bytes()
    };
    let each = (bytes / TENSORS).next_multiple_of(8);
    (0..TENSORS)
        .map(|i| HostTensor {
            name: format!("model_state_dict.blocks.{i}.weight"),
            dtype: Dtype::F32,
            shape: vec![each / 4],
            bytes: (0..each / 8).flat_map(|_| next()).collect(),
        })
        .collect()
}

fn write(path: &Path, tensors: &[HostTensor]) {
    let header = Header {
        epoch: 1,
        global_step: 100,
        step_in_epoch: 0,
        metrics: BTreeMap::new(),
        scheduler_state_dict: Value::Null,
        loop_state: Value::Null,
        saved_at: Default::default(),
        identity: "bench".into(),
        seed: 0,
        model_config: Value::Null,
        extra: BTreeMap::new(),
    };
    checkpoint::write(&Disk::default(), path, &header, tensors).unwrap();
}

fn write_plain(path: &Path, tensors: &[HostTensor]) {
    let mut file = File::create(path).unwrap();
    tensors.iter().for_each(|t| file.write_all(&t.bytes).unwrap());
    file.sync_all().unwrap();
}

/// Every tensor, after the content's digest was checked.
fn restore(path: &Path) {
    std::hint::black_box(Checkpoint::open(path).and_then(Checkpoint::load).unwrap());
}

/// Every byte, in pieces as long as a tensor.
fn read_plain(path: &Path) {
    let mut file = File::open(path).unwrap();
    let each = (file.metadata().unwrap().len() / TENSORS as u64).max(1);
    let mut pieces = Vec::new();
    loop {
        let mut piece = Vec::with_capacity(each as usize);
        if (&mut file).take(each).read_to_end(&mut piece).unwrap() == 0 {
            break;
        }
        pieces.push(piece);
    }
    std::hint::black_box(pieces);
}

#[cfg(unix)]
fn drop_cache(path: &Path) {
    rustix::fs::fadvise(File::open(path).unwrap(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[cfg(not(unix))]
fn drop_cache(_: &Path) {}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Pairs of seconds, ours first, by name.
#[derive(Default)]
struct Table(Vec<(String, Vec<[f64; 2]>)>);

impl Table {
    fn add(&mut self, name: &str, pair: [f64; 2]) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, pairs)) => pairs.push(pair),
            None => self.0.push((name.to_owned(), vec![pair])),
        }
    }

    fn print(&self, megabytes: f64) {
        println!("| | checkpoint, MB/s | plain file, MB/s | ratio |\n|---|---|---|---|");
        for (name, pairs) in &self.0 {
            let speed = |i: usize| megabytes / median(pairs.iter().map(|p| p[i]));
            println!(
                "| {name} | {:.0} | {:.0} | {:.2} |",
                speed(0),
                speed(1),
                median(pairs.iter().map(|p| p[1] / p[0]))
            );
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
