//! From a file of JPEG, PNG or WebP to square RGB bytes.
//!
//! A JPEG that ends early is refused: decoders fill the missing part with grey and say nothing.

use std::io::Cursor;
use std::path::Path;

use image::imageops::{self, FilterType};
use image::{DynamicImage, GenericImageView, ImageDecoder, ImageReader, Rgb, RgbImage};

use super::error::DataError;

/// Longest side and most pixels of an image that is read. A header of a few bytes can promise terabytes.
const MAX_SIDE: u32 = 32_768;
const MAX_PIXELS: u64 = 100_000_000;

/// Decodes the content of the file `path`: its central square, resized to RGB `[size, size, 3]`, upright as its EXIF
/// says, over white where it is transparent.
pub(crate) fn square(path: &Path, bytes: &[u8], size: usize) -> Result<Box<[u8]>, DataError> {
    let image = decode(bytes).map_err(|reason| DataError::Image { file: path.to_owned(), reason })?;
    Ok(central_square(&image, size))
}

fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    if bytes.starts_with(&[0xff, 0xd8]) {
        check_jpeg_end(bytes)?;
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    if reader.format().is_none() {
        return Err("it is neither JPEG, PNG nor WebP".into());
    }
    let mut decoder = reader.into_decoder().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!(
            "it is {width} x {height} pixels; up to {MAX_SIDE} on a side and {MAX_PIXELS} in all are read"
        ));
    }
    // What a decoder takes besides the image itself.
    let limits = image::Limits::default();
    decoder.set_limits(limits).map_err(|e| e.to_string())?;
    let orientation = decoder.orientation().map_err(|e| e.to_string())?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
    image.apply_orientation(orientation);
    Ok(if image.color().has_alpha() { over_white(&image) } else { image.into_rgb8() })
}

fn over_white(image: &DynamicImage) -> RgbImage {
    let image = image.to_rgba8();
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, alpha] = image.get_pixel(x, y).0.map(u32::from);
        Rgb([r, g, b].map(|c| ((c * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
    })
}

/// The central square of `image`, resized (Lanczos with 3 lobes) to RGB `[size, size, 3]`.
pub(crate) fn central_square(image: &RgbImage, size: usize) -> Box<[u8]> {
    let (width, height) = image.dimensions();
    let side = width.min(height);
    let square = image.view((width - side) / 2, (height - side) / 2, side, side);
    if side as usize == size {
        return square.to_image().into_raw().into_boxed_slice();
    }
    imageops::resize(&*square, size as u32, size as u32, FilterType::Lanczos3).into_raw().into_boxed_slice()
}

/// Walks the markers of a JPEG (ITU-T T.81, annex B) to its end-of-image marker.
fn check_jpeg_end(bytes: &[u8]) -> Result<(), String> {
    let cut = |at: usize| format!("the JPEG ends at byte {at}, before its end marker");
    let byte = |at: usize| bytes.get(at).copied().ok_or_else(|| cut(bytes.len()));
    let mut at = 2;
    loop {
        // Between segments there may be fill bytes; in coded data, FF 00 is a byte and FF D0 to D7 a restart.
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
    use image::ImageFormat;

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let image = RgbImage::from_fn(40, 24, |x, y| Rgb([(6 * x) as u8, (10 * y) as u8, 90]));
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn whole_images_decode_in_every_format() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            assert_eq!(decode(&encoded(format)).unwrap().dimensions(), (40, 24), "{format:?}");
        }
    }

    #[test]
    fn an_image_cut_anywhere_is_refused() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            let whole = encoded(format);
            for length in (0..whole.len() - 8).step_by(7) {
                assert!(
                    decode(&whole[..length]).is_err(),
                    "{format:?} cut to {length} of {} bytes",
                    whole.len()
                );
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
        assert!(decode(&png).unwrap_err().contains("65535 x 65535 pixels"));
    }

    #[test]
    fn the_central_square_is_taken() {
        let mut image = RgbImage::from_pixel(30, 10, Rgb([0, 0, 255]));
        for x in 10..20 {
            for y in 0..10 {
                image.put_pixel(x, y, Rgb([255, 0, 0]));
            }
        }
        for size in [10, 8, 16] {
            let square = central_square(&image, size);
            assert_eq!(square.len(), 3 * size * size);
            assert!(square.chunks(3).all(|p| p == [255, 0, 0]), "at {size}");
        }
    }

    #[test]
    fn transparency_shows_white() {
        let clear = DynamicImage::ImageRgba8(image::RgbaImage::from_pixel(1, 1, image::Rgba([0, 0, 0, 0])));
        assert_eq!(over_white(&clear).get_pixel(0, 0).0, [255, 255, 255]);
    }
}
