//! Values in the words of a message.

use figment::error::Actual;
use serde_json::Value;

/// A value's type and content in a few words.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(b) => format!("`{b}`"),
        Value::Number(n) => format!("number {n}"),
        Value::String(s) => format!("text {:?}", shortened(s)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}

/// The beginning of a text, as much as fits into a message.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A value that was found, as it is written in YAML.
pub(super) fn what_is(found: &Actual) -> String {
    match found {
        Actual::Bool(value) => format!("`{value}`"),
        Actual::Unsigned(value) => format!("the number {value}"),
        Actual::Signed(value) => format!("the number {value}"),
        Actual::Float(value) => format!("the number {value}"),
        Actual::Str(text) => format!("text {:?}", shortened(text)),
        Actual::Seq => "a list".into(),
        Actual::Map => "a mapping".into(),
        Actual::Unit | Actual::Option => "nothing".into(),
        other => other.to_string(),
    }
}

/// Rust's names for types are not the user's. Of a setting whose `least` value is known, that is said.
pub(super) fn in_words(expected: &str, least: u64) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "u128" => {
            format!("a whole number, {least} or more")
        }
        "i8" | "i16" | "i32" | "i64" | "isize" | "i128" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" | "bool" => "true or false".into(),
        "a string" | "str" | "string" => "text".into(),
        "a sequence" => "a list".into(),
        "a map" => "a mapping (`key: value` lines)".into(),
        other => match other.strip_prefix("struct ") {
            Some(_) => "a mapping (`key: value` lines)".into(),
            None => other.to_owned(),
        },
    }
}
