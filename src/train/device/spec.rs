//! The setting `device:`: which device to compute on.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `auto` (the best GPU, else the CPU), `cpu`, `gpu` (the best GPU or an error), or `gpu:N`
/// (adapter N as `pipe devices` lists them). A program that was built with CUDA or ROCm has
/// `cuda:N` and `rocm:N` too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceSpec {
    #[default]
    Auto,
    Cpu,
    Gpu,
    Adapter(usize),
    /// A GPU of a compute runtime beside wgpu, as that runtime counts them.
    Vendor(VendorRuntime, usize),
}

/// A compute runtime of one vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VendorRuntime {
    Cuda,
    Rocm,
}

impl VendorRuntime {
    /// Those that this program was built with.
    pub const BUILT: &[Self] = &[
        #[cfg(feature = "cuda")]
        Self::Cuda,
        #[cfg(feature = "rocm")]
        Self::Rocm,
    ];

    /// What stands before the number of a device: `cuda:0`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
        }
    }

    /// The name that its makers write.
    pub(super) fn api(self) -> &'static str {
        match self {
            Self::Cuda => "CUDA",
            Self::Rocm => "ROCm",
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        read(text, VendorRuntime::BUILT)
    }
}

/// Reads a device, where the program has these runtimes.
fn read(text: &str, built: &[VendorRuntime]) -> Result<DeviceSpec, String> {
    let (name, number) = match text.split_once(':') {
        Some((name, number)) => (name, Some(number.parse::<usize>().ok())),
        None => (text, None),
    };
    let runtime = || built.iter().copied().find(|runtime| runtime.name() == name);
    match (name, number) {
        ("auto", None) => Some(DeviceSpec::Auto),
        ("cpu", None) => Some(DeviceSpec::Cpu),
        ("gpu", None) => Some(DeviceSpec::Gpu),
        ("gpu", Some(number)) => number.map(DeviceSpec::Adapter),
        (_, None) => runtime().map(|runtime| DeviceSpec::Vendor(runtime, 0)),
        (_, Some(number)) => runtime().and_then(|r| Some(DeviceSpec::Vendor(r, number?))),
    }
    .ok_or_else(|| {
        let meant =
            meant(text).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        let more: String =
            built.iter().map(|runtime| format!(", {}:N", runtime.name())).collect();
        format!(
            "unknown device `{text}`; expected auto, cpu, gpu or gpu:N{more} (see `pipe devices`){meant}"
        )
    })
}

/// What an item of a list of devices, or one device, looks like in a schema.
pub(super) fn pattern() -> String {
    let more: String =
        VendorRuntime::BUILT.iter().map(|r| format!("|{0}|{0}:[0-9]+", r.name())).collect();
    format!("auto|cpu|gpu|gpu:[0-9]+{more}")
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
            Self::Vendor(runtime, n) => write!(f, "{}:{n}", runtime.name()),
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
        let pattern = format!("^({})$", pattern());
        json_schema!({"type": "string", "pattern": pattern, "examples": ["auto", "cpu", "gpu", "gpu:0"]})
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

    #[test]
    fn a_program_with_cuda_has_its_devices_and_no_other_program_has() {
        use VendorRuntime::{Cuda, Rocm};
        for (text, runtime, number) in [("cuda", Cuda, 0), ("cuda:3", Cuda, 3), ("rocm:0", Rocm, 0)]
        {
            let spec = DeviceSpec::Vendor(runtime, number);
            assert_eq!(read(text, &[Cuda, Rocm]), Ok(spec));
            assert_eq!(read(&spec.to_string(), &[runtime]), Ok(spec));
            let error = read(text, &[]).unwrap_err();
            assert!(error.contains("gpu or gpu:N (see"), "{error}");
        }
        let error = read("rocm:0", &[Cuda]).unwrap_err();
        assert!(error.contains("gpu:N, cuda:N (see"), "{error}");
        assert!(error.ends_with("did you mean `gpu:0`?"), "{error}");
        assert!(read("cuda:", &[Cuda]).is_err() && read("cuda:-1", &[Cuda]).is_err());
    }
}
