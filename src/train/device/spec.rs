//! The setting `device:`: which device to compute on.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `auto` (the best GPU, else the CPU), `cpu`, `gpu` (the best GPU or an error), or `gpu:N`
/// (adapter N as `pipe devices` lists them).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceSpec {
    #[default]
    Auto,
    Cpu,
    Gpu,
    Adapter(usize),
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |n: &str| n.parse().ok().map(Self::Adapter);
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "gpu" => Some(Self::Gpu),
            other => other.strip_prefix("gpu:").and_then(number),
        }
        .ok_or_else(|| {
            let meant = meant(text).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
            format!("unknown device `{text}`; expected auto, cpu, gpu or gpu:N (see `pipe devices`){meant}")
        })
    }
}

/// What a device is called here that other programs call by the maker of the GPU or of its driver.
fn meant(text: &str) -> Option<String> {
    let text = text.to_lowercase();
    let (name, number) = text
        .split_once(':')
        .map_or((text.as_str(), None), |(name, n)| (name, n.parse::<usize>().ok()));
    match (name, number) {
        (
            "cuda" | "rocm" | "hip" | "mps" | "metal" | "vulkan" | "xpu" | "wgpu" | "gpu",
            Some(number),
        ) => Some(format!("gpu:{number}")),
        (
            "cuda" | "rocm" | "hip" | "mps" | "metal" | "vulkan" | "xpu" | "wgpu" | "gpu" | "gpus",
            None,
        ) => Some("gpu".into()),
        ("cpu", _) => Some("cpu".into()),
        ("auto", _) => Some("auto".into()),
        _ => None,
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu => f.write_str("gpu"),
            Self::Adapter(n) => write!(f, "gpu:{n}"),
        }
    }
}

impl Serialize for DeviceSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for DeviceSpec {
    fn schema_name() -> Cow<'static, str> {
        "DeviceChoice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^(auto|cpu|gpu|gpu:[0-9]+)$", "examples": ["auto", "cpu", "gpu", "gpu:0"]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_read_back() {
        for text in ["auto", "cpu", "gpu", "gpu:3"] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
        for text in ["", "cuda", "gpu:", "gpu:-1", "GPU"] {
            assert!(text.parse::<DeviceSpec>().is_err(), "{text}");
        }
        for (text, meant) in [
            ("cuda", "`gpu`"),
            ("cuda:1", "`gpu:1`"),
            ("mps", "`gpu`"),
            ("CPU", "`cpu`"),
            ("cpu:0", "`cpu`"),
        ] {
            let error = text.parse::<DeviceSpec>().unwrap_err();
            assert!(error.contains(&format!("did you mean {meant}?")), "{error}");
        }
    }
}
