//! The model that guides another one: loaded, and checked to be of the same images.

use std::path::Path;

use burn::tensor::Device;

use super::rebuild::{RebuildError, SamplingModel, load_for_sampling};
use crate::architecture::Architectures;

/// Why a model was not loaded as a guide.
#[derive(Debug, thiserror::Error)]
pub enum GuideError {
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    #[error("{file} {why}")]
    Unfit { file: String, why: String },
}

/// Loads a checkpoint as the guide of a model: see [`load_for_sampling`]. The model's pictures say
/// its digest from now on.
///
/// # Errors
/// What loading reports, and a checkpoint of other images or classes.
pub fn load_guide(
    known: &Architectures,
    file: &Path,
    ema: bool,
    device: &Device,
    model: &mut SamplingModel,
) -> Result<SamplingModel, GuideError> {
    let guide = load_for_sampling(known, file, None, ema, device)?;
    let unfit = |why| GuideError::Unfit { file: file.display().to_string(), why };
    let both = [&*model, &guide];
    let shapes = both.map(|model| (model.config.image_size(), model.config.channels()));
    let classes = both.map(|model| model.config.num_classes());
    if let Some(why) = no_guide(Some(shapes), Some(classes)) {
        return Err(unfit(why));
    }
    let [ours, theirs] = both.map(|model| &model.class_names);
    if ours != theirs && !ours.is_empty() && !theirs.is_empty() {
        let (ours, theirs) = (ours.join(", "), theirs.join(", "));
        let why = format!("is no guide for this model: its classes are {theirs}, and not {ours}");
        return Err(unfit(why));
    }
    let digest = guide.source.iter().find(|(key, _)| *key == "checkpoint");
    let digest = digest.map(|(_, digest)| ("guide", digest.clone()));
    model.source.extend(digest);
    Ok(guide)
}

/// Why a model is no guide for another one, as far as is known of both, the guided one first: its
/// images, by side and channels, and the number of its classes.
pub fn no_guide(
    shapes: Option<[(usize, usize); 2]>,
    classes: Option<[usize; 2]>,
) -> Option<String> {
    if let Some([ours, theirs]) = shapes.filter(|[ours, theirs]| ours != theirs) {
        let words = |(size, channels)| format!("{size} x {size} pixels in {channels} channels");
        return Some(format!(
            "is no guide for this model: its images have {}, and not {}",
            words(theirs),
            words(ours)
        ));
    }
    let [ours, theirs] = classes.filter(|[ours, theirs]| ours != theirs)?;
    Some(format!("is no guide for this model: it knows {theirs} classes, and not {ours}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guide_makes_the_same_images() {
        let why = |shapes, classes| no_guide(shapes, classes).unwrap_or_default();
        assert_eq!(why(Some([(32, 3); 2]), Some([10; 2])), "");
        assert_eq!(why(None, None), "");
        let other = why(Some([(32, 3), (16, 3)]), None);
        assert!(
            other.ends_with("16 x 16 pixels in 3 channels, and not 32 x 32 pixels in 3 channels")
        );
        assert!(why(None, Some([10, 0])).ends_with("it knows 0 classes, and not 10"));
    }
}
