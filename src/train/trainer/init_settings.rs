//! `init`: the checkpoint whose weights a new training begins with.

use std::fmt;
use std::path::Path;

use pipe_engine::kind::{Rejection, is_inside_project, names_file};
use pipe_runs::policy::CheckpointPolicy;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// What a new training begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InitSettings {
    /// A stage that makes checkpoints, or a checkpoint file of the project (with a `/` or a `.` in
    /// its path).
    #[schemars(example = &"base")]
    pub from: String,
    /// Which of the checkpoint's weights.
    #[serde(default)]
    pub weights: InitWeights,
    /// Take the optimizer's state over, too.
    #[serde(default)]
    pub optimizer: bool,
}

/// Which weights of a checkpoint a new training begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InitWeights {
    /// The EMA weights, where the checkpoint has any.
    #[default]
    Ema,
    /// Those that the optimizer changed.
    Raw,
}

impl InitSettings {
    /// The stage that it names; `None` if it is a file.
    pub fn stage(&self) -> Option<&str> {
        Some(self.from.as_str()).filter(|from| !names_file(from))
    }

    /// The file that it names.
    pub fn file(&self) -> Option<&str> {
        Some(self.from.as_str()).filter(|from| names_file(from))
    }

    /// Refuses a beginning that cannot be: two at once, or a file outside of the project.
    pub fn validate(&self, policy: &CheckpointPolicy) -> Result<(), Rejection> {
        if policy.resume_checkpoint.is_some() {
            let text = "`checkpoint.resume_checkpoint` is set too, which goes on from a file's position; `init` begins a \
                        new training at epoch 0: leave one of the two out";
            return Err(Rejection::value("init", text));
        }
        let is_inside = self.file().is_none_or(|file| is_inside_project(Path::new(file)));
        Rejection::unless("init", is_inside, "a path inside the project")
    }

    /// What decides the result besides the checkpoint's content, by key of a manifest.
    pub fn decides(&self) -> impl Iterator<Item = (String, Value)> {
        let weights = serde_json::to_value(self.weights).unwrap_or_default();
        let optimizer = self.optimizer.then(|| ("init optimizer".to_owned(), true.into()));
        std::iter::once(("init weights".to_owned(), weights)).chain(optimizer)
    }
}

/// The forms of `init`.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)]
pub(super) enum InitForms {
    /// The stage or the file alone.
    From(String),
    Block(InitSettings),
}

/// Reads a stage's or a file's name, or the block.
pub(super) fn read<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<InitSettings>, D::Error> {
    struct Forms;

    impl<'de> Visitor<'de> for Forms {
        type Value = Option<InitSettings>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a stage or a file, or a mapping with `from: STAGE`")
        }

        fn visit_str<E: Error>(self, from: &str) -> Result<Self::Value, E> {
            let (from, weights) = (from.to_owned(), InitWeights::default());
            Ok(Some(InitSettings { from, weights, optimizer: false }))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            InitSettings::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }

        fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
            inner.deserialize_any(Self)
        }
    }

    deserializer.deserialize_any(Forms)
}
