//! What a checkpoint says of itself, as text in the header of its file.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::format::{Corruption, FORMAT, TENSOR_DIGESTS, VERSION};

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Completed epochs.
    pub epoch: u64,
    /// Optimizer steps since the start.
    pub global_step: u64,
    /// Optimizer steps into the next epoch; 0 at an epoch's end.
    pub step_in_epoch: u64,
    pub metrics: BTreeMap<String, f64>,
    pub scheduler_state_dict: Value,
    /// What the loop needs besides to go on inside an epoch.
    pub loop_state: Value,
    pub saved_at: DateTime<Utc>,
    /// Identity of the run.
    pub identity: String,
    pub seed: u64,
    /// Enough to rebuild the model.
    pub model_config: Value,
    /// Anything else, by key.
    pub extra: BTreeMap<String, String>,
}

/// Key of `loop_state`: seconds that the epoch under way was trained for.
pub const SECONDS: &str = "seconds";

impl Header {
    /// Seconds that the epoch under way was trained for; 0 at an epoch's end.
    pub fn seconds_in_epoch(&self) -> f64 {
        let seconds = self.loop_state[SECONDS].as_f64();
        seconds.filter(|seconds| *seconds > 0.0 && self.step_in_epoch > 0).unwrap_or(0.0)
    }

    pub(super) fn to_metadata(&self) -> BTreeMap<String, String> {
        let mut map = self.extra.clone();
        map.extend([
            ("format".to_owned(), FORMAT.to_owned()),
            ("version".into(), VERSION.to_string()),
            ("epoch".into(), self.epoch.to_string()),
            ("global_step".into(), self.global_step.to_string()),
            ("step_in_epoch".into(), self.step_in_epoch.to_string()),
            ("metrics".into(), json!(self.metrics).to_string()),
            ("scheduler_state_dict".into(), self.scheduler_state_dict.to_string()),
            ("loop_state".into(), self.loop_state.to_string()),
            ("saved_at".into(), self.saved_at.to_rfc3339()),
            ("identity".into(), self.identity.clone()),
            ("seed".into(), self.seed.to_string()),
            ("model_config".into(), self.model_config.to_string()),
        ]);
        map
    }

    pub(super) fn from_metadata(
        mut map: BTreeMap<String, String>,
    ) -> Result<Self, (Corruption, String)> {
        if map.remove("format").as_deref() != Some(FORMAT) {
            let message = "a safetensors file, but not a checkpoint of pipe".into();
            return Err((Corruption::Foreign, message));
        }
        let foreign = |message: String| {
            let why = "it was altered, or another program wrote it";
            (Corruption::Foreign, format!("{message}: {why}"))
        };
        let mut take = |key: &str| {
            map.remove(key).ok_or_else(|| foreign(format!("the header has no `{key}`")))
        };
        let number = |key: &str, text: String| {
            text.parse::<u64>().map_err(|_| foreign(format!("`{key}` is no number")))
        };
        let parsed = |key: &str, text: String| {
            serde_json::from_str::<Value>(&text)
                .map_err(|e| foreign(format!("`{key}` is not valid JSON: {e}")))
        };
        let version = number("version", take("version")?)?;
        if version > VERSION {
            let message = format!(
                "written in format {version}, newer than the {VERSION} that this program reads"
            );
            return Err((Corruption::TooNew, message));
        }
        let metrics = parsed("metrics", take("metrics")?)?;
        let saved_at = take("saved_at")?;
        let header = Self {
            epoch: number("epoch", take("epoch")?)?,
            global_step: number("global_step", take("global_step")?)?,
            step_in_epoch: number("step_in_epoch", take("step_in_epoch")?)?,
            metrics: serde_json::from_value(metrics)
                .map_err(|e| foreign(format!("`metrics`: {e}")))?,
            scheduler_state_dict: parsed("scheduler_state_dict", take("scheduler_state_dict")?)?,
            loop_state: parsed("loop_state", take("loop_state")?)?,
            saved_at: saved_at.parse().map_err(|e| foreign(format!("`saved_at`: {e}")))?,
            identity: take("identity")?,
            seed: number("seed", take("seed")?)?,
            model_config: parsed("model_config", take("model_config")?)?,
            extra: BTreeMap::new(),
        };
        map.remove("digest");
        map.remove(TENSOR_DIGESTS);
        Ok(Self { extra: map, ..header })
    }
}
