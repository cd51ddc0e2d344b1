//! Pictures of runs for the page, as data addresses. What is too much for one page is left out
//! evenly.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pipe_engine::state::Output;
use pipe_fs::sha256_of;
use pipe_runs::EpochRecord;
use serde::Serialize;

/// Bytes of images on a page, and of those that one run may put there.
const PAGE_BUDGET: u64 = 24_000_000;
const RUN_BUDGET: u64 = 3_000_000;

/// The image grid of an epoch, or of an optimizer step.
#[derive(Debug, Serialize)]
pub struct Sample {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// `data:image/png;base64,…`
    pub image: String,
}

/// An image that a stage made.
#[derive(Debug, Serialize)]
pub struct ImageGrid {
    pub stage: String,
    /// The file, relative to the project.
    pub path: String,
    /// Unset if the page does not show it.
    pub image: Option<String>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<&'static str>,
    /// Pictures of other checkpoints that the stage drew besides.
    #[serde(skip_serializing_if = "is_none")]
    pub others: usize,
}

fn is_none(count: &usize) -> bool {
    *count == 0
}

impl ImageGrid {
    /// What a stage's record lists, if it stands and is an image. `draws`: all that the stage makes
    /// are pictures, and what is none that a page can show is named.
    pub(super) fn of(root: &Path, stage: &str, output: &Output, draws: bool) -> Option<Self> {
        let mut parts = Path::new(&output.path).components();
        // A record from elsewhere could name any file, and the page is handed on.
        if !parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return None;
        }
        let file = root.join(&output.path);
        let bytes = std::fs::metadata(&file).ok()?.len();
        // What stands there may have been made since by somebody else.
        let is_what_was_made =
            bytes == output.bytes && sha256_of(&file).is_ok_and(|digest| digest == output.digest);
        if !is_what_was_made {
            return None;
        }
        let (image, why_not) = match is_image(&file) {
            false if draws => (None, Some("pictures in a file that no page shows")),
            false => return None,
            true if bytes > RUN_BUDGET => (None, Some("too large for this page")),
            true => (Some(address(&std::fs::read(&file).ok()?)), None),
        };
        let (stage, path) = (stage.to_owned(), output.path.clone());
        Some(Self { stage, path, image, why_not, others: 0 })
    }
}

/// Whether a file begins as a PNG, JPEG or WebP.
fn is_image(file: &Path) -> bool {
    let mut head = [0; 12];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut head));
    let is_webp = head.starts_with(b"RIFF") && head.ends_with(b"WEBP");
    read.is_ok() && (is_webp || head.starts_with(b"\x89PNG") || head.starts_with(b"\xff\xd8\xff"))
}

/// An image as an address that holds all of it.
fn address(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

/// An image grid as a file: its place in the training, the epoch or step that its name has, and
/// bytes.
struct GridFile {
    at_step: u64,
    epoch: Option<u64>,
    step: Option<u64>,
    path: PathBuf,
    bytes: u64,
}

/// The image grids in a run's folder, in the order of the training, and how many had no room on a
/// page with so many runs.
pub(super) fn of_run(folder: &Path, history: &[EpochRecord], runs: usize) -> (Vec<Sample>, usize) {
    let all = files(folder, history);
    let bytes: u64 = all.iter().map(|file| file.bytes).sum();
    let room = (PAGE_BUDGET / runs.max(1) as u64).min(RUN_BUDGET);
    let kept = if bytes <= room {
        (0..all.len()).collect()
    } else {
        spread(all.len(), (all.len() as u64 * room / bytes.max(1)) as usize)
    };
    let read = |index: &usize| {
        let GridFile { epoch, step, path, .. } = all.get(*index)?;
        Some(Sample { epoch: *epoch, step: *step, image: address(&std::fs::read(path).ok()?) })
    };
    let samples: Vec<Sample> = kept.iter().filter_map(read).collect();
    let left_out = all.len() - kept.len();
    (samples, left_out)
}

/// `samples/epoch_NNN.png` and `samples/step_NNNNNNNN.png`.
fn files(folder: &Path, history: &[EpochRecord]) -> Vec<GridFile> {
    let Ok(entries) = std::fs::read_dir(folder.join("samples")) else { return Vec::new() };
    let step_of = |epoch| history.iter().find(|e| e.epoch == epoch).map(|e| e.global_step);
    let mut all: Vec<GridFile> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = |kind: &str| name.strip_prefix(kind)?.strip_suffix(".png")?.parse().ok();
            let (epoch, step) = (number("epoch_"), number("step_"));
            let at_step = step.or_else(|| epoch.map(|n| step_of(n).unwrap_or(u64::MAX)))?;
            let (path, bytes) = (entry.path(), entry.metadata().ok()?.len());
            Some(GridFile { at_step, epoch, step, path, bytes })
        })
        .collect();
    all.sort_by_key(|file| (file.at_step, file.epoch));
    all
}

/// `wanted` of the numbers below `count`, evenly, the first and the last among them; the last alone
/// if there is no room for two.
fn spread(count: usize, wanted: usize) -> Vec<usize> {
    match wanted.min(count) {
        0 | 1 => count.checked_sub(1).into_iter().collect(),
        wanted => (0..wanted).map(|i| i * (count - 1) / (wanted - 1)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn what_has_room_is_spread_over_the_training() {
        assert_eq!(spread(10, 4), [0, 3, 6, 9]);
        assert_eq!(spread(10, 1), [9]);
        assert_eq!(spread(10, 2), [0, 9]);
        assert_eq!(spread(1, 1), [0]);
        assert_eq!(spread(0, 5), [0usize; 0]);
        assert_eq!(spread(3, 9), [0, 1, 2]);
    }
}
