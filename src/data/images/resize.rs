//! How an image of any shape becomes a square: what is cut, what is filled in, and with which
//! colour.

use std::borrow::Cow;
use std::fmt;

use image::imageops::{self, FilterType};
use image::{GenericImageView, Rgb, RgbImage};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// How an image becomes a square.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The central square is cut out.
    #[default]
    Crop,
    /// The whole image, with bars of the background's colour beside or above and below it.
    Pad,
    /// The whole image, its sides stretched to the same length.
    Squash,
}

/// All that decides how a decoded image becomes a square.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResizeOptions {
    /// Side of the square in pixels.
    pub size: usize,
    pub fit: Fit,
    pub background: Colour,
}

impl ResizeOptions {
    /// Crops, over white.
    pub fn new(size: usize) -> Self {
        Self { size, fit: Fit::default(), background: Colour::default() }
    }

    /// What tells this framing from the one of the same size with the defaults: nothing for that
    /// one.
    pub fn fields(&self) -> Vec<[u8; 4]> {
        if *self == Self::new(self.size) {
            return Vec::new();
        }
        let Colour([r, g, b]) = self.background;
        vec![[self.fit as u8, r, g, b]]
    }

    /// The square of `image`: RGB `[size, size, 3]`, resized with Lanczos (3 lobes).
    pub fn square(&self, image: &RgbImage) -> Box<[u8]> {
        let (width, height) = image.dimensions();
        let size = self.size as u32;
        match self.fit {
            Fit::Crop => {
                let side = width.min(height);
                resized(image, ((width - side) / 2, (height - side) / 2, side, side), (size, size))
            }
            Fit::Squash => resized(image, (0, 0, width, height), (size, size)),
            Fit::Pad => {
                let longest = u64::from(width.max(height));
                let scaled = |side: u32| {
                    ((u64::from(side) * u64::from(size) + longest / 2) / longest).max(1) as u32
                };
                let (w, h) = (scaled(width), scaled(height));
                let Some(inner) = RgbImage::from_raw(
                    w,
                    h,
                    resized(image, (0, 0, width, height), (w, h)).into_vec(),
                ) else {
                    return Box::default();
                };
                let mut square = RgbImage::from_pixel(size, size, Rgb(self.background.0));
                imageops::replace(
                    &mut square,
                    &inner,
                    ((size - w) / 2).into(),
                    ((size - h) / 2).into(),
                );
                square.into_raw().into_boxed_slice()
            }
        }
    }
}

/// The part `(x, y, width, height)` of `image` at another size.
fn resized(image: &RgbImage, part: (u32, u32, u32, u32), (width, height): (u32, u32)) -> Box<[u8]> {
    let part = image.view(part.0, part.1, part.2, part.3);
    if part.dimensions() == (width, height) {
        return part.to_image().into_raw().into_boxed_slice();
    }
    imageops::resize(&*part, width, height, FilterType::Lanczos3).into_raw().into_boxed_slice()
}

/// A colour: red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(pub [u8; 3]);

impl Default for Colour {
    fn default() -> Self {
        Self([255; 3])
    }
}

const NAMED: [(&str, [u8; 3]); 4] =
    [("white", [255; 3]), ("black", [0; 3]), ("gray", [128; 3]), ("grey", [128; 3])];

impl Colour {
    fn parse(text: &str) -> Option<Self> {
        if let Some((_, colour)) = NAMED.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
            return Some(Self(*colour));
        }
        let digits = text.strip_prefix('#')?;
        if !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        let part =
            |at: usize, length: usize| u8::from_str_radix(digits.get(at..at + length)?, 16).ok();
        match digits.len() {
            6 => Some(Self([part(0, 2)?, part(2, 2)?, part(4, 2)?])),
            3 => Some(Self([17 * part(0, 1)?, 17 * part(1, 1)?, 17 * part(2, 1)?])),
            _ => None,
        }
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, g, b] = self.0;
        write!(f, "#{r:02x}{g:02x}{b:02x}")
    }
}

impl Serialize for Colour {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Colour {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ColourVisitor)
    }
}

struct ColourVisitor;

impl<'de> Visitor<'de> for ColourVisitor {
    type Value = Colour;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a colour: white, black, gray, \"#rrggbb\" in quotes, or [red, green, blue] from 0 to 255",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Colour, E> {
        Colour::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Colour, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = list.next_element::<u8>()? {
            parts.push(part);
        }
        let length = parts.len();
        parts.try_into().map(Colour).map_err(|_| de::Error::invalid_length(length, &self))
    }
}

impl JsonSchema for Colour {
    fn schema_name() -> Cow<'static, str> {
        "Colour".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A colour: white, black, gray, \"#rrggbb\" in quotes, or [red, green, blue] from 0 to 255.",
            "anyOf": [
                { "enum": ["white", "black", "gray", "grey"] },
                { "type": "string", "pattern": "^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$" },
                {
                    "type": "array",
                    "items": { "type": "integer", "minimum": 0, "maximum": 255 },
                    "minItems": 3,
                    "maxItems": 3
                }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [u8; 3] = [255, 0, 0];
    const BLUE: [u8; 3] = [0, 0, 255];

    /// Blue, with the middle third red.
    fn striped() -> RgbImage {
        RgbImage::from_fn(30, 10, |x, _| Rgb(if (10..20).contains(&x) { RED } else { BLUE }))
    }

    fn pixel(square: &[u8], size: usize, x: usize, y: usize) -> [u8; 3] {
        square[3 * (y * size + x)..][..3].try_into().unwrap()
    }

    #[test]
    fn the_central_square_is_taken() {
        for size in [10, 8, 16] {
            let square = ResizeOptions::new(size).square(&striped());
            assert_eq!(square.len(), 3 * size * size);
            assert!(square.chunks(3).all(|p| p == RED), "at {size}");
        }
    }

    #[test]
    fn padding_keeps_the_whole_image_between_bars() {
        let resize = ResizeOptions { size: 30, fit: Fit::Pad, background: Colour([1, 2, 3]) };
        let square = resize.square(&striped());
        assert_eq!(square.len(), 3 * 30 * 30);
        assert_eq!(pixel(&square, 30, 0, 9), [1, 2, 3]);
        assert_eq!(pixel(&square, 30, 0, 10), BLUE);
        assert_eq!(pixel(&square, 30, 15, 19), RED);
        assert_eq!(pixel(&square, 30, 15, 20), [1, 2, 3]);
        let line = RgbImage::from_pixel(5000, 1, Rgb(RED));
        assert_eq!(
            ResizeOptions { size: 16, ..resize }.square(&line).len(),
            3 * 16 * 16,
            "a line keeps a row"
        );
    }

    #[test]
    fn squashing_shows_all_of_it() {
        let square =
            ResizeOptions { fit: Fit::Squash, ..ResizeOptions::new(30) }.square(&striped());
        assert_eq!(square.len(), 3 * 30 * 30);
        assert_eq!((pixel(&square, 30, 2, 0), pixel(&square, 30, 15, 29)), (BLUE, RED));
    }

    #[test]
    fn colours_are_read_by_name_digits_and_list_and_nothing_else() {
        let parse = |text: &str| serde_json::from_str::<Colour>(text);
        for (text, colour) in [
            (r#""White""#, [255; 3]),
            (r##""#0a0B0c""##, [10, 11, 12]),
            (r##""#f00""##, RED),
            ("[1, 2, 3]", [1, 2, 3]),
        ] {
            assert_eq!(parse(text).unwrap(), Colour(colour), "{text}");
        }
        // YAML reads an unquoted # as a comment: that is null.
        for text in
            [r#""ff0000""#, r##""#ff00""##, r##""#é0""##, "[1, 2]", "[1, 2, 300]", "null", "7"]
        {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains("in quotes") || message.contains("u8"), "{text}: {message}");
        }
        let colour = Colour([10, 11, 12]);
        assert_eq!(serde_json::to_string(&colour).unwrap(), r##""#0a0b0c""##);
    }
}
