//! A part of a whole as people write it: `1/3` or `0.25`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A part of a whole, above 0 and below 1, written `1/3` or `0.25`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    parts: u32,
    of: u32,
}

/// What a number with a point is told apart by: nine digits behind it.
const DIGITS: u32 = 1_000_000_000;

impl Share {
    /// A part of a number, rounded down, and one at least.
    pub fn of(self, number: usize) -> usize {
        self.rounded_down(number).max(1)
    }

    pub fn rounded_down(self, number: usize) -> usize {
        (number as u128 * u128::from(self.parts) / u128::from(self.of.max(1))) as usize
    }

    fn new(parts: u32, of: u32) -> Option<Self> {
        (parts > 0 && parts < of).then_some(Self { parts, of })
    }

    pub(super) fn from_text(text: &str) -> Option<Self> {
        match text.split_once('/') {
            Some((parts, of)) => Self::new(parts.trim().parse().ok()?, of.trim().parse().ok()?),
            None => Self::from_number(text.trim().parse().ok()?),
        }
    }

    fn from_number(number: f64) -> Option<Self> {
        let scaled = (number * f64::from(DIGITS)).round();
        let fits = scaled > 0.0 && scaled < f64::from(DIGITS);
        fits.then_some(Self { parts: scaled as u32, of: DIGITS })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.of {
            DIGITS => write!(f, "{}", f64::from(self.parts) / f64::from(DIGITS)),
            of => write!(f, "{}/{of}", self.parts),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a part above 0 and below 1 such as `1/3` or `0.25`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Share, E> {
                Share::from_text(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Share, E> {
                Share::from_number(number)
                    .ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a part above 0 and below 1 such as `1/3` or `0.25`",
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "string", "pattern": "^ *[0-9]+ */ *[0-9]+ *$"},
            ],
        })
    }
}
