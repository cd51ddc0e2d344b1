//! A training that starts from a checkpoint file of another one, `checkpoint.resume_checkpoint`:
//! whether it can, and what of the file's position counts. A position inside an epoch is taken over
//! only by the settings that it was reached with.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use pipe_engine::identity::{differences, in_words};
use pipe_engine::kind::{Files, StageError, is_inside_project};
use pipe_runs::{Checkpoint, Header, Loaded, Metadata};
use serde_json::Value;

use crate::trainer::{InitSettings, Position, TrainingSettings};
use pipe_trainer::run_match::{INIT_CONTENT, RESUME_CONTENT};

/// Key of a checkpoint's header: the settings that its position depends on, as JSON.
pub(super) const REACHED_WITH: &str = "reached_with";

/// Settings by key.
pub(super) type Settings = BTreeMap<String, Value>;

/// The settings that name a checkpoint file to begin from: each with its key, the key of its content
/// in a manifest, and the file.
fn named(settings: &TrainingSettings) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
    let resumed = settings.checkpoint.resume_checkpoint.as_deref();
    let init = settings.init.as_ref().and_then(InitSettings::file);
    let resumed = resumed.map(|file| ("checkpoint.resume_checkpoint", RESUME_CONTENT, file));
    resumed.into_iter().chain(init.map(|file| ("init", INIT_CONTENT, file)))
}

/// The files, as something that other stages may write.
pub(super) fn files(settings: &TrainingSettings) -> Files {
    let plain =
        |file: &Path| file.components().filter(|c| *c != Component::CurDir).collect::<PathBuf>();
    let reads = named(settings)
        .filter(|(.., file)| is_inside_project(Path::new(file)))
        .map(|(key, _, file)| (key.to_owned(), plain(Path::new(file)).display().to_string()));
    Files { reads: reads.collect(), writes: Vec::new() }
}

/// The files' digests, as runs note those of their checkpoints; none of a file that is not there.
pub(super) fn content(settings: &TrainingSettings, root: &Path) -> BTreeMap<String, String> {
    let digest = |(_, key, file): (_, &str, &str)| {
        let opened = Checkpoint::open(&root.join(file)).ok()?;
        Some((key.to_owned(), opened.head_digest().to_owned()))
    };
    named(settings).filter_map(digest).collect()
}

/// Opens the file, if one is named.
///
/// # Errors
/// A file that is not there or is no checkpoint, and one that is already as far as the training is
/// to go.
pub(super) fn open(
    settings: &TrainingSettings,
    root: &Path,
) -> Result<Option<Checkpoint>, StageError> {
    let Some(file) = &settings.checkpoint.resume_checkpoint else { return Ok(None) };
    let key = "checkpoint.resume_checkpoint";
    let opened = Checkpoint::open(&root.join(file))
        .map_err(|e| StageError::setting(e.to_string()).at(key))?;
    let (done, epochs) = (opened.header().epoch, settings.epochs);
    if done >= epochs {
        return Err(StageError::setting(format!(
            "{file} is at epoch {done}, and `epochs` is {epochs} in all, so nothing would be trained; set \
             `epochs` to {} or more",
            done + 1
        )).at(key));
    }
    Ok(Some(opened))
}

/// Reads the file with its tensors, if one is named.
///
/// # Errors
/// Those of [`open`], and a file that was altered since it was written.
pub(super) fn load(settings: &TrainingSettings, root: &Path) -> Result<Option<Loaded>, StageError> {
    let loaded = open(settings, root)?.map(Checkpoint::load).transpose();
    loaded.map_err(|e| StageError::setting(e.to_string()).at("checkpoint.resume_checkpoint"))
}

/// The settings that an epoch's steps and losses depend on, out of a manifest. `data`: digest of
/// the data set.
pub(super) fn of_position(manifest: &BTreeMap<String, Value>, data: &str) -> Settings {
    let decides = |key: &str| {
        matches!(key, "batch_size" | "accumulate_grad_batches" | "seed")
            || key.starts_with("dataset.")
    };
    let settings = manifest.iter().filter(|(key, _)| decides(key));
    let data = ("dataset".to_owned(), data.into());
    settings.map(|(key, value)| (key.clone(), value.clone())).chain([data]).collect()
}

/// The settings that a checkpoint's position was reached with: it says so itself, or the run that
/// it lies in does.
pub(super) fn reached_with(path: &Path, header: &Header) -> Option<Settings> {
    if let Some(text) = header.extra.get(REACHED_WITH) {
        return serde_json::from_str(text).ok();
    }
    let run: PathBuf = path.ancestors().nth(2)?.into();
    let metadata = Metadata::load(&run.join("metadata.json")).ok()?;
    let is_its_run = metadata.identity == header.identity;
    is_its_run.then(|| of_position(&metadata.manifest, &metadata.dataset.digest))
}

/// Where a training begins with a checkpoint of another one, and what to say about it. `then`: the
/// settings of its position, if they are known; `now` those of the training; `before`: its steps in
/// the completed epochs.
pub(super) fn begin(
    header: &Header,
    then: Option<&Settings>,
    now: &Settings,
    before: u64,
) -> (Position, Option<String>) {
    let inside = header.step_in_epoch > 0;
    if then == Some(now) || (then.is_none() && !inside) {
        return (Position::of(header), None);
    }
    let (epoch, step) = (header.epoch + 1, header.step_in_epoch);
    let why = match then {
        Some(then) => format!("reached with other settings: {}", in_words(&differences(then, now))),
        None => "and the settings that it was reached with are not known".to_owned(),
    };
    let text = format!(
        "the checkpoint is inside epoch {epoch}, at step {step}, {why}; epoch {epoch} begins at its start"
    );
    let position = Position { epoch: header.epoch, global_step: before, ..Position::default() };
    (position, inside.then_some(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn header(epoch: u64, step_in_epoch: u64) -> Header {
        Header {
            epoch,
            global_step: epoch * 10 + step_in_epoch,
            step_in_epoch,
            metrics: BTreeMap::new(),
            scheduler_state_dict: Value::Null,
            loop_state: json!({}),
            saved_at: chrono::Utc::now(),
            identity: String::new(),
            seed: 0,
            model_config: Value::Null,
            extra: BTreeMap::new(),
        }
    }

    fn settings(batch_size: u64) -> Settings {
        let manifest = json!({"batch_size": batch_size, "seed": 1, "learning_rate": 0.1, "dataset.val_split": 0.1});
        of_position(&serde_json::from_value(manifest).unwrap(), "d")
    }

    #[test]
    fn a_position_is_taken_over_by_the_settings_it_was_reached_with() {
        let (position, said) = begin(&header(2, 4), Some(&settings(8)), &settings(8), 20);
        assert_eq!((position.epoch, position.global_step, position.step_in_epoch), (2, 24, 4));
        assert_eq!(said, None);
        assert!(!settings(8).contains_key("learning_rate"), "another rate changes no position");
    }

    #[test]
    fn by_other_settings_the_epoch_begins_at_its_start() {
        let (position, said) = begin(&header(2, 4), Some(&settings(8)), &settings(16), 10);
        assert_eq!((position.epoch, position.global_step, position.step_in_epoch), (2, 10, 0));
        let said = said.unwrap();
        assert!(said.contains("batch_size 8 -> 16; epoch 3 begins at its start"), "{said}");
        let (position, said) = begin(&header(2, 0), Some(&settings(8)), &settings(16), 10);
        assert_eq!(
            (position.global_step, said),
            (10, None),
            "steps are counted in those of this training"
        );
    }

    #[test]
    fn of_a_file_that_does_not_say_only_whole_epochs_count() {
        let (position, said) = begin(&header(0, 4), None, &settings(8), 0);
        assert_eq!((position.global_step, position.step_in_epoch), (0, 0));
        assert!(said.unwrap().contains("are not known; epoch 1 begins at its start"));
        let (position, said) = begin(&header(2, 0), None, &settings(8), 10);
        assert_eq!((position.global_step, said), (20, None));
    }
}
