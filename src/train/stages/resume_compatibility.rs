//! Whether a training can go on from a checkpoint that was named: what fits by its shapes can still
//! mean something else.

use pipe_engine::kind::StageError;
use pipe_runs::checkpoint::Header;

use crate::checkpoint::{BASE_DIGEST, BASE_WEIGHTS_DIGEST};
use crate::lora::HEADER_KEY;
use crate::trainer::ModelInfo;

/// Compares a checkpoint's header with what is about to be trained. Returns what is legal and
/// probably not meant.
///
/// # Errors
/// Factors of LoRA for a whole model or the other way round, and factors that belong to another
/// base model.
pub(super) fn check(
    header: &Header,
    file: &str,
    model_info: &ModelInfo,
) -> Result<Option<String>, StageError> {
    let refuse =
        |why: &str| Err(StageError::setting(format!("checkpoint.resume_checkpoint: {file} {why}")));
    match (header.extra.contains_key(HEADER_KEY), model_info.extra.contains_key(HEADER_KEY)) {
        (true, false) => {
            return refuse(
                "holds LoRA weights alone; make a whole model of it with `pipe ckpt export --merge`, and name that",
            );
        }
        (false, true) => {
            return refuse(
                "is a whole model, not LoRA weights; name its stage or a copy of it as `base`",
            );
        }
        (false, false) => {}
        (true, true) if is_of_other_base(header, model_info) => {
            return refuse(
                "was trained on another base model, and would compute something else on this one; leave it out to \
                 begin new LoRA weights",
            );
        }
        (true, true) => {}
    }
    let names = header.extra.get("class_names");
    let names: Vec<String> =
        names.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let differ =
        !names.is_empty() && names != model_info.classes && model_info.config.num_classes() > 0;
    Ok(differ.then(|| {
        format!(
            "{file} was trained on the classes {}, this data set has {}: label by label, one takes the other's place",
            names.join(", "),
            model_info.classes.join(", ")
        )
    }))
}

/// Whether both say which base model they are for, and it is not the same.
fn is_of_other_base(header: &Header, model_info: &ModelInfo) -> bool {
    let differs = |key| {
        header.extra.get(key).zip(model_info.extra.get(key)).map(|(theirs, ours)| theirs != ours)
    };
    differs(BASE_WEIGHTS_DIGEST).or_else(|| differs(BASE_DIGEST)).unwrap_or(false)
}
