//! A new training that begins with the weights of a checkpoint, `init`: whether they fit, and which
//! of them are taken over. It begins at epoch 0; a position goes with
//! [`resume_checkpoint`](super::resume_checkpoint).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use pipe_engine::identity::{Difference, differences, in_words};
use pipe_engine::kind::{Artifact, StageError};
use pipe_runs::{Checkpoint, Loaded};
use serde_json::Value;

use super::artifacts::Checkpoints;
use super::resume_compatibility::{check_holds, is_of_other_base, objective_of, other_classes};
use crate::architecture::{LABEL_TABLE, ModelConfig, Network};
use crate::lora::HEADER_KEY;
use crate::nn::{Scope, param_paths};
use crate::trainer::{
    EMA_WEIGHTS, InitSettings, InitWeights, ModelInfo, OPTIMIZER_STATE, Taken, WEIGHTS,
};

/// The setting's key.
pub(super) const KEY: &str = "init";

/// What of a checkpoint a training begins with.
pub(super) struct Beginning {
    pub taken: Taken,
    /// Lines for people.
    pub notes: Vec<String>,
    /// What is legal and probably not meant.
    pub doubts: Vec<String>,
}

/// The checkpoint that is named, its header alone; `None` if its stage has yet to make it.
pub(super) fn open(
    init: &InitSettings,
    inputs: &BTreeMap<String, Artifact>,
    root: &Path,
) -> Result<Option<Checkpoint>, StageError> {
    let path = match init.file() {
        Some(file) => Some(root.join(file)),
        None => inputs.get(KEY).and_then(Checkpoints::best_of).map(|best| best.path),
    };
    let opened = path.map(|path| Checkpoint::open(&path)).transpose();
    opened.map_err(|e| StageError::setting(e.to_string()).at(KEY))
}

/// The same where it must be there.
pub(super) fn require(
    init: &InitSettings,
    inputs: &BTreeMap<String, Artifact>,
    root: &Path,
) -> Result<Checkpoint, StageError> {
    let none = || {
        StageError::setting(format!("stage {} has no checkpoint to begin with", init.from)).at(KEY)
    };
    open(init, inputs, root)?.ok_or_else(none)
}

/// Reads the checkpoint with its tensors.
pub(super) fn load(file: Checkpoint) -> Result<Loaded, StageError> {
    file.load().map_err(|e| StageError::setting(e.to_string()).at(KEY))
}

/// What is taken of a checkpoint for a training of this model.
///
/// # Errors
/// A checkpoint of another model, of LoRA's factors for a whole model or the other way round, of
/// factors beside other layers or of other ranks, and one without an optimizer's state where that
/// is wanted.
pub(super) fn beginning(
    init: &InitSettings,
    file: &Checkpoint,
    (model, scope): (&Network, &Scope),
    info: &ModelInfo,
) -> Result<Beginning, StageError> {
    let (header, shown) = (file.header(), file.path().display().to_string());
    let refuse = |why: String| StageError::setting(format!("{shown} {why}")).at(KEY);
    check_holds(file, KEY, &shown, info.extra.contains_key(HEADER_KEY))?;
    let ours = serde_json::to_value(&info.config).unwrap_or_default();
    if let Some(why) = other_model(&header.model_config, &ours) {
        return Err(refuse(format!("{why}; {OTHER_MODEL}")));
    }
    if let Some(why) = other_factors(&header.extra, &info.extra) {
        return Err(refuse(why));
    }
    let has = |prefix: &str| file.tensors().any(|t| t.name.starts_with(prefix));
    if init.optimizer && !has(OPTIMIZER_STATE) {
        return Err(refuse("holds no optimizer's state; leave `optimizer: true` out".to_owned()));
    }
    let is_ema = init.weights == InitWeights::Ema && has(EMA_WEIGHTS);
    let prefix = if is_ema { EMA_WEIGHTS } else { WEIGHTS };
    let theirs: BTreeMap<&str, &[usize]> = file
        .tensors()
        .filter_map(|t| Some((t.name.strip_prefix(prefix)?, t.shape.as_slice())))
        .collect();
    let params = param_paths(model).into_iter().filter(|(_, name, _)| scope.holds(name));
    let params: BTreeMap<String, Vec<usize>> = params.map(|(_, name, at)| (name, at)).collect();
    let fits = |name: &str, shape: &[usize]| theirs.get(name).is_some_and(|found| *found == shape);
    let table = params.get(LABEL_TABLE);
    let new_table = table.is_some_and(|shape| !fits(LABEL_TABLE, shape));
    let taken: BTreeSet<String> =
        params.keys().filter(|name| !(new_table && *name == LABEL_TABLE)).cloned().collect();
    let unfit: Vec<&str> = taken
        .iter()
        .filter(|name| !params.get(*name).is_some_and(|shape| fits(name, shape)))
        .map(String::as_str)
        .chain(theirs.keys().copied().filter(|n| *n != LABEL_TABLE && !params.contains_key(*n)))
        .collect();
    if let Some(first) = unfit.first() {
        let more = unfit.len() - 1;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return Err(refuse(format!(
            "does not fit: `{first}`{more} is missing, of another shape, or no part of the model"
        )));
    }
    let mut doubts = Vec::new();
    if is_of_other_base(header, info) {
        doubts.push(format!("{shown} was trained on another base model than this one"));
    }
    let (theirs, ours) = (objective_of(&header.extra), objective_of(&info.extra));
    if theirs != ours {
        doubts.push(format!(
            "{shown} was trained for another objective, {theirs}: for {ours} its output means something else at first"
        ));
    }
    if !new_table {
        doubts.extend(other_classes(header, &shown, info));
    }
    let notes = label_notes(file, info, new_table, table.is_some());
    let scope = Scope::Only(Arc::new(taken));
    let taken = Taken { prefix, scope, optimizer: init.optimizer };
    Ok(Beginning { taken, notes, doubts })
}

/// What becomes of the label table, where it is not taken over.
fn label_notes(file: &Checkpoint, info: &ModelInfo, new: bool, trained: bool) -> Vec<String> {
    let header = file.header();
    let theirs = header.model_config["num_classes"].as_u64().unwrap_or(0);
    let ours = info.config.num_classes();
    let is_lora = info.extra.contains_key(HEADER_KEY);
    if new {
        let begins = if is_lora { "as the base model's \"no class\"" } else { "from the seed" };
        return vec![format!(
            "The label table is initialised anew, {begins}: {theirs} classes in the checkpoint, {ours} here"
        )];
    }
    let has_table = file.tensors().any(|t| t.name.ends_with(LABEL_TABLE));
    let left_out = has_table && !trained;
    let text = "The checkpoint's label table is left out: this training has none of its own";
    Vec::from_iter(left_out.then(|| text.to_owned()))
}

/// What to do about a checkpoint of another model.
pub(super) const OTHER_MODEL: &str = "set `model`, and `image_size` of the data set, to what it was trained with, or leave `init` out";

/// How the config of a checkpoint's model and that of one that is to begin with it differ, but for
/// the number of classes.
pub(super) fn other_model(theirs: &Value, ours: &Value) -> Option<String> {
    let of = |config: &Value| -> BTreeMap<String, Value> {
        let keys = config.as_object().into_iter().flatten();
        let keys = keys.filter(|(key, value)| *key != "num_classes" && !value.is_null());
        keys.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let different: Vec<Difference> = differences(&of(theirs), &of(ours));
    (!different.is_empty()).then(|| format!("holds another model: {}", in_words(&different)))
}

/// The same of two networks.
pub(super) fn other_network(theirs: &ModelConfig, ours: &ModelConfig) -> Option<String> {
    let json = |config| serde_json::to_value(config).unwrap_or_default();
    other_model(&json(theirs), &json(ours))
}

/// What differs between the layers and ranks of LoRA's factors, of two headers.
fn other_factors(
    theirs: &BTreeMap<String, String>,
    ours: &BTreeMap<String, String>,
) -> Option<String> {
    let ranks = |header: &BTreeMap<String, String>| -> Option<BTreeMap<String, Value>> {
        let described: Value = serde_json::from_str(header.get(HEADER_KEY)?).ok()?;
        serde_json::from_value(described["plan"]["ranks"].clone()).ok()
    };
    let (theirs, ours) = (ranks(theirs)?, ranks(ours)?);
    let different = differences(&theirs, &ours);
    let first = different.first()?;
    let rank = |rank: &Option<Value>| match rank {
        Some(rank) => format!("has rank {rank}"),
        None => "has no factors".to_owned(),
    };
    let more = match different.len() {
        1 => String::new(),
        n => format!(", and {} more differ", n - 1),
    };
    Some(format!(
        "was trained with other LoRA settings: `{}` {} in it, and {} here{more}; set `lora.r`, `lora.target_modules` \
         and `lora.rank_pattern` to what it was trained with",
        first.key,
        rank(&first.old),
        rank(&first.new).replacen("has ", "", 1)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_number_of_classes_is_no_other_model() {
        let base = json!({"dim": 16, "image_size": 8, "num_classes": 2});
        let same = json!({"dim": 16, "image_size": 8, "num_classes": 7});
        assert_eq!(other_model(&base, &same), None);
        let other = json!({"dim": 32, "image_size": 8, "num_classes": 2});
        assert_eq!(other_model(&base, &other).unwrap(), "holds another model: dim 16 -> 32");
        let arch = json!({"arch": "unet", "dim": 16, "image_size": 8, "num_classes": 2});
        assert_eq!(other_model(&base, &arch).unwrap(), "holds another model: arch unset -> unet");
    }

    #[test]
    fn factors_of_other_ranks_or_layers_name_the_first() {
        let header = |ranks: Value| {
            let text = json!({"config": {}, "plan": {"ranks": ranks, "scales": {}}}).to_string();
            BTreeMap::from([(HEADER_KEY.to_owned(), text)])
        };
        let a = header(json!({"x.qkv": 4, "x.proj": 4}));
        assert_eq!(other_factors(&a, &a), None);
        let said = other_factors(&a, &header(json!({"x.qkv": 8, "x.proj": 4}))).unwrap();
        assert!(said.contains("`x.qkv` has rank 4 in it, and rank 8 here;"), "{said}");
        let said = other_factors(&a, &header(json!({"x.proj": 4, "y": 4, "x.qkv": 4}))).unwrap();
        assert!(said.contains("`y` has no factors in it, and rank 4 here;"), "{said}");
        assert_eq!(other_factors(&BTreeMap::new(), &a), None, "a whole model has another error");
    }
}
