//! Opens the run of a training: its folder, its metadata, what it keeps beside its checkpoints, and
//! the checkpoint to go on from.

use std::path::Path;

use pipe_core::progress::Event;
use pipe_core::shell::CommandLine;
use pipe_engine::identity::{Difference, in_words};
use pipe_engine::kind::{Failure, Request, RunContext, StageError};
use pipe_fs::{atomic, disk_space};
use pipe_runs::policy::CheckpointPolicy;
use pipe_runs::{
    CheckpointManager, DatasetRecord, Loaded, Metadata, Place, Run, SCHEMA_VERSION, Status,
    StoreError, kept_epochs,
};
use serde_json::Map;

use crate::budget::PlannedLength;
use crate::length::UNLIMITED;
use crate::selection::RunSelection;
use crate::training::{Changeable, Training};

impl Training<'_> {
    /// The run that was selected, held by this process. `dataset`: what it is trained on.
    pub fn open_run(
        &self,
        context: &RunContext,
        selection: RunSelection,
        dataset: &DatasetRecord,
        device: &str,
    ) -> Result<CheckpointManager, StageError> {
        let policy = CheckpointPolicy { followed_by: context.followers(), ..self.policy.clone() };
        let runs = self.runs(&context.root);
        let run = match selection {
            RunSelection::Existing(existing) => {
                let (run, metadata) = *existing;
                let mut policy = policy;
                if PlannedLength::of(&metadata).is_some() && policy.keep_epochs.is_empty() {
                    policy.keep_epochs = kept_epochs(&metadata);
                }
                let mut manager = CheckpointManager::reopen(run, policy)?;
                if metadata.dataset.digest != dataset.digest {
                    // Nothing was trained on the images that it was begun with, such as a corrupt
                    // one.
                    let first = self.first_metadata(context, manager.run(), dataset, device);
                    manager.update(|m| begin_again(m, first))?;
                }
                self.take_later_settings(&mut manager, &context.manifest)?;
                return Ok(manager);
            }
            RunSelection::Changed(changed) => {
                let mut manager = CheckpointManager::reopen(changed.run, policy)?;
                if self.has_ended(manager.run(), manager.metadata()) {
                    let number = manager.run().number;
                    let text = format!(
                        "Run {number} has come to its end: no step is trained with the other settings"
                    );
                    context.event(Event::Message { text });
                    return Ok(manager);
                }
                let first = self.first_metadata(context, manager.run(), dataset, device);
                self.note_change(context, &mut manager, &changed.different, first)?;
                return Ok(manager);
            }
            RunSelection::Empty(run) => run,
            RunSelection::New { number: Some(number), reason, .. } => {
                if context.request.resume {
                    context.event(Event::Message { text: capitalized(&reason) });
                }
                let created = runs.create_numbered(number)?;
                created.ok_or_else(|| {
                    StageError::new(
                        Failure::Setting,
                        format!("run {number} was just begun by another process"),
                    )
                })?
            }
            RunSelection::New { number: None, reason, .. } => {
                if context.request.resume {
                    context.event(Event::Message { text: capitalized(&reason) });
                }
                // A folder without metadata is one that a process claimed and died before it wrote
                // any.
                let abandoned = runs.list().pop().filter(|run| !run.is_started() && run.is_empty());
                let mut run = abandoned.map_or_else(|| runs.create(), Ok)?;
                loop {
                    let metadata = self.first_metadata(context, &run, dataset, device);
                    match CheckpointManager::begin(run, policy.clone(), metadata) {
                        // Not abandoned: its process was just about to begin.
                        Err(StoreError::Held { .. }) => run = runs.create()?,
                        begun => return Ok(begun?),
                    }
                }
            }
        };
        let metadata = self.first_metadata(context, &run, dataset, device);
        Ok(CheckpointManager::begin(run, policy, metadata)?)
    }

    /// Goes on with changed settings: notes them in the run, and says so.
    fn note_change(
        &self,
        context: &RunContext,
        manager: &mut CheckpointManager,
        different: &[Difference],
        first: Metadata,
    ) -> Result<(), StageError> {
        let between = |d: &&Difference| {
            (self.changeable)(&d.key, different) == Some(Changeable::BetweenEpochs)
        };
        if let Some(first) = different.iter().find(between)
            && let Some(gone) = manager.give_up_partial()?
        {
            let (epoch, steps, key) = (gone.epoch + 1, gone.step_in_epoch, &first.key);
            let text = format!(
                "{key} counts from an epoch's beginning: epoch {epoch} begins again, and its first {steps} steps are \
                 done anew"
            );
            context.event(Event::Warning { text });
        }
        let number = manager.run().number;
        if manager.place() == Place::default() {
            let words = in_words(different);
            manager.update(|m| begin_again(m, first))?;
            let text = format!(
                "Run {number} begins with other settings, since nothing was trained in it: {words}"
            );
            context.event(Event::Message { text });
            return Ok(());
        }
        let values = |d: &Difference| {
            (d.key.clone(), [&d.old, &d.new].map(|value| value.clone().unwrap_or_default()))
        };
        let changed = different.iter().map(values).collect();
        let text = match manager.note_change(changed, self.settings.clone())? {
            Some(change) => format!(
                "Run {number} goes on with changed settings {}. From here on it equals no training from the beginning: \
                 it is used only where its number is given",
                change.in_words()
            ),
            None => format!("Run {number} is back at the settings that it was trained with"),
        };
        context.event(Event::Message { text });
        Ok(())
    }

    fn first_metadata(
        &self,
        context: &RunContext,
        run: &Run,
        dataset: &DatasetRecord,
        device: &str,
    ) -> Metadata {
        let now = chrono::Utc::now();
        Metadata {
            schema_version: SCHEMA_VERSION,
            run_number: run.number.0,
            experiment_name: self.experiment_name.unwrap_or(&context.pipeline).to_owned(),
            pipeline: context.pipeline.clone(),
            stage: context.stage.to_string(),
            status: Status::Running,
            message: None,
            created_at: now,
            updated_at: now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git_commit: git_commit(&context.root),
            device: device.to_owned(),
            seed: self.seed,
            epochs: Some(self.epochs.on(dataset)).filter(|all| *all != UNLIMITED).unwrap_or(1),
            identity: context.identity.clone(),
            manifest: context.manifest.clone(),
            settings: self.settings.clone(),
            dataset: dataset.clone(),
            resumed_from: self.policy.resume_checkpoint.clone(),
            changes: Vec::new(),
            checkpoints: Vec::new(),
            best_checkpoint: None,
            partial_checkpoint: None,
            history: Vec::new(),
            other: Map::new(),
        }
    }

    /// The run's newest good checkpoint, if it has any.
    ///
    /// # Errors
    /// It has some, and none is good.
    pub fn newest(
        &self,
        context: &RunContext,
        manager: &CheckpointManager,
    ) -> Result<Option<Loaded>, StageError> {
        let found = manager.newest_good();
        for passed in &found.passed_over {
            context.event(Event::Warning {
                text: format!("passed over a damaged checkpoint: {passed}"),
            });
        }
        for path in &found.foreign {
            let shown = path.strip_prefix(&context.root).unwrap_or(path).display();
            let text = format!("passed over {shown}: it is no checkpoint of this run by that name");
            context.event(Event::Warning { text });
        }
        if found.checkpoint.is_some() {
            return Ok(found.checkpoint);
        }
        if !found.passed_over.is_empty() {
            let number = manager.run().number;
            let fresh_start_hint = fresh_start_hint(&context.request);
            let message = format!("run {number} has no good checkpoint left; {fresh_start_hint}");
            return Err(StageError::new(Failure::Storage, message));
        }
        Ok(None)
    }

    /// Fails if not even one checkpoint of `each` bytes fits on the disk; warns if not all that
    /// will be kept fit.
    pub fn check_disk_space(
        &self,
        context: &RunContext,
        manager: &CheckpointManager,
        each: u64,
    ) -> Result<(), StageError> {
        let (policy, epochs) = (self.policy, self.total(manager.metadata()));
        let folder = &manager.run().folder;
        let Some(free) = disk_space::free(folder).filter(|_| policy.enabled) else { return Ok(()) };
        let listed = &manager.metadata().checkpoints;
        let older: u64 = listed.iter().rev().skip(1).map(|c| c.bytes).sum();
        let newest = listed.last().map_or(0, |c| c.bytes);
        let shown = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let place = folder.display();
        if free + older < each {
            return Err(StageError::new(
                Failure::Storage,
                format!(
                    "a checkpoint takes {}, and only {} are free at {place} (make room before the training begins)",
                    shown(each),
                    shown(free)
                ),
            ));
        }
        // Those that the policy keeps, the best, and the one being written.
        let saved = epochs.div_ceil(policy.save_every_n_epochs);
        let kept = policy.keep_last_n.map_or(saved, |keep| {
            saved.min(keep.saturating_add(1).saturating_add(policy.keep_top_k.unwrap_or(1)))
        });
        let all = kept.saturating_mul(each);
        if free.saturating_add(older + newest) < all {
            let text = format!(
                "{kept} checkpoints will take {}, and only {} are free at {place}; lower checkpoint.keep_last_n or make room",
                shown(all),
                shown(free)
            );
            context.event(Event::Warning { text });
        }
        Ok(())
    }
}

/// Makes a run in which nothing was trained yet one of today's settings and data.
fn begin_again(metadata: &mut Metadata, first: Metadata) {
    metadata.dataset = first.dataset;
    metadata.manifest = first.manifest;
    metadata.identity = first.identity;
    metadata.settings = first.settings;
    metadata.history.clear();
    metadata.changes.clear();
}

/// `config.yaml`: a pipeline file that repeats the run.
pub fn write_config(manager: &CheckpointManager, context: &RunContext) -> Result<(), StageError> {
    let path = manager.run().config_path();
    let stage = context.stage.as_str();
    let mut again = CommandLine::new(["pipe", "run"])
        .path(path.strip_prefix(&context.root).unwrap_or(&path))
        .word(stage)
        .options(["--force"]);
    // A number that was asked for is taken now.
    for key in ["run_number", "resume_from_run"] {
        let policy = &manager.metadata().settings["checkpoint"];
        if !policy[key].is_null() {
            again = again.options([format!("--set={stage}.checkpoint.{key}=null")]);
        }
    }
    // A path with the end of a line in it would leave the comment.
    let again = again.to_string().replace(char::is_control, "?");
    let text = match manager.metadata().changes.last() {
        None => format!("# The resolved settings of this run. It can be repeated with: {again}"),
        Some(change) => format!(
            "# The settings of this run since they were changed in epoch {}; they do not repeat it. metadata.json lists \
             all changes.",
            change.from_epoch
        ),
    };
    let text = format!("{text}\n{}", context.resolved());
    Ok(atomic::write(manager.run().disk(), &path, |out| out.write_all(text.as_bytes()))?)
}

fn git_commit(root: &Path) -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// How one starts anew.
fn fresh_start_hint(request: &Request) -> &'static str {
    if request.resume || request.run_number.is_some() {
        "start a new run with --force, without --resume and --run-number"
    } else {
        "start a new run with --force"
    }
}
