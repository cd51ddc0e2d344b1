//! The `lora:` block, named as in PEFT's `LoraConfig`.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::targets;
use crate::architecture::{Architectures, SettingsError};

/// Low-rank adapters: which projections get them, and how large they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the factors.
    #[schemars(range(min = 1))]
    #[schemars(example = 8)]
    #[schemars(example = 16)]
    #[schemars(extend("x-known-as" = ["rank", "lora_r", "lora_rank"]))]
    pub r: usize,
    /// The product of the factors is scaled by `lora_alpha / r`.
    #[schemars(extend("x-known-as" = ["alpha"]))]
    pub lora_alpha: f64,
    /// Share of the inputs of the factors that is dropped in training.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[schemars(extend("x-known-as" = ["dropout"]))]
    pub lora_dropout: f64,
    /// The projections: a name (`proj`, or `qkv` for `qkv_s` and `qkv_t`), the end of a path
    /// (`attn.proj`), a pattern of the whole path (`middle.*`), or `all-linear`. Convolutions by
    /// their own names alone: `conv1`, `down.0`, `middle*.conv`.
    #[serde(deserialize_with = "targets")]
    #[schemars(with = "Targets")]
    #[schemars(example = vec!["qkv", "proj"])]
    #[schemars(example = "all-linear")]
    #[schemars(extend("x-known-as" = ["targets", "modules"]))]
    pub target_modules: Vec<String>,
    /// Scale by `lora_alpha / sqrt(r)` instead (Kalajdzievski 2023, arXiv 2312.03732).
    #[schemars(extend("x-known-as" = ["rslora"]))]
    pub use_rslora: bool,
    /// Other ranks for some projections, named as in `target_modules`: `{qkv: 4, "encoder.0.*":
    /// 16}`. The longest name that fits wins.
    pub rank_pattern: BTreeMap<String, usize>,
}

/// The word for all projections. PEFT takes it by itself, too.
const ALL: &str = "all-linear";

/// The forms of `target_modules`.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)]
enum Targets {
    Names(Vec<String>),
    All(All),
}

#[derive(JsonSchema)]
#[allow(dead_code)]
enum All {
    #[schemars(rename = "all-linear")]
    Linear,
}

/// A list of names, or the word for all.
fn targets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Forms;

    impl<'de> Visitor<'de> for Forms {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            write!(f, "a list of names such as [qkv, proj], or {ALL}")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            match text {
                ALL => Ok(vec![ALL.to_owned()]),
                _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
            }
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut names = Vec::new();
            while let Some(name) = list.next_element()? {
                names.push(name);
            }
            Ok(names)
        }
    }

    deserializer.deserialize_any(Forms)
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            target_modules: vec!["qkv".into(), "proj".into()],
            use_rslora: false,
            rank_pattern: BTreeMap::new(),
        }
    }
}

impl LoraConfig {
    /// Refuses values that cannot work, naming the key. Names that depend on the network's depth
    /// are checked when it is known: see [`LoraPlan::new`](super::LoraPlan::new).
    pub fn validate(&self, known: &Architectures) -> Result<(), SettingsError> {
        let refused = |key: &str, message: String| {
            Err(SettingsError::Value { key: format!("lora.{key}"), message })
        };
        let check = |key: &str, good: bool, expected: &str| {
            if good { Ok(()) } else { refused(key, format!("expected {expected}")) }
        };
        check("r", self.r >= 1, "at least 1")?;
        check(
            "lora_alpha",
            self.lora_alpha > 0.0 && self.lora_alpha.is_finite(),
            "a number above 0",
        )?;
        check(
            "lora_dropout",
            (0.0..1.0).contains(&self.lora_dropout),
            "a share from 0 to below 1",
        )?;
        check(
            "target_modules",
            !self.target_modules.is_empty(),
            "at least one name, or all-linear",
        )?;
        check("rank_pattern", self.rank_pattern.values().all(|r| *r >= 1), "ranks of at least 1")?;
        for target in &self.target_modules {
            targets::check_name(target, known)
                .or_else(|error| refused(targets::TARGETS, error.to_string()))?;
        }
        Ok(())
    }

    /// What the product of factors of rank `r` is multiplied with.
    pub fn scale(&self, r: usize) -> f64 {
        if self.use_rslora {
            self.lora_alpha / (r as f64).sqrt()
        } else {
            self.lora_alpha / r as f64
        }
    }
}
