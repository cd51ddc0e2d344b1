//! From a file of JPEG, PNG, WebP, GIF, BMP or TIFF to square RGB bytes. Of several frames the
//! first is taken.
//!
//! A JPEG that ends early is refused: decoders fill the missing part with grey and say nothing.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Rgb, RgbImage};
use pipe_core::failure::panic_message;

use crate::images::resize::{Colour, ResizeOptions};

/// Longest side and most pixels of an image that is read. A header of a few bytes can promise
/// terabytes.
const MAX_SIDE: u32 = 32_768;
const MAX_PIXELS: u64 = 100_000_000;

const FORMATS: [ImageFormat; 6] = [
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::WebP,
    ImageFormat::Gif,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
];

/// Decodes the content of an image file: RGB `[size, size, 3]`, upright as its EXIF says, over the
/// background where it is transparent. The error says what is wrong with it.
pub(crate) fn square(bytes: &[u8], resize: &ResizeOptions) -> Result<Box<[u8]>, String> {
    Ok(resize.square(&decode(bytes, resize.background)?))
}

/// What an image's file says of itself before it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHeader {
    /// In pixels, as they are stored: EXIF may turn them.
    pub width: u32,
    pub height: u32,
    /// The format that photographs are kept in.
    pub is_jpeg: bool,
}

/// The header of an image file; `None` if it cannot be read, or is none of an image.
pub(crate) fn header(file: &Path) -> Option<ImageHeader> {
    let read = || {
        let reader = ImageReader::open(file).ok()?.with_guessed_format().ok()?;
        let format = reader.format().filter(|format| FORMATS.contains(format))?;
        let (width, height) = reader.into_dimensions().ok()?;
        Some(ImageHeader { width, height, is_jpeg: format == ImageFormat::Jpeg })
    };
    catch_unwind(AssertUnwindSafe(read)).ok().flatten()
}

/// Whether [`square`] will do; costs as much but for the resizing.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    decode(bytes, Colour::default()).map(|_| ())
}

fn decode(bytes: &[u8], background: Colour) -> Result<RgbImage, String> {
    if bytes.starts_with(&[0xff, 0xd8]) {
        check_jpeg_end(bytes)?;
    }
    // Decoders are many and old formats odd: one that gives up ends no check of a million files.
    catch_unwind(AssertUnwindSafe(|| upright(bytes, background))).unwrap_or_else(|panic| {
        Err(format!("its decoder gave up: {}", panic_message(panic.as_ref())))
    })
}

fn upright(bytes: &[u8], background: Colour) -> Result<RgbImage, String> {
    let reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    if !reader.format().is_some_and(|format| FORMATS.contains(&format)) {
        return Err(instead(bytes).into());
    }
    let mut decoder = reader.into_decoder().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!(
            "it is {width} x {height} pixels; up to {MAX_SIDE} on a side and {MAX_PIXELS} in all are read"
        ));
    }
    if width == 0 || height == 0 {
        return Err("it has no pixels".into());
    }
    // What a decoder takes besides the image itself.
    let limits = image::Limits::default();
    decoder.set_limits(limits).map_err(|e| e.to_string())?;
    let orientation = decoder.orientation().map_err(|e| e.to_string())?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
    image.apply_orientation(orientation);
    Ok(if image.color().has_alpha() { over(&image, background) } else { image.into_rgb8() })
}

/// What a file is that is no image of a format that is read.
fn instead(bytes: &[u8]) -> &'static str {
    let begins = |with: &str| {
        bytes.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()))
    };
    if bytes.is_empty() {
        "it is empty"
    } else if bytes.iter().take(1 << 12).all(|byte| *byte == 0) {
        "it begins with zeros only: it was not written whole"
    } else if begins("<!doctype html") || begins("<html") {
        "it is a web page: the download of the image failed"
    } else if begins("version https://git-lfs") {
        "it is a pointer of Git LFS: `git lfs pull` gets the image"
    } else if bytes.get(4..8) == Some(b"ftyp") {
        "it is HEIC, AVIF or a video; convert it to JPEG or PNG"
    } else {
        "it is neither JPEG, PNG, WebP, GIF, BMP nor TIFF"
    }
}

fn over(image: &DynamicImage, background: Colour) -> RgbImage {
    let image = image.to_rgba8();
    let ground = background.0.map(u32::from);
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, alpha] = image.get_pixel(x, y).0.map(u32::from);
        let mixed = |c: u32, ground: u32| ((c * alpha + ground * (255 - alpha) + 127) / 255) as u8;
        Rgb([mixed(r, ground[0]), mixed(g, ground[1]), mixed(b, ground[2])])
    })
}

/// Walks the markers of a JPEG (ITU-T T.81, annex B) to its end-of-image marker.
fn check_jpeg_end(bytes: &[u8]) -> Result<(), String> {
    let cut = |at: usize| format!("the JPEG ends at byte {at}, before its end marker");
    let byte = |at: usize| bytes.get(at).copied().ok_or_else(|| cut(bytes.len()));
    let mut at = 2;
    loop {
        // Between segments there may be fill bytes; in coded data, FF 00 is a byte and FF D0 to D7
        // a restart.
        while byte(at)? != 0xff || matches!(byte(at + 1)?, 0x00 | 0xff | 0xd0..=0xd7) {
            at += 1;
        }
        match byte(at + 1)? {
            0xd9 => return Ok(()),
            0x01 => at += 2, // TEM, the one other marker without a length
            _ => at += 2 + usize::from(u16::from_be_bytes([byte(at + 2)?, byte(at + 3)?])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHITE: Colour = Colour([255; 3]);

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let image = RgbImage::from_fn(40, 24, |x, y| Rgb([(6 * x) as u8, (10 * y) as u8, 90]));
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn whole_images_decode_in_every_format() {
        for format in FORMATS {
            assert_eq!(
                decode(&encoded(format), WHITE).unwrap().dimensions(),
                (40, 24),
                "{format:?}"
            );
        }
    }

    #[test]
    fn an_image_cut_anywhere_is_refused() {
        for format in FORMATS {
            let whole = encoded(format);
            for length in (0..whole.len() - 8).step_by(7) {
                assert!(
                    decode(&whole[..length], WHITE).is_err(),
                    "{format:?} cut to {length} of {} bytes",
                    whole.len()
                );
            }
        }
    }

    #[test]
    fn no_damage_ends_the_program() {
        for format in FORMATS {
            let whole = encoded(format);
            for at in (0..whole.len()).step_by(whole.len() / 150 + 1) {
                let mut damaged = whole.clone();
                damaged[at] ^= 0xff;
                if let Ok(image) = decode(&damaged, WHITE) {
                    assert_eq!(
                        ResizeOptions::new(8).square(&image).len(),
                        3 * 8 * 8,
                        "{format:?} at {at}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_header_that_promises_a_vast_image_is_refused() {
        let mut png = encoded(ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
        let mut crc = flate2::Crc::new();
        crc.update(&png[12..29]);
        png[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        assert!(decode(&png, WHITE).unwrap_err().contains("65535 x 65535 pixels"));
    }

    #[test]
    fn what_a_file_is_instead_is_told() {
        for (bytes, told) in [
            (&b""[..], "it is empty"),
            (&[0; 900], "zeros only"),
            (b"<!DOCTYPE html><title>404", "web page"),
            (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
            (b"\0\0\0\x1cftypheic", "HEIC"),
            (b"hello", "neither JPEG, PNG, WebP, GIF, BMP nor TIFF"),
        ] {
            let error = decode(bytes, WHITE).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn transparency_shows_the_background() {
        let clear =
            DynamicImage::ImageRgba8(image::RgbaImage::from_pixel(1, 1, image::Rgba([0, 0, 0, 0])));
        assert_eq!(over(&clear, WHITE).get_pixel(0, 0).0, [255, 255, 255]);
        assert_eq!(over(&clear, Colour([7, 8, 9])).get_pixel(0, 0).0, [7, 8, 9]);
    }
}
