//! What the header of a checkpoint says of its model besides the config.

use pipe_runs::Checkpoint;

use crate::diffusion::Objective;

/// Key of a LoRA checkpoint's header: content digest of its base model.
pub const BASE_DIGEST: &str = "base_digest";

/// Key of a LoRA checkpoint's header: digest of the weights of its base model.
pub const BASE_WEIGHTS_DIGEST: &str = "base_weights_digest";

/// Key of a LoRA checkpoint's header: prefix of the base's weights that the factors belong to.
pub const BASE_WEIGHTS: &str = "base_weights";

/// Key of a checkpoint's header: share of images that its model was trained on without their label.
pub const LABEL_DROPOUT: &str = "label_dropout";

/// Key of a checkpoint's header: what its model was trained for, as JSON; absent for EDM's
/// objective with the constants of its paper.
pub const OBJECTIVE: &str = "objective";

/// What a checkpoint's model was trained for.
///
/// # Errors
/// An objective that this version does not know.
pub fn objective(checkpoint: &Checkpoint) -> Result<Objective, serde_json::Error> {
    let text = checkpoint.header().extra.get(OBJECTIVE);
    text.map_or_else(|| Ok(Objective::default()), |text| serde_json::from_str(text))
}

/// What the header of a model's checkpoint says of its objective.
pub fn describe_objective(objective: Objective) -> Option<(String, String)> {
    let text = serde_json::to_string(&objective).ok()?;
    (objective != Objective::default()).then(|| (OBJECTIVE.to_owned(), text))
}

/// The classes that a checkpoint's model was trained on; empty if it does not say.
pub fn class_names(checkpoint: &Checkpoint) -> Vec<String> {
    let text = checkpoint.header().extra.get("class_names");
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The share of images that a checkpoint's model was trained on without their label; `None` if it
/// does not say.
pub fn label_dropout(checkpoint: &Checkpoint) -> Option<f64> {
    checkpoint.header().extra.get(LABEL_DROPOUT)?.parse().ok()
}
