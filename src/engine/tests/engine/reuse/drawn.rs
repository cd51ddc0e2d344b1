//! Drawn pipelines that are put together of pieces: files with anchors, merge keys, included files
//! and a profile, as trees and as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::random::Random;

pub type Keys = BTreeMap<String, Value>;

/// A mapping with the mappings that it merges, by the numbers of their anchors.
#[derive(Debug, Clone, Default)]
pub struct Merging {
    pub own: Keys,
    pub merges: Vec<usize>,
}

#[derive(Debug, Clone)]
pub struct Stage {
    pub name: String,
    pub body: Merging,
}

#[derive(Debug, Clone)]
pub struct Inclusion {
    pub name: String,
    pub part: usize,
    pub params: Keys,
}

/// One file. Those that it includes have higher numbers.
#[derive(Debug, Clone, Default)]
pub struct File {
    pub anchors: Vec<Merging>,
    /// A parameter without a value has to be given.
    pub params: Keys,
    pub policies: Keys,
    pub includes: Vec<Inclusion>,
    pub stages: Vec<Stage>,
}

/// The first file is the pipeline.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub files: Vec<File>,
    /// Parameters and stages' keys, by the names that they have in the pipeline.
    pub profile: (Keys, BTreeMap<String, Keys>),
}

/// Parameters that a file may have.
const PARAMS: [&str; 4] = ["epochs", "rate", "tag", "from"];

impl Pipeline {
    pub fn new(random: &mut Random) -> Self {
        let count = 1 + random.below(4);
        let mut files: Vec<File> = Vec::new();
        for number in (0..count).rev() {
            let file = File::new(random, number, &files, count);
            files.insert(0, file);
        }
        let mut this = Self { files, profile: Default::default() };
        this.profile = this.drawn_profile(random);
        this
    }

    fn drawn_profile(&self, random: &mut Random) -> (Keys, BTreeMap<String, Keys>) {
        let (mut params, mut stages) = (Keys::new(), BTreeMap::new());
        for name in self.parameters(0, "") {
            if name.ends_with("epochs") && random.below(3) == 0 {
                params.insert(name, json!(50 + random.below(9)));
            }
        }
        for name in self.names(0, "") {
            if random.below(4) == 0 {
                let over = json!({"learning_rate": random.below(9), "checkpoint": {"keep_last_n": random.below(9)}});
                stages.insert(name, serde_json::from_value(over).unwrap());
            }
        }
        (params, stages)
    }

    fn parameters(&self, file: usize, prefix: &str) -> Vec<String> {
        let file = &self.files[file];
        let own = file.params.keys().map(|name| format!("{prefix}{name}"));
        let inner = file.includes.iter();
        let inner = inner.flat_map(|i| self.parameters(i.part, &format!("{prefix}{}_", i.name)));
        own.chain(inner).collect()
    }

    /// The names of all stages, as they are in the pipeline.
    pub fn names(&self, file: usize, prefix: &str) -> Vec<String> {
        let file = &self.files[file];
        let inner = file.includes.iter();
        let inner = inner.flat_map(|i| self.names(i.part, &format!("{prefix}{}_", i.name)));
        inner.chain(file.stages.iter().map(|stage| format!("{prefix}{}", stage.name))).collect()
    }
}

/// Keys of a stage that say nothing of other ones.
fn settings(random: &mut Random, params: &Keys) -> Keys {
    let mut keys = Keys::new();
    let reference = |name: &str| params.contains_key(name).then(|| format!("${{params.{name}}}"));
    if random.below(2) == 0 {
        let value = reference("epochs").filter(|_| random.below(2) == 0);
        keys.insert("epochs".into(), value.map_or(json!(1 + random.below(9)), Value::from));
    }
    if random.below(2) == 0 {
        let value = reference("rate").filter(|_| random.below(2) == 0);
        keys.insert("learning_rate".into(), value.map_or(json!(random.below(9)), Value::from));
    }
    if random.below(2) == 0 {
        let text = reference("tag").map_or("plain".into(), |tag| format!("c-{tag}-$${{params.x}}"));
        keys.insert("classes".into(), json!([text, random.below(5).to_string()]));
    }
    if random.below(3) == 0 {
        keys.insert("checkpoint".into(), json!({"keep_last_n": random.below(9)}));
    }
    keys
}

impl File {
    fn new(random: &mut Random, number: usize, later: &[File], count: usize) -> Self {
        let mut file = Self::default();
        for name in PARAMS {
            let value = match name {
                "from" => continue,
                _ if random.below(3) == 0 => continue,
                // Only an included file can ask for a value.
                _ if number > 0 && random.below(3) == 0 => Value::Null,
                "epochs" => json!(1 + random.below(9)),
                "rate" if file.params.get("epochs").is_some_and(|v| !v.is_null()) => {
                    json!("${params.epochs}")
                }
                "rate" => json!(random.below(9)),
                _ => json!(format!("t{}", random.below(9))),
            };
            file.params.insert(name.into(), value);
        }
        if number > 0 && random.below(2) == 0 {
            file.params.insert("from".into(), Value::Null);
        }
        for number in 0..random.below(4) {
            let merges = (0..number).rev().filter(|_| random.below(2) == 0).collect();
            let own = settings(random, &file.params);
            file.anchors.push(Merging { own, merges });
        }
        if random.below(2) == 0 {
            file.policies.insert("often".into(), json!({"keep_last_n": 10 + random.below(9)}));
        }
        file.stages.push(Stage {
            name: "data".into(),
            body: Merging {
                own: Keys::from([("kind".into(), json!("source"))]),
                merges: Vec::new(),
            },
        });
        for part in 1..=later.len() {
            let index = count - later.len() + part - 1;
            for copy in 0..random.below(3) {
                let name = format!("i{copy}{}", ["", "-x"][random.below(2)]);
                if file.includes.iter().any(|other| other.name == name) {
                    continue;
                }
                let params = file.given(random, &later[part - 1]);
                file.includes.push(Inclusion { name, part: index, params });
            }
        }
        for stage in 0..1 + random.below(3) {
            let stage = file.drawn_stage(random, stage);
            file.stages.push(stage);
        }
        file
    }

    /// Values for the parameters of an included file: those that it needs, and some of the others.
    fn given(&self, random: &mut Random, part: &File) -> Keys {
        let mut given = Keys::new();
        for (name, default) in &part.params {
            if !default.is_null() && random.below(2) == 0 {
                continue;
            }
            let own = self.params.contains_key(name) && name != "from" && random.below(2) == 0;
            let value = match name.as_str() {
                _ if own => json!(format!("${{params.{name}}}")),
                "epochs" => json!(20 + random.below(9)),
                "rate" => json!(20 + random.below(9)),
                "tag" => json!("given"),
                // The stage of that name in this file, not the one in the part.
                _ => json!("data"),
            };
            given.insert(name.clone(), value);
        }
        given
    }

    fn drawn_stage(&self, random: &mut Random, number: usize) -> Stage {
        let mut own = settings(random, &self.params);
        let before: Vec<&str> = self.stages.iter().map(|stage| stage.name.as_str()).collect();
        own.insert("kind".into(), json!("work"));
        let from = before[random.below(before.len())];
        let outer = self.params.contains_key("from") && random.below(2) == 0;
        own.insert("dataset".into(), if outer { json!("${params.from}") } else { json!(from) });
        if random.below(2) == 0 {
            own.insert("needs".into(), json!([before[random.below(before.len())]]));
        }
        if self.policies.contains_key("often") && random.below(2) == 0 {
            own.insert("checkpoint".into(), json!("often"));
        }
        let merges = (0..self.anchors.len()).filter(|_| random.below(2) == 0).collect();
        Stage { name: format!("s{number}"), body: Merging { own, merges } }
    }

    /// The file as people write it.
    pub fn text(&self, profile: Option<&(Keys, BTreeMap<String, Keys>)>) -> String {
        let mut text = String::new();
        for (number, anchor) in self.anchors.iter().enumerate() {
            writeln!(text, "x-a{number}: &a{number} {}", merging(anchor)).unwrap();
        }
        if profile.is_some() {
            text += "name: drawn\n";
        }
        if !self.includes.is_empty() {
            text += "include:\n";
        }
        for Inclusion { name, part, params } in &self.includes {
            writeln!(text, "  {name}: {{ file: part{part}.yaml, params: {} }}", json!(params))
                .unwrap();
        }
        writeln!(text, "params: {}", json!(self.params)).unwrap();
        writeln!(text, "policies: {{ checkpoint: {} }}", json!(self.policies)).unwrap();
        if let Some((params, stages)) = profile {
            writeln!(
                text,
                "profiles: {{ other: {{ params: {}, stages: {} }} }}",
                json!(params),
                json!(stages)
            )
            .unwrap();
        }
        text += "stages:\n";
        for Stage { name, body } in &self.stages {
            writeln!(text, "  {name}: {}", merging(body)).unwrap();
        }
        text
    }
}

fn merging(mapping: &Merging) -> String {
    let merges: Vec<String> = mapping.merges.iter().map(|number| format!("*a{number}")).collect();
    let own: Vec<String> =
        mapping.own.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    let merges = match merges.as_slice() {
        [] => None,
        [one] => Some(format!("<<: {one} ")),
        _ => Some(format!("<<: [{}]", merges.join(", "))),
    };
    format!("{{ {} }}", own.into_iter().chain(merges).collect::<Vec<_>>().join(", "))
}
