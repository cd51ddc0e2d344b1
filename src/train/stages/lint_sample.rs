//! Lints of an image grid's settings, before anything is sampled: classes that get no image,
//! guidance that changes nothing.

use pipe_engine::kind::{Diagnostic, PipelineView};

use super::artifacts::CheckpointPreview;
use super::sample_settings::SampleSettings;
use crate::data::find_class;
use crate::sampling::unknown_class;

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
    let known = match classes {
        Some(0) => Some(&[][..]),
        _ => model.and_then(|model| model.class_names.as_deref()),
    };
    if let Some(known) = known {
        let asked = settings.classes.iter().flatten();
        let unknown = asked.filter(|class| !may_be_known(class, known));
        found
            .extend(unknown.map(|class| Diagnostic::error("classes", unknown_class(class, known))));
    }
    let label_dropout = model.map(|model| model.label_dropout);
    let doubts = settings.guidance_check(classes, label_dropout).doubts();
    found.extend(doubts.into_iter().map(|(key, text)| Diagnostic::warning(key, text)));
    found
}

/// Whether a model may have this class. A data set's list may spell it in another way than the data
/// set itself does.
pub(super) fn may_be_known(class: &String, known: &[String]) -> bool {
    let is_found = |name: &str, all: &[String]| !matches!(find_class(name, all), Ok(None));
    is_found(class, known) || known.iter().any(|name| is_found(name, std::slice::from_ref(class)))
}
