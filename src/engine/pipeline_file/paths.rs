//! The settings of a stage kind by their paths, read out of its JSON schema.

use serde_json::{Map, Value};

/// Deeper than this no settings go.
const DEEPEST: usize = 8;

/// A place in a schema: all that a value there may be.
#[derive(Clone)]
pub(super) struct Place<'a> {
    root: &'a Value,
    nodes: Vec<&'a Value>,
}

impl<'a> Place<'a> {
    pub fn root(schema: &'a Value) -> Self {
        Self::of(schema, [schema])
    }

    fn of(root: &'a Value, nodes: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut all = Vec::new();
        nodes.into_iter().for_each(|node| alternatives(root, node, &mut all, 0));
        Self { root, nodes: all }
    }

    /// The keys that are named there.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.properties().map(|(key, _)| key)
    }

    fn properties(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + '_ {
        let mappings = self.nodes.iter().filter_map(|node| node.get("properties")?.as_object());
        mappings.flatten().map(|(key, property)| (key.as_str(), property))
    }

    /// Whether any key may stand there, such as the name of a variable.
    pub fn is_open(&self) -> bool {
        self.nodes.iter().any(|node| match node.get("additionalProperties") {
            Some(Value::Bool(open)) => *open,
            other => other.is_some(),
        })
    }

    /// The place under a named key.
    pub fn at(&self, key: &str) -> Option<Self> {
        let nodes: Vec<&Value> =
            self.properties().filter(|(k, _)| *k == key).map(|(_, node)| node).collect();
        (!nodes.is_empty()).then(|| Self::of(self.root, nodes))
    }

    /// All paths of named keys, outer ones before those inside.
    pub fn all(&self) -> Vec<Vec<&'a str>> {
        let mut found: Vec<Vec<&'a str>> = Vec::new();
        let mut open = vec![(Vec::new(), self.keys().collect::<Vec<_>>(), self.nodes.clone())];
        while let Some((path, keys, nodes)) = open.pop() {
            let place = Self { root: self.root, nodes };
            for key in keys {
                let path: Vec<&str> = path.iter().copied().chain([key]).collect();
                if let Some(inner) = place.at(key).filter(|_| path.len() < DEEPEST) {
                    open.push((path.clone(), inner.keys().collect(), inner.nodes));
                }
                found.push(path);
            }
        }
        found.sort_by_key(Vec::len);
        found
    }

    /// The setting that somebody means who writes `name`: one that other programs call so
    /// (`x-known-as`), or one of that name in another place.
    pub fn suggestion(&self, name: &str) -> Option<Vec<&'a str>> {
        let name = name.to_lowercase();
        let is_meant = |path: &Vec<&'a str>| {
            let Some((last, outer)) = path.split_last() else { return false };
            let parent = outer.iter().try_fold(self.clone(), |place, key| place.at(key));
            let node = parent
                .and_then(|p| p.properties().find(|(key, _)| key == last).map(|(_, node)| node));
            let known = node.and_then(|node| node.get("x-known-as")).and_then(Value::as_array);
            *last == name
                || known.is_some_and(|known| known.iter().any(|other| *other == name.as_str()))
        };
        self.all().into_iter().find(is_meant)
    }

    /// The places of lists where keys belong. Taken by their order they would come to something.
    pub fn lists_for_mappings(&self, values: &Map<String, Value>) -> Vec<Vec<String>> {
        let takes_lists =
            |node: &&Value| node.get("items").is_some() || node.get("prefixItems").is_some();
        let mut found = Vec::new();
        for (key, value) in values.iter().filter(|(_, value)| holds_list(value)) {
            let Some(place) = self.at(key) else { continue };
            match value {
                Value::Object(inner) => found.extend(
                    place
                        .lists_for_mappings(inner)
                        .into_iter()
                        .map(|path| [vec![key.clone()], path].concat()),
                ),
                _ if place.keys().next().is_some() && !place.nodes.iter().any(takes_lists) => {
                    found.push(vec![key.clone()]);
                }
                _ => {}
            }
        }
        found
    }

    /// The words that a value there may be, if it is one of a few.
    pub fn words(&self) -> Vec<&'a str> {
        let constant = self.nodes.iter().filter_map(|node| node.get("const")?.as_str());
        let listed = self.nodes.iter().filter_map(|node| node.get("enum")?.as_array()).flatten();
        let mut words: Vec<&str> = constant.chain(listed.filter_map(Value::as_str)).collect();
        words.dedup();
        words
    }

    /// The smallest whole number that a value there may be, from 0 on.
    pub fn least(&self) -> u64 {
        let least = self.nodes.iter().filter_map(|node| node.get("minimum")?.as_u64());
        least.max().unwrap_or_default()
    }
}

fn holds_list(value: &Value) -> bool {
    match value {
        Value::Array(_) => true,
        Value::Object(map) => map.values().any(holds_list),
        _ => false,
    }
}

/// The node and all that stands for it: what it refers to, each of several.
fn alternatives<'a>(root: &'a Value, node: &'a Value, found: &mut Vec<&'a Value>, depth: usize) {
    if depth > DEEPEST {
        return;
    }
    found.push(node);
    let pointer = node.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
    if let Some(other) = pointer.and_then(|pointer| root.pointer(pointer)) {
        alternatives(root, other, found, depth + 1);
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        let several = node.get(key).and_then(Value::as_array);
        several.into_iter().flatten().for_each(|other| alternatives(root, other, found, depth + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_is_walked_through_references_and_alternatives() {
        let schema = json!({
            "properties": {
                "rate": {"type": "number", "x-known-as": ["lr"]},
                "kind": {"oneOf": [{"const": "a"}, {"const": "b"}]},
                "inner": {"anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}]},
                "env": {"additionalProperties": {"type": "string"}},
            },
            "additionalProperties": false,
            "$defs": {"Inner": {"properties": {"r": {"type": "integer", "x-known-as": ["rank"]}}}},
        });
        let root = Place::root(&schema);
        let all: Vec<String> = root.all().iter().map(|path| path.join(".")).collect();
        assert_eq!(all, ["env", "inner", "kind", "rate", "inner.r"]);
        assert!(!root.is_open() && root.at("env").unwrap().is_open() && root.at("other").is_none());
        let meant = |name| root.suggestion(name).map(|path| path.join("."));
        assert_eq!(
            [meant("lr"), meant("rank"), meant("r"), meant("x")].map(Option::unwrap_or_default),
            ["rate", "inner.r", "inner.r", ""]
        );
        assert_eq!(root.at("kind").unwrap().words(), ["a", "b"]);
        assert_eq!(
            root.lists_for_mappings(
                json!({"inner": [1], "env": {"A": [1]}, "rate": [1]}).as_object().unwrap()
            ),
            [["inner"]]
        );
    }
}
