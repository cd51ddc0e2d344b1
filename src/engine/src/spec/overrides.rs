//! Settings from outside the files: the environment and the command line.

use serde_json::{Map, Value};

/// One setting given by `PIPE_*`, `--set` or a shorthand flag.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// Dotted key: a parameter's name, `params.NAME`, `STAGE.KEY…` or a setting's key.
    pub key: String,
    pub value: Value,
    /// How it was given, for messages: `--epochs 20`, `PIPE_EPOCHS=20`.
    pub shown: String,
    pub strength: Strength,
}

/// What happens when a key means nothing in this pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// From the environment, which may hold things for other programs: a warning.
    Environment,
    /// Asked for on this command line: an error.
    CommandLine,
}

impl Override {
    /// From `KEY=VALUE` text; the value is read as YAML, so `20`, `1e-3`, `true`, `[a, b]` have their types.
    pub fn parse(text: &str, shown: String, strength: Strength) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or_else(|| format!("{shown}: expected KEY=VALUE"))?;
        Self::new(key, value, shown, strength)
    }

    pub fn new(key: &str, value: &str, shown: String, strength: Strength) -> Result<Self, String> {
        let key = key.trim().to_owned();
        if key.is_empty() || key.split('.').any(str::is_empty) {
            return Err(format!("{shown}: expected a key such as `epochs` or `base.epochs` before `=`"));
        }
        let yaml: serde_yaml::Value =
            serde_yaml::from_str(value).map_err(|e| format!("{shown}: the value is not valid YAML: {e}"))?;
        let value = serde_json::to_value(yaml).map_err(|e| format!("{shown}: {e}"))?;
        Ok(Self { key, value, shown, strength })
    }

    /// The value as a mapping nested along `path`.
    pub(crate) fn nested(&self, path: &[&str]) -> Map<String, Value> {
        let mut value = self.value.clone();
        for key in path.iter().rev() {
            value = Value::Object(Map::from_iter([((*key).to_owned(), value)]));
        }
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// The `PIPE_*` variables: `PIPE_EPOCHS` is `epochs`, `PIPE_BASE__LEARNING_RATE` is `base.learning_rate`.
/// Those that belong to the program itself (`PIPE_LOG`) and to its tests (`PIPE_TEST_*`) are left out.
pub fn environment() -> Result<Vec<Override>, String> {
    let mut found: Vec<(String, String)> = figment::providers::Env::prefixed("PIPE_")
        .split("__")
        .iter()
        .map(|(key, value)| (key.as_str().to_lowercase(), value))
        .filter(|(key, _)| key != "log" && !key.starts_with("test_"))
        .collect();
    found.sort();
    found
        .into_iter()
        .map(|(key, value)| {
            let shown = format!("PIPE_{}={value}", key.replace('.', "__").to_uppercase());
            Override::new(&key, &value, shown, Strength::Environment)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_yaml_types() {
        let value = |text| Override::parse(text, text.into(), Strength::CommandLine).unwrap().value;
        assert_eq!(value("epochs=20"), serde_json::json!(20));
        assert_eq!(value("learning_rate=1e-3"), serde_json::json!(0.001));
        assert_eq!(value("classes=[a, b]"), serde_json::json!(["a", "b"]));
        assert_eq!(value("name=run=1"), serde_json::json!("run=1"));
    }

    #[test]
    fn a_missing_key_or_value_is_refused() {
        assert!(Override::parse("epochs", "--set epochs".into(), Strength::CommandLine).is_err());
        assert!(Override::parse("a..b=1", "--set a..b=1".into(), Strength::CommandLine).is_err());
    }
}
