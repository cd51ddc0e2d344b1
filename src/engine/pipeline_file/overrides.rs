//! Settings from outside the files: the environment and the command line.

use std::ffi::OsStr;

use serde_json::{Map, Value};

use crate::pipeline_file::document;

/// One setting given by `PIPE_*`, `--set` or a shorthand flag.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// A parameter's name, `params` and a name, a stage and a key, or a setting's key. As the
    /// variable has it, in any case, if it comes from the environment.
    pub path: Vec<String>,
    /// What was given, or why it cannot be read.
    pub(super) value: Result<Value, String>,
    pub by: OverrideSource,
    pub strength: Precedence,
    /// Whether the value is a list of values, each for a stage of its own.
    pub(super) is_sweep: bool,
    /// Whether it is no setting but the name of a profile of the file.
    pub(super) is_profile: bool,
}

/// What gave a value from outside the files, for messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverrideSource {
    /// `--epochs 20` as it was typed; of a variable the name alone.
    pub shown: String,
    /// What no message repeats: the values of the environment.
    pub(crate) hidden: Vec<String>,
    /// Whether it names no stage: it is for all that have the key.
    pub(crate) is_for_all: bool,
}

/// What happens when a key means nothing in this pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// From the environment, which holds things for other programs: it is passed over.
    Environment,
    /// Asked for on this command line: an error.
    CommandLine,
}

impl Override {
    /// From `KEY=VALUE` text; the value is read as YAML, so `20`, `1e-3`, `true`, `[a, b]` have
    /// their types.
    ///
    /// # Errors
    /// There is no key, or the value is no YAML.
    pub fn parse(text: &str, shown: String) -> Result<Self, String> {
        let (key, value) =
            text.split_once('=').ok_or_else(|| format!("{shown}: expected KEY=VALUE"))?;
        Self::new(key, value, shown)
    }

    /// A setting of the command line.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse).
    pub fn new(key: &str, value: &str, shown: String) -> Result<Self, String> {
        let key = key.trim();
        if key.is_empty() || key.split('.').any(str::is_empty) {
            return Err(format!(
                "{shown}: expected a key such as `epochs` or `base.epochs` before `=`"
            ));
        }
        let value = read(value).map_err(|why| format!("{shown}: {why}\n  = {QUOTES}"))?;
        Ok(Self::value(key, value, shown))
    }

    /// From `KEY=VALUE,VALUE` text: each of the values for a stage of its own, as in a matrix.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse), or there is no value.
    pub fn several(text: &str, shown: String) -> Result<Self, String> {
        let (key, values) =
            text.split_once('=').ok_or_else(|| format!("{shown}: expected KEY=VALUE,VALUE"))?;
        let mut this = Self::new(key, &format!("[{values}]"), shown)?;
        // One list alone is that of the values.
        if let Ok(Value::Array(list)) = &this.value
            && let [Value::Array(inner)] = list.as_slice()
        {
            this.value = Ok(Value::Array(inner.clone()));
        }
        let wrong = |value: &Value| value.is_null();
        let list = this.value.as_ref().ok().and_then(Value::as_array);
        if list.is_none_or(|list| list.is_empty() || list.iter().any(wrong)) {
            return Err(format!("{}: expected values between commas", this.by.shown));
        }
        this.is_sweep = true;
        Ok(this)
    }

    /// A setting of the command line whose value is text as it stands.
    pub fn text(key: &str, value: &str, shown: String) -> Self {
        Self::value(key, Value::String(value.to_owned()), shown)
    }

    /// The choice of a profile of the file. Settings are stronger, wherever they stand beside it.
    pub fn profile(name: &str) -> Self {
        let chosen = Self::text("profile", name, format!("--profile {name}"));
        Self { is_profile: true, ..chosen }
    }

    /// The profiles that it chooses; none if it is a setting. The variable `PIPE_PROFILE` is a choice
    /// where the file has profiles.
    pub(super) fn profiles(&self, declared: bool) -> Vec<String> {
        let is_variable = self.strength == Precedence::Environment
            && declared
            && matches!(self.path.as_slice(), [name] if name.eq_ignore_ascii_case("profile"));
        let Ok(Value::String(names)) = &self.value else { return Vec::new() };
        match (self.is_profile, is_variable) {
            (true, _) => vec![names.clone()],
            (_, true) => names.split(',').map(|name| name.trim().to_owned()).collect(),
            _ => Vec::new(),
        }
    }

    /// A setting as if the command line had given it. `shown` stands for it in messages.
    pub fn value(key: &str, value: Value, shown: String) -> Self {
        Self {
            path: key.split('.').map(str::to_owned).collect(),
            value: Ok(value),
            by: OverrideSource { shown, ..OverrideSource::default() },
            strength: Precedence::CommandLine,
            is_sweep: false,
            is_profile: false,
        }
    }

    /// A variable; `key` is its name without what all of them begin with.
    pub(super) fn variable(name: &str, key: &str, value: &OsStr) -> Self {
        let value = match value.to_str() {
            Some(text) => (text.to_owned(), read(text)),
            None => (String::new(), Err("the value is not UTF-8 text".to_owned())),
        };
        let mut hidden = vec![value.0];
        if let Ok(value) = &value.1 {
            pieces(value, &mut hidden);
        }
        hidden.retain(|piece| !piece.trim().is_empty());
        hidden.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
        hidden.dedup();
        Self {
            path: key.split("__").map(str::to_owned).collect(),
            // What the YAML library says of it may repeat it.
            value: value.1.map_err(|_| "the value is not valid YAML".to_owned()),
            by: OverrideSource { shown: name.to_owned(), hidden, is_for_all: false },
            strength: Precedence::Environment,
            is_sweep: false,
            is_profile: false,
        }
    }

    /// The value as a mapping nested along `path`; nothing if it cannot be read.
    pub fn nested(&self, path: &[String]) -> Map<String, Value> {
        let mut value = self.value.clone().unwrap_or_default();
        for key in path.iter().rev() {
            value = Value::Object(Map::from_iter([(key.clone(), value)]));
        }
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

pub(super) const QUOTES: &str =
    "a value with `: `, `#` or brackets in it needs quotes of its own: 'KEY=\"a: b\"'";

fn read(text: &str) -> Result<Value, String> {
    if let Some((value, _)) = document::read(text) {
        return Ok(value);
    }
    let wrong = |e: serde_yaml::Error| format!("the value is not valid YAML: {e}");
    let yaml: serde_yaml::Value = serde_yaml::from_str(text).map_err(wrong)?;
    serde_json::to_value(yaml).map_err(|e| e.to_string())
}

/// All words and numbers of a value, in each way in which a message may write them.
fn pieces(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => {
            found.push(number.to_string());
            found.extend(number.as_f64().map(|number| number.to_string()));
        }
        Value::String(text) => {
            found.push(text.clone());
            let escaped = format!("{text:?}");
            found.push(escaped[1..escaped.len() - 1].to_owned());
        }
        Value::Array(items) => items.iter().for_each(|item| pieces(item, found)),
        Value::Object(map) => map.iter().for_each(|(key, item)| {
            found.push(key.clone());
            pieces(item, found);
        }),
    }
}

/// What to do about a variable that is none of ours.
pub(super) fn overrides_for_others(by: &OverrideSource) -> String {
    format!(
        "{} names a setting of this pipeline and counts as one; unset it if another program is meant",
        by.shown
    )
}

#[cfg(test)]
mod tests {
    use pipe_core::error::hide;

    use super::*;

    #[test]
    fn values_have_their_yaml_types() {
        let value = |text| Override::parse(text, text.into()).unwrap().value.unwrap();
        assert_eq!(value("epochs=20"), serde_json::json!(20));
        assert_eq!(value("learning_rate=1e-3"), serde_json::json!(0.001));
        assert_eq!(value("classes=[a, b]"), serde_json::json!(["a", "b"]));
        assert_eq!(value("name=run=1"), serde_json::json!("run=1"));
    }

    #[test]
    fn a_missing_key_or_value_is_refused() {
        assert!(Override::parse("epochs", "--set epochs".into()).is_err());
        assert!(Override::parse("a..b=1", "--set a..b=1".into()).is_err());
        let error = Override::parse("note=a: b: c", "--set note=a: b: c".into()).unwrap_err();
        assert!(error.contains("quotes"), "{error}");
        assert!(Override::parse("note=\"a: b: c\"", String::new()).is_ok());
    }

    #[test]
    fn what_is_hidden_is_hidden_wherever_it_stands_by_itself() {
        let hidden = |value: &str, message: &str| {
            hide(message, &Override::variable("PIPE_X", "X", OsStr::new(value)).by.hidden)
        };
        assert_eq!(
            hidden("many", "expected a number, found text \"many\""),
            "expected a number, found text \"…\""
        );
        assert_eq!(hidden("4", "4 is not between 8 and 1024"), "… is not between 8 and 1024");
        assert_eq!(hidden("1.50", "1.5 is not a share"), "… is not a share");
        assert_eq!(hidden("[a b, \"c\\nd\"]", "no `a b`, no \"c\\nd\""), "no `…`, no \"…\"");
        assert_eq!(hidden("a", "expected a list, found \"a\""), "expected a list, found \"…\"");
        assert_eq!(hidden("{k1: true}", "k1 stands twice"), "… stands twice");
    }
}
