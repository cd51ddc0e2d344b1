//! Which kind of file an image grid becomes: what the file's name says.

use std::io::Cursor;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ImageEncoder, ImageError, ImageResult, RgbImage};
use pipe_engine::kind::{Failure, StageError};
use pipe_fs::atomic;

use super::mark;

/// A kind of image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Png,
    Jpeg,
    /// Without loss.
    Webp,
}

/// Of 100; small images beside each other have many edges.
const JPEG_QUALITY: u8 = 95;

impl Format {
    /// By the end of the name; PNG where there is none.
    ///
    /// # Errors
    /// Says which ends are known.
    pub fn of(path: &Path) -> Result<Self, String> {
        let Some(end) = path.extension() else { return Ok(Self::Png) };
        match end.to_string_lossy().to_lowercase().as_str() {
            "png" => Ok(Self::Png),
            "jpg" | "jpeg" => Ok(Self::Jpeg),
            "webp" => Ok(Self::Webp),
            other => Err(format!(
                "{}: images are not written as .{other}; name a .png, .jpg or .webp file",
                path.display()
            )),
        }
    }

    /// The same for a file that a person names: only a pipe or a device needs no end. A folder of that
    /// name is another mistake.
    ///
    /// # Errors
    /// As above, and for a name without an end.
    pub fn of_file(path: &Path) -> Result<Self, String> {
        if path.extension().is_none() && !atomic::is_stream(path) && !path.is_dir() {
            return Err(format!("{}: name a .png, .jpg or .webp file", path.display()));
        }
        Self::of(path)
    }

    /// An image as a file's content.
    pub fn encode(self, image: &RgbImage) -> Result<Vec<u8>, StageError> {
        self.encode_with(image, None)
    }

    /// The same for a sampled image, which says so in its EXIF.
    pub fn encode_sampled(self, image: &RgbImage) -> Result<Vec<u8>, StageError> {
        self.encode_with(image, Some(mark::exif()))
    }

    fn encode_with(self, image: &RgbImage, exif: Option<Vec<u8>>) -> Result<Vec<u8>, StageError> {
        let mut bytes = Cursor::new(Vec::new());
        let written = match self {
            Self::Png => put(PngEncoder::new(&mut bytes), image, exif),
            Self::Jpeg => put(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY), image, exif),
            Self::Webp => put(WebPEncoder::new_lossless(&mut bytes), image, exif),
        };
        written.map_err(|e| {
            StageError::new(Failure::Bug, format!("failed to encode the image: {e}"))
        })?;
        Ok(bytes.into_inner())
    }
}

fn put(mut encoder: impl ImageEncoder, image: &RgbImage, exif: Option<Vec<u8>>) -> ImageResult<()> {
    if let Some(exif) = exif {
        encoder.set_exif_metadata(exif).map_err(ImageError::Unsupported)?;
    }
    image.write_with_encoder(encoder)
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;

    use super::*;

    #[test]
    fn the_name_says_what_the_file_is() {
        let image = RgbImage::from_pixel(8, 8, image::Rgb([200, 10, 10]));
        for (name, format) in [
            ("a.png", ImageFormat::Png),
            ("a.PNG", ImageFormat::Png),
            ("a", ImageFormat::Png),
            ("a.jpg", ImageFormat::Jpeg),
            ("b.c.JPEG", ImageFormat::Jpeg),
            ("a.webp", ImageFormat::WebP),
        ] {
            let bytes = Format::of(Path::new(name)).unwrap().encode(&image).unwrap();
            assert_eq!(image::guess_format(&bytes).unwrap(), format, "{name}");
            let back = image::load_from_memory(&bytes).unwrap().to_rgb8();
            assert!(back.get_pixel(4, 4).0[0] > 190, "{name}");
        }
        let without = Format::of_file(Path::new("x/a")).unwrap_err();
        assert_eq!(without, "x/a: name a .png, .jpg or .webp file");
        #[cfg(unix)]
        assert!(Format::of_file(Path::new("/dev/null")).is_ok_and(|format| format == Format::Png));
        let refused = Format::of(Path::new("x/a.gif")).unwrap_err();
        assert_eq!(
            refused,
            "x/a.gif: images are not written as .gif; name a .png, .jpg or .webp file"
        );
    }
}
