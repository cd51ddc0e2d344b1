//! Files that say of themselves that they were sampled. What does not say so may be all that
//! somebody has, and no sampling writes over it.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use pipe_engine::kind::StageError;
use pipe_fs::atomic;
use zip::ZipArchive;

use super::mark::{MAKER, is_sampled_grid};
use super::pictures::{LABELS, is_sampled, is_sampled_picture};

/// The texts of a sampled picture stand before its pixels, in so many bytes.
const HEAD: u64 = 1 << 16;

/// Refuses to write over a file that no sampling made.
///
/// # Errors
/// Says what to do: another name, or the file moved away.
pub fn check_replaces(path: &Path) -> Result<(), StageError> {
    if atomic::is_stream(path) || !path.exists() || says_sampled(path) {
        return Ok(());
    }
    let path = path.display();
    Err(StageError::setting(format!(
        "{path} is there and is not marked as sampled: name another file, or move it away"
    )))
}

/// Whether nothing of anybody's is lost with a file: it says that it was sampled, or it is empty.
fn says_sampled(path: &Path) -> bool {
    is_sampled_picture(path) || is_sampled_grid(path) || is_sampled_archive(path)
}

/// Whether a file holds sampled pictures alone: arrays of them, or each of them with its texts.
fn is_sampled_archive(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let Ok(mut archive) = ZipArchive::new(BufReader::new(file)) else { return false };
    let is_marked = archive.comment() == MAKER.as_bytes();
    let entries = archive.len();
    let is_sampled = |index: usize| {
        let Ok(entry) = archive.by_index(index) else { return false };
        let name = entry.name().map(|name| name.into_owned()).unwrap_or_default();
        if is_marked && ["arr_0.npy", "arr_1.npy"].contains(&&*name) {
            return true;
        }
        let mut head = Vec::new();
        name == LABELS
            || entry.take(HEAD).read_to_end(&mut head).is_ok() && is_sampled(Cursor::new(&head))
    };
    entries > 0 && (0..entries).all(is_sampled)
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;
    use crate::sampling::Format;

    #[test]
    fn a_grid_says_in_every_format_that_it_was_sampled() {
        let place = tempfile::tempdir().unwrap();
        let image = RgbImage::from_pixel(9, 8, image::Rgb([200, 10, 10]));
        for name in ["a.png", "a.jpg", "a.webp"] {
            let file = place.path().join(name);
            let format = Format::of(&file).unwrap();
            check_replaces(&file).unwrap();
            std::fs::write(&file, format.encode_sampled(&image).unwrap()).unwrap();
            check_replaces(&file).unwrap();
            assert_eq!(image::open(&file).unwrap().to_rgb8().dimensions(), (9, 8));
            std::fs::write(&file, format.encode(&image).unwrap()).unwrap();
            let refused = check_replaces(&file).unwrap_err().to_string();
            assert!(refused.contains("is not marked as sampled"), "{refused}");
            std::fs::write(&file, "").unwrap();
            check_replaces(&file).unwrap();
        }
    }
}
