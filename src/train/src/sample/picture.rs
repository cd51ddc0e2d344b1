//! The picture that people look at: rows of images, a name beside each row, a title above.

use std::convert::Infallible;
use std::io::Cursor;

use embedded_graphics::mono_font::{MonoTextStyle, ascii::FONT_6X13};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Pixel, Point, RgbColor, Size};
use embedded_graphics::text::{Baseline, Text};
use image::imageops::{FilterType, replace, resize};
use image::{ImageFormat, Rgb, RgbImage};
use pipe_engine::kind::{Failure, StageError};

/// Rows of images, each with a name.
#[derive(Debug, Default)]
pub struct Picture {
    pub title: String,
    pub rows: Vec<(String, Vec<RgbImage>)>,
}

/// Small images are enlarged, by a whole factor, until their side is this many pixels.
const SIDE: u32 = 64;
const GAP: u32 = 4;
const MARGIN: u32 = 8;
const LETTER: (u32, u32) = (6, 13);

impl Picture {
    /// The picture as one image: white ground, black text. Letters that are not ASCII become `?`.
    pub fn render(&self) -> RgbImage {
        let images = || self.rows.iter().flat_map(|(_, images)| images);
        let factor = images().map(|i| SIDE.div_ceil(i.width().max(1))).max().unwrap_or(1);
        let side = images().map(|i| i.width() * factor).max().unwrap_or(SIDE);
        let names = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) as u32;
        let columns = self.rows.iter().map(|(_, images)| images.len()).max().unwrap_or(0) as u32;
        let left = MARGIN + if names > 0 { names * LETTER.0 + 2 * GAP } else { 0 };
        let top = MARGIN + if self.title.is_empty() { 0 } else { LETTER.1 + 2 * GAP };
        let width =
            (left + columns * (side + GAP) + MARGIN).max(2 * MARGIN + self.title.len() as u32 * LETTER.0);
        let height = top + self.rows.len() as u32 * (side + GAP) + MARGIN;
        let mut canvas = Canvas(RgbImage::from_pixel(width, height, Rgb([255; 3])));
        canvas.text(&self.title, MARGIN, MARGIN);
        for (row, (name, images)) in self.rows.iter().enumerate() {
            let y = top + row as u32 * (side + GAP);
            canvas.text(name, MARGIN, y + (side.saturating_sub(LETTER.1)) / 2);
            for (column, image) in images.iter().enumerate() {
                let large =
                    resize(image, image.width() * factor, image.height() * factor, FilterType::Nearest);
                let x = left + column as u32 * (side + GAP);
                replace(&mut canvas.0, &large, i64::from(x), i64::from(y));
            }
        }
        canvas.0
    }
}

/// An image as a PNG file's content.
pub fn png(image: &RgbImage) -> Result<Vec<u8>, StageError> {
    let mut bytes = Cursor::new(Vec::new());
    let written = image.write_to(&mut bytes, ImageFormat::Png);
    written.map_err(|e| StageError::new(Failure::Bug, format!("failed to make a PNG: {e}")))?;
    Ok(bytes.into_inner())
}

struct Canvas(RgbImage);

impl Canvas {
    fn text(&mut self, text: &str, x: u32, y: u32) {
        let ascii: String = text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        let style = MonoTextStyle::new(&FONT_6X13, Rgb888::BLACK);
        let at = Point::new(x as i32, y as i32);
        let Ok(_) = Text::with_baseline(&ascii, at, style, Baseline::Top).draw(self);
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, colour) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
                && let Some(pixel) = self.0.get_pixel_mut_checked(x, y)
            {
                *pixel = Rgb([colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(colour: [u8; 3]) -> RgbImage {
        RgbImage::from_pixel(16, 16, Rgb(colour))
    }

    #[test]
    fn images_stand_in_their_rows_with_names_beside_them() {
        let (red, blue) = ([200, 0, 0], [0, 0, 200]);
        let rows =
            vec![("oak".to_owned(), vec![flat(red), flat(blue)]), ("pine".to_owned(), vec![flat(blue)])];
        let image = Picture { title: "a title".into(), rows }.render();
        let left = MARGIN + 4 * LETTER.0 + 2 * GAP;
        let top = MARGIN + LETTER.1 + 2 * GAP;
        assert_eq!(image.dimensions(), (left + 2 * 68 + MARGIN, top + 2 * 68 + MARGIN));
        let middle = |row: u32, column: u32| image.get_pixel(left + column * 68 + 32, top + row * 68 + 32).0;
        assert_eq!([middle(0, 0), middle(0, 1), middle(1, 0)], [red, blue, blue]);
        assert_eq!(middle(1, 1), [255; 3], "an empty place stays white");
        let black = |x: std::ops::Range<u32>, y: std::ops::Range<u32>| {
            y.flat_map(|y| x.clone().map(move |x| (x, y)))
                .filter(|(x, y)| image.get_pixel(*x, *y).0 == [0; 3])
                .count()
        };
        assert!(black(MARGIN..left, top..top + 64) > 20, "the first row's name");
        assert!(black(MARGIN..80, MARGIN..MARGIN + LETTER.1) > 30, "the title");
    }

    #[test]
    fn a_picture_of_nothing_is_small_and_no_error() {
        assert!(png(&Picture::default().render()).unwrap().starts_with(b"\x89PNG"));
    }
}
