//! `${params.x}` and, in a stage with a matrix, `${matrix.x}`: a whole value keeps the parameter's type, a piece of text gets it pasted in; `$${` is a plain
//! `${`.

use serde_json::{Map, Value};

use crate::spec::load::Used;

/// What is wrong with a `${…}`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadReference {
    /// Where in the value it stands.
    pub path: Vec<String>,
    pub message: String,
    /// The wrong name, when it is a name that is wrong.
    pub unknown: Option<String>,
}

/// The values that references mean.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    pub params: &'a Map<String, Value>,
    /// Of the stage that is being read; empty for one without a matrix.
    pub matrix: &'a Map<String, Value>,
    /// Where it is noted which ones were asked for.
    pub used: &'a Used,
}

/// Fills in every reference inside `value`.
pub(crate) fn fill(value: &Value, names: Names) -> Result<Value, BadReference> {
    fill_at(value, names, &mut Vec::new())
}

fn fill_at(value: &Value, names: Names, path: &mut Vec<String>) -> Result<Value, BadReference> {
    match value {
        Value::String(text) => fill_text(text, names, path),
        Value::Array(items) => {
            let mut filled = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                filled.push(fill_at(item, names, path)?);
                path.pop();
            }
            Ok(Value::Array(filled))
        }
        Value::Object(map) => {
            let mut filled = Map::new();
            for (key, item) in map {
                path.push(key.clone());
                filled.insert(key.clone(), fill_at(item, names, path)?);
                path.pop();
            }
            Ok(Value::Object(filled))
        }
        other => Ok(other.clone()),
    }
}

fn fill_text(text: &str, names: Names, path: &[String]) -> Result<Value, BadReference> {
    let bad = |message: String, unknown: Option<&str>| BadReference {
        path: path.to_vec(),
        message,
        unknown: unknown.map(str::to_owned),
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        let Some(end) = rest[at..].find('}') else {
            return Err(bad(format!("`{}` is never closed by `}}`", &rest[at..]), None));
        };
        let inner = rest[at + 2..at + end].trim();
        let (name, value) = match (inner.strip_prefix("params."), inner.strip_prefix("matrix.")) {
            (Some(name), _) => (name, lookup(names.params, name)),
            // A key of a matrix may have dots in it.
            (_, Some(name)) => (name, names.matrix.get(name)),
            _ => {
                let text = format!(
                    "`${{{inner}}}` is unknown; only `${{params.NAME}}` is filled in, and `${{matrix.NAME}}` in a stage \
                     with a matrix"
                );
                return Err(bad(text, None));
            }
        };
        let Some(value) = value else {
            let place = if inner.starts_with("params.") { "params" } else { "matrix" };
            return Err(bad(format!("no parameter `{name}` under `{place}:`"), Some(name)));
        };
        if inner.starts_with("params.") {
            names.used.note("params", name);
        }
        if at == 0 && end + 1 == rest.len() && out.is_empty() {
            return Ok(value.clone());
        }
        out.push_str(&rest[..at]);
        match value {
            Value::String(s) => out.push_str(s),
            Value::Array(_) | Value::Object(_) => {
                return Err(bad(
                    format!("parameter `{name}` is a list or mapping and cannot be put inside text"),
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
    use super::*;
    use serde_json::json;

    fn filled(value: Value) -> Result<Value, BadReference> {
        let params = json!({"epochs": 5, "lr": 1e-3, "data": "shapes", "flag": true, "deep": {"x": [1, 2]}});
        let matrix = json!({"a.b": 3});
        let (params, matrix) = (params.as_object().unwrap(), matrix.as_object().unwrap());
        fill(&value, Names { params, matrix, used: &Used::default() })
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
        assert_eq!(filled(json!("runs/${params.data}_${params.epochs}")).unwrap(), json!("runs/shapes_5"));
        assert_eq!(filled(json!("out/${matrix.a.b}.txt")).unwrap(), json!("out/3.txt"));
        assert_eq!(filled(json!("$${params.data}")).unwrap(), json!("${params.data}"));
    }

    #[test]
    fn errors_name_the_place() {
        let error = filled(json!({"a": {"b": "${params.epocs}"}})).unwrap_err();
        assert_eq!((error.path, error.unknown.as_deref()), (vec!["a".into(), "b".into()], Some("epocs")));
        assert!(filled(json!("${params.epochs")).unwrap_err().message.contains("never closed"));
        assert!(filled(json!("${env.HOME}")).unwrap_err().message.contains("only `${params.NAME}`"));
    }
}
