//! The metrics that a program wrote: a JSON file with one object, names to numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use pipe_fs::bounded_read;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

use crate::artifact::Metrics;

/// Tens of thousands of numbers. What is longer holds something else.
const LONGEST: u64 = 1 << 20;

/// Reads the file `path`, relative to the project's folder `root`.
///
/// # Errors
/// It cannot be read, is no JSON, or holds something else than finite numbers by name: a message
/// that names the file and, where there is one, the key.
pub(super) fn read(root: &Path, path: &Path) -> Result<Metrics, String> {
    let shown = path.display();
    let text = bounded_read::read_text(&root.join(path), LONGEST)
        .map_err(|error| format!("metrics: failed to read {shown}: {error}"))?;
    parse(&text).map_err(|error| format!("metrics: {shown}: {error}"))
}

fn parse(text: &str) -> Result<Metrics, String> {
    if text.trim().is_empty() {
        return Err("it is empty; expected a JSON object of names and numbers".to_owned());
    }
    let metrics =
        serde_json::from_str::<Written>(text).map_err(|error| match no_number(text, &error) {
            Some(message) => message,
            None => error.to_string(),
        })?;
    if metrics.0.is_empty() {
        return Err("it holds no metric; expected such as {\"fid\": 12.5}".to_owned());
    }
    Ok(Metrics(metrics.0))
}

/// What is wrong where a program wrote `NaN` or `Infinity`, as Python's `json` does.
fn no_number(text: &str, error: &serde_json::Error) -> Option<String> {
    let line = text.lines().nth(error.line().checked_sub(1)?)?;
    // The column counts bytes, from 1, and may be behind a sign.
    let before = line.get(..error.column().checked_sub(1)?)?;
    let from = before.rfind([':', ',', '{', '[']).map_or(0, |at| at + 1);
    let word = line.get(from..)?.trim_start().trim_start_matches(['-', '+']);
    let name = ["NaN", "nan", "Infinity", "inf"].into_iter().find(|name| word.starts_with(name))?;
    let key = before.rsplit('"').nth(1)?;
    Some(format!("{key:?} is {name}, which is no number in JSON; leave it out, or fail instead"))
}

/// An object of names to numbers.
struct Written(BTreeMap<String, f64>);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Flat;

        impl<'de> Visitor<'de> for Flat {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object of names and numbers, such as {\"fid\": 12.5}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    let number = number(&name, &value).map_err(A::Error::custom)?;
                    if name.trim().is_empty() {
                        return Err(A::Error::custom("a metric has an empty name"));
                    }
                    if all.insert(name.clone(), number).is_some() {
                        return Err(A::Error::custom(format!("{name:?} stands there twice")));
                    }
                }
                Ok(Written(all))
            }
        }

        deserializer.deserialize_any(Flat)
    }
}

fn number(name: &str, value: &Value) -> Result<f64, String> {
    let found = match value {
        Value::Number(number) => match number.as_f64().filter(|number| number.is_finite()) {
            Some(number) => return Ok(number),
            None => "too large",
        },
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Err(format!("{name:?} is {found}; expected a number, and all of them side by side"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_by_name_are_read() {
        let read = parse(r#" {"fid": 12.5, "val/loss": -1e-3, "n": 3, "ä b": 0} "#).unwrap();
        let expected = [("fid", 12.5), ("n", 3.0), ("val/loss", -1e-3), ("ä b", 0.0)];
        assert_eq!(read.0, expected.map(|(name, value)| (name.to_owned(), value)).into());
    }

    #[test]
    fn what_is_no_flat_object_of_numbers_is_refused_with_its_key() {
        let cases = [
            ("", "it is empty"),
            ("{}", "it holds no metric"),
            ("12.5", "expected a JSON object of names and numbers"),
            ("[1]", "expected a JSON object of names and numbers"),
            ("{\"fid\": 12", "EOF"),
            ("{'fid': 12}", "key must be a string"),
            ("{\"fid\": 12} x", "trailing characters"),
            ("{\"a\": 1, \"fid\": \"12\"}", "\"fid\" is text; expected a number"),
            ("{\"a\": {\"fid\": 1}}", "\"a\" is an object"),
            ("{\"fid\": [1]}", "\"fid\" is a list"),
            ("{\"fid\": null}", "\"fid\" is null"),
            ("{\"fid\": true}", "\"fid\" is a truth value"),
            ("{\"fid\": 1, \"fid\": 2}", "\"fid\" stands there twice"),
            ("{\"\": 1}", "empty name"),
            ("{\"fid\": 1e999}", "number out of range"),
            ("{\"a\": 1,\n \"fid\": NaN}", "\"fid\" is NaN, which is no number in JSON"),
            ("{\"fid\": -Infinity, \"a\": 2}", "\"fid\" is Infinity"),
            ("{\"fid\":Infinity}", "\"fid\" is Infinity"),
            ("{\"fid\": nan}", "\"fid\" is nan"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn nothing_that_is_written_ends_the_program() {
        let text = "{\"ä\": NaN, \"b\": [\"\\u0000\", -1e5, null]}";
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            assert!(parse(&text[..end]).is_err(), "{}", &text[..end]);
        }
    }

    #[test]
    fn files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let read = || read(folder.path(), Path::new("out/scores.json")).unwrap_err();
        assert!(read().starts_with("metrics: failed to read out/scores.json: "), "{}", read());
        let path = folder.path().join("out/scores.json");
        std::fs::create_dir(folder.path().join("out")).unwrap();
        std::fs::write(&path, "{").unwrap();
        assert!(read().starts_with("metrics: out/scores.json: "), "{}", read());
        std::fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(read().contains("out/scores.json: it is longer than 1 MB"), "{}", read());
        std::fs::write(&path, [b'{', 0xff]).unwrap();
        assert!(read().contains("out/scores.json: it is not UTF-8"), "{}", read());
    }
}
