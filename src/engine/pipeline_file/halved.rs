//! `halving:` beside the other settings of a stage: its rungs and the stage's length are one thing.

use pipe_core::error::SpecError;
use serde_json::{Map, Value};

use crate::kind::{Stage, StageKind};
use crate::pipeline_file::declared::Single;
use crate::pipeline_file::layers::{Layer, Origin, StageLayers};
use crate::pipeline_file::sections::TIME_LIMITS;
use crate::policy::Halving;

/// The length of a stage that has rungs and no length of its own: that of its last rung.
pub(super) fn fill_in_length(kind: &dyn StageKind, layers: &mut StageLayers) {
    if !layers.layers.iter().any(|layer| layer.values.contains_key("halving")) {
        return;
    }
    let Some(key) = kind.length().filter(|key| layers.merged(key).is_none()) else { return };
    let Some(Value::Object(halving)) = layers.merged("halving") else { return };
    let rungs = halving.get("rungs").and_then(Value::as_array);
    let Some(last) = rungs.and_then(|rungs| rungs.last()).filter(|last| last.is_u64()) else {
        return;
    };
    let source = layers.pipeline.clone();
    let at = ["stages", layers.stage.as_str(), "halving", "rungs"].map(str::to_owned).to_vec();
    let moved = vec![(key.to_owned(), source.clone(), at)];
    let base = vec!["stages".to_owned(), layers.stage.to_string()];
    let origin = Origin::File { source, base, moved };
    let values = Map::from_iter([(key.to_owned(), last.clone())]);
    layers.layers.insert(0, Layer { origin, values });
}

/// What is wrong with the halving of a stage, if anything is.
pub(super) fn check(
    halving: &Halving,
    kind: &dyn StageKind,
    (single, stage): (&Single, &dyn Stage),
    layers: &StageLayers,
) -> Option<SpecError> {
    let wrong = |keys: &[&str], message: String| {
        let path: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        Some(layers.error_at(&path, message))
    };
    let Some(key) = kind.length() else {
        let message =
            format!("a stage of kind `{}` cannot be carried on rung by rung", kind.name());
        return wrong(&["halving"], message);
    };
    if single.id == single.declared.id {
        let message = "only the stages of a `matrix` can be chosen among".to_owned();
        return wrong(&["halving"], message);
    }
    let settings = stage.settings();
    let has = |key: &&str| settings.get(key).is_some_and(|limit| !limit.is_null());
    if let Some(limit) = TIME_LIMITS.into_iter().find(has) {
        let message = "`halving` decides how far each member goes, and no time does".to_owned();
        return wrong(&[limit], message);
    }
    let (last, length) = (halving.rungs.last()?, stage.settings().get(key)?.as_u64()?);
    if *last == length {
        return None;
    }
    let message = format!(
        "the last rung is {last}, and `{key}` is {length}: leave one of them out, or make them equal"
    );
    wrong(&["halving", "rungs"], message)
}
