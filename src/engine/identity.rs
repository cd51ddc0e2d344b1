//! Freshness: whether what a stage made is what it would make now.
//!
//! # What is hashed
//!
//! The *identity* of a stage is the SHA-256 of its [`Manifest`]: one line `key=json` for each thing
//! that decides its result, sorted by key.
//!
//! | in the manifest | from |
//! |---|---|
//! | settings of class `identity`, as `Stage::deciding_settings` has them | [`Manifest::of`], a walk over the settings beside their schema |
//! | what follows from settings, such as a schedule's horizon | `Stage::derived` |
//! | the settings of a stage that it refers to | [`manifests`], for references by fingerprint |
//! | the content of what a stage that it refers to hands on | [`complete`], for references by content |
//! | the content of files that settings name | `Stage::content` |
//!
//! Not in it: settings of class `runtime` (device, workers) and `extend` (`epochs`), the names of
//! stages, the clock, paths outside of the settings, attempts. A setting that is unset is left out,
//! so that a new optional setting does not change identities that exist. One that changes nothing
//! beside the others, such as the angle of an augmentation that is switched off, counts as its
//! default.
//!
//! The class of a setting stands beside its field, as `x-class` in its schema. The same walk feeds
//! the digest and the explanation (`fingerprint::differences`), so a plan cannot name another
//! reason than the one that counts.
//!
//! # How a plan uses it
//!
//! Each selected stage is inspected in the order of the graph. It gets its identity and its last
//! record, and says how far it is: done, partial, extendable, absent, or transient (it keeps
//! nothing on disk, such as a data set). A stage is done when its record has today's identity and
//! its outputs have their recorded digests. A file is read again only if its size, its times or its
//! inode changed, or if its stamp is too young to tell.
//!
//! The content that a stage hands on is known when it is up to date, and not before it has run
//! where it is not. So every stage behind one that will run counts as open in the plan, however far
//! behind it is: an old output is never taken for a future one.
//!
//! # Early cutoff
//!
//! When the turn of an open stage comes, it is inspected once more, now with the content that the
//! stages before it really handed on. If nothing that it reads has changed, it is skipped after
//! all: two more epochs that bring no new best leave a LoRA training fresh. One run therefore ends
//! in the same state as a build from nothing; a property test draws graphs and edits and compares
//! the two.
//!
//! # Caveats
//!
//! - A secret in an address is kept as `***` and a digest; a record of an earlier version may hold
//!   it whole, and still compares as equal.
//! - A stage that was found done without a record that says so (its process ended between its last
//!   file and its record) gets one from the scheduler.
//! - Trainings choose their run by the digest of the data as it is now; a run that was begun by an
//!   earlier version keeps the identity that its `metadata.json` has.

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
    let mut settings = stage.deciding_settings();
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
    if known.is_empty() {
        (Cow::Borrowed(manifest), unknown)
    } else {
        (Cow::Owned(manifest.clone().with(known)), unknown)
    }
}
