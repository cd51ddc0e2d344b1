//! `budget:` and `until:` of a pipeline: the time that its trainings have together. Each stage that
//! trains and has neither of its own is given a part.
//!
//! A budget is shared out evenly. Up to a moment each takes, when it begins, its part of the time that
//! is left then: a third, a half, all of it, in the file's order.

use std::collections::BTreeMap;

use pipe_core::error::{Gathered, SpecError};
use pipe_core::ids::StageId;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::kind::StageKind;
use crate::pipeline_file::declared::{Kinds, Single};
use crate::pipeline_file::layers::{Layer, Origin, StageLayers};
use crate::pipeline_file::overrides::{Override, OverrideSource};
use crate::pipeline_file::params::{Names, filled_value};
use crate::pipeline_file::pipeline::PipelineFile;
use crate::pipeline_file::sections::TIME_LIMITS;
use crate::pipeline_file::values::error_at;
use crate::policy::{Span, Until};
use crate::source::Part;

/// The time that the trainings of a pipeline have.
#[derive(Default)]
pub(super) struct TimeLimits {
    budget: Option<(Span, Option<OverrideSource>)>,
    until: Option<(Until, Option<OverrideSource>)>,
    /// Of each stage that trains, those that train before it.
    before: BTreeMap<StageId, u32>,
}

/// What the file says, or what the environment or the command line says in its place.
pub(super) fn read(
    file: &PipelineFile,
    names: Names,
    over: &BTreeMap<String, Override>,
    errors: &mut Gathered,
) -> TimeLimits {
    let (budget, until) =
        (one(file, names, over, "budget", errors), one(file, names, over, "until", errors));
    let limits = TimeLimits { budget, until, ..TimeLimits::default() };
    if let Some((budget, by)) = &limits.budget
        && budget.0.is_zero()
    {
        errors.push(wrong(file, "budget", by.as_ref(), "expected a time above 0".to_owned()));
    }
    limits
}

fn one<T: DeserializeOwned>(
    file: &PipelineFile,
    names: Names,
    over: &BTreeMap<String, Override>,
    key: &str,
    errors: &mut Gathered,
) -> Option<(T, Option<OverrideSource>)> {
    let over = over.get(key);
    let given = over.and_then(|over| over.value.clone().ok());
    let written = || {
        let written = file.time_limits.get(key)?;
        errors.take(filled_value(&file.source, &[key.into()], written, names))
    };
    let value = given.or_else(written).filter(|value| !value.is_null())?;
    let by = over.map(|over| over.by.clone());
    match serde_json::from_value(value) {
        Ok(read) => Some((read, by)),
        Err(error) => {
            errors.push(wrong(file, key, by.as_ref(), error.to_string()));
            None
        }
    }
}

fn wrong(
    file: &PipelineFile,
    key: &str,
    by: Option<&OverrideSource>,
    message: String,
) -> SpecError {
    match by {
        Some(by) => SpecError::plain(format!("{}: {message}", by.shown)).hiding(&by.hidden),
        None => error_at(&file.source, &[key], Part::Value, message),
    }
}

impl TimeLimits {
    /// The same with the stages that train.
    pub fn among(self, stages: &[Single], kinds: &Kinds) -> Self {
        let trains = |single: &&Single| {
            kinds.get(&single.declared.kind).is_some_and(|(kind, _)| takes_part(*kind))
        };
        let ids = stages.iter().filter(trains).map(|single| single.id.clone());
        Self { before: ids.zip(0..).collect(), ..self }
    }

    /// Gives a stage its part, unless it has a limit of its own.
    pub fn fill_in(&self, single: &Single, layers: &mut StageLayers) {
        let Some(before) = self.before.get(&single.id) else { return };
        // What halving carries on by rungs has no end by time.
        if layers.merged("halving").is_some_and(|rungs| !rungs.is_null()) {
            return;
        }
        if TIME_LIMITS.iter().any(|key| layers.merged(key).is_some_and(|own| !own.is_null())) {
            return;
        }
        let all = u32::try_from(self.before.len()).unwrap_or(u32::MAX);
        let budget = self.budget.as_ref().map(|(budget, by)| {
            // Whole milliseconds, as people write them.
            let part = budget.0.as_millis() / u128::from(all);
            let part = std::time::Duration::from_millis(u64::try_from(part).unwrap_or(u64::MAX));
            ("budget", json!(Span(part)), by)
        });
        let until = self.until.as_ref().map(|(until, by)| {
            let left = all - before;
            let text = if left > 1 && until.share.is_none() {
                format!("1/{left} of {until}")
            } else {
                until.to_string()
            };
            ("until", json!(text), by)
        });
        for (key, value, by) in budget.into_iter().chain(until) {
            let origin = match by {
                Some(by) => Origin::Outside(by.clone()),
                None => {
                    let source = layers.pipeline.clone();
                    let base = vec!["stages".to_owned(), layers.stage.to_string()];
                    let moved = vec![(key.to_owned(), source.clone(), vec![key.to_owned()])];
                    Origin::File { source, base, moved }
                }
            };
            let values = Map::from_iter([(key.to_owned(), value)]);
            layers.layers.insert(0, Layer { origin, values });
        }
    }
}

/// Whether stages of a kind can be given a limit.
fn takes_part(kind: &dyn StageKind) -> bool {
    let schema = kind.schema();
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.is_some_and(|known| TIME_LIMITS.iter().all(|key| known.contains_key(*key)))
}
