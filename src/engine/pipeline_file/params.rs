//! `${params.x}` and, in a stage with a matrix, `${matrix.x}`: a whole value keeps the parameter's
//! type, a piece of text gets it pasted in; `$${` is a plain `${`. In the values of parameters, and
//! in what comes from outside the files, every other `${` stands for itself.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use pipe_core::error::SpecError;
use serde_json::{Map, Value};

use crate::pipeline_file::overrides::OverrideSource;
use crate::pipeline_file::words::shortened;
use crate::source::{Part, Source};

/// The parameters and policies that something refers to.
#[derive(Debug, Default)]
pub(super) struct Used(Mutex<BTreeSet<(String, String)>>);

impl Used {
    /// `section`: `params`, or the kind of policy.
    pub fn note(&self, section: &str, name: &str) {
        let name = name.split('.').next().unwrap_or(name);
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert((section.to_owned(), name.to_owned()));
    }

    /// All of them, each with its section.
    pub fn all(&self) -> BTreeSet<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is wrong with a `${…}`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadReference {
    /// Where in the value it stands.
    pub path: Vec<String>,
    pub message: String,
    /// The wrong name, when it is a name that is wrong.
    pub unknown: Option<String>,
    /// What to write instead.
    pub note: Option<String>,
}

impl BadReference {
    /// The error where it has been put into words and place.
    pub fn help(self, error: SpecError, names: Names) -> SpecError {
        let error = self.note.into_iter().fold(error, SpecError::note);
        match self.unknown {
            Some(name) => error.candidates(
                &name,
                names.params.keys().chain(names.matrix.keys()).map(String::as_str),
            ),
            None => error,
        }
    }

    /// The error in a value that comes from outside the files.
    pub fn outside(self, by: &OverrideSource, names: Names) -> SpecError {
        if by.hidden.is_empty() {
            let error = SpecError::plain(format!("{}: {}", by.shown, self.message));
            self.help(error, names)
        } else {
            // What it names is a piece of the value.
            SpecError::plain(format!("{}: a `${{…}}` in the value cannot be filled in", by.shown))
        }
    }
}

/// The values that references mean.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    pub params: &'a Map<String, Value>,
    /// What the names of these parameters begin with in the pipeline.
    pub prefix: &'a str,
    /// Of the stage that is being read; empty for one without a matrix.
    pub matrix: &'a Map<String, Value>,
    /// Where it is noted which ones were asked for.
    pub used: &'a Used,
}

/// Fills in every reference inside `value`. Any other `${` is an error.
pub(crate) fn fill(value: &Value, names: Names) -> Result<Value, BadReference> {
    fill_at(value, names, Others::Refused, &mut Vec::new())
}

/// Fills in every reference inside `value`, and leaves alone what only looks like one.
pub(crate) fn fill_ours(value: &Value, names: Names) -> Result<Value, BadReference> {
    fill_at(value, names, Others::Kept, &mut Vec::new())
}

/// What happens to a `${` that does not begin a reference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    Refused,
    Kept,
}

fn is_ours(from: &str) -> bool {
    ["${params.", "${matrix."].iter().any(|start| from.starts_with(start))
}

/// A value with parameters in the place of references to them.
pub(super) fn filled_value(
    source: &Source,
    base: &[String],
    value: &Value,
    names: Names,
) -> Result<Value, SpecError> {
    fill(value, names).map_err(|bad| {
        let path = [base, &bad.path].concat();
        let error = SpecError::on(source, path, Part::Value, bad.message.clone());
        bad.help(error, names)
    })
}

/// The names of the parameters that a value refers to, without what stands behind a dot.
pub(crate) fn names_in(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            for (at, _) in
                text.match_indices("${params.").filter(|(at, _)| !text[..*at].ends_with('$'))
            {
                let name = text[at..].trim_start_matches("${params.").split(['}', '.']).next();
                found.extend(name.map(|name| name.trim().to_owned()));
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names_in(item, found)),
        Value::Object(map) => map.values().for_each(|item| names_in(item, found)),
        _ => {}
    }
}

fn fill_at(
    value: &Value,
    names: Names,
    others: Others,
    path: &mut Vec<String>,
) -> Result<Value, BadReference> {
    match value {
        Value::String(text) => fill_text(text, names, others, path),
        Value::Array(items) => {
            let (mut filled, mut size) = (Vec::with_capacity(items.len()), 0);
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                let item = fill_at(item, names, others, path)?;
                size += size_of_value(&item);
                within(size, path)?;
                filled.push(item);
                path.pop();
            }
            Ok(Value::Array(filled))
        }
        Value::Object(map) => {
            let (mut filled, mut size) = (Map::new(), 0);
            for (key, item) in map {
                path.push(key.clone());
                let item = fill_at(item, names, others, path)?;
                size += key.len() + size_of_value(&item);
                within(size, path)?;
                filled.insert(key.clone(), item);
                path.pop();
            }
            Ok(Value::Object(filled))
        }
        other => Ok(other.clone()),
    }
}

/// What a value with all that is filled in may come to, about in bytes: values that repeat each
/// other double each time.
const LARGEST: usize = 4 << 20;

fn within(size: usize, path: &[String]) -> Result<(), BadReference> {
    if size > LARGEST {
        Err(BadReference {
            path: path.to_vec(),
            message: format!("with what is filled in it is larger than {} MB", LARGEST >> 20),
            unknown: None,
            note: None,
        })
    } else {
        Ok(())
    }
}

pub(super) fn size_of_value(value: &Value) -> usize {
    const NODE: usize = 32;
    NODE + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size_of_value).sum(),
        Value::Object(map) => map.iter().map(|(key, item)| key.len() + size_of_value(item)).sum(),
        _ => 0,
    }
}

fn fill_text(
    text: &str,
    names: Names,
    others: Others,
    path: &[String],
) -> Result<Value, BadReference> {
    let bad = |message: String, unknown: Option<&str>| BadReference {
        path: path.to_vec(),
        message,
        unknown: unknown.map(str::to_owned),
        note: None,
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if others == Others::Kept && !is_ours(&rest[at..]) {
            out.push_str(&rest[..at + 2]);
            rest = &rest[at + 2..];
            continue;
        }
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        let Some(end) = rest[at..].find('}') else {
            let text = format!("`{}` is never closed by `}}`", shortened(&rest[at..]));
            let note = "write `$${` for a plain `${`".to_owned();
            return Err(BadReference { note: Some(note), ..bad(text, None) });
        };
        let inner = rest[at + 2..at + end].trim();
        let (name, value) = match (inner.strip_prefix("params."), inner.strip_prefix("matrix.")) {
            (Some(name), _) => (name, lookup(names.params, name)),
            // A key of a matrix may have dots in it.
            (_, Some(name)) => {
                (name, names.matrix.get(name).or_else(|| lookup(names.matrix, name)))
            }
            _ => {
                let text = format!(
                    "`${{{inner}}}` is unknown; only `${{params.NAME}}` is filled in, and `${{matrix.NAME}}` in a stage \
                     with a matrix"
                );
                let note = format!(
                    "write `$${{{inner}}}` for a plain `${{{inner}}}`, as a shell reads it"
                );
                return Err(BadReference { note: Some(note), ..bad(text, None) });
            }
        };
        let Some(value) = value else {
            let place = if inner.starts_with("params.") { "params" } else { "matrix" };
            return Err(bad(format!("no parameter `{name}` under `{place}:`"), Some(name)));
        };
        if inner.starts_with("params.") {
            names.used.note("params", &format!("{}{name}", names.prefix));
        }
        if at == 0 && end + 1 == rest.len() && out.is_empty() {
            return Ok(value.clone());
        }
        out.push_str(&rest[..at]);
        within(out.len() + value.as_str().map_or(0, str::len), path)?;
        match value {
            Value::String(s) => out.push_str(s),
            Value::Array(_) | Value::Object(_) => {
                return Err(bad(
                    format!(
                        "parameter `{name}` is a list or mapping and cannot be put inside text"
                    ),
                    None,
                ));
            }
            scalar => out.push_str(&scalar.to_string()),
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    Ok(Value::String(out))
}

fn lookup<'a>(params: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut parts = name.split('.');
    let first = params.get(parts.next()?)?;
    parts.try_fold(first, |value, key| value.get(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(value: Value) -> Result<Value, BadReference> {
        let params =
            json!({"epochs": 5, "lr": 1e-3, "data": "shapes", "flag": true, "deep": {"x": [1, 2]}});
        let matrix = json!({"a.b": 3});
        let (params, matrix) = (params.as_object().unwrap(), matrix.as_object().unwrap());
        fill(&value, Names { params, prefix: "", matrix, used: &Used::default() })
    }

    #[test]
    fn a_whole_value_keeps_its_type() {
        assert_eq!(filled(json!("${params.epochs}")).unwrap(), json!(5));
        assert_eq!(
            filled(json!({"a": ["${params.flag}", "${params.deep.x}"]})).unwrap(),
            json!({"a": [true, [1, 2]]})
        );
    }

    #[test]
    fn inside_text_it_is_pasted() {
        assert_eq!(
            filled(json!("runs/${params.data}_${params.epochs}")).unwrap(),
            json!("runs/shapes_5")
        );
        assert_eq!(filled(json!("out/${matrix.a.b}.txt")).unwrap(), json!("out/3.txt"));
        assert_eq!(filled(json!("$${params.data}")).unwrap(), json!("${params.data}"));
        let params = json!({"data": "shapes"});
        let names = Names {
            params: params.as_object().unwrap(),
            prefix: "",
            matrix: &Map::new(),
            used: &Used::default(),
        };
        let ours = |text: &str| fill_ours(&json!(text), names).unwrap();
        assert_eq!(
            ours("${params.data} ${HOME} $${HOME} $${params.data} ${"),
            json!("shapes ${HOME} $${HOME} ${params.data} ${")
        );
    }

    #[test]
    fn errors_name_the_place() {
        let error = filled(json!({"a": {"b": "${params.epocs}"}})).unwrap_err();
        assert_eq!(
            (error.path, error.unknown.as_deref()),
            (vec!["a".into(), "b".into()], Some("epocs"))
        );
        let open = filled(json!("${params.epochs")).unwrap_err();
        assert!(open.message.contains("never closed") && open.note.unwrap().contains("`$${`"));
        let other = filled(json!("echo ${HOME}")).unwrap_err();
        assert_eq!(
            other.note.as_deref(),
            Some("write `$${HOME}` for a plain `${HOME}`, as a shell reads it")
        );
        assert!(
            filled(json!("${env.HOME}")).unwrap_err().message.contains("only `${params.NAME}`")
        );
    }
}
