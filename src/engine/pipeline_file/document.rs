//! YAML straight into the settings model (JSON values), with the order of the stages. Half the time
//! of going through YAML values; what it does not take is left to the slow way, which knows how to
//! say what is wrong.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The document, and the keys under `stages` in the order of the file, which JSON maps do not keep.
pub(super) fn read(text: &str) -> Option<(Value, Vec<String>)> {
    let mut order = Vec::new();
    let document = serde_yaml::Deserializer::from_str(text);
    let value = Node { order: Some(&mut order), at_stages: false }.deserialize(document).ok()?;
    Some((value, order))
}

/// One node. `order` is there for the root and for what stands under `stages`.
struct Node<'a> {
    order: Option<&'a mut Vec<String>>,
    at_stages: bool,
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
        while let Some(item) = seq.next_element_seed(Node { order: None, at_stages: false })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Self { mut order, at_stages } = self;
        let mut object = Map::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let inner = !at_stages && key == "stages";
            let order_below = if inner { order.as_deref_mut() } else { None };
            let value =
                map.next_value_seed(Node { at_stages: order_below.is_some(), order: order_below })?;
            if let (true, Some(order)) = (at_stages, &mut order) {
                order.push(key.clone());
            }
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("a key stands twice"));
            }
        }
        Ok(Value::Object(object))
    }
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
    use crate::pipeline_file::pipeline::to_json;
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
                assert_eq!(order, ["z", "b", "a"]);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_left_to_the_slow_way() {
        for text in ["a: .inf", "1: number", "a: !tag b", "a: 1\na: 2", "a: [", "? [a]\n: b"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
