//! Which classes of a data set are wanted, and finding them among the names it has.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use unicode_normalization::UnicodeNormalization;

use crate::class_name::ClassName;

/// Names in a message, at most.
const MAX_SHOWN: usize = 30;

/// CIFAR-100's five kinds of tree.
pub(crate) const TREES: [&str; 5] =
    ["maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"];

/// The value of `classes`: the word `trees`, or a list of classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassSelection {
    /// CIFAR-100's maple_tree, oak_tree, palm_tree, pine_tree and willow_tree.
    Trees,
    /// These; their order gives the labels 0, 1, 2, …
    Names(Vec<ClassName>),
}

/// A superclass of a source, and its classes.
pub type Superclass = (&'static str, &'static [&'static str]);

impl ClassSelection {
    /// Whether nothing is listed.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Names(names) if names.is_empty())
    }
}

/// Whether two entries of a list mean one class, as far as their spelling tells. Folders may differ
/// in spelling only where `by_spelling`.
pub(crate) fn alike(a: &ClassName, b: &ClassName, by_spelling: bool) -> bool {
    match (a, b) {
        (ClassName::Name(a), ClassName::Name(b)) if by_spelling => same(a, b),
        (ClassName::Name(a), ClassName::Name(b)) => plain(a) == plain(b),
        (a, b) => a == b,
    }
}

/// The classes of a superclass that is called so.
pub(crate) fn superclass(name: &ClassName, all: &[Superclass]) -> Option<&'static [&'static str]> {
    let ClassName::Name(name) = name else { return None };
    all.iter().find(|(other, _)| plain(other) == plain(name)).map(|(_, classes)| *classes)
}

/// The positions in `available` of the class that is meant, or of all classes of the superclass
/// that is, each with what to call it in a message; or what is wrong.
pub(crate) fn find_all(
    wanted: &ClassName,
    available: &[String],
    superclasses: &[Superclass],
) -> Result<Vec<(usize, String)>, String> {
    let found = match wanted {
        ClassName::Name(name) => find(name, available)?,
        ClassName::Number(number) => Some(numbered(*number, available)?),
    };
    match (found, superclass(wanted, superclasses)) {
        (Some(position), _) => Ok(vec![(position, wanted.to_string())]),
        (None, Some(classes)) => {
            let member = |class: &&str| {
                let missing = || format!("{class}, which is one of {wanted}, is not there");
                let position = find(class, available)?.ok_or_else(missing)?;
                Ok((position, format!("{class} (of {wanted})")))
            };
            classes.iter().map(member).collect()
        }
        (None, None) => Err(unknown(&wanted.to_string(), available, superclasses)),
    }
}

/// The class of a number: the one that is called so, or else the one at that position.
fn numbered(number: u32, available: &[String]) -> Result<usize, String> {
    let text = number.to_string();
    let named = available.iter().position(|name| *name == text);
    let counted = || (number as usize).lt(&available.len()).then_some(number as usize);
    named.or_else(counted).ok_or_else(|| {
        let last = available.len().saturating_sub(1);
        format!("no class has the number {number}: they are counted from 0 to {last}")
    })
}

/// The position in `available` of the one class that is meant by `name`, if one is.
///
/// A name as it is spelled comes first. Else upper and lower case, spaces, `_` and `-` are alike,
/// and a tree may go without its `_tree`.
///
/// # Errors
/// Several that may be meant.
pub fn find(name: &str, available: &[String]) -> Result<Option<usize>, String> {
    let (short, long) = (plain(name), plain(&format!("{name}_tree")));
    let alike: [&dyn Fn(&String) -> bool; 4] =
        [&|a| a == name, &|a| same(a, name), &|a| plain(a) == short, &|a| plain(a) == long];
    for is_meant in alike {
        let found: Vec<usize> =
            (0..available.len()).filter(|at| is_meant(&available[*at])).collect();
        match found[..] {
            [] => {}
            [only] => return Ok(Some(only)),
            _ => {
                let all: Vec<&str> = found.iter().map(|at| available[*at].as_str()).collect();
                let all = all.join(" or ");
                return Err(format!("`{name}` may be {all}; write one of them as it is"));
            }
        }
    }
    Ok(None)
}

/// Whether two names look the same: `Ä` is one character or an `A` with its dots.
pub fn same(a: &str, b: &str) -> bool {
    a.nfc().eq(b.nfc())
}

fn plain(name: &str) -> String {
    let kept = name.nfd().filter(|c| !matches!(c, ' ' | '_' | '-'));
    kept.flat_map(char::to_lowercase).nfc().collect()
}

fn unknown(name: &str, available: &[String], superclasses: &[Superclass]) -> String {
    let (short, long) = (plain(name), plain(&format!("{name}_tree")));
    let distance =
        |a: &str| strsim::damerau_levenshtein(&short, a).min(strsim::damerau_levenshtein(&long, a));
    let all = available.iter().map(String::as_str).chain(superclasses.iter().map(|(a, _)| *a));
    let mut near: Vec<(usize, &str)> = all.map(|a| (distance(&plain(a)), a)).collect();
    near.sort();
    let near: Vec<&str> = near
        .iter()
        .take_while(|(d, _)| *d <= 1 + name.len() / 4)
        .take(3)
        .map(|(_, a)| *a)
        .collect();
    let hint =
        if near.is_empty() { String::new() } else { format!(" (nearest: {})", near.join(", ")) };
    let more = match available.len().saturating_sub(MAX_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let told = available.iter().take(MAX_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let above: Vec<&str> = superclasses.iter().map(|(name, _)| *name).collect();
    let above = if above.is_empty() {
        String::new()
    } else {
        format!("; superclasses: {}", above.join(", "))
    };
    format!("no class `{name}`{hint}; there are: {told}{more}{above}")
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
        while let Some(name) = list.next_element()? {
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
            "description": "A list of class names, superclasses of the source (of CIFAR-100) and class numbers, or the word `trees`: CIFAR-100's maple, oak, palm, pine and willow.",
            "anyOf": [
                { "const": "trees" },
                { "type": "array", "items": { "type": ["string", "integer"], "minimum": 0 }, "minItems": 1, "uniqueItems": true }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DataError;
    use crate::wanted::{ClassGroups, WantedClasses};

    fn wanted<T>(classes: Option<&ClassSelection>, then: impl FnOnce(WantedClasses) -> T) -> T {
        then(WantedClasses { classes, groups: &ClassGroups::new() })
    }

    fn select(
        classes: Option<&ClassSelection>,
        available: &[String],
        superclasses: &[Superclass],
    ) -> Result<Vec<usize>, DataError> {
        wanted(classes, |wanted| wanted.select(available, superclasses))
    }

    fn validate(classes: &ClassSelection, by_spelling: bool) -> Result<(), DataError> {
        wanted(Some(classes), |wanted| wanted.validate(by_spelling))
    }

    fn count(classes: &ClassSelection, superclasses: &[Superclass]) -> Option<usize> {
        wanted(Some(classes), |wanted| wanted.count(superclasses))
    }

    fn available() -> Vec<String> {
        ["apple", "maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree", "gas pump"]
            .map(String::from)
            .to_vec()
    }

    fn names(list: &[&str]) -> ClassSelection {
        ClassSelection::Names(list.iter().map(|n| ClassName::from(*n)).collect())
    }

    #[test]
    fn yaml_takes_the_word_or_a_list_and_says_so_otherwise() {
        let parse = serde_json::from_str::<ClassSelection>;
        assert_eq!(parse(r#""trees""#).unwrap(), ClassSelection::Trees);
        assert_eq!(parse(r#"["oak"]"#).unwrap(), names(&["oak"]));
        for wrong in [r#""oak""#, "3"] {
            let message = parse(wrong).unwrap_err().to_string();
            assert!(
                message.contains("expected a list of class names, or the word `trees`"),
                "{message}"
            );
        }
    }

    #[test]
    fn trees_are_found_by_short_and_long_names_in_the_order_written() {
        assert_eq!(
            select(Some(&ClassSelection::Trees), &available(), &[]).unwrap(),
            [1, 2, 3, 4, 5]
        );
        assert_eq!(
            select(Some(&names(&["willow", "maple_tree"])), &available(), &[]).unwrap(),
            [5, 1]
        );
        assert_eq!(select(Some(&names(&["Gas_Pump"])), &available(), &[]).unwrap(), [6]);
        assert_eq!(select(None, &available()[..2], &[]).unwrap(), [0, 1]);
    }

    #[test]
    fn classes_that_differ_in_spelling_only_are_told_apart_by_it() {
        let folders = ["A", "a", "x-1", "x_1"].map(String::from);
        assert_eq!(select(Some(&names(&["a", "A"])), &folders, &[]).unwrap(), [1, 0]);
        assert_eq!(select(Some(&names(&["x_1", "x-1"])), &folders, &[]).unwrap(), [3, 2]);
        let message = select(Some(&names(&["x 1"])), &folders, &[]).unwrap_err().to_string();
        assert!(
            message.contains("`x 1` may be x-1 or x_1; write one of them as it is"),
            "{message}"
        );
        validate(&names(&["A", "a"]), true).unwrap();
        for (list, by_spelling) in
            [(["A", "a"], false), (["a", "a"], true), (["\u{c4}", "A\u{308}"], true)]
        {
            let message = validate(&names(&list), by_spelling).unwrap_err().to_string();
            assert!(message.contains("stands twice"), "{message}");
        }
    }

    #[test]
    fn accents_may_be_written_in_one_character_or_two() {
        let folders = ["A\u{308} b", "野菜", "cafe\u{301}"].map(String::from);
        assert_eq!(
            select(Some(&names(&["\u{c4} b", "野菜", "CAF\u{c9}"])), &folders, &[]).unwrap(),
            [0, 1, 2]
        );
        let folders = ["\u{c4} b".to_owned()];
        assert_eq!(select(Some(&names(&["a\u{308}_b"])), &folders, &[]).unwrap(), [0]);
    }

    #[test]
    fn an_unknown_class_among_many_names_some_of_them() {
        let folders: Vec<String> = (0..1000).map(|i| format!("class {i:04}")).collect();
        let message = select(Some(&names(&["fir"])), &folders, &[]).unwrap_err().to_string();
        assert!(message.contains("class 0029 and 970 more") && message.len() < 500, "{message}");
    }

    #[test]
    fn an_unknown_class_names_the_nearest_and_all_others() {
        let message =
            select(Some(&names(&["mapel"])), &available()[..3], &[]).unwrap_err().to_string();
        assert_eq!(
            message,
            "failed to accept `classes`: no class `mapel` (nearest: maple_tree); there are: apple, maple_tree, oak_tree"
        );
        let twice =
            select(Some(&names(&["oak", "oak_tree"])), &available(), &[]).unwrap_err().to_string();
        assert!(twice.contains("oak_tree stands twice"));
    }

    #[test]
    fn a_number_is_the_class_that_is_called_so_or_the_one_at_that_place() {
        let parse = |text: &str| serde_json::from_str::<ClassSelection>(text);
        let mixed = parse(r#"["oak", 6, 0]"#).unwrap();
        assert_eq!(serde_json::to_string(&mixed).unwrap(), r#"["oak",6,0]"#);
        assert_eq!(select(Some(&mixed), &available(), &[]).unwrap(), [2, 6, 0]);
        assert_eq!(count(&mixed, &[]), Some(3));
        let folders = ["1", "10", "2"].map(String::from);
        let numbers = |text: &str| select(Some(&parse(text).unwrap()), &folders, &[]);
        assert_eq!(numbers("[2, 10]").unwrap(), [2, 1]);
        let message = numbers("[7]").unwrap_err().to_string();
        assert!(message.ends_with("no class has the number 7: they are counted from 0 to 2"));
        assert!(
            numbers("[1, 0]").unwrap_err().to_string().contains("0 stands twice in the list, as 1")
        );
        for wrong in ["[-1]", "[1.5]", "[true]", "[4294967296]"] {
            let message = parse(wrong).unwrap_err().to_string();
            assert!(message.contains("the name of a class, or its number"), "{message}");
        }
        assert!(validate(&parse("[3, 3]").unwrap(), true).is_err());
    }

    #[test]
    fn a_superclass_is_all_of_its_classes_where_no_class_is_called_so() {
        let above: [Superclass; 2] = [("trees", &TREES), ("fuel", &["gas pump", "apple"])];
        let selected = |list: &[&str]| select(Some(&names(list)), &available(), &above);
        assert_eq!(selected(&["fuel", "oak"]).unwrap(), [6, 0, 2]);
        assert_eq!(selected(&["Trees"]).unwrap(), [1, 2, 3, 4, 5]);
        assert_eq!(count(&names(&["fuel", "oak"]), &above), Some(3));
        let message = selected(&["oak", "trees"]).unwrap_err().to_string();
        assert!(message.contains("oak_tree (of trees) stands twice in the list"), "{message}");
        let message = selected(&["feul"]).unwrap_err().to_string();
        assert!(
            message.contains("nearest: fuel") && message.ends_with("superclasses: trees, fuel")
        );
        let folders = ["fuel".to_owned(), "apple".to_owned()];
        assert_eq!(select(Some(&names(&["fuel"])), &folders, &above).unwrap(), [0]);
        let message = select(Some(&names(&["trees"])), &folders, &above).unwrap_err().to_string();
        assert!(message.contains("maple_tree, which is one of trees, is not there"), "{message}");
    }
}
