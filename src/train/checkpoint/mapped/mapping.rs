//! A mapping file: which of a file's tensors is which of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Names of the tensors of a file by ours.
///
/// A name may hold `{word}`, which stands for what is between two dots, or `{word*}`, which stands
/// for anything that is not empty. The same word on the other side is the same text.
#[derive(Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mapping {
    /// Our name, and theirs or a list of theirs that are joined along the first axis. The first
    /// rule that fits counts.
    #[serde(deserialize_with = "rules")]
    pub weights: Vec<(String, Vec<String>)>,
    /// How names of weights begin, and how those of their EMA weights begin instead.
    pub ema: BTreeMap<String, String>,
    /// Names of tensors that are not wanted.
    pub ignore: Vec<String>,
    /// Whether the optimizer's state is taken over, where there is one.
    pub optimizer: bool,
    /// Their names of the parameters in the order in which the optimizer counts them; that of the
    /// file's names where it is left out.
    pub parameters: Vec<String>,
}

impl Default for Mapping {
    fn default() -> Self {
        let (weights, ema, ignore, parameters) = Default::default();
        Self { weights, ema, ignore, optimizer: true, parameters }
    }
}

/// Tensors of ours, each with the names of theirs that make it up.
pub(super) type Sources = BTreeMap<String, Vec<String>>;

/// Which of theirs make up ours, and what is wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    pub weights: Sources,
    pub ema: Sources,
    pub problems: Vec<String>,
}

/// A part of a name with gaps.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    /// Between two dots.
    Word(&'a str),
    /// Anything.
    Rest(&'a str),
}

type Gaps<'a> = BTreeMap<&'a str, &'a str>;

impl Mapping {
    /// Finds a name of ours for each of theirs.
    pub(super) fn resolve<'a>(&self, theirs: impl Iterator<Item = &'a str>) -> Resolved {
        let problems = self.problems();
        if !problems.is_empty() {
            return Resolved { problems, ..Resolved::default() };
        }
        let (mut weights, mut ema) = (BTreeMap::new(), BTreeMap::new());
        for name in theirs.filter(|name| !self.ignores(name)) {
            match self.weight_of_ema(name) {
                Some(weight) => ema.insert(weight, name),
                None => weights.insert(name.to_owned(), name),
            };
        }
        let mut resolved = Resolved::default();
        resolved.weights = self.resolve_side(&weights, &mut resolved.problems);
        resolved.ema = self.resolve_side(&ema, &mut resolved.problems);
        resolved
    }

    /// `theirs` are their names by what the rules call them.
    fn resolve_side(&self, theirs: &BTreeMap<String, &str>, problems: &mut Vec<String>) -> Sources {
        let mut rules = BTreeMap::<String, Vec<String>>::new();
        for (name, shown) in theirs {
            let Some((ours, sources)) = self.ours(name) else {
                problems.push(format!("unexpected: {shown}"));
                continue;
            };
            match rules.get(&ours) {
                Some(other) if *other != sources => {
                    let (first, second) = (other.join(" and "), sources.join(" and "));
                    problems.push(format!("{ours} is {first}, and {second} is too"));
                }
                Some(_) => {}
                None => drop(rules.insert(ours, sources)),
            }
        }
        let mut found = Sources::new();
        for (ours, sources) in rules {
            let there = |name: &String| theirs.get(name).map(|name| (*name).to_owned());
            let missing = sources.iter().filter(|name| !theirs.contains_key(*name));
            problems.extend(missing.map(|name| format!("missing: {name}, a part of {ours}")));
            found.insert(ours, sources.iter().filter_map(there).collect());
        }
        found
    }

    /// What is wrong with the rules themselves.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.weights.is_empty() {
            problems.push("`weights` is empty: list our names and theirs".to_owned());
        }
        for (ours, theirs) in &self.weights {
            if theirs.is_empty() {
                problems.push(format!("{ours}: names no tensor"));
            }
            let wrong = theirs.iter().filter(|name| words(name) != words(ours));
            problems.extend(
                wrong.map(|name| format!("{ours}: {name} does not have the same words in braces")),
            );
        }
        problems
    }

    /// Our name of one of theirs, and all of theirs that make it up.
    fn ours(&self, name: &str) -> Option<(String, Vec<String>)> {
        self.weights.iter().find_map(|(ours, theirs)| {
            let gaps = theirs.iter().find_map(|pattern| fit(&parts(pattern), name, Gaps::new()))?;
            Some((fill(ours, &gaps), theirs.iter().map(|name| fill(name, &gaps)).collect()))
        })
    }

    pub(super) fn ignores(&self, name: &str) -> bool {
        self.ignore.iter().any(|pattern| fit(&parts(pattern), name, Gaps::new()).is_some())
    }

    /// The name of the weight that an EMA weight belongs to.
    fn weight_of_ema(&self, name: &str) -> Option<String> {
        let fitting = self.ema.iter().filter_map(|(weight, ema)| {
            Some((ema.len(), weight, name.strip_prefix(ema.as_str())?))
        });
        let (_, weight, rest) = fitting.max_by_key(|(length, ..)| *length)?;
        Some(format!("{weight}{rest}"))
    }
}

/// A name, cut at its gaps. Braces that are not closed are text.
fn parts(name: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), name);
    while let Some((before, (word, after))) =
        rest.split_once('{').and_then(|(before, gap)| Some((before, gap.split_once('}')?)))
    {
        if !before.is_empty() {
            parts.push(Part::Text(before));
        }
        parts.push(match word.strip_suffix('*') {
            Some(word) => Part::Rest(word),
            None => Part::Word(word),
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    parts
}

/// What stands in the gaps, if the name fits; the shortest texts that do.
fn fit<'a>(parts: &[Part<'a>], name: &'a str, gaps: Gaps<'a>) -> Option<Gaps<'a>> {
    let Some((first, others)) = parts.split_first() else {
        return name.is_empty().then_some(gaps);
    };
    let (word, is_rest) = match first {
        Part::Text(text) => return fit(others, name.strip_prefix(text)?, gaps),
        Part::Word(word) => (*word, false),
        Part::Rest(word) => (*word, true),
    };
    if let Some(known) = gaps.get(word) {
        let rest = name.strip_prefix(known)?;
        return fit(others, rest, gaps);
    }
    let ends = name.char_indices().map(|(at, c)| (at + c.len_utf8(), c));
    let ends = ends.take_while(|(_, c)| is_rest || *c != '.').map(|(end, _)| end);
    let mut found = ends.filter_map(|end| {
        let mut gaps = gaps.clone();
        gaps.insert(word, &name[..end]);
        fit(others, &name[end..], gaps)
    });
    found.next()
}

/// The words of a name's gaps, each with whether it stands for anything.
fn words(name: &str) -> BTreeSet<(&str, bool)> {
    let word = |part| match part {
        Part::Word(word) => Some((word, false)),
        Part::Rest(word) => Some((word, true)),
        Part::Text(_) => None,
    };
    parts(name).into_iter().filter_map(word).collect()
}

fn fill(name: &str, gaps: &Gaps) -> String {
    let text = |part| match part {
        Part::Text(text) => text,
        Part::Word(word) | Part::Rest(word) => gaps.get(word).copied().unwrap_or_default(),
    };
    parts(name).into_iter().map(text).collect()
}

/// The rules in the order of the file, each with one name of theirs or a list.
fn rules<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, Vec<String>)>, D::Error> {
    struct Rules;

    impl<'de> Visitor<'de> for Rules {
        type Value = Vec<(String, Vec<String>)>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("our names, each with theirs")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut rules: Self::Value = Vec::new();
            while let Some((ours, Names(theirs))) = map.next_entry::<String, Names>()? {
                if rules.iter().any(|(other, _)| *other == ours) {
                    return Err(de::Error::custom(format!("`{ours}` stands twice")));
                }
                rules.push((ours, theirs));
            }
            Ok(rules)
        }
    }

    deserializer.deserialize_map(Rules)
}

/// A name, or a list of names.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;

        impl<'de> Visitor<'de> for Forms {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("the name of a tensor, or a list of names")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Names, E> {
                Ok(Names(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }

        deserializer.deserialize_any(Forms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(mapping: &str, theirs: &[&str]) -> Resolved {
        serde_json::from_str::<Mapping>(mapping).unwrap().resolve(theirs.iter().copied())
    }

    fn shown(sources: &Sources) -> String {
        let one = |(ours, theirs): (&String, &Vec<String>)| format!("{ours}={}", theirs.join("+"));
        sources.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_first_rule_that_fits_names_a_tensor() {
        let mapping = r#"{"weights": {
            "stem.bias": "net.in.bias",
            "blocks.{i}.{j}.qkv.{kind}": ["net.{j}.{i}.q.{kind}", "net.{j}.{i}.k.{kind}"],
            "{rest*}": "net.{rest*}"}}"#;
        let theirs = ["net.in.bias", "net.in.weight", "net.0.1.q.w", "net.0.1.k.w", "net.a.b.c.d"];
        let found = resolve(mapping, &theirs);
        let expected = "a.b.c.d=net.a.b.c.d blocks.1.0.qkv.w=net.0.1.q.w+net.0.1.k.w \
            in.weight=net.in.weight stem.bias=net.in.bias";
        assert_eq!((shown(&found.weights).as_str(), found.problems.len()), (expected, 0));
    }

    #[test]
    fn ema_weights_go_by_the_rules_of_the_weights() {
        let mapping = r#"{"weights": {"{x*}": "net.{x*}"}, "ema": {"net.": "ema.module."},
            "ignore": ["ema.n_averaged", "loss.{x*}"]}"#;
        let found = resolve(mapping, &["net.a.b", "ema.module.a.b", "ema.n_averaged", "loss.a.b"]);
        assert_eq!(
            shown(&found.weights) + " " + &shown(&found.ema),
            "a.b=net.a.b a.b=ema.module.a.b"
        );
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        // Names without a beginning.
        let mapping = r#"{"weights": {"{x*}": "{x*}"}, "ema": {"": "ema."}}"#;
        let found = resolve(mapping, &["a", "ema.a"]);
        assert_eq!(shown(&found.weights) + " " + &shown(&found.ema), "a=a a=ema.a");
    }

    #[test]
    fn all_that_does_not_fit_is_told() {
        let mapping = r#"{"weights": {"x.{i}": ["q.{i}", "k.{i}"], "y": "a", "y.": "b"}}"#;
        let found = resolve(mapping, &["q.0", "k.1", "a", "c", "d"]);
        let expected = [
            "unexpected: c",
            "unexpected: d",
            "missing: k.0, a part of x.0",
            "missing: q.1, a part of x.1",
        ];
        assert_eq!(found.problems, expected);
        let twice = resolve(
            r#"{"weights": {"y": "a", "y{x*}": "y{x*}", "{x*}": "b.{x*}"}}"#,
            &["a", "b.y"],
        );
        assert_eq!(twice.problems, ["y is a, and b.y is too"]);
        let wrong = resolve(r#"{"weights": {"a.{i}": "b.{j}", "c": [], "d": "e.{i}"}}"#, &[]);
        assert_eq!(wrong.problems.len(), 3, "{:?}", wrong.problems);
        assert_eq!(resolve("{}", &[]).problems, ["`weights` is empty: list our names and theirs"]);
    }

    #[test]
    fn a_file_of_another_form_is_refused() {
        for (text, expected) in [
            (r#"{"weights": {"a": 3}}"#, "the name of a tensor, or a list of names"),
            (r#"{"weights": ["a"]}"#, "our names, each with theirs"),
            (r#"{"weights": {"a": "b", "a": "c"}}"#, "`a` stands twice"),
            (r#"{"wieghts": {}}"#, "unknown field `wieghts`"),
        ] {
            let message = serde_json::from_str::<Mapping>(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_gap_is_one_word_or_anything() {
        let fits = |pattern: &str, name: &str| {
            fit(&parts(pattern), name, Gaps::new()).map(|gaps| format!("{gaps:?}"))
        };
        assert_eq!(fits("a.{i}.b", "a.7.b").as_deref(), Some(r#"{"i": "7"}"#));
        assert_eq!(fits("a.{i}.b", "a.7.8.b"), None);
        assert_eq!(fits("a.{i*}.b", "a.7.8.b").as_deref(), Some(r#"{"i": "7.8"}"#));
        assert_eq!(fits("{i}.{i}", "ä.ä").as_deref(), Some(r#"{"i": "ä"}"#));
        assert_eq!((fits("{i}.{i}", "a.b"), fits("a.{i}", "a.")), (None, None));
        assert_eq!(
            (fits("{open", "{open").as_deref(), fits("", "")),
            (Some("{}"), Some("{}".into()))
        );
    }
}
