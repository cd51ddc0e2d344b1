//! `each_checkpoint` of a `sample` stage: it samples from each checkpoint of a training while that
//! makes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipe_core::number_text::counted;
use pipe_engine::kind::{Failure, InspectContext, Outcome, RunContext, StageError};
use pipe_trainer::epoch_places::{EpochPlaces, epoch_below, epoch_in_name, epoch_name};
use pipe_trainer::follow_state::why_open;
use pipe_trainer::following::{Looked, follow};

use super::lora;
use super::result_files::{files_of, no_checkpoint, write_result};
use super::sample::SampleStage;
use super::sample_settings::SampleSettings;
use crate::sampling::{Target, is_sampled_picture};

impl EpochPlaces for SampleStage {
    fn place(&self, epoch: u64) -> PathBuf {
        let (to, name) = (&self.settings.to, epoch_name(epoch));
        match to.extension() {
            Some(extension) if !self.is_folder() => {
                let stem = to.file_stem().unwrap_or_default().to_string_lossy();
                to.with_file_name(format!("{stem}_{name}.{}", extension.to_string_lossy()))
            }
            _ => to.join(name),
        }
    }

    fn epoch_of(&self, file: &Path) -> Option<u64> {
        let to = &self.settings.to;
        if self.is_folder() {
            return epoch_below(to, file);
        }
        let name = file.file_stem()?.to_str()?.strip_prefix(to.file_stem()?.to_str()?)?;
        let epoch = epoch_in_name(name.strip_prefix('_')?)?;
        (self.place(epoch) == file).then_some(epoch)
    }

    fn there(&self, root: &Path, epoch: u64) -> Vec<PathBuf> {
        let mut files = files_of(root, self.place(epoch));
        // Others put files of their own into folders.
        files.retain(|file| !self.is_folder() || is_sampled_picture(&root.join(file)));
        files
    }
}

impl SampleStage {
    /// What keeps a stage from being up to date that samples from each checkpoint.
    pub(super) fn is_open(&self, o: &InspectContext) -> Option<String> {
        if !self.settings.each_checkpoint {
            return None;
        }
        let noted = |path: &Path| {
            let mut outputs = o.made.iter().flat_map(|made| &made.outputs);
            Some(&outputs.find(|output| Path::new(&output.path) == path)?.digest)
        };
        why_open(o, "from", self, |best| {
            self.is_folder() || noted(&self.settings.to) == noted(&self.place(best.epoch))
        })
    }

    /// Samples from each checkpoint while they are made.
    pub(super) fn sample_each(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let (s, root) = (&self.settings, &context.root);
        let mut inputs = Vec::new();
        let followed = follow(context, "from", self, |file| {
            let written = self.sample(context, file, &self.place(file.epoch))?;
            inputs = written.inputs;
            Ok(Looked { metrics: BTreeMap::new(), files: written.files })
        })?;
        lora::renew_adapter(&followed)?;
        let mut files: Vec<PathBuf> = followed.files().values().flatten().cloned().collect();
        let best = followed.of_best().map(|(epoch, _)| epoch);
        if let Some(best) = best.filter(|_| !self.is_folder()) {
            let best = root.join(self.place(best));
            let bytes = std::fs::read(&best).map_err(|e| {
                let text = format!("failed to read {}: {e}", best.display());
                StageError::new(Failure::Storage, text)
            })?;
            write_result(context, &s.to, &bytes)?;
            files.push(s.to.clone());
        }
        if files.is_empty() {
            return Err(no_checkpoint(&s.from));
        }
        // Once the stage is noted as done, nobody looks for them.
        followed.remove_others(context)?;
        self.record(context, &files, inputs)?;
        // Checkpoints that are gone left nothing to sample from.
        let count = counted(followed.files().len(), "checkpoint");
        Ok(Outcome {
            artifact: None,
            summary: format!("of {count}: {}", s.to.display()),
            next: None,
        })
    }

    /// Whether pictures of their own stand in a folder.
    fn is_folder(&self) -> bool {
        let SampleSettings { seeds, to, .. } = &self.settings;
        seeds.is_some() && matches!(Target::of(to), Ok(Target::Folder(_)))
    }
}
