//! Stages that were made of one, by a matrix or by `--sweep`, and write the same file: a name for
//! each.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pipe_core::error::SpecError;
use pipe_core::ids::StageId;

use crate::graph::LoadedStage;
use crate::pipeline_file::overrides::Override;
use crate::pipeline_file::pipeline::PipelineFile;
use crate::pipeline_file::values::error_at;
use crate::source::Part;

/// How members of one matrix get a file each, where two of them write the same one: what to write.
pub(super) fn of_matrix(
    file: &PipelineFile,
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
    // As it stands in the file, so that values of the matrix that are in it already stay.
    let declared = file.stage(stage.declared()).and_then(|stage| stage.body.get(key));
    let declared = declared.and_then(|value| match value.as_array().map(Vec::as_slice) {
        Some([only]) => only.as_str(),
        Some(_) => None,
        None => value.as_str(),
    });
    let own = named(declared.map_or(path, Path::new), [setting].into_iter())?;
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

/// What is wrong with stages that read, by its path, a file which `--sweep` gives other names: they
/// would read one of an earlier run.
pub(super) fn read_by_path(
    file: &PipelineFile,
    stages: &[LoadedStage],
    shared: &[&Path],
) -> Vec<SpecError> {
    let mut found: Vec<SpecError> = Vec::new();
    let mut told = BTreeSet::new();
    for stage in stages {
        for (key, read) in
            stage.files.reads.iter().filter(|(_, read)| !read.contains(['*', '?', '[']))
        {
            let read_path: PathBuf = Path::new(read).components().collect();
            let maker = shared.iter().find(|path| read_path.starts_with(path));
            if maker.is_none() || !told.insert((stage.id.declared(), key, read)) {
                continue;
            }
            let at = ["stages", stage.id.declared(), key.as_str()];
            let message = format!("{read} would have another name for each value of --sweep");
            let error = error_at(&file.source, &at, Part::Value, message);
            found.push(error.note(
                "refer to the stage that makes it and not to the file, so that this stage is swept with it",
            ));
        }
    }
    found
}

/// The path with the values of these keys of the matrix behind the file's name.
fn named<'a>(path: &Path, keys: impl Iterator<Item = &'a str>) -> Option<PathBuf> {
    let stem = path.file_stem()?.to_str()?;
    let ending = path.extension().and_then(|ending| ending.to_str());
    let ending = ending.map(|ending| format!(".{ending}")).unwrap_or_default();
    let values: String = keys.map(|key| format!("_${{matrix.{key}}}")).collect();
    Some(path.with_file_name(format!("{stem}{values}{ending}")))
}
