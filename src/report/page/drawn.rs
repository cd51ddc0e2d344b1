//! What a stage drew from checkpoints, as far as the page shows it.

use std::collections::HashSet;
use std::path::Path;

use pipe_engine::state::{Output, Outputs, Record};
use pipe_fs::ProjectRoot;
use pipe_trainer::epoch_places::epoch_in_name;
use serde_json::Value;

use super::samples::ImageGrid;

/// Whether a stage made it of each checkpoint of a training.
pub(super) fn follows(made: &Outputs) -> bool {
    made.manifest.get("each_checkpoint").and_then(Value::as_bool) == Some(true)
}

/// What a stage drew. Of one that looks at each checkpoint what its `to` names, and else what it
/// drew from the best one: the others are counted.
pub(super) fn of_record(
    root: &ProjectRoot,
    record: &Record,
    made: &Outputs,
    best: Option<u64>,
) -> Vec<ImageGrid> {
    // What a `sample` stage makes are pictures, in whatever form.
    let draws = record.kind == "sample";
    let grid = |output: &&Output| ImageGrid::of(root, &record.stage, output, draws);
    if !follows(made) {
        return made.outputs.iter().filter_map(|output| grid(&output)).collect();
    }
    let to = made.manifest.get("to").and_then(Value::as_str).map(Path::new);
    let epoch = |output: &Output| {
        let path = Path::new(&output.path);
        if to == Some(path) { None } else { epoch_of(path) }
    };
    let pictures: Vec<(Option<u64>, &Output, ImageGrid)> = made
        .outputs
        .iter()
        .filter_map(|output| Some((epoch(output), output, grid(&output)?)))
        .collect();
    let has = |wanted: Option<u64>| pictures.iter().any(|(epoch, ..)| *epoch == wanted);
    let newest = pictures.iter().filter_map(|(epoch, ..)| *epoch).max();
    let shown = [None, best, newest].into_iter().find(|epoch| has(*epoch)).flatten();
    let is_shown = |epoch: &Option<u64>| *epoch == shown;
    let same: HashSet<&str> = pictures
        .iter()
        .filter(|(epoch, ..)| is_shown(epoch))
        .map(|(_, output, _)| output.digest.as_str())
        .collect();
    let others = pictures
        .iter()
        .filter(|(epoch, output, _)| !is_shown(epoch) && !same.contains(output.digest.as_str()));
    let others = others.count();
    let mut grids: Vec<ImageGrid> =
        pictures.into_iter().filter(|(epoch, ..)| is_shown(epoch)).map(|(.., grid)| grid).collect();
    if let Some(last) = grids.last_mut() {
        last.others = others;
    }
    grids
}

/// The epoch of whose checkpoint a file is, as a folder or the end of its name says.
fn epoch_of(path: &Path) -> Option<u64> {
    let epoch = |part: &Path| {
        let name = part.file_stem()?.to_str()?;
        epoch_in_name(name.get(name.rfind("epoch_")?..)?)
    };
    path.iter().filter_map(|part| epoch(Path::new(part))).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_stands_in_the_name_of_a_file_or_of_its_folder() {
        for (path, epoch) in [
            ("a/grid_epoch_012.png", Some(12)),
            ("quality/epoch_003/nearest.png", Some(3)),
            ("epoch_002/x/epoch_1.png", Some(2)),
            ("grid.png", None),
        ] {
            assert_eq!(epoch_of(Path::new(path)), epoch, "{path}");
        }
    }
}
