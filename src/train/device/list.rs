//! The setting `devices:`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::DeviceSpec;

/// The devices that share a training: `all` (every GPU), or a list of which each item is a number
/// (`0` is `gpu:0`) or what `device:` takes. On a command line and in the environment the items
/// stand between commas: `0,1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceList {
    All,
    /// At least one.
    These(Vec<DeviceSpec>),
}

impl DeviceList {
    /// The GPUs that it names; 0 where only the machine can tell.
    pub fn gpus(&self) -> usize {
        let is_gpu = |spec: &&DeviceSpec| {
            matches!(spec, DeviceSpec::Gpu | DeviceSpec::Adapter(_) | DeviceSpec::Vendor(..))
        };
        match self {
            Self::All => 0,
            Self::These(specs) => specs.iter().filter(is_gpu).count(),
        }
    }

    /// The first device that is listed twice. The CPU may be: its cores are shared out.
    pub fn twice(&self) -> Option<DeviceSpec> {
        let Self::These(specs) = self else { return None };
        let again = |(i, spec): &(usize, &DeviceSpec)| {
            **spec != DeviceSpec::Cpu && specs[..*i].contains(*spec)
        };
        specs.iter().enumerate().find(again).map(|(_, spec)| *spec)
    }
}

/// Elsewhere a number alone is how many devices to take; here each number is a GPU's own. It is not
/// guessed which is meant.
fn a_number_alone(number: u64) -> String {
    let several = match number {
        0 | 1 => "`device: gpu` for one GPU".to_owned(),
        _ => {
            let list: Vec<String> = (0..number.min(8)).map(|n| n.to_string()).collect();
            format!("`[{}]` for {number} GPUs", list.join(", "))
        }
    };
    format!(
        "{number} may be a number of devices or a device: write {several}, `[{number}]` for GPU {number}"
    )
}

/// One item, as text.
fn spec(text: &str) -> Result<DeviceSpec, String> {
    match text.parse() {
        Ok(index) => Ok(DeviceSpec::Adapter(index)),
        Err(_) => text.parse(),
    }
}

impl FromStr for DeviceList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "all" => Ok(Self::All),
            number if number.parse::<u64>().is_ok() => {
                Err(a_number_alone(number.parse().unwrap_or_default()))
            }
            list => list
                .split(',')
                .map(|item| spec(item.trim()))
                .collect::<Result<_, _>>()
                .map(Self::These),
        }
    }
}

impl fmt::Display for DeviceList {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::These(specs) => {
                let names: Vec<String> = specs.iter().map(DeviceSpec::to_string).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

impl Serialize for DeviceList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::These(specs) => serializer.collect_seq(specs),
        }
    }
}

impl<'de> Deserialize<'de> for DeviceList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = DeviceList;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of devices, or `all`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<DeviceList, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<DeviceList, E> {
                Err(E::custom(a_number_alone(number)))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<DeviceList, E> {
                Err(E::custom(match u64::try_from(number) {
                    Ok(number) => a_number_alone(number),
                    Err(_) => {
                        format!("expected a list of devices, found {number}; `all` is every GPU")
                    }
                }))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<DeviceList, A::Error> {
                let mut specs = Vec::new();
                while let Some(Listed(spec)) = items.next_element()? {
                    specs.push(spec);
                }
                if specs.is_empty() {
                    Err(de::Error::custom("expected at least one device, or `all`"))
                } else {
                    Ok(DeviceList::These(specs))
                }
            }
        }
        deserializer.deserialize_any(List)
    }
}

/// One item of a list in a file.
struct Listed(DeviceSpec);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Item).map(Self)
    }
}

struct Item;

impl Visitor<'_> for Item {
    type Value = DeviceSpec;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the number of a GPU, or a device")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<DeviceSpec, E> {
        spec(text).map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, index: u64) -> Result<DeviceSpec, E> {
        usize::try_from(index).map(DeviceSpec::Adapter).map_err(E::custom)
    }
    fn visit_i64<E: de::Error>(self, index: i64) -> Result<DeviceSpec, E> {
        match usize::try_from(index) {
            Ok(index) => Ok(DeviceSpec::Adapter(index)),
            Err(_) => Err(E::custom(format!(
                "unknown device `{index}`; GPUs are counted from 0 (see `pipe devices`)"
            ))),
        }
    }
}

impl JsonSchema for DeviceList {
    fn schema_name() -> Cow<'static, str> {
        "DeviceList".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = super::spec::pattern();
        let item = format!("([0-9]+|{one})");
        json_schema!({
            "oneOf": [
                {
                    "type": "array",
                    "minItems": 1,
                    "items": {"oneOf": [
                        {"type": "integer", "minimum": 0},
                        {"type": "string", "pattern": format!("^{item}$")},
                    ]},
                },
                {"type": "string", "pattern": format!("^(all|{one}|{item}( *, *{item})+)$")},
            ],
            "examples": [[0, 1], "all", ["cpu", "cpu"]],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeviceSpec::*;

    fn read(json: &str) -> Result<DeviceList, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn a_list_text_and_all_are_read_and_read_back() {
        let these = |specs: &[DeviceSpec]| Ok(DeviceList::These(specs.to_vec()));
        assert_eq!(read("[0, 1]"), these(&[Adapter(0), Adapter(1)]));
        assert_eq!(
            read(r#"["cpu", "gpu:3", "gpu", 2]"#),
            these(&[Cpu, Adapter(3), Gpu, Adapter(2)])
        );
        assert_eq!(read(r#""0, 1,cpu""#), these(&[Adapter(0), Adapter(1), Cpu]));
        assert_eq!(read("[1]"), these(&[Adapter(1)]));
        assert_eq!(read(r#""all""#), Ok(DeviceList::All));
        for json in [r#"[0, "cpu"]"#, r#""all""#] {
            let list = read(json).unwrap();
            assert_eq!(read(&serde_json::to_string(&list).unwrap()).as_ref(), Ok(&list));
            assert_eq!(list.to_string().parse().as_ref(), Ok(&list));
        }
    }

    #[test]
    fn what_is_no_list_of_devices_is_refused() {
        for (json, said) in [
            ("[]", "at least one device"),
            ("[-1]", "counted from 0"),
            (
                "2",
                "2 may be a number of devices or a device: write `[0, 1]` for 2 GPUs, `[2]` for GPU 2",
            ),
            ("1", "write `device: gpu` for one GPU, `[1]` for GPU 1"),
            (r#""2""#, "2 may be a number of devices or a device"),
            ("-1", "`all` is every GPU"),
            (r#"["cuda"]"#, "unknown device `cuda`"),
            (r#""0,,1""#, "unknown device ``"),
            (r#""every""#, "unknown device `every`"),
            ("[[0]]", "the number of a GPU, or a device"),
            (r#"{"0": 1}"#, "a list of devices, or `all`"),
            ("1.5", "a list of devices, or `all`"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(said), "{json}: {error}");
        }
    }

    #[test]
    fn a_gpu_stands_in_a_list_once_and_the_cpu_as_often_as_one_likes() {
        assert_eq!(read(r#"["cpu", 0, "cpu", 1]"#).unwrap().twice(), None);
        assert_eq!(read(r#"[1, 0, "gpu:1"]"#).unwrap().twice(), Some(Adapter(1)));
        assert_eq!(
            [read(r#"[1, 0, "cpu"]"#).unwrap().gpus(), read(r#""all""#).unwrap().gpus()],
            [2, 0]
        );
    }
}
