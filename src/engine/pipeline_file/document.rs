//! YAML straight into the settings model (JSON values), with the order of the stages. Half the time
//! of going through YAML values; what it does not take is left to the slow way, which knows how to
//! say what is wrong.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The key under which mappings stand that are merged into the one around it.
pub(crate) const MERGE_KEY: &str = "<<";

/// Keys in the order of the file, which JSON maps do not keep. Those that are merged into a mapping
/// stand where its `<<` does.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// Under `stages`
    pub stages: Vec<String>,
    /// Under `include`
    pub includes: Vec<String>,
}

/// The document, and the order of what stands in it.
pub(super) fn read(text: &str) -> Option<(Value, Order)> {
    let mut order = Order::default();
    let document = serde_yaml::Deserializer::from_str(text);
    let value = Node { at: Some((Level::Root, &mut order)) }.deserialize(document).ok()?;
    Some((value, order))
}

/// The mappings whose order counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Root,
    Stages,
    Includes,
}

impl Level {
    /// That of what stands under a key.
    pub fn below(self, key: &str) -> Option<Self> {
        match (self, key) {
            (level, MERGE_KEY) => Some(level),
            (Self::Root, "stages") => Some(Self::Stages),
            (Self::Root, "include") => Some(Self::Includes),
            _ => None,
        }
    }
}

impl Order {
    /// Notes a key.
    pub fn note(&mut self, level: Level, key: &str) {
        let keys = match level {
            Level::Root => return,
            Level::Stages => &mut self.stages,
            Level::Includes => &mut self.includes,
        };
        if key != MERGE_KEY && !keys.iter().any(|noted| noted == key) {
            keys.push(key.to_owned());
        }
    }
}

/// One node; where the order of its keys counts, with the place to note it.
struct Node<'a> {
    at: Option<(Level, &'a mut Order)>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    // What is larger than any setting is refused where it stands.
    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        let mut at = self.at;
        while let Some(item) = seq.next_element_seed(Node { at: again(&mut at) })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut at = self.at;
        let mut object = Map::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let below = again(&mut at).and_then(|(level, order)| {
                order.note(level, &key);
                Some((level.below(&key)?, order))
            });
            let value = map.next_value_seed(Node { at: below })?;
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("a key stands twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// The same once more.
fn again<'a>(at: &'a mut Option<(Level, &mut Order)>) -> Option<(Level, &'a mut Order)> {
    at.as_mut().map(|(level, order)| (*level, &mut **order))
}

/// A key, which must be text.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key that is text")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        Ok(key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline_file::values::to_json;
    use crate::source::Source;

    #[test]
    fn both_ways_read_the_same() {
        let texts = [
            "name: x\nparams: {a: 1, b: -2, c: 1.5, d: 1e3, e: 0x1f, f: ~, g: [yes, 'no', \"é\"], h: 18446744073709551615}\n",
            "stages:\n  z: {kind: a, stages: {k: 1}}\n  b: &x {kind: b}\n  a: *x\n",
            "text: |\n  two\n  lines\nempty: {}\nlist: []\n'1': quoted\n",
        ];
        for text in texts {
            let source = Source::new("p.yaml", text);
            let slow = to_json(&source, source.parse().unwrap(), &mut Vec::new()).unwrap();
            let (fast, order) = read(text).unwrap();
            assert_eq!(fast, slow);
            if text.starts_with("stages") {
                assert_eq!(order.stages, ["z", "b", "a"]);
            }
        }
    }

    #[test]
    fn what_is_merged_stands_in_the_order_of_the_file() {
        let text = "x-a: &a {stages: {b: 1, a: 2}}\nx-b: &b {d: 1, c: 1}\nstages:\n  z: 1\n  <<: [*b, {y: 2, d: 3}]\n  x: 1\n<<: *a\n";
        let (_, order) = read(text).unwrap();
        assert_eq!(order.stages, ["z", "d", "c", "y", "x", "b", "a"]);
        let slow = Source::new("p.yaml", text).parse().unwrap();
        assert_eq!(crate::pipeline_file::values::order_of(&slow), order);
    }

    #[test]
    fn what_is_wrong_is_left_to_the_slow_way() {
        for text in ["a: .inf", "1: number", "a: !tag b", "a: 1\na: 2", "a: [", "? [a]\n: b"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
