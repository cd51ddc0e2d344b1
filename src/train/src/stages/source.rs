//! Whether a training can go on from a checkpoint that was named: what fits by its shapes can still
//! mean something else.

use pipe_engine::kind::StageError;
use pipe_engine::store::checkpoint::Header;

use super::training::setting;
use crate::checkpoint::{BASE_DIGEST, BASE_WEIGHTS_DIGEST};
use crate::fit::About;
use crate::lora::HEADER_KEY;

/// Compares a checkpoint's header with what is about to be trained. Returns what is legal and
/// probably not meant.
///
/// # Errors
/// Factors of LoRA for a whole model or the other way round, and factors that belong to another
/// base model.
pub(super) fn check(
    header: &Header,
    file: &str,
    about: &About,
) -> Result<Option<String>, StageError> {
    let refuse = |why: &str| Err(setting(format!("checkpoint.resume_checkpoint: {file} {why}")));
    match (header.extra.contains_key(HEADER_KEY), about.extra.contains_key(HEADER_KEY)) {
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
        (true, true) if is_of_other_base(header, about) => {
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
    let differ = !names.is_empty() && names != about.classes && about.config.num_classes() > 0;
    Ok(differ.then(|| {
        format!(
            "{file} was trained on the classes {}, this data set has {}: label by label, one takes the other's place",
            names.join(", "),
            about.classes.join(", ")
        )
    }))
}

/// Whether both say which base model they are for, and it is not the same.
fn is_of_other_base(header: &Header, about: &About) -> bool {
    let differs =
        |key| header.extra.get(key).zip(about.extra.get(key)).map(|(theirs, ours)| theirs != ours);
    differs(BASE_WEIGHTS_DIGEST).or_else(|| differs(BASE_DIGEST)).unwrap_or(false)
}
