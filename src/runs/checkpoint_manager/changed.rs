//! A run that goes on with changed settings.

use std::collections::BTreeMap;

use chrono::Utc;
use serde_json::Value;

use super::CheckpointManager;
use crate::changes::{self, ChangeRecord, Place};
use crate::{Checkpoint, Metadata, PartialRecord, StoreError, checkpoint};

impl CheckpointManager {
    /// How far the run is, by its newest checkpoint.
    pub fn place(&self) -> Place {
        let Metadata { checkpoints, partial_checkpoint, .. } = &self.metadata;
        let epoch = checkpoints.last().map(|c| Place { epoch: c.epoch, step_in_epoch: 0 });
        let of = |p: &PartialRecord| Place { epoch: p.epoch, step_in_epoch: p.step_in_epoch };
        partial_checkpoint.as_ref().map(of).max(epoch).unwrap_or_default()
    }

    /// Goes back to the end of the last whole epoch, where the run is inside one: its steps are done
    /// again. `None` if it is not.
    ///
    /// The links and the list are those of the older checkpoint before the metadata say so: what a
    /// crash leaves is a run at the end of that epoch.
    ///
    /// # Errors
    /// The checkpoint of that epoch is damaged: then the newer one stays.
    pub fn give_up_partial(&mut self) -> Result<Option<PartialRecord>, StoreError> {
        let is_inside = |partial: &&PartialRecord| partial.step_in_epoch > 0;
        let Some(partial) = self.metadata.partial_checkpoint.clone().filter(|p| is_inside(&p))
        else {
            return Ok(None);
        };
        let disk = self.run.disk();
        match self.metadata.checkpoints.last() {
            Some(epoch) => {
                let path = self.run.folder.join(&epoch.path);
                Checkpoint::open(&path)?.verify()?;
                checkpoint::link(disk, &path, &self.run.last())?;
            }
            None => checkpoint::remove(disk, &self.run.last())?,
        }
        checkpoint::remove(disk, &self.run.folder.join(&partial.path))?;
        self.metadata.partial_checkpoint = None;
        self.write_metadata()?;
        Ok(Some(partial))
    }

    /// Notes settings that the run goes on with from its place on, by their keys in the manifest,
    /// each with the old and the new value. `settings`: all of them. Gives what is noted for that
    /// place in the end; `None` where it is back at what it was trained with.
    pub fn note_change(
        &mut self,
        changed: BTreeMap<String, [Value; 2]>,
        settings: Value,
    ) -> Result<Option<&ChangeRecord>, StoreError> {
        let place = self.place();
        self.update(|m| {
            for (key, [_, new]) in &changed {
                match new {
                    Value::Null => m.manifest.remove(key),
                    new => m.manifest.insert(key.clone(), new.clone()),
                };
            }
            m.settings = settings;
            changes::note(&mut m.changes, place, changed, Utc::now());
        })?;
        Ok(self.metadata.changes.last().filter(|change| change.place() == place))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{begin, files, header, policy, save, tensors};
    use super::*;
    use crate::Content;

    fn rate(old: f64, new: f64) -> BTreeMap<String, [Value; 2]> {
        BTreeMap::from([("rate".to_owned(), [json!(old), json!(new)])])
    }

    #[test]
    fn a_change_is_noted_where_the_run_is_and_its_manifest_is_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        save(&mut keeper, 2, 0.5);
        keeper.save_partial(&header(2, 3, 0.0), &Content::Tensors(tensors(2.3))).unwrap();
        let noted = keeper.note_change(rate(1.0, 2.0), json!({"rate": 2.0})).unwrap().unwrap();
        assert_eq!(noted.in_words(), "from epoch 3, step 4: rate 1.0 -> 2.0");
        let metadata = keeper.run().metadata().unwrap();
        assert_eq!(
            (&metadata.manifest["rate"], &metadata.settings["rate"]),
            (&json!(2.0), &json!(2.0))
        );
        assert_eq!(metadata.identity, "sha256:1", "its checkpoints stay its own");
        assert!(keeper.newest_good().checkpoint.is_some());
        // Back before a step was made: nothing was changed.
        assert_eq!(keeper.note_change(rate(2.0, 1.0), json!({"rate": 1.0})).unwrap(), None);
        let text = std::fs::read_to_string(keeper.run().metadata_path()).unwrap();
        assert!(!text.contains("changes"), "{text}");
    }

    #[test]
    fn a_part_of_an_epoch_is_given_up_for_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        save(&mut keeper, 1, 0.5);
        assert_eq!(keeper.give_up_partial().unwrap(), None);
        keeper.save_partial(&header(1, 3, 0.0), &Content::Tensors(tensors(1.3))).unwrap();
        assert_eq!(keeper.give_up_partial().unwrap().unwrap().step_in_epoch, 3);
        assert_eq!(files(keeper.run()), ["best.ckpt", "epoch_001.ckpt", "last.ckpt"]);
        // Nothing of it comes back from a link.
        let run = keeper.run().clone();
        drop(keeper);
        let mut keeper = CheckpointManager::reopen(run, policy()).unwrap();
        assert_eq!(keeper.place(), Place { epoch: 1, step_in_epoch: 0 });
        assert_eq!(keeper.newest_good().checkpoint.unwrap().header().global_step, 10);

        // Where the epoch's checkpoint is damaged, the newer one is all there is.
        keeper.save_partial(&header(1, 4, 0.0), &Content::Tensors(tensors(1.4))).unwrap();
        let path = keeper.run().checkpoints().join("epoch_001.ckpt");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        keeper.give_up_partial().unwrap_err();
        assert_eq!(keeper.newest_good().checkpoint.unwrap().header().global_step, 14);

        // Inside the first epoch there is nothing before it.
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        keeper.save_partial(&header(0, 3, 0.0), &Content::Tensors(tensors(0.3))).unwrap();
        keeper.give_up_partial().unwrap().unwrap();
        assert!(files(keeper.run()).is_empty() && keeper.newest_good().checkpoint.is_none());
    }
}
