//! What a stage starts, as it is written: numbers and truth values are words too.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// What is started.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Program {
    /// A line for the shell.
    Shell(String),
    /// A program and its arguments, taken literally.
    Arguments(#[schemars(with = "Vec<Word>")] Vec<String>),
}

impl<'de> Deserialize<'de> for Program {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Program;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a line for the shell, or a list of a program and its arguments")
            }

            fn visit_str<E: Error>(self, line: &str) -> Result<Program, E> {
                Ok(Program::Shell(line.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Program, A::Error> {
                let mut words = Vec::new();
                while let Some(Word(word)) = items.next_element()? {
                    words.push(word);
                }
                Ok(Program::Arguments(words))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

/// One word. What YAML takes for a number or a truth value is the text of it: `1`, `0.5`, `true`.
#[derive(Debug)]
pub struct Word(pub String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a word")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Word, E> {
                Ok(Word(word.to_owned()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Word, E> {
                Ok(Word(value.to_string()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Word, E> {
                Ok(Word(serde_json::Value::from(number).to_string()))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl JsonSchema for Word {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Word".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "number", "boolean"]})
    }
}

/// Reads a mapping of words.
pub fn words<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let words = BTreeMap::<String, Word>::deserialize(deserializer)?;
    Ok(words.into_iter().map(|(name, Word(word))| (name, word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Program, String> {
        serde_yaml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn numbers_and_truth_values_are_words() {
        let words = |words: &[&str]| {
            Ok(Program::Arguments(words.iter().map(|w| (*w).to_owned()).collect()))
        };
        assert_eq!(
            read("[echo, 1, -2, 0.5, 1e-3, true, '007']"),
            words(&["echo", "1", "-2", "0.5", "0.001", "true", "007"])
        );
        assert_eq!(read("echo 1"), Ok(Program::Shell("echo 1".into())));
        assert_eq!(serde_json::to_string(&read("[echo, 1]").unwrap()).unwrap(), r#"["echo","1"]"#);
    }

    #[test]
    fn what_is_no_program_is_told_in_words() {
        for (text, said) in [
            ("{a: 1}", "a line for the shell"),
            ("[a, [b]]", "expected a word"),
            ("[a, null]", "expected a word"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said) && !error.contains("untagged"), "{error}");
        }
    }
}
