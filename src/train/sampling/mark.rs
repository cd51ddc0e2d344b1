//! By what a file says that it was sampled, where it has no texts as sampled pictures have.

use std::path::Path;

use image::{ImageDecoder, ImageReader};

/// Who made it: the comment of an `.npz` file, and the software that the EXIF of a grid names.
pub(super) const MAKER: &str = "pipe sample";
const SOFTWARE: u16 = 0x0131;

/// EXIF with one entry, the software: TIFF 6.0, in the order of Intel's bytes.
pub(super) fn exif() -> Vec<u8> {
    const ASCII: u16 = 2;
    const BEHIND_THE_ENTRY: u32 = 26;
    let text = format!("{MAKER}\0");
    let mut bytes = b"II*\0".to_vec();
    bytes.extend(8u32.to_le_bytes());
    for number in [1, SOFTWARE, ASCII] {
        bytes.extend(number.to_le_bytes());
    }
    for number in [text.len() as u32, BEHIND_THE_ENTRY, 0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(text.as_bytes());
    bytes
}

/// Whether a file is an image that says so in its EXIF.
pub(super) fn is_sampled_grid(path: &Path) -> bool {
    let Ok(Ok(reader)) = ImageReader::open(path).map(ImageReader::with_guessed_format) else {
        return false;
    };
    let found = reader.into_decoder().and_then(|mut decoder| decoder.exif_metadata());
    found.is_ok_and(|found| found == Some(exif()))
}
