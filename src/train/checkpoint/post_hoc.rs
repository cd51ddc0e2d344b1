//! EMA weights of any length, after the training: a sum of the snapshots that its run keeps.
//!
//! Source: Karras et al. 2024, arXiv 2312.02696, section 3.2 and appendix C.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pipe_fs::{Disk, atomic};
use pipe_runs::checkpoint::{Written, write};
use pipe_runs::tensor::HostTensor;
use pipe_runs::{Checkpoint, CheckpointError};

use super::export::stripped;
use crate::trainer::power_ema::{LENGTHS, Profile, combination, exponent};
use crate::trainer::{POWER_EMA, SNAPSHOTS, WEIGHTS};

/// Key of a checkpoint's header: the length of the average that its weights are.
pub const EMA_LENGTH: &str = "ema_length";

/// Why there is no average of that length.
#[derive(Debug, thiserror::Error)]
pub enum PostHocError {
    #[error(transparent)]
    Read(#[from] CheckpointError),
    #[error(transparent)]
    Write(#[from] atomic::WriteError),
    #[error(
        "{} has no snapshots of averages; a training keeps them with `ema: {{ lengths: [0.05, 0.1] }}`",
        .0.display()
    )]
    NoSnapshots(PathBuf),
    #[error("{} has no snapshot of epoch {epoch}; it has those of {there}", run.display())]
    NoEpoch { run: PathBuf, epoch: u64, there: String },
    #[error("a length is a share of the training, from {} to {}, not {length}", LENGTHS.start(), LENGTHS.end())]
    Length { length: f64 },
    #[error(
        "the snapshots of {} do not tell an average of length {length}: they are of {there}; a second length in \
         `ema.lengths` would", run.display()
    )]
    Unsolvable { run: PathBuf, length: f64, there: String },
    #[error("{}: `{tensor}` is missing, of another shape than in the others, or not f32", file.display())]
    Tensor { file: PathBuf, tensor: String },
}

/// What was written.
#[derive(Debug)]
pub struct Averaged {
    pub written: Written,
    pub epoch: u64,
    /// The averages that it is a sum of.
    pub snapshots: usize,
    /// How far the sum is from the average that is wanted: the deviation of the two weightings of the
    /// training's steps, as a share of the wanted one.
    pub error: f64,
}

/// One average in a snapshot.
struct Part<'a> {
    file: &'a Checkpoint,
    prefix: String,
    profile: Profile,
}

/// Writes the weights of a run, averaged over `length` (σ_rel) at the end of `epoch`, or of its last
/// snapshot, as a checkpoint of weights alone.
///
/// # Errors
/// There are no snapshots, none of that epoch, too few to tell, or damaged ones.
pub fn averaged(
    disk: &Disk,
    run: &Path,
    length: f64,
    epoch: Option<u64>,
    to: &Path,
) -> Result<Averaged, PostHocError> {
    if !LENGTHS.contains(&length) {
        return Err(PostHocError::Length { length });
    }
    let mut files = snapshots(run)?;
    let epochs: Vec<u64> = files.iter().map(|file| file.header().epoch).collect();
    let Some(epoch) = epoch.or(epochs.last().copied()) else {
        return Err(PostHocError::NoSnapshots(run.to_owned()));
    };
    if !epochs.contains(&epoch) {
        let there = epochs.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        return Err(PostHocError::NoEpoch { run: run.to_owned(), epoch, there });
    }
    files.retain(|file| file.header().epoch <= epoch);
    files.iter().try_for_each(Checkpoint::verify)?;
    let parts: Vec<Part> = files.iter().flat_map(parts).collect();
    let profiles: Vec<Profile> = parts.iter().map(|part| part.profile).collect();
    let last = files.last().map(|file| file.header().clone());
    let Some(mut header) = last.map(|header| stripped(&header)) else {
        return Err(PostHocError::NoSnapshots(run.to_owned()));
    };
    let wanted = Profile { gamma: exponent(length), step: header.global_step as f64 };
    let Some((factors, error)) = combination(&profiles, wanted) else {
        let there: BTreeSet<String> = parts.iter().map(|part| part.length().to_owned()).collect();
        let there = there.into_iter().collect::<Vec<_>>().join(" and ");
        return Err(PostHocError::Unsolvable { run: run.to_owned(), length, there });
    };
    let first = parts.iter().find(|part| part.profile.step == wanted.step);
    let names = first.map(Part::names).unwrap_or_default();
    let tensors = names.iter().map(|name| sum(name, &parts, &factors));
    let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
    header.extra.insert(EMA_LENGTH.to_owned(), length.to_string());
    let written = write(disk, to, &header, &tensors)?;
    Ok(Averaged { written, epoch, snapshots: parts.len(), error })
}

/// The snapshots of a run, oldest first.
fn snapshots(run: &Path) -> Result<Vec<Checkpoint>, PostHocError> {
    let entries = std::fs::read_dir(run.join(SNAPSHOTS)).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|ext| ext == "ckpt"));
    let mut all = files.map(|path| Checkpoint::open(&path)).collect::<Result<Vec<_>, _>>()?;
    all.sort_by_key(|file| file.header().global_step);
    Ok(all)
}

/// The averages in a snapshot.
fn parts(file: &Checkpoint) -> Vec<Part<'_>> {
    // A name is `PREFIX LENGTH / NAME`.
    let prefixes = file.tensors().filter_map(|tensor| {
        let (length, _) = tensor.name.strip_prefix(POWER_EMA)?.split_once('/')?;
        Some(format!("{POWER_EMA}{length}/"))
    });
    let step = file.header().global_step as f64;
    let part = |prefix: String| {
        let length = prefix.strip_prefix(POWER_EMA)?.strip_suffix('/')?.parse().ok()?;
        Some(Part { file, prefix, profile: Profile { gamma: exponent(length), step } })
    };
    prefixes.collect::<BTreeSet<String>>().into_iter().filter_map(part).collect()
}

impl Part<'_> {
    fn length(&self) -> &str {
        self.prefix.trim_start_matches(POWER_EMA).trim_end_matches('/')
    }

    /// The parameters that it is an average of.
    fn names(&self) -> Vec<String> {
        let names = self.file.tensors().filter_map(|t| t.name.strip_prefix(&self.prefix));
        names.map(str::to_owned).collect()
    }
}

/// One parameter of the sum.
fn sum(name: &str, parts: &[Part], factors: &[f64]) -> Result<HostTensor, PostHocError> {
    let mut total: Option<(Vec<usize>, Vec<f64>)> = None;
    for (part, factor) in parts.iter().zip(factors) {
        let tensor = format!("{}{name}", part.prefix);
        let unfit =
            || PostHocError::Tensor { file: part.file.path().to_owned(), tensor: tensor.clone() };
        let read = part.file.find(&tensor)?.ok_or_else(unfit)?;
        let values = read.to_f32().ok_or_else(unfit)?;
        let (shape, sums) =
            total.get_or_insert_with(|| (read.shape.clone(), vec![0.0; values.len()]));
        if *shape != read.shape {
            return Err(unfit());
        }
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * f64::from(value));
    }
    let (shape, sums) = total.unwrap_or_default();
    let values: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
    Ok(HostTensor::f32(format!("{WEIGHTS}{name}"), shape, &values))
}
