//! The data sources that there are, by name.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::LazyLock;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{cifar, image_folder, imagenette, shapes, trees};
use crate::error::DataError;
use crate::source::DataSource;

/// Every source, in the order of the reference pages; the first is the default.
static SOURCES: [&dyn DataSource; 6] = [
    &shapes::SHAPES,
    &trees::TREES,
    &cifar::CIFAR10,
    &cifar::CIFAR100,
    &imagenette::IMAGENETTE,
    &image_folder::IMAGE_FOLDER,
];

static NAMES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| SOURCES.iter().map(|source| source.name()).collect());

/// A data source that is registered: the value of the setting `source`, read in any case.
///
/// ```
/// let source: pipe_data::RegisteredSource = "CIFAR10".parse()?;
/// assert_eq!((source.name(), source.class_count()), ("cifar10", Some(10)));
/// # Ok::<(), pipe_data::DataError>(())
/// ```
#[derive(Clone, Copy)]
pub struct RegisteredSource(&'static dyn DataSource);

impl RegisteredSource {
    /// Every source.
    pub fn all() -> impl Iterator<Item = Self> {
        SOURCES.iter().map(|source| Self(*source))
    }

    fn find(name: &str) -> Option<Self> {
        Self::all().find(|source| name.eq_ignore_ascii_case(source.name()))
    }
}

impl Deref for RegisteredSource {
    type Target = dyn DataSource;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl Default for RegisteredSource {
    fn default() -> Self {
        Self(SOURCES[0])
    }
}

impl PartialEq for RegisteredSource {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for RegisteredSource {}

impl fmt::Debug for RegisteredSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RegisteredSource {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        Self::find(name).ok_or_else(|| {
            let reason = format!("no source `{name}`; there are: {}", NAMES.join(", "));
            DataError::setting("source", reason)
        })
    }
}

impl Serialize for RegisteredSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for RegisteredSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::find(&name).ok_or_else(|| serde::de::Error::unknown_variant(&name, &NAMES))
    }
}

impl JsonSchema for RegisteredSource {
    fn schema_name() -> Cow<'static, str> {
        "Source".into() // in published schemas
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let values: Vec<Schema> = Self::all()
            .map(|source| {
                json_schema!({
                    "description": source.description(),
                    "type": "string",
                    "const": source.name(),
                })
            })
            .collect();
        json_schema!({ "description": "Where the images come from.", "oneOf": values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_named_in_any_case_and_kept_in_one() {
        for (text, source) in
            [("CIFAR10", "cifar10"), ("Shapes", "shapes"), ("image_folder", "image_folder")]
        {
            let read: RegisteredSource = serde_json::from_value(text.into()).unwrap();
            assert_eq!((read.name(), serde_json::to_value(read).unwrap()), (source, source.into()));
        }
        let error = serde_json::from_str::<RegisteredSource>(r#""cifar""#).unwrap_err().to_string();
        assert!(error.contains("unknown variant `cifar`, expected one of `shapes`"), "{error}");
        let error = "cifar".parse::<RegisteredSource>().unwrap_err().to_string();
        assert!(error.contains("no source `cifar`; there are: shapes, trees, cifar10"), "{error}");
    }

    #[test]
    fn every_source_has_a_name_of_its_own_that_settings_can_hold() {
        for (i, source) in RegisteredSource::all().enumerate() {
            let name = source.name();
            let is_plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_');
            assert!(!name.is_empty() && name.chars().all(is_plain), "{name}");
            assert!(
                RegisteredSource::all().skip(i + 1).all(|other| other != source),
                "{name} stands twice"
            );
            assert!(source.description().ends_with('.'), "{name}");
        }
    }
}
