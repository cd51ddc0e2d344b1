//! What decides a stage's result: which settings and which content make its fingerprint.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

pub use pipe_core::digest::{hex, short_digest};
pub use pipe_core::fingerprint::{Class, Difference, Manifest, differences, in_words};
use pipe_core::ids::StageId;
use serde_json::Value;

use crate::artifact::Artifact;
use crate::graph::Graph;
use crate::kind::Stage;
use crate::pipeline_file::LoadedStage;

/// What a stage's own settings decide. A reference counts by what it refers to, not by the name
/// that the stage happens to have.
pub fn of_settings(kind: &str, stage: &dyn Stage, schema: &schemars::Schema) -> Manifest {
    let mut settings = stage.settings();
    if let Value::Object(map) = &mut settings {
        for reference in stage.references() {
            map.remove(reference.key);
        }
    }
    let kind = [("kind".to_owned(), Value::String(kind.to_owned()))];
    Manifest::of(&settings, schema).with(stage.derived()).with(kind)
}

/// The manifests of the stages for which the settings of other stages count besides their own.
/// [`complete`] adds the content of those that count by that.
pub fn manifests(graph: &Graph) -> HashMap<StageId, Manifest> {
    let mut all: HashMap<StageId, Manifest> = HashMap::new();
    for stage in graph.stages().filter(|s| s.inputs.iter().any(|i| i.counts.by_fingerprint())) {
        let by_fingerprint = stage.inputs.iter().filter(|input| input.counts.by_fingerprint());
        let inputs = by_fingerprint.flat_map(|input| {
            let own = graph.stage(&input.stage).map(|s| &s.manifest);
            let entries = all.get(&input.stage).or(own).into_iter().flat_map(|m| m.record());
            entries.map(|(key, value)| (format!("{}.{key}", input.name), value.clone()))
        });
        let manifest = stage.manifest.clone().with(inputs.collect::<Vec<_>>());
        all.insert(stage.id.clone(), manifest);
    }
    all
}

/// Adds the content that a stage refers to. Returns the keys that are missing, because it is not
/// known yet.
pub fn complete<'a>(
    manifest: &'a Manifest,
    stage: &LoadedStage,
    inputs: &BTreeMap<String, Artifact>,
) -> (Cow<'a, Manifest>, Vec<String>) {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for input in stage.inputs.iter().filter(|input| input.counts.by_content()) {
        match inputs.get(&input.name) {
            Some(artifact) => {
                known.extend(
                    artifact
                        .content
                        .clone()
                        .map(|digest| (input.name.clone(), Value::String(digest))),
                );
            }
            None => unknown.push(input.name.clone()),
        }
    }
    match known.is_empty() {
        true => (Cow::Borrowed(manifest), unknown),
        false => (Cow::Owned(manifest.clone().with(known)), unknown),
    }
}
