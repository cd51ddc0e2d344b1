//! `each_checkpoint` of a `sample` stage: it samples from each checkpoint of a training while that
//! makes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipe_core::number_text::counted;
use pipe_engine::kind::{Failure, InspectContext, Outcome, RunContext, StageError};
use pipe_trainer::following::{follow, why_open};

use super::lora;
use super::result_files::{no_checkpoint, write_result};
use super::sample::SampleStage;
use super::sample_settings::SampleSettings;
use crate::sampling::Target;

impl SampleStage {
    /// What keeps a stage from being up to date that samples from each checkpoint.
    pub(super) fn is_open(&self, o: &InspectContext) -> Option<String> {
        if !self.settings.each_checkpoint {
            return None;
        }
        let noted: Vec<&Path> =
            o.made.iter().flat_map(|made| &made.outputs).map(|o| Path::new(&o.path)).collect();
        why_open(o, "from", |epoch| {
            let own = self.of_epoch(epoch);
            noted.iter().any(|path| path.starts_with(&own))
        })
    }

    /// Samples from each checkpoint while they are made.
    pub(super) fn sample_each(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let (s, root) = (&self.settings, &context.root);
        let to = |epoch: u64| self.of_epoch(epoch);
        let stands = |epoch: u64| root.join(to(epoch)).exists();
        let (mut made, mut inputs) = (BTreeMap::new(), Vec::new());
        let followed = follow(context, "from", stands, |file| {
            let written = self.sample(context, file, &to(file.epoch))?;
            inputs = written.inputs;
            made.insert(file.epoch, written.files);
            Ok(BTreeMap::new())
        })?;
        lora::renew_adapter(&followed)?;
        // What processes before this one sampled stands on the disk.
        let of =
            |epoch: u64| made.get(&epoch).cloned().unwrap_or_else(|| files_of(root, to(epoch)));
        let mut files: Vec<PathBuf> = followed.epochs().flat_map(of).collect();
        if let Some((best, _)) = followed.of_best().filter(|_| !self.is_folder()) {
            let best = root.join(to(best));
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
        self.record(context, &files, inputs)?;
        // Checkpoints that are gone left nothing to sample from.
        let count = followed.epochs().filter(|epoch| stands(*epoch)).count();
        let summary = format!("of {}: {}", counted(count, "checkpoint"), s.to.display());
        Ok(Outcome { artifact: None, summary, next: None })
    }

    /// Whether pictures of their own stand in a folder.
    fn is_folder(&self) -> bool {
        let SampleSettings { seeds, to, .. } = &self.settings;
        seeds.is_some() && matches!(Target::of(to), Ok(Target::Folder(_)))
    }

    /// Where what is sampled from an epoch's checkpoint stands.
    fn of_epoch(&self, epoch: u64) -> PathBuf {
        let (to, name) = (&self.settings.to, format!("epoch_{epoch:03}"));
        let stem = to.file_stem().unwrap_or_default().to_string_lossy();
        match to.extension() {
            Some(extension) if !self.is_folder() => {
                to.with_file_name(format!("{stem}_{name}.{}", extension.to_string_lossy()))
            }
            _ => to.join(name),
        }
    }
}

/// The file of that name, or those in the folder of that name. Relative to the project.
fn files_of(root: &Path, path: PathBuf) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join(&path)) else {
        return if root.join(&path).is_file() { vec![path] } else { Vec::new() };
    };
    let mut inside: Vec<PathBuf> =
        entries.flatten().map(|entry| path.join(entry.file_name())).collect();
    inside.sort();
    inside.into_iter().flat_map(|path| files_of(root, path)).collect()
}
