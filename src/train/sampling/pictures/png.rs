//! A sampled picture as a PNG that says how it was made.

use std::io::{BufRead, Cursor, Seek};
use std::path::Path;

use image::RgbImage;
use pipe_engine::kind::{Failure, StageError};
use png::{BitDepth, ColorType, Decoder, Encoder, Reader};

/// What every PNG begins with.
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// How a picture was made: keys and values of the PNG's text chunks.
pub type Making = Vec<(&'static str, String)>;

/// The picture as a file's content, with text chunks: Latin letters in `tEXt`, others in `iTXt`
/// (PNG specification, third edition, 11.3.3).
pub fn encode(image: &RgbImage, making: &Making) -> Result<Vec<u8>, StageError> {
    let failed = |e: png::EncodingError| {
        StageError::new(Failure::Bug, format!("failed to encode the image: {e}"))
    };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, image.width(), image.height());
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    for (key, value) in making {
        let key = (*key).to_owned();
        if value.is_ascii() {
            encoder.add_text_chunk(key, value.clone()).map_err(failed)?;
        } else {
            encoder.add_itxt_chunk(key, value.clone()).map_err(failed)?;
        }
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(image.as_raw()).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// Whether a file is a whole picture that was made so. Anything else is not: another picture, half
/// of one, none.
pub fn matches(file: &Path, making: &Making) -> bool {
    let Ok(bytes) = std::fs::read(file) else { return false };
    read(&bytes, making).is_some()
}

/// Whether nothing of anybody's is lost with a file: it says of itself that it is a sampled picture,
/// or it is a piece of a PNG, of whatever length.
pub fn is_replaceable(file: &Path) -> bool {
    let Ok(bytes) = std::fs::read(file) else { return false };
    match Decoder::new(Cursor::new(&bytes)).read_info() {
        Ok(reader) => names_its_making(&reader),
        Err(_) => bytes.starts_with(SIGNATURE) || SIGNATURE.starts_with(&bytes),
    }
}

/// Whether a PNG says of itself that it is a sampled picture.
pub fn is_sampled(png: impl BufRead + Seek) -> bool {
    Decoder::new(png).read_info().is_ok_and(|reader| names_its_making(&reader))
}

fn names_its_making(reader: &Reader<impl BufRead + Seek>) -> bool {
    let texts = &reader.info().uncompressed_latin1_text;
    ["seed", "steps"].iter().all(|key| texts.iter().any(|text| text.keyword == *key))
}

/// The pixels of a picture that was made so, RGB, row by row. A text beyond those of its making
/// says that it was made otherwise.
pub fn read(bytes: &[u8], making: &Making) -> Option<Vec<u8>> {
    let mut reader = Decoder::new(Cursor::new(bytes)).read_info().ok()?;
    let info = reader.info();
    let latin = info.uncompressed_latin1_text.iter();
    let latin = latin.map(|chunk| (chunk.keyword.as_str(), chunk.text.clone()));
    let other = info.utf8_text.iter();
    let other = other.filter_map(|chunk| Some((chunk.keyword.as_str(), chunk.get_text().ok()?)));
    let mut said: Vec<(&str, String)> = latin.chain(other).collect();
    let mut making = making.clone();
    said.sort_unstable();
    making.sort_unstable();
    let is_so = said == making;
    if !is_so || info.color_type != ColorType::Rgb || info.bit_depth != BitDepth::Eight {
        return None;
    }
    let mut pixels = vec![0; reader.output_buffer_size()?];
    reader.next_frame(&mut pixels).ok()?;
    Some(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn making(class: &str) -> Making {
        vec![("seed", "3".to_owned()), ("class", class.to_owned())]
    }

    #[test]
    fn a_picture_says_how_it_was_made_in_every_script() {
        let image = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("a.png");
        for class in ["oak", "Früchte", "野菜", ""] {
            let bytes = encode(&image, &making(class)).unwrap();
            assert_eq!(read(&bytes, &making(class)).unwrap(), *image.as_raw());
            assert_eq!(read(&bytes, &making("other")), None);
            assert_eq!(read(&bytes, &making(class)[..1].to_vec()), None, "it says more");
            std::fs::write(&file, &bytes).unwrap();
            assert!(matches(&file, &making(class)));
            assert!(!is_replaceable(&file), "a sampled picture names its steps");
            std::fs::write(&file, &bytes[..bytes.len() - 20]).unwrap();
            assert!(!matches(&file, &making(class)), "half of it is not it");
            let others = image::load_from_memory(&bytes).unwrap().to_rgb8();
            assert_eq!(others, image, "another reader sees the same");
        }
    }
}
