//! Stages that were made of one, by a matrix or by `--sweep`, and write the same file: a name for
//! each.

use std::path::{Path, PathBuf};

use pipe_core::ids::StageId;

use crate::pipeline_file::overrides::Override;
use crate::pipeline_file::pipeline::PipelineFile;

/// How members of one matrix get a file each, where two of them write the same one: what to write.
pub(super) fn of_matrix(
    stage: &StageId,
    other: &StageId,
    key: &str,
    path: &Path,
) -> Option<String> {
    if stage.declared() != other.declared() {
        return None;
    }
    let values = |id: &StageId| -> Vec<String> {
        let named = id.as_str().split_once('@').map_or("", |(_, values)| values);
        named.split(',').map(str::to_owned).collect()
    };
    let others = values(other);
    let differs = values(stage).into_iter().find(|value| !others.contains(value))?;
    let (setting, _) = differs.split_once('=')?;
    let own = named(path, [setting].into_iter())?;
    let own = own.to_str()?;
    let own = if key == "to" { own.to_owned() } else { format!("[{own}]") };
    let set = format!("{}.{key}={own}", stage.declared());
    Some(format!(
        "give each a file of its own: `{key}: {own}`, or --set {} beside --sweep",
        pipe_core::shell::quote(&set)
    ))
}

/// The setting that does it, where `--sweep` alone has made the stages: what they write is one file,
/// named by the setting `to`.
pub(super) fn of_sweep(
    file: &PipelineFile,
    stage: &StageId,
    other: &StageId,
    key: &str,
    path: &Path,
) -> Option<Override> {
    let declared = file.stage(stage.declared())?;
    let is_swept = stage.declared() == other.declared() && !declared.swept.is_empty();
    if key != "to" || !is_swept || declared.body.contains_key("matrix") {
        return None;
    }
    let own = named(path, declared.swept.iter().map(|swept| swept.key.as_str()))?;
    let shown = declared.swept.first()?.by.shown.clone();
    Override::new(&format!("{}.{key}", declared.id), own.to_str()?, shown).ok()
}

/// The path with the values of these keys of the matrix behind the file's name.
fn named<'a>(path: &Path, keys: impl Iterator<Item = &'a str>) -> Option<PathBuf> {
    let stem = path.file_stem()?.to_str()?;
    let ending = path.extension().and_then(|ending| ending.to_str());
    let ending = ending.map(|ending| format!(".{ending}")).unwrap_or_default();
    let values: String = keys.map(|key| format!("_${{matrix.{key}}}")).collect();
    Some(path.with_file_name(format!("{stem}{values}{ending}")))
}
