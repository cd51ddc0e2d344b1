//! One hook or several, as people write them.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::hook_url::HookUrl;
use super::hooks::Hook;
use crate::command::Word;

/// One hook, or several: a line, a list of words, a mapping, or a list of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HookList(Vec<Hook>);

impl HookList {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn hooks(&self) -> &[Hook] {
        &self.0
    }

    /// One program with its arguments, or none.
    fn of_words<E: Error>(words: Vec<String>) -> Result<Self, E> {
        let Some(first) = words.first() else { return Ok(Self::default()) };
        if first.contains(char::is_whitespace) || HookUrl::begins_address(first) {
            return Err(E::custom(
                "a list of words is one program with its arguments, and this begins with a whole \
                 line; write several hooks as `[{run: …}, {url: …}]`",
            ));
        }
        Ok(Self(vec![Hook::of_words(words)?]))
    }
}

/// What may stand in a list: a word of one command, or a hook of several.
enum Item {
    Word(String),
    Hook(Hook),
}

impl<'de> Deserialize<'de> for HookList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = HookList;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(
                    "a command, an address, a mapping with `run` or `url`, or a list of these",
                )
            }

            fn visit_unit<E: Error>(self) -> Result<HookList, E> {
                Ok(HookList::default())
            }

            fn visit_str<E: Error>(self, line: &str) -> Result<HookList, E> {
                Ok(HookList(vec![Hook::of_line(line.to_owned())?]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HookList, A::Error> {
                let hook = Hook::deserialize(MapAccessDeserializer::new(map))?;
                Ok(HookList(vec![hook.validated()?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<HookList, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                // A list of words alone is one program with its arguments.
                if items.iter().all(|item| matches!(item, Item::Word(_))) {
                    let words = items.into_iter().filter_map(|item| match item {
                        Item::Word(word) => Some(word),
                        Item::Hook(_) => None,
                    });
                    return HookList::of_words(words.collect());
                }
                let hooks = items.into_iter().map(|item| match item {
                    Item::Word(line) => Hook::of_line(line),
                    Item::Hook(hook) => Ok(hook),
                });
                Ok(HookList(hooks.collect::<Result<_, _>>()?))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        fn word<'de, E: Error>(value: impl IntoDeserializer<'de, E>) -> Result<Item, E> {
            Word::deserialize(value.into_deserializer()).map(|word| Item::Word(word.0))
        }

        impl<'de> Visitor<'de> for Written {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(
                    "a word, or a hook: a command, an address, or a mapping with `run` or `url`",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Item, E> {
                word(text)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Item, E> {
                word(value)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Item, E> {
                word(number)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Item, E> {
                word(number)
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Item, E> {
                word(number)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
                let hook = Hook::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Item::Hook(hook.validated()?))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
                let mut words = Vec::new();
                while let Some(Word(word)) = list.next_element()? {
                    words.push(word);
                }
                Ok(Item::Hook(Hook::of_words(words)?))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl JsonSchema for HookList {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HookList".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let (hook, word) = (generator.subschema_for::<Hook>(), generator.subschema_for::<Word>());
        let words = serde_json::json!({"type": "array", "items": word});
        let line = serde_json::json!({"type": "string"});
        let several = serde_json::json!({"type": "array", "items": {"anyOf": [line, words, hook]}});
        schemars::json_schema!({"anyOf": [line, words, hook, several, {"type": "null"}]})
    }
}
