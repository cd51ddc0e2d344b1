//! Checkpoints of a training: what is in one, and when it is begun.

use std::collections::BTreeMap;
use std::time::Instant;

use pipe_engine::kind::{Failure, StageError};
use pipe_fs::atomic;
use pipe_runs::checkpoint::{SECONDS, write};
use pipe_runs::tensor::HostTensor;
use pipe_runs::{Content, Header, Run, Saved};
use serde_json::json;

use super::super::train_state::{SNAPSHOTS, TrainState};
use super::super::training_context::Position;
use super::{PendingSave, Recorder, sync};

/// Writes the averages of an epoch's end into the run's folder, where all of them stay.
fn write_snapshot(run: &Run, header: &Header, tensors: Vec<HostTensor>) -> Result<(), StageError> {
    let folder = run.folder.join(SNAPSHOTS);
    atomic::create_folder(run.disk(), &folder)?;
    write(run.disk(), &folder.join(format!("epoch_{:03}.ckpt", header.epoch)), header, &tensors)?;
    Ok(())
}

impl Recorder<'_> {
    /// Whether the policy wants a checkpoint at this optimizer step.
    pub fn is_save_step(&self, global_step: u64) -> bool {
        let policy = &self.settings.checkpoint;
        policy.enabled && policy.save_every_n_steps.is_some_and(|n| global_step.is_multiple_of(n))
    }

    /// Begins what the policy says at an epoch's end.
    pub fn save_epoch(
        &mut self,
        position: &Position,
        metrics: &BTreeMap<String, f64>,
        state: &TrainState,
        is_final: bool,
    ) -> Result<(), StageError> {
        self.flush()?;
        let started = Instant::now();
        let header = self.header(position, metrics.clone());
        let wanted = self.writer.manager()?.wants(&header, is_final);
        let tensors = if wanted { state.tensors()? } else { Vec::new() };
        let every = self.settings.ema.snapshot_every_n_epochs.unwrap_or(1);
        let is_due = position.epoch.is_multiple_of(every) || is_final;
        let snapshot = if is_due { state.snapshot()? } else { Vec::new() };
        if wanted {
            self.saved_step = Some(position.global_step);
        }
        let monitored = metrics.get(&self.settings.checkpoint.monitor).copied();
        self.pending =
            PendingSave { blocked: self.blocked_since(started), monitored, epoch: position.epoch };
        let (on_new_best, logs) = (self.on_new_best, self.logs());
        self.writer.begin(move |keeper| {
            sync(&logs)?;
            let step = header.global_step;
            if !snapshot.is_empty() {
                write_snapshot(keeper.run(), &header, require_finite(snapshot, step)?)?;
            }
            let saved = keeper.save_epoch(&header, is_final, || {
                require_finite(tensors, step).map(Content::Tensors)
            })?;
            if let (Some(Saved { is_best: true, .. }), Some(write)) = (&saved, on_new_best) {
                write(&keeper.run().best(), keeper.run())?;
            }
            Ok(saved)
        });
        Ok(())
    }

    /// Begins to save inside an epoch.
    pub fn save_mid_epoch(
        &mut self,
        position: &Position,
        state: &TrainState,
    ) -> Result<(), StageError> {
        if !self.settings.checkpoint.enabled {
            return Ok(());
        }
        self.flush()?;
        let started = Instant::now();
        let header = self.header(position, BTreeMap::new());
        let tensors = state.tensors()?;
        self.saved_step = Some(position.global_step);
        self.pending = PendingSave {
            blocked: self.blocked_since(started),
            monitored: None,
            epoch: position.epoch,
        };
        let logs = self.logs();
        self.writer.begin(move |keeper| {
            sync(&logs)?;
            let tensors = require_finite(tensors, header.global_step)?;
            Ok(Some(keeper.save_partial(&header, &Content::Tensors(tensors))?))
        });
        Ok(())
    }

    fn blocked_since(&mut self, started: Instant) -> f64 {
        std::mem::take(&mut self.waited) + started.elapsed().as_secs_f64()
    }

    /// Saves between epochs if the policy left this epoch out.
    pub fn ensure_saved(
        &mut self,
        position: &Position,
        state: &TrainState,
    ) -> Result<(), StageError> {
        if self.saved_step == Some(position.global_step) {
            Ok(())
        } else {
            self.save_mid_epoch(position, state)
        }
    }

    fn header(&self, position: &Position, metrics: BTreeMap<String, f64>) -> Header {
        let schedule = serde_json::to_value(&self.settings.schedule).unwrap_or_default();
        Header {
            epoch: position.epoch,
            global_step: position.global_step,
            step_in_epoch: position.step_in_epoch,
            metrics,
            scheduler_state_dict: json!({
                "schedule": schedule,
                "last_step": position.global_step,
                "base_lr": self.settings.learning_rate,
                "horizon_epochs": self.settings.horizon(),
            }),
            loop_state: if position.step_in_epoch > 0 {
                json!({ "sums": position.loss_totals, SECONDS: position.seconds_in_epoch })
            } else {
                json!({ "sums": position.loss_totals })
            },
            saved_at: chrono::Utc::now(),
            identity: self.identity.clone(),
            seed: self.settings.seed,
            model_config: serde_json::to_value(&self.model_info.config).unwrap_or_default(),
            extra: self
                .model_info
                .extra
                .clone()
                .into_iter()
                .chain(self.extra.clone())
                .chain([
                    ("class_names".to_owned(), json!(self.model_info.classes).to_string()),
                    ("stage".to_owned(), self.context.stage.to_string()),
                ])
                .collect(),
        }
    }
}

/// The state as it is to be saved. A step whose loss was finite can still have spoilt the weights;
/// a checkpoint of those would take the place of the last good one.
fn require_finite(
    tensors: Vec<HostTensor>,
    global_step: u64,
) -> Result<Vec<HostTensor>, StageError> {
    match tensors.iter().find(|t| !t.is_finite()) {
        None => Ok(tensors),
        Some(wrong) => Err(StageError::new(
            Failure::NotFinite,
            format!(
                "{} is not finite after step {global_step}; the last good checkpoint stands. A lower learning_rate \
                 or gradient_clip_val: 1.0 often helps",
                wrong.name
            ),
        )),
    }
}
