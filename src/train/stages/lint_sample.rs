//! Lints of an image grid's settings, before anything is sampled: classes that get no image,
//! guidance that changes nothing.

use pipe_engine::kind::{Diagnostic, PipelineView};

use super::artifacts::CheckpointPreview;
use super::sample_settings::SampleSettings;

/// Lints of a `sample` stage.
pub(super) fn check_sample(settings: &SampleSettings, pipeline: &PipelineView) -> Vec<Diagnostic> {
    let source = pipeline.preview::<CheckpointPreview>(&settings.from);
    let model = source.as_ref().and_then(|source| source.model.as_ref());
    let mut found = Vec::new();
    let named = settings.classes.as_ref().map(Vec::len).filter(|count| *count > 0);
    if let Some(asked) = named.or(model.and_then(|m| m.classes))
        && settings.n < asked
    {
        let n = settings.n;
        let message = format!("{n} images for {asked} classes: the last {} get none", asked - n);
        let note = format!("set n to {asked} or more, or name the classes to sample in `classes`");
        found.push(Diagnostic::warning("n", message).note(note));
    }
    let classes = model.and_then(|model| model.classes);
    let label_dropout = model.map(|model| model.label_dropout);
    let doubts = settings.guidance_check(classes, label_dropout).doubts();
    found.extend(doubts.into_iter().map(|(key, text)| Diagnostic::warning(key, text)));
    found
}
