//! `adapter_config.json` of PEFT: what of it is understood, and what is refused because the adapter
//! would compute something else than its author's
//! (<https://huggingface.co/docs/peft/package_reference/lora>).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::settings::LoraConfig;

/// Keys that say where an adapter comes from or how its training began: they change nothing in what
/// it computes.
const WITHOUT_EFFECT: [&str; 14] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "layers_pattern",
    "path_initial_model_for_weight_conversion",
];

/// Ways to begin that leave the base's weights alone.
const PLAIN_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// An adapter's config, as far as it decides what the adapter computes.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub(super) struct PeftConfig {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    rank_pattern: BTreeMap<String, usize>,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    target_modules: Value,
    #[serde(default)]
    exclude_modules: Value,
    #[serde(default)]
    layers_to_transform: Value,
    /// Modules that are trained in full, and stand in the file beside the factors.
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    init_lora_weights: Value,
    /// All other keys.
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl PeftConfig {
    /// Reads and checks the text of the file.
    ///
    /// # Errors
    /// What is no config of LoRA, or asks for something that is not computed here, in words that
    /// follow the file's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self =
            serde_json::from_str(text).map_err(|e| format!("not an adapter's config: {e}"))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let refuse = |what: &str| Err(format!("{what} is not supported"));
        if self.peft_type != "LORA" {
            return refuse(&format!("peft_type {}", self.peft_type));
        }
        if let Some(bias) = self.bias.as_deref().filter(|bias| *bias != "none") {
            return refuse(&format!("bias {bias}"));
        }
        if let Value::String(start) = &self.init_lora_weights
            && !PLAIN_STARTS.contains(&start.as_str())
        {
            return Err(format!(
                "init_lora_weights {start} has changed the base's weights too, so the adapter does not fit the base that \
                 you have; let PEFT write it as plain LoRA: save_pretrained with \
                 path_initial_model_for_weight_conversion"
            ));
        }
        let known = |key: &str| WITHOUT_EFFECT.contains(&key);
        match self.others.iter().find(|(key, value)| !known(key) && !is_off(value)) {
            Some((key, _)) => refuse(key),
            None => Ok(()),
        }
    }

    /// Whether PEFT would have put factors beside this layer; `None` where the config does not
    /// tell in a way that is understood here (a regular expression, chosen layers).
    pub fn targets(&self, path: &str) -> Option<bool> {
        if !is_off(&self.exclude_modules) || !is_off(&self.layers_to_transform) {
            return None;
        }
        let ends = |name: &str| path == name || path.ends_with(&format!(".{name}"));
        match &self.target_modules {
            Value::Array(names) => Some(names.iter().filter_map(Value::as_str).any(ends)),
            Value::String(word) if word == "all-linear" => Some(true),
            _ => None,
        }
    }

    /// Whether `target_modules` is a list of names, which may mean convolutions as well.
    pub fn has_names(&self) -> bool {
        self.target_modules.is_array()
    }

    /// The names in `target_modules`, where it is a list.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.target_modules.as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    /// The settings as this program has them.
    pub fn settings(&self) -> LoraConfig {
        let target_modules = match &self.target_modules {
            Value::String(one) => vec![one.clone()],
            _ => self.names().map(str::to_owned).collect(),
        };
        LoraConfig {
            r: self.r,
            lora_alpha: self.lora_alpha,
            lora_dropout: self.lora_dropout,
            use_rslora: self.use_rslora,
            rank_pattern: self.rank_pattern.clone(),
            target_modules,
        }
    }
}

/// Whether a key is there without asking for anything.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(key: &str, value: Value) -> Result<PeftConfig, String> {
        let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["proj", "a.fc1"]});
        config[key] = value;
        PeftConfig::parse(&config.to_string())
    }

    #[test]
    fn what_changes_the_result_is_refused_and_what_does_not_is_read() {
        for (key, value) in [
            ("use_dora", json!(false)),
            ("peft_version", json!("0.18.0")),
            ("init_lora_weights", json!(true)),
            ("init_lora_weights", json!("gaussian")),
            ("task_type", json!("FEATURE_EXTRACTION")),
            ("a_key_of_tomorrow", json!(null)),
            ("alpha_pattern", json!({})),
        ] {
            assert!(with(key, value.clone()).is_ok(), "{key} {value}");
        }
        for (key, value) in [
            ("use_dora", json!(true)),
            ("init_lora_weights", json!("pissa_niter_4")),
            ("init_lora_weights", json!("olora")),
            ("init_lora_weights", json!("loftq")),
            ("alpha_pattern", json!({"proj": 3})),
            ("lora_bias", json!(true)),
            ("layer_replication", json!([[0, 4]])),
            ("a_key_of_tomorrow", json!(3)),
            ("bias", json!("all")),
        ] {
            let error = with(key, value.clone()).map(|_| ()).unwrap_err();
            assert!(error.contains(key), "{key} {value}: {error}");
        }
    }

    #[test]
    fn names_mean_whole_paths_or_their_ends() {
        let config = with("bias", json!("none")).unwrap();
        for (path, meant) in
            [("proj", true), ("x.proj", true), ("xproj", false), ("a.fc1", true), ("fc1", false)]
        {
            assert_eq!(config.targets(path), Some(meant), "{path}");
        }
        assert_eq!(with("target_modules", json!(".*proj")).unwrap().targets("proj"), None);
        assert_eq!(with("exclude_modules", json!(["proj"])).unwrap().targets("proj"), None);
    }
}
