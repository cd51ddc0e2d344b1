//! What a list of classes holds: a name or a number.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// What a list of classes holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassName {
    /// A class by its name, or a superclass of the source, which means all of its classes.
    Name(String),
    /// A class by its number in the source, counted from 0.
    Number(u32),
}

impl From<&str> for ClassName {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl Serialize for ClassName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name),
            Self::Number(number) => serializer.serialize_u32(*number),
        }
    }
}

impl<'de> Deserialize<'de> for ClassName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = ClassName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a class, or its number, counted from 0")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<ClassName, E> {
                Ok(name.into())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ClassName, E> {
                let wrong = || E::invalid_value(de::Unexpected::Unsigned(number), &self);
                u32::try_from(number).map(ClassName::Number).map_err(|_| wrong())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ClassName, E> {
                let wrong = || E::invalid_value(de::Unexpected::Signed(number), &self);
                u32::try_from(number).map(ClassName::Number).map_err(|_| wrong())
            }
        }

        deserializer.deserialize_any(NameVisitor)
    }
}

impl JsonSchema for ClassName {
    fn schema_name() -> Cow<'static, str> {
        "ClassName".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "minimum": 0 })
    }
}
