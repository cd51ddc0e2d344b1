//! One file with all pictures: a zip file of PNGs, or NumPy's arrays.

use std::io::{self, Write};

use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

use crate::npy;
use crate::sampling::mark::MAKER;

/// The labels of a zip file's pictures.
pub const LABELS: &str = "dataset.json";

/// One picture of an archive.
pub struct Entry {
    /// Its name, with `/` between its parts.
    pub name: String,
    pub label: usize,
}

/// Entries have no time of their own, so that the same pictures are the same file.
fn options() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644)
}

/// A zip file of what `content` reads of each picture, as it is. Where there are classes,
/// `dataset.json` has a label for each.
pub fn write_zip(
    out: impl Write,
    entries: &[Entry],
    has_classes: bool,
    mut content: impl FnMut(usize) -> io::Result<Vec<u8>>,
) -> io::Result<()> {
    let mut zip = ZipWriter::new_stream(out);
    for (index, entry) in entries.iter().enumerate() {
        zip.start_file(&entry.name, options())?;
        zip.write_all(&content(index)?)?;
    }
    if has_classes {
        let labels: Vec<_> = entries.iter().map(|entry| (&entry.name, entry.label)).collect();
        zip.start_file(LABELS, options())?;
        zip.write_all(serde_json::json!({"labels": labels}).to_string().as_bytes())?;
    }
    zip.finish()?;
    Ok(())
}

/// NumPy's arrays of the pixels that `pixels` reads of each picture of `side`² pixels. No array says
/// who made it, so the file's comment does.
pub fn write_npz(
    out: impl Write,
    entries: &[Entry],
    has_classes: bool,
    side: usize,
    mut pixels: impl FnMut(usize) -> io::Result<Vec<u8>>,
) -> io::Result<()> {
    let mut zip = ZipWriter::new_stream(out);
    zip.set_comment(MAKER)?;
    let pictures = entries.len();
    zip.start_file("arr_0.npy", options().large_file(true))?;
    zip.write_all(&npy::header("|u1", &[pictures, side, side, 3]))?;
    for index in 0..pictures {
        zip.write_all(&pixels(index)?)?;
    }
    if has_classes {
        zip.start_file("arr_1.npy", options())?;
        zip.write_all(&npy::header("<i8", &[pictures]))?;
        for entry in entries {
            zip.write_all(&(entry.label as i64).to_le_bytes())?;
        }
    }
    zip.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use zip::ZipArchive;

    use super::*;

    fn entries() -> Vec<Entry> {
        ["oak/000001.png", "fir/000002.png"]
            .into_iter()
            .enumerate()
            .map(|(index, name)| Entry { name: name.into(), label: 3 + index })
            .collect()
    }

    fn content(archive: &mut ZipArchive<Cursor<Vec<u8>>>, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_zip_file_has_the_pictures_as_they_are_and_edms_labels() {
        let mut out = Vec::new();
        write_zip(&mut out, &entries(), true, |index| Ok(vec![index as u8; 5])).unwrap();
        let mut archive = ZipArchive::new(Cursor::new(out)).unwrap();
        assert_eq!(content(&mut archive, "fir/000002.png"), [1; 5]);
        let labels = content(&mut archive, "dataset.json");
        assert_eq!(labels, br#"{"labels":[["oak/000001.png",3],["fir/000002.png",4]]}"#);
        let mut plain = Vec::new();
        write_zip(&mut plain, &entries(), false, |_| Ok(Vec::new())).unwrap();
        assert_eq!(ZipArchive::new(Cursor::new(plain)).unwrap().len(), 2);
    }

    #[test]
    fn numpys_arrays_have_a_header_of_whole_blocks() {
        let mut out = Vec::new();
        write_npz(&mut out, &entries(), true, 2, |index| Ok(vec![index as u8; 12])).unwrap();
        let mut archive = ZipArchive::new(Cursor::new(out)).unwrap();
        let pixels = content(&mut archive, "arr_0.npy");
        assert_eq!(pixels.len() % 64, 24, "the numbers follow");
        assert!(pixels.starts_with(b"\x93NUMPY\x01\x00"));
        let text = String::from_utf8_lossy(&pixels[10..pixels.len() - 24]).into_owned();
        assert!(text.contains("'shape': (2, 2, 2, 3)") && text.ends_with('\n'), "{text}");
        assert_eq!(pixels[pixels.len() - 12..], [1; 12]);
        let labels = content(&mut archive, "arr_1.npy");
        assert_eq!(labels[labels.len() - 8..], 4i64.to_le_bytes());
    }

    #[test]
    fn the_same_pictures_are_the_same_file() {
        let write = || {
            let mut out = Vec::new();
            write_zip(&mut out, &entries(), true, |index| Ok(vec![index as u8; 5])).unwrap();
            out
        };
        assert_eq!(write(), write());
    }
}
