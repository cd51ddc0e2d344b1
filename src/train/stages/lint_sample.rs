//! Lints of an image grid's settings, before anything is sampled: classes that get no image,
//! guidance that changes nothing.

use pipe_engine::kind::{Diagnostic, PipelineView};

use super::artifacts::{CheckpointPreview, ModelPreview};
use super::sample_settings::SampleSettings;
use crate::data::{DatasetSettings, find_class};
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
    found.extend(check_classes(settings.classes.as_deref(), model));
    let classes = model.and_then(|model| model.classes);
    let label_dropout = model.map(|model| model.label_dropout);
    let doubts = settings.guidance_check(classes, label_dropout).doubts();
    found.extend(doubts.into_iter().map(|(key, text)| Diagnostic::warning(key, text)));
    found
}

/// Refuses classes to sample that the model will not have.
pub(super) fn check_classes(
    asked: Option<&[String]>,
    model: Option<&ModelPreview>,
) -> Vec<Diagnostic> {
    let known = match model.and_then(|model| model.classes) {
        Some(0) => Some(&[][..]),
        _ => model.and_then(|model| model.class_names.as_deref()),
    };
    let Some(known) = known else { return Vec::new() };
    let unknown = asked.into_iter().flatten().filter(|class| !may_be_known(class, known));
    unknown.map(|class| Diagnostic::error("classes", unknown_class(class, known))).collect()
}

/// Refuses a data set with a class that the model will not have, for what takes the model's label of
/// each image. A model without classes takes all images.
pub(super) fn check_labels(
    data: &DatasetSettings,
    model: Option<&ModelPreview>,
) -> Option<Diagnostic> {
    let model = model.filter(|model| model.classes != Some(0))?;
    let (known, all) = (model.class_names.as_deref()?, data.class_names()?);
    let unknown = all.iter().find(|class| !may_be_known(class, known))?;
    Some(
        Diagnostic::error("dataset", unknown_class(unknown, known))
            .note("val_loss is of images with the model's classes; metrics of pictures take any"),
    )
}

/// Whether a model may have this class. A data set's list may spell it in another way than the data
/// set itself does.
pub(super) fn may_be_known(class: &String, known: &[String]) -> bool {
    let is_found = |name: &str, all: &[String]| !matches!(find_class(name, all), Ok(None));
    is_found(class, known) || known.iter().any(|name| is_found(name, std::slice::from_ref(class)))
}
