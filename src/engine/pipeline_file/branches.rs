//! In a branch of a sweep, the stages that have the same values.

use serde_json::{Map, Value};

use crate::kind::Stage;
use crate::pipeline_file::declared::{Declared, Single};
use crate::pipeline_file::layers::{Layer, Origin, StageLayers};

/// The names of the stages with the same values of a sweep, in the place of those that are swept.
pub(super) fn beside(
    single: &Single,
    stage: &dyn Stage,
    layers: &StageLayers,
    all: &Declared,
) -> Option<Layer> {
    let by = &single.declared.swept.first()?.by;
    let mut values = Map::new();
    for reference in stage.references().into_iter().filter(|reference| !reference.many) {
        let Some(meant) = all.beside(single, &reference.stage) else { continue };
        let key = reference.key.split('.').next().unwrap_or_default();
        let mut value = values.remove(key).or_else(|| layers.merged(key))?;
        replace(&mut value, &reference.stage, meant.as_str());
        values.insert(key.to_owned(), value);
    }
    let origin = Origin::Outside(by.clone());
    (!values.is_empty()).then_some(Layer { origin, values })
}

/// Writes one text in the place of another, wherever it is all of a value.
fn replace(value: &mut Value, old: &str, new: &str) {
    match value {
        Value::String(text) if text == old => *text = new.to_owned(),
        Value::Object(map) => map.values_mut().for_each(|value| replace(value, old, new)),
        _ => {}
    }
}
