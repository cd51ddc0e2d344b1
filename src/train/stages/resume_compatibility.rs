//! Whether a training can go on from a checkpoint that was named: what fits by its shapes can still
//! mean something else.

use std::collections::BTreeMap;

use pipe_engine::kind::StageError;
use pipe_models::header::OBJECTIVE;
use pipe_runs::Checkpoint;
use pipe_runs::checkpoint::Header;

use crate::checkpoint::{BASE_DIGEST, BASE_WEIGHTS_DIGEST};
use crate::diffusion::ObjectiveKind;
use crate::lora::HEADER_KEY;
use crate::trainer::ModelInfo;

/// Compares a checkpoint with what is about to be trained. Returns what is legal and probably not
/// meant.
///
/// # Errors
/// Factors of LoRA for a whole model or the other way round, and factors that belong to another
/// base model.
pub(super) fn check(
    checkpoint: &Checkpoint,
    file: &str,
    model_info: &ModelInfo,
) -> Result<Option<String>, StageError> {
    let (key, header) = ("checkpoint.resume_checkpoint", checkpoint.header());
    check_holds(checkpoint, key, file, model_info.extra.contains_key(HEADER_KEY))?;
    if is_of_other_base(header, model_info) {
        let text = "was trained on another base model, and would compute something else on this one; leave it out to \
                    begin new LoRA weights";
        return Err(StageError::setting(format!("{file} {text}")).at(key));
    }
    let (theirs, ours) = (objective_of(&header.extra), objective_of(&model_info.extra));
    if theirs != ours {
        return Err(StageError::setting(format!(
            "{file} was trained for another objective, {theirs}, and this training is for {ours}: set `objective` \
             to it, or begin with its weights as `init`"
        )).at(key));
    }
    Ok(other_classes(header, file, model_info))
}

/// Refuses a checkpoint that `key` names and that holds something else than what is trained.
/// `factors`: LoRA's are trained, not a whole model.
pub(super) fn check_holds(
    checkpoint: &Checkpoint,
    key: &str,
    file: &str,
    factors: bool,
) -> Result<(), StageError> {
    let why = match (checkpoint.header().extra.contains_key(HEADER_KEY), factors) {
        _ if checkpoint.is_of_program() => {
            "was written by a training program in a form of its own, which only that program reads"
        }
        (true, false) => {
            "holds LoRA weights alone; make a whole model of it with `pipe ckpt export --merge`, and name that"
        }
        (false, true) => {
            "is a whole model, not LoRA weights; name its stage or a copy of it as `base`"
        }
        _ => return Ok(()),
    };
    Err(StageError::setting(format!("{file} {why}")).at(key))
}

/// What to say of a checkpoint that was trained on classes of other names.
pub(super) fn other_classes(header: &Header, file: &str, model_info: &ModelInfo) -> Option<String> {
    let names = header.extra.get("class_names");
    let names: Vec<String> =
        names.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let differ =
        !names.is_empty() && names != model_info.classes && model_info.config.num_classes() > 0;
    differ.then(|| {
        format!(
            "{file} was trained on the classes {}, this data set has {}: label by label, one takes the other's place",
            names.join(", "),
            model_info.classes.join(", ")
        )
    })
}

/// What a header says of the objective, for people.
pub(super) fn objective_of(extra: &BTreeMap<String, String>) -> String {
    extra.get(OBJECTIVE).cloned().unwrap_or_else(|| ObjectiveKind::default().name().to_owned())
}

/// Whether both say which base model they are for, and it is not the same.
pub(super) fn is_of_other_base(header: &Header, model_info: &ModelInfo) -> bool {
    let differs = |key| {
        header.extra.get(key).zip(model_info.extra.get(key)).map(|(theirs, ours)| theirs != ours)
    };
    differs(BASE_WEIGHTS_DIGEST).or_else(|| differs(BASE_DIGEST)).unwrap_or(false)
}
