//! Lints of a choice among checkpoints by a metric: whether anybody reports it, and which way round
//! it is better.

use std::collections::BTreeSet;
use std::sync::Arc;

use pipe_engine::kind::{Diagnostic, PipelineView};
use pipe_runs::policy::metric;

use super::artifacts::{CheckpointPreview, JudgePreview};
use super::lint::VAL_LOSS;

/// Whether the checkpoints of the stages `over` can have the metric `name`. `key`: the setting that
/// names it.
pub(super) fn check_metric(
    key: &str,
    name: &str,
    over: &[String],
    pipeline: &PipelineView,
) -> Vec<Diagnostic> {
    let sources: Vec<(&str, Arc<CheckpointPreview>)> =
        over.iter().flat_map(|stage| pipeline.each_preview(stage)).collect();
    let lacks =
        |source: &CheckpointPreview| source.metrics.as_ref().is_some_and(|m| !m.contains(name));
    let without: Vec<&str> =
        sources.iter().filter(|(_, source)| lacks(source)).map(|(id, _)| *id).collect();
    let Some(first) = without.first() else { return Vec::new() };
    let validation =
        "set the val_split of its data set to a share such as 0.1, or choose by train_loss";
    let shown = over.join("`, `");
    if without.len() == sources.len() {
        if name == VAL_LOSS {
            let message = format!("is {name}, and no training of `{shown}` has validation images");
            return vec![Diagnostic::error(key, message).note(validation)];
        }
        let all: BTreeSet<&str> = sources
            .iter()
            .flat_map(|(_, s)| s.metrics.iter().flatten())
            .map(String::as_str)
            .collect();
        let found = metric::find(name, all, &format!("`{shown}` reports"));
        return found.err().map(|message| Diagnostic::error(key, message)).into_iter().collect();
    }
    let more = match without.len() {
        1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    let cannot = format!("`{first}`{more} cannot be chosen:");
    if name == VAL_LOSS {
        let message = format!("{cannot} it has no validation images");
        return vec![Diagnostic::warning(key, message).note(validation)];
    }
    vec![Diagnostic::warning(key, format!("{cannot} it reports no `{name}`"))]
}

/// An error where no stage of this name finds out a metric; none where it is not known what it finds
/// out.
pub(super) fn check_judged_metric(
    key: &str,
    metric: &str,
    judge: &str,
    pipeline: &PipelineView,
) -> Option<Diagnostic> {
    let judges = pipeline.each_preview::<JudgePreview>(judge);
    if judges.is_empty() {
        return None;
    }
    let names: BTreeSet<&str> =
        judges.iter().flat_map(|(_, judge)| &judge.0).map(String::as_str).collect();
    let missing = metric::find(metric, names, &format!("`{judge}` reports")).err();
    missing.map(|message| Diagnostic::error(key, message))
}
