//! What decides a result, as a list of settings by key: its digest, and what differs between two of
//! them. One walk over the settings along their schema feeds both, so that they cannot disagree.
//! Knows nothing of stages, nor of which result it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::digest::{hex, short_digest};
use crate::secret;

/// What a change of a setting means. Declared beside the field, as `x-class` in its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Another experiment: a new run.
    Identity,
    /// More of the same run.
    Extend,
    /// No effect on the result.
    Runtime,
}

/// A setting that differs between two manifests.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Difference {
    pub key: String,
    /// Unset if there was none.
    pub old: Option<Value>,
    pub new: Option<Value>,
}

/// Differences in one line.
pub fn in_words(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join(", ")
}

/// All that decides a stage's result, by dotted key path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest(BTreeMap<String, Value>);

impl Manifest {
    /// Walks `settings` along `schema`. Unset (null) settings are left out, and those that do not
    /// decide.
    pub fn of(settings: &Value, schema: &schemars::Schema) -> Self {
        let mut entries = BTreeMap::new();
        let root = schema.as_value();
        walk(settings, Some(root), root, Class::Identity, &mut String::new(), &mut entries);
        Self(entries)
    }

    /// Adds what is no setting by itself: what other stages hand on, what follows from settings.
    pub fn with(mut self, extra: impl IntoIterator<Item = (String, Value)>) -> Self {
        self.0.extend(extra);
        self
    }

    /// `sha256:…`, one `key=json` line each.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut line = String::new();
        for (key, value) in &self.0 {
            line.clear();
            let _ = writeln!(line, "{key}={value}");
            hash.update(&line);
        }
        format!("sha256:{}", hex(&hash.finalize()))
    }

    /// To be kept and compared later.
    pub fn record(&self) -> &BTreeMap<String, Value> {
        &self.0
    }
}

/// What differs between two records, by key.
pub fn differences(
    old: &BTreeMap<String, Value>,
    new: &BTreeMap<String, Value>,
) -> Vec<Difference> {
    if old == new {
        return Vec::new();
    }
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter(|key| !is_same(old.get(*key), new.get(*key)))
        .map(|key| Difference {
            key: key.clone(),
            old: old.get(key).cloned(),
            new: new.get(key).cloned(),
        })
        .collect()
}

/// Takes secrets in addresses out of a value that is kept; what stays can be compared with a whole
/// one.
pub fn seal(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(sealed) = secret::sealed(text) {
                *text = sealed;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(seal),
        Value::Object(map) => map.values_mut().for_each(seal),
        _ => {}
    }
}

/// Whether a value is what it was. The old one may have been kept whole, by an earlier version.
fn is_same(old: Option<&Value>, new: Option<&Value>) -> bool {
    old == new
        || new.is_some_and(|new| {
            let mut sealed = new.clone();
            seal(&mut sealed);
            old == Some(&sealed)
        })
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        if [&self.old, &self.new].into_iter().all(is_digest) {
            // Digests tell people nothing; who compares them has the JSON.
            let of = self.key.strip_prefix("content of ").unwrap_or(&self.key);
            return write!(f, "another content of {of}");
        }
        let show = |value: &Option<Value>| match value {
            None => "unset".to_owned(),
            Some(Value::String(s)) => short_digest(s).to_owned(),
            Some(other) => other.to_string(),
        };
        write!(f, "{} {} -> {}", self.key, show(&self.old), show(&self.new))
    }
}

fn is_digest(value: &Option<Value>) -> bool {
    value.as_ref().and_then(Value::as_str).is_some_and(|text| short_digest(text) != text)
}

fn walk(
    value: &Value,
    schema: Option<&Value>,
    root: &Value,
    inherited: Class,
    key: &mut String,
    out: &mut BTreeMap<String, Value>,
) {
    let class = schema.and_then(class_of).unwrap_or(inherited);
    let schema = schema.map(|s| resolve(s, root));
    match value {
        Value::Null => {}
        Value::Object(map) if !map.is_empty() => {
            for (name, item) in map {
                let length = key.len();
                if length > 0 {
                    key.push('.');
                }
                key.push_str(name);
                walk(item, schema.and_then(|s| property(s, name, root)), root, class, key, out);
                key.truncate(length);
            }
        }
        other if class == Class::Identity => {
            out.insert(key.clone(), other.clone());
        }
        _ => {}
    }
}

fn class_of(schema: &Value) -> Option<Class> {
    match schema.get("x-class")?.as_str()? {
        "runtime" => Some(Class::Runtime),
        "extend" => Some(Class::Extend),
        _ => Some(Class::Identity),
    }
}

/// Follows `$ref` and the non-null side of an optional setting.
fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    if let Some(name) =
        schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/"))
        && let Some(target) = root.get("$defs").and_then(|d| d.get(name))
    {
        return resolve(target, root);
    }
    if let Some(options) = schema.get("anyOf").and_then(Value::as_array)
        && let Some(some) =
            options.iter().find(|o| o.get("type").and_then(Value::as_str) != Some("null"))
    {
        return resolve(some, root);
    }
    schema
}

fn property<'a>(schema: &'a Value, name: &str, root: &'a Value) -> Option<&'a Value> {
    let direct = schema
        .get("properties")
        .and_then(|p: &Value| p.as_object())
        .and_then(|p: &Map<_, _>| p.get(name));
    direct.or_else(|| {
        let options = schema.get("oneOf")?.as_array()?;
        options.iter().find_map(|option| resolve(option, root).get("properties")?.get(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(schemars::JsonSchema)]
    #[allow(dead_code)]
    struct Settings {
        learning_rate: f64,
        #[schemars(extend("x-class" = "extend"))]
        epochs: u32,
        #[schemars(extend("x-class" = "runtime"))]
        device: String,
        checkpoint: Inner,
        optional: Option<Inner>,
    }

    #[derive(schemars::JsonSchema)]
    #[allow(dead_code)]
    struct Inner {
        monitor: String,
        #[schemars(extend("x-class" = "runtime"))]
        keep_last_n: u32,
    }

    fn manifest(value: Value) -> Manifest {
        Manifest::of(&value, &schemars::schema_for!(Settings))
    }

    fn settings() -> Value {
        json!({"learning_rate": 1e-3, "epochs": 5, "device": "cpu",
               "checkpoint": {"monitor": "train_loss", "keep_last_n": 3}, "optional": {"monitor": "x", "keep_last_n": 1}})
    }

    #[test]
    fn only_identity_settings_decide() {
        let keys: Vec<String> = manifest(settings()).record().keys().cloned().collect();
        assert_eq!(keys, ["checkpoint.monitor", "learning_rate", "optional.monitor"]);
    }

    #[test]
    fn runtime_and_extend_settings_leave_the_digest_alone() {
        let mut other = settings();
        other["epochs"] = json!(50);
        other["device"] = json!("gpu");
        other["checkpoint"]["keep_last_n"] = json!(9);
        assert_eq!(manifest(settings()).digest(), manifest(other).digest());
    }

    #[test]
    fn the_explanation_names_what_the_digest_saw() {
        let mut other = settings();
        other["learning_rate"] = json!(1e-4);
        assert_ne!(manifest(settings()).digest(), manifest(other.clone()).digest());
        let differences = differences(manifest(settings()).record(), manifest(other).record());
        assert_eq!(differences.len(), 1);
        assert_eq!(differences[0].to_string(), "learning_rate 0.001 -> 0.0001");
    }
}
