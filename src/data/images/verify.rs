//! Looking at every image once before anything is trained: all that are bad are told together.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use pipe_fs::atomic;
use rayon::prelude::*;

use crate::cache::verified_images::VerifiedImages;
use crate::digest::FieldDigest;
use crate::error::{BadImage, DataError};
use crate::images::files::ImageFiles;
use crate::images::resize::ResizeOptions;
use crate::progress::Progress;

/// Images between two looks at whether the work is to stop.
const PORTION: usize = 1024;

/// The images that cannot be read, by the names that people know. Decodes on all processors those
/// that were not decoded without a fault before.
pub(crate) fn bad_images(
    files: &ImageFiles,
    resize: &ResizeOptions,
    progress: &dyn Progress,
) -> Result<Vec<BadImage>, DataError> {
    let root = &files.root;
    let named = |bad: &BadImage| BadImage {
        file: root.display_path(&bad.file),
        reason: bad.reason.clone(),
    };
    let mut bad: Vec<BadImage> = root.unreadable.iter().map(named).collect();
    let verified = VerifiedImages::load(root.cache.join("verified").join(key(files)));
    let mut is_fine: Vec<bool> =
        (0..files.len()).map(|index| verified.contains(files.content(index))).collect();
    let ahead: Vec<usize> = (0..files.len()).filter(|index| !is_fine[*index]).collect();
    let done = AtomicUsize::new(0);
    let mut ended = Ok(());
    for portion in ahead.chunks(PORTION) {
        if progress.stopped() {
            ended = Err(DataError::Stopped);
            break;
        }
        let check = |index: &usize| {
            let checked = files.check(*index, resize);
            progress.decoded(done.fetch_add(1, Ordering::Relaxed) + 1, ahead.len());
            (*index, checked)
        };
        for (index, checked) in portion.par_iter().map(check).collect::<Vec<_>>() {
            match checked {
                Ok(()) => is_fine[index] = true,
                Err(DataError::Image { file, reason }) => bad.push(BadImage { file, reason }),
                Err(DataError::Io { path, source, .. }) => {
                    let reason = format!("it cannot be read: {source}");
                    bad.push(BadImage { file: root.display_path(&path), reason });
                }
                Err(other) => ended = ended.and(Err(other)),
            }
        }
        if ended.is_err() {
            break;
        }
    }
    verified.save(
        root.cache.disk(),
        (0..files.len()).filter(|index| is_fine[*index]).map(|index| *files.content(index)),
    );
    ended.map(|()| bad)
}

/// One error for all bad images. Where they are many, a file of the cache names them all.
pub(crate) fn refuse(files: &ImageFiles, mut bad: Vec<BadImage>) -> Result<(), DataError> {
    let root = &files.root;
    let list = root.cache.join("bad_images").join(key(files)).with_extension("txt");
    match bad.len() {
        0 => Ok(()),
        1 => {
            let BadImage { file, reason } = bad.remove(0);
            Err(DataError::Image { file, reason })
        }
        _ => {
            let list = write(list, &bad, files);
            let total = files.len() + root.unreadable.len();
            Err(DataError::Images { root: root.display.clone(), bad, total, list })
        }
    }
}

fn write(list: PathBuf, bad: &[BadImage], files: &ImageFiles) -> Option<PathBuf> {
    let lines: String = bad.iter().map(|bad| bad.line(&files.root.display) + "\n").collect();
    let written =
        atomic::create_needless_folder(files.root.cache.disk(), list.parent().unwrap_or(&list))
            .and_then(|()| fs::write(&list, lines));
    written.is_ok().then_some(list)
}

/// What the notes on a data folder go by. The decoder may change with the version.
fn key(files: &ImageFiles) -> String {
    let path = &files.root.path;
    let mut key = FieldDigest::new("verified images");
    key.field(env!("CARGO_PKG_VERSION"));
    key.field(path.canonicalize().as_ref().unwrap_or(path).as_os_str().as_encoded_bytes());
    key.finish()[..32].to_owned()
}
