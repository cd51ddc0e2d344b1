//! What a copy writes: noted first, so that a run after a crash knows its own files, and never over
//! a file of somebody else's.

use std::path::Path;

use pipe_engine::kind::{Failure, InspectContext, RunContext, StageError, is_inside_project};
use pipe_engine::state::Output;
use pipe_fs::{atomic, copy};
use pipe_runs::{Checkpoint, file_digest_like};

use super::super::artifacts::CheckpointFile;
use super::{CopyBest, Link, copy_cost, is_adapter, not_copied};
use crate::checkpoint::{self, base_beside};

impl CopyBest {
    /// What a copy takes of the disk, for the plan.
    pub(super) fn cost(&self, source: &CheckpointFile) -> String {
        if self.settings.link == Link::Hard {
            return String::new();
        }
        let adapter = Checkpoint::open(&source.path).ok().filter(is_adapter);
        let base = adapter.and_then(|file| checkpoint::base_of(&file).ok());
        match base.and_then(|base| std::fs::metadata(base.path()).ok()) {
            Some(base) if self.settings.merge => copy_cost(base.len()),
            Some(base) => copy_cost(source.bytes + base.len()),
            None => copy_cost(source.bytes),
        }
    }

    /// What becomes of a file that has the name of the copy, where nothing is known of its origin.
    /// `wanted`: the digest that it is to have, once that is known.
    pub(super) fn target_taken(&self, o: &InspectContext, wanted: Option<&str>) -> String {
        let (to, target) = (self.settings.to.display(), o.root.join(&self.settings.to));
        let is_wanted = wanted.is_some_and(|wanted| {
            file_digest_like(&target, wanted).is_ok_and(|found| found == wanted)
        });
        if o.made.is_some() || is_wanted || self.settings.overwrite || !target.exists() {
            return String::new();
        }
        format!("; {to} is there: it is left alone, unless a stage of this pipeline made it")
    }

    /// Copies the file, and LoRA's base model beside it. Returns the digest of the file.
    pub(super) fn write_copies(
        &self,
        context: &RunContext,
        file: &Checkpoint,
        source: &CheckpointFile,
    ) -> Result<String, StageError> {
        if file.is_of_program() {
            self.remove_stale_base(context)?;
            return self.write_program_copy(context, file, source);
        }
        let mut copies = Vec::new();
        if is_adapter(file) {
            let base = checkpoint::base_of(file).map_err(|e| not_copied(e.to_string()))?;
            base.verify().map_err(|e| not_copied(e.to_string()))?;
            let base = CheckpointFile::open(base.path()).map_err(|e| not_copied(e.to_string()))?;
            copies.push((base, base_beside(&self.settings.to)));
        } else {
            self.remove_stale_base(context)?;
        }
        // Last, so that it never stands without its base model.
        copies.push((source.clone(), self.settings.to.clone()));
        let mut replaced = Vec::new();
        for (from, to) in &copies {
            replaced.extend(self.check_ownership(context, to, &[&from.digest])?);
        }
        replaced.dedup();
        let planned = copies.iter().rev().map(|(from, to)| {
            Output::expected(&to.display().to_string(), &from.digest, from.bytes)
        });
        // The note first: after a crash between the two, the next run knows both files as its own.
        context.record_outputs(planned.collect(), Vec::new(), replaced)?;
        let mut written = Vec::new();
        for (from, to) in &copies {
            let target = context.root.join(to);
            atomic::create_folder(context.root.disk(), target.parent().unwrap_or(&context.root))?;
            atomic::remove_temporary_files_for(context.root.disk(), &target);
            match self.settings.link {
                Link::None => copy::copy(context.root.disk(), &from.path, &target)?,
                Link::Hard => copy::link_read_only(context.root.disk(), &from.path, &target)?,
            }
            let path = to.display().to_string();
            let copied = context.output(&path, Some(&from.digest))?;
            if copied.digest != from.digest {
                let message = format!("{path} does not have the content that was copied");
                return Err(StageError::new(Failure::Storage, message));
            }
            written.insert(0, copied);
        }
        context.record_outputs(written, Vec::new(), Vec::new())?;
        Ok(source.digest.clone())
    }

    /// Writes LoRA's weights as a whole model. Returns the digest of the file.
    pub(super) fn write_merged(
        &self,
        context: &RunContext,
        file: &Checkpoint,
        source: &CheckpointFile,
    ) -> Result<String, StageError> {
        let (to, target) = (&self.settings.to, context.root.join(&self.settings.to));
        atomic::create_folder(context.root.disk(), target.parent().unwrap_or(&context.root))?;
        atomic::remove_temporary_files_for(context.root.disk(), &target);
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let scratch = target.with_file_name(format!(".{name}.merging"));
        let merged =
            checkpoint::merged(context.root.disk(), &self.architectures, file, None, &scratch);
        let merged = merged.map_err(|e| not_copied(e.to_string()))?;
        // A merge brings the same bits each time: a file that has them is this stage's own.
        let replaced = self
            .check_ownership(context, to, &[&source.digest, &merged.file_digest])
            .inspect_err(|_| drop(atomic::remove(context.root.disk(), &scratch)))?;
        self.remove_stale_base(context)?;
        let path = to.display().to_string();
        let read = source.path.strip_prefix(&context.root).ok().filter(|p| is_inside_project(p));
        // A record speaks of the project's files alone.
        let read = read.map_or_else(|| path.clone(), |read| read.display().to_string());
        let inputs = vec![Output::expected(&read, &source.digest, source.bytes)];
        let planned = Output::expected(&path, &merged.file_digest, merged.bytes);
        context.record_outputs(vec![planned], inputs.clone(), replaced)?;
        copy::copy(context.root.disk(), &scratch, &target)?;
        atomic::remove(context.root.disk(), &scratch)?;
        let written = context.output(&path, Some(&merged.file_digest))?;
        context.record_outputs(vec![written], inputs, Vec::new())?;
        Ok(merged.file_digest)
    }

    /// Removes the base model of an earlier copy, if it is as that copy left it.
    fn remove_stale_base(&self, context: &RunContext) -> Result<(), StageError> {
        let base = base_beside(&self.settings.to);
        let stale = context.known_outputs().filter(|output| Path::new(&output.path) == base);
        for output in stale.filter(|output| context.if_unchanged(output).is_some()) {
            atomic::remove(context.root.disk(), &context.root.join(&output.path))?;
        }
        Ok(())
    }

    /// The digests of earlier copies that the target may hold. `wanted`: what it may hold besides,
    /// whoever wrote it. A file of anybody else's is left alone.
    pub(super) fn check_ownership(
        &self,
        context: &RunContext,
        to: &Path,
        wanted: &[&str],
    ) -> Result<Vec<String>, StageError> {
        let target = &context.root.join(to);
        let made = context.known_outputs().map(|output| output.digest.clone());
        let replaced = context.made.iter().flat_map(|made| made.replaced.clone());
        let earlier: Vec<String> = made.chain(replaced).collect();
        if !target.exists() || self.settings.overwrite {
            return Ok(earlier);
        }
        for known in wanted.iter().copied().chain(earlier.iter().map(String::as_str)) {
            let found = match file_digest_like(target, known) {
                // A folder has no digest of a file's form.
                Err(_) if target.is_dir() => continue,
                found => found.map_err(|e| {
                    StageError::new(Failure::Input, format!("{}: {e}", target.display()))
                })?,
            };
            if found == known {
                return Ok(earlier);
            }
        }
        let is_ours = context.known_outputs().any(|output| Path::new(&output.path) == to);
        let (why, away) = if is_ours {
            ("is not as this stage made it", "move it away (`pipe verify --repair` does)")
        } else {
            ("exists and was not made by this stage", "move it away")
        };
        let to = to.display();
        Err(StageError::setting(format!(
            "{to} {why}; {away}, choose another path, or set `overwrite: true`"
        ))
        .at("to"))
    }
}
