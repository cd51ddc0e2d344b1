//! Which classes of a data set are wanted, and finding them among the names it has.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::error::DataError;

/// CIFAR-100's five kinds of tree.
const TREES: [&str; 5] = ["maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"];

/// The value of `classes`: the word `trees`, or a list of class names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassSelection {
    /// CIFAR-100's maple_tree, oak_tree, palm_tree, pine_tree and willow_tree.
    Trees,
    /// These classes; their order gives the labels 0, 1, 2, …
    Names(Vec<String>),
}

impl ClassSelection {
    /// Refuses an empty list and a name that stands twice.
    pub(crate) fn validate(&self) -> Result<(), DataError> {
        let Self::Names(names) = self else { return Ok(()) };
        if names.is_empty() {
            return Err(DataError::setting(
                "classes",
                "the list is empty; leave the key out to take all classes",
            ));
        }
        for (i, name) in names.iter().enumerate() {
            if names[..i].iter().any(|earlier| plain(earlier) == plain(name)) {
                return Err(DataError::setting("classes", format!("{name} stands twice in the list")));
            }
        }
        Ok(())
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Self::Trees => TREES.to_vec(),
            Self::Names(names) => names.iter().map(String::as_str).collect(),
        }
    }
}

/// The positions in `available` of the wanted classes, in the order wanted; all when nothing is selected.
///
/// Upper and lower case, spaces, `_` and `-` are alike, and a tree may go without its `_tree`.
pub(crate) fn select(wanted: Option<&ClassSelection>, available: &[String]) -> Result<Vec<usize>, DataError> {
    let Some(selection) = wanted else { return Ok((0..available.len()).collect()) };
    let mut chosen = Vec::new();
    for name in selection.names() {
        let position = find(name, available).ok_or_else(|| unknown(name, available))?;
        if chosen.contains(&position) {
            let reason = format!("{name} stands twice in the list, as {}", available[position]);
            return Err(DataError::setting("classes", reason));
        }
        chosen.push(position);
    }
    Ok(chosen)
}

fn find(name: &str, available: &[String]) -> Option<usize> {
    let (short, long) = (plain(name), plain(&format!("{name}_tree")));
    available
        .iter()
        .position(|a| a == name)
        .or_else(|| available.iter().position(|a| plain(a) == short))
        .or_else(|| available.iter().position(|a| plain(a) == long))
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).flat_map(char::to_lowercase).collect()
}

fn unknown(name: &str, available: &[String]) -> DataError {
    let (short, long) = (plain(name), plain(&format!("{name}_tree")));
    let distance =
        |a: &str| strsim::damerau_levenshtein(&short, a).min(strsim::damerau_levenshtein(&long, a));
    let mut near: Vec<(usize, &String)> = available.iter().map(|a| (distance(&plain(a)), a)).collect();
    near.sort();
    let near: Vec<&str> =
        near.iter().take_while(|(d, _)| *d <= 1 + name.len() / 4).take(3).map(|(_, a)| a.as_str()).collect();
    let hint = if near.is_empty() { String::new() } else { format!(" (nearest: {})", near.join(", ")) };
    DataError::setting("classes", format!("no class `{name}`{hint}; there are: {}", available.join(", ")))
}

impl Serialize for ClassSelection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Trees => serializer.serialize_str("trees"),
            Self::Names(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ClassSelection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SelectionVisitor)
    }
}

struct SelectionVisitor;

impl<'de> Visitor<'de> for SelectionVisitor {
    type Value = ClassSelection;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of class names, or the word `trees`")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<ClassSelection, E> {
        if word == "trees" {
            Ok(ClassSelection::Trees)
        } else {
            Err(E::invalid_value(de::Unexpected::Str(word), &self))
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ClassSelection, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = list.next_element::<String>()? {
            names.push(name);
        }
        Ok(ClassSelection::Names(names))
    }
}

impl JsonSchema for ClassSelection {
    fn schema_name() -> Cow<'static, str> {
        "ClassSelection".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A list of class names, or the word `trees`: CIFAR-100's maple, oak, palm, pine and willow.",
            "anyOf": [
                { "const": "trees" },
                { "type": "array", "items": { "type": "string" }, "minItems": 1, "uniqueItems": true }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available() -> Vec<String> {
        ["apple", "maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree", "gas pump"]
            .map(String::from)
            .to_vec()
    }

    fn names(list: &[&str]) -> ClassSelection {
        ClassSelection::Names(list.iter().map(|n| n.to_string()).collect())
    }

    #[test]
    fn yaml_takes_the_word_or_a_list_and_says_so_otherwise() {
        let parse = serde_json::from_str::<ClassSelection>;
        assert_eq!(parse(r#""trees""#).unwrap(), ClassSelection::Trees);
        assert_eq!(parse(r#"["oak"]"#).unwrap(), names(&["oak"]));
        for wrong in [r#""oak""#, "3"] {
            let message = parse(wrong).unwrap_err().to_string();
            assert!(message.contains("expected a list of class names, or the word `trees`"), "{message}");
        }
    }

    #[test]
    fn trees_are_found_by_short_and_long_names_in_the_order_written() {
        assert_eq!(select(Some(&ClassSelection::Trees), &available()).unwrap(), [1, 2, 3, 4, 5]);
        assert_eq!(select(Some(&names(&["willow", "maple_tree"])), &available()).unwrap(), [5, 1]);
        assert_eq!(select(Some(&names(&["Gas_Pump"])), &available()).unwrap(), [6]);
        assert_eq!(select(None, &available()[..2]).unwrap(), [0, 1]);
    }

    #[test]
    fn an_unknown_class_names_the_nearest_and_all_others() {
        let message = select(Some(&names(&["mapel"])), &available()[..3]).unwrap_err().to_string();
        assert_eq!(
            message,
            "failed to accept `classes`: no class `mapel` (nearest: maple_tree); there are: apple, maple_tree, oak_tree"
        );
        let twice = select(Some(&names(&["oak", "oak_tree"])), &available()).unwrap_err().to_string();
        assert!(twice.contains("oak_tree stands twice"));
    }
}
