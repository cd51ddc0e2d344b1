//! A file that is put together of pieces equals the same written out: the stages, their settings and
//! identities, what they need, the plan. What it is written out to is found by a walk of its own, which
//! hands values down where the program gives names.

use std::collections::BTreeMap;

use pipe_core::progress::NullListener;
use pipe_core::stop::Stop;
use pipe_engine::graph::{Graph, Targets};
use pipe_engine::identity;
use pipe_engine::pipeline_file::Override;
use pipe_engine::session::Session;
use serde_json::{Value, json};

use super::drawn::{File, Keys, Merging, Pipeline};
use crate::fake::Project;
use crate::random::Random;

/// The keys of a mapping and of those that it merges, the earlier ones stronger.
fn keys(file: &File, mapping: &Merging, all: &mut Keys) {
    for (key, value) in &mapping.own {
        all.entry(key.clone()).or_insert_with(|| value.clone());
    }
    mapping.merges.iter().for_each(|number| keys(file, &file.anchors[*number], all));
}

/// The value with parameters in the place of their names.
fn filled(value: &Value, params: &Keys) -> Value {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix("${params.").and_then(|t| t.strip_suffix('}'))
                && let Some(value) = params.get(name)
            {
                return value.clone();
            }
            // What is escaped stays so: it is read once more.
            let mut text = text.replace("$${", "\u{1}");
            for (name, value) in params {
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                text = text.replace(&format!("${{params.{name}}}"), &shown);
            }
            json!(text.replace('\u{1}', "$${"))
        }
        Value::Array(items) => items.iter().map(|item| filled(item, params)).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), filled(value, params))).collect()
        }
        other => other.clone(),
    }
}

/// Stages in order, by the names that they have in the pipeline.
fn expanded(
    pipeline: &Pipeline,
    (file, prefix): (usize, &str),
    given: &Keys,
    profile: &(Keys, BTreeMap<String, Keys>),
) -> Vec<(String, Keys)> {
    let file = &pipeline.files[file];
    let mut params = Keys::new();
    // One that refers to another one comes after it.
    let is_plain = |(_, value): &(&String, &Value)| !value.to_string().contains("${");
    let (plain, others): (Vec<_>, Vec<_>) = file.params.iter().partition(is_plain);
    for (name, default) in plain.into_iter().chain(others) {
        let over = profile.0.get(&format!("{prefix}{name}"));
        let value = over.or(given.get(name)).cloned().unwrap_or_else(|| filled(default, &params));
        params.insert(name.clone(), value);
    }
    let mut all = Vec::new();
    for inclusion in &file.includes {
        let mut given = Keys::new();
        for (name, value) in &inclusion.params {
            let value = match (name.as_str(), value.as_str()) {
                ("from", Some("data")) => json!(format!("{prefix}data")),
                _ => filled(value, &params),
            };
            given.insert(name.clone(), value);
        }
        let prefix = format!("{prefix}{}_", inclusion.name);
        all.extend(expanded(pipeline, (inclusion.part, &prefix), &given, profile));
    }
    for stage in &file.stages {
        let mut body = Keys::new();
        keys(file, &stage.body, &mut body);
        for (key, value) in &mut body {
            let local = |value: &Value| json!(format!("{prefix}{}", value.as_str().unwrap()));
            *value = match (key.as_str(), &*value) {
                ("checkpoint", Value::String(policy)) => file.policies[policy].clone(),
                ("dataset", Value::String(name)) if !name.starts_with('$') => local(value),
                ("needs", Value::Array(names)) => names.iter().map(local).collect(),
                _ => filled(value, &params),
            };
        }
        let name = format!("{prefix}{}", stage.name);
        all.push((name, body));
    }
    all
}

fn lay(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                lay(below.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above.clone(),
    }
}

/// The pipeline without anything that is put together. A policy and a profile over it: the profile
/// replaces the policy's name.
fn written_out(pipeline: &Pipeline, profile: &(Keys, BTreeMap<String, Keys>)) -> String {
    let mut text = "name: drawn\nstages:\n".to_owned();
    let none = Keys::new();
    for (name, body) in expanded(pipeline, (0, ""), &none, profile) {
        let mut body = json!(body);
        if let Some(over) = profile.1.get(&name) {
            if is_policy(pipeline, &name) {
                body["checkpoint"] = Value::Null;
            }
            lay(&mut body, &json!(over));
        }
        text += &format!("  {name}: {body}\n");
    }
    text
}

/// Whether a stage takes a policy by its name.
fn is_policy(pipeline: &Pipeline, name: &str) -> bool {
    fn find<'a>(pipeline: &'a Pipeline, file: usize, name: &str) -> Option<(&'a File, usize)> {
        let file = &pipeline.files[file];
        if let Some(at) = file.stages.iter().position(|stage| stage.name == name) {
            return Some((file, at));
        }
        let inner = |i: &'a super::drawn::Inclusion| {
            find(pipeline, i.part, name.strip_prefix(&format!("{}_", i.name))?)
        };
        file.includes.iter().find_map(inner)
    }
    let (file, at) = find(pipeline, 0, name).unwrap();
    let mut body = Keys::new();
    keys(file, &file.stages[at].body, &mut body);
    body.get("checkpoint").is_some_and(Value::is_string)
}

/// All that matters of a pipeline.
fn meaning(project: &Project) -> Vec<Value> {
    let graph: Graph = project.load().unwrap_or_else(|error| panic!("{error}"));
    let manifests = identity::manifests(&graph);
    let stage = |stage: &pipe_engine::pipeline_file::LoadedStage| {
        let needs: Vec<_> = stage.needs.iter().map(|(key, id)| json!([key, id.as_str()])).collect();
        let inputs: Vec<_> =
            stage.inputs.iter().map(|input| json!([input.name, input.stage])).collect();
        json!([
            stage.id.as_str(),
            stage.kind,
            stage.stage.settings(),
            manifests.get(&stage.id).map(|manifest| manifest.digest()),
            stage.manifest.digest(),
            needs,
            inputs,
        ])
    };
    let mut all: Vec<Value> = graph.pipeline.stages.iter().map(stage).collect();
    let session = Session::of(&project.root, graph, &Targets::default()).unwrap();
    let stop = Stop::default();
    let (plan, _) =
        session.plan(&session.execution(&stop, &NullListener)).map_err(|(_, e)| e).unwrap();
    all.push(serde_json::to_value(&plan).unwrap());
    all
}

#[test]
fn a_file_of_pieces_equals_the_same_written_out() {
    let (mut most, mut files, mut merged) = (0, 0, 0);
    for seed in 1..=120 {
        let mut random = Random::new(seed);
        let drawn = Pipeline::new(&mut random);
        let mut pieces = Project::new(&drawn.files[0].text(Some(&drawn.profile)));
        for (number, file) in drawn.files.iter().enumerate().skip(1) {
            pieces = pieces.file(&format!("part{number}.yaml"), &file.text(None));
        }
        let names = drawn.names(0, "");
        most = most.max(names.len());
        files = files.max(drawn.files.len());
        merged +=
            drawn.files.iter().flat_map(|f| &f.stages).filter(|s| s.body.merges.len() > 1).count();
        let plain = Default::default();
        for profile in [&plain, &drawn.profile] {
            if !std::ptr::eq(profile, &plain) {
                pieces.sets.push(Override::profile("other"));
            }
            let mut whole = Project::new(&written_out(&drawn, profile));
            let texts = || {
                let all = drawn.files.iter().enumerate();
                let all = all.map(|(n, f)| f.text((n == 0).then_some(&drawn.profile)));
                all.collect::<Vec<_>>().join("\n---\n")
            };
            assert_eq!(meaning(&pieces), meaning(&whole), "seed {seed}\n{}", texts());
            // What is set from outside is set by the same names.
            let set = format!("{}.learning_rate=77", names[random.below(names.len())]);
            let (sets, before) = (Override::parse(&set, set.clone()).unwrap(), pieces.sets.len());
            pieces.sets.push(sets.clone());
            whole.sets.push(sets);
            assert_eq!(meaning(&pieces), meaning(&whole), "seed {seed}: {set}\n{}", texts());
            pieces.sets.truncate(before);
        }
    }
    assert!(
        most > 20 && files == 4 && merged > 100,
        "{most} stages, {files} files, {merged} merged"
    );
}
