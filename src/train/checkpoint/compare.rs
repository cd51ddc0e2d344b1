//! Where two checkpoints of the same training differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pipe_runs::{Checkpoint, CheckpointError};
use serde::Serialize;

use crate::trainer::{EMA_WEIGHTS, OPTIMIZER_STATE, POWER_EMA, WEIGHTS};

/// Names that are told of a part.
const TOLD: usize = 3;

/// A part of a checkpoint in which two differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartDifference {
    /// `weights`, `EMA weights`, `optimizer's state`, `averages`, `files`.
    pub part: &'static str,
    /// Tensors, or files of a program, in it.
    pub of: usize,
    /// That differ in any bit, or are in one of the two alone.
    pub differing: usize,
    /// The largest difference of two numbers; `None` where no numbers can be compared.
    pub largest: Option<f64>,
    /// Some of them.
    pub names: Vec<String>,
}

/// The parts in which two checkpoints differ, by what they hold besides their headers.
///
/// # Errors
/// One of them cannot be read, or is damaged.
pub fn differences(
    kept: &Checkpoint,
    again: &Checkpoint,
) -> Result<Vec<PartDifference>, CheckpointError> {
    if kept.is_of_program() || again.is_of_program() {
        return Ok(of_files(kept, again));
    }
    let names = |file: &Checkpoint| file.tensors().map(|t| t.name.clone()).collect::<BTreeSet<_>>();
    let mut parts: BTreeMap<&'static str, PartDifference> = BTreeMap::new();
    for name in names(kept).union(&names(again)) {
        let part = part_of(name);
        let part = parts.entry(part).or_insert_with(|| PartDifference::none(part));
        part.of += 1;
        let (a, b) = (kept.find(name)?, again.find(name)?);
        let (Some(a), Some(b)) = (&a, &b) else {
            part.note(name.clone(), None);
            continue;
        };
        if (a.dtype, &a.shape, &a.bytes) != (b.dtype, &b.shape, &b.bytes) {
            let numbers = a.to_f32().zip(b.to_f32()).filter(|(a, b)| a.len() == b.len());
            let far = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).abs();
            let largest = numbers.map(|(a, b)| a.iter().zip(&b).map(far).fold(0.0, f64::max));
            part.note(name.clone(), largest);
        }
    }
    Ok(parts.into_values().filter(|part| part.differing > 0).collect())
}

impl PartDifference {
    fn none(part: &'static str) -> Self {
        Self { part, of: 0, differing: 0, largest: None, names: Vec::new() }
    }

    fn note(&mut self, name: String, largest: Option<f64>) {
        self.differing += 1;
        self.largest = self.largest.into_iter().chain(largest).reduce(f64::max);
        if self.names.len() < TOLD {
            self.names.push(name);
        }
    }
}

fn part_of(name: &str) -> &'static str {
    [
        (WEIGHTS, "weights"),
        (EMA_WEIGHTS, "EMA weights"),
        (POWER_EMA, "averages"),
        (OPTIMIZER_STATE, "optimizer's state"),
    ]
    .into_iter()
    .find_map(|(prefix, part)| name.starts_with(prefix).then_some(part))
    .unwrap_or("others")
}

/// The same of what a program wrote, file by file.
fn of_files(kept: &Checkpoint, again: &Checkpoint) -> Vec<PartDifference> {
    let files = |file: &Checkpoint| -> BTreeMap<PathBuf, PathBuf> {
        let name = |path: &Path| path.strip_prefix(file.path()).unwrap_or(path).to_owned();
        file.files().into_iter().map(|path| (name(&path), path)).collect()
    };
    let (kept, again) = (files(kept), files(again));
    let all: BTreeSet<&PathBuf> = kept.keys().chain(again.keys()).collect();
    let mut part = PartDifference::none("files");
    for name in all {
        part.of += 1;
        let digest = |files: &BTreeMap<PathBuf, PathBuf>| {
            files.get(name).and_then(|path| pipe_fs::sha256_of(path).ok())
        };
        let (a, b) = (digest(&kept), digest(&again));
        if a.is_none() || a != b {
            let name = name.display().to_string();
            part.note(if name.is_empty() { "the file".to_owned() } else { name }, None);
        }
    }
    if part.differing > 0 { vec![part] } else { Vec::new() }
}
