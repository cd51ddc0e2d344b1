//! What each message of a training program does to its run.

mod ending;
mod saving;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pipe_core::failure::{Failure, StageError};
use pipe_core::progress::Event;
use pipe_engine::kind::RunContext;
use pipe_fs::atomic::{self, Log};
use pipe_runs::checkpoint::SECONDS;
use pipe_runs::events::{EventFile, MetricsFile};
use pipe_runs::policy::CheckpointPolicy;
use pipe_runs::{CheckpointManager, EpochRecord, Header, LiveRequest, LiveRequests, StoreError};
use serde_json::{Value, json};

use super::message::{Message, Metrics, Reply};
use crate::stopping::{Ending, StoppingRules, Trained};

/// The progress line is renewed so often at most.
const PROGRESS: Duration = Duration::from_millis(100);

/// How far a training is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Complete.
    pub epoch: u64,
    /// Over all epochs.
    pub step: u64,
    /// Of the next epoch.
    pub step_in_epoch: u64,
}

impl Position {
    /// That of a checkpoint.
    pub fn of(header: &Header) -> Self {
        let Header { epoch, global_step: step, step_in_epoch, .. } = *header;
        Self { epoch, step, step_in_epoch }
    }
}

/// A program under way.
pub(super) struct Session<'a> {
    context: &'a RunContext<'a>,
    policy: &'a CheckpointPolicy,
    target: u64,
    stopping: StoppingRules,
    seed: u64,
    scratch: PathBuf,
    manager: CheckpointManager,
    metrics: MetricsFile,
    events: EventFile,
    position: Position,
    /// Step at the end of the last complete epoch.
    epoch_step: u64,
    /// Of the complete epochs.
    seconds_of_epochs: f64,
    /// Of the epoch under way, before this process went on with it.
    seconds_before: f64,
    epoch_started: Instant,
    /// Metrics of the last complete epoch, until its checkpoint has them.
    epoch_metrics: Metrics,
    /// Of the newest checkpoint.
    saved: Position,
    told: Option<Instant>,
    /// Warnings that were given.
    warned: BTreeSet<String>,
    requests: LiveRequests,
    /// A person asked for a checkpoint, and the program has given none since.
    is_save_due: bool,
    /// The same of a picture.
    is_sample_due: bool,
    /// Whether the program said anything.
    pub has_spoken: bool,
    pub finished: Option<String>,
    /// Why it is to end before its target, where a setting says so.
    pub ending: Option<Ending>,
    pub failure: Option<(Failure, String)>,
}

/// Why a message ends the training.
pub(super) enum Refusal {
    /// It breaks the contract.
    Broken(String),
    /// It could not be carried out.
    Failed(StageError),
}

impl From<StageError> for Refusal {
    fn from(error: StageError) -> Self {
        Self::Failed(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<atomic::WriteError> for Refusal {
    fn from(error: atomic::WriteError) -> Self {
        Self::Failed(error.into())
    }
}

fn broken<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Broken(text.into()))
}

impl<'a> Session<'a> {
    pub fn open(
        context: &'a RunContext<'a>,
        policy: &'a CheckpointPolicy,
        (target, stopping, seed): (u64, StoppingRules, u64),
        scratch: PathBuf,
        manager: CheckpointManager,
        (position, seconds_before): (Position, f64),
    ) -> Result<Self, StageError> {
        let (logs, disk) = (manager.run().logs(), manager.run().disk().clone());
        atomic::create_folder(&disk, &logs)?;
        let metrics = MetricsFile::open(&disk, &logs.join("metrics.jsonl"), position.step)?;
        let mut events = EventFile::create(&disk, &logs, position.step)?;
        events.settings(&manager.metadata().experiment_name, &manager.metadata().manifest)?;
        let history = &manager.metadata().history;
        let trained = Trained::of(history, position.epoch, position.step, seconds_before);
        let ending = stopping.ending(history, trained);
        let epoch_step = position.step.saturating_sub(position.step_in_epoch);
        let requests = LiveRequests::to(manager.run());
        Ok(Self {
            context,
            policy,
            target,
            stopping,
            seconds_of_epochs: trained.seconds - seconds_before,
            seconds_before,
            ending,
            seed,
            scratch,
            manager,
            metrics,
            events,
            position,
            epoch_step,
            epoch_started: Instant::now(),
            epoch_metrics: Metrics::default(),
            saved: position,
            told: None,
            warned: BTreeSet::new(),
            requests,
            is_save_due: false,
            is_sample_due: false,
            has_spoken: false,
            finished: None,
            failure: None,
        })
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether a checkpoint stands of the last complete epoch, or of a later state.
    fn is_epoch_saved(&self) -> bool {
        self.saved.step > 0 && self.saved.epoch == self.position.epoch
    }

    /// Whether a checkpoint stands of all that was told.
    pub fn is_all_saved(&self) -> bool {
        self.saved == self.position
    }

    /// The run goes back to the caller, its logs on the disk.
    pub fn close(self) -> Result<CheckpointManager, StageError> {
        self.sync()?;
        Ok(self.manager)
    }

    fn sync(&self) -> Result<(), StageError> {
        let logs: [std::sync::Arc<Log>; 2] = [self.metrics.log(), self.events.log()];
        Ok(logs.iter().try_for_each(|log| log.sync())?)
    }

    /// Carries a line out.
    pub fn handle(&mut self, line: &str) -> Result<Reply, Refusal> {
        self.has_spoken = true;
        let message = Message::parse(line).map_err(Refusal::Broken)?;
        if self.is_too_late(&message) {
            return self.pass_over(&message);
        }
        match message {
            Message::Step { step, epoch, steps, step_in_epoch, metrics } => {
                self.step(step, (epoch, steps, step_in_epoch), metrics)
            }
            Message::Epoch { epoch, step, metrics } => {
                self.complete(epoch, step, metrics)?;
                let wanted = self.is_wanted();
                if !wanted {
                    // What it was stands in the metadata all the same.
                    self.manager.update(|_| ())?;
                }
                Ok(Reply { save: wanted, ..ok() })
            }
            Message::Checkpoint { path, epoch, step, step_in_epoch, metrics } => {
                let path = self.in_scratch(&path)?;
                if step_in_epoch > 0 {
                    self.save_inside(
                        &path,
                        Position { epoch, step: step.unwrap_or(0), step_in_epoch },
                    )
                } else {
                    self.save_epoch(&path, epoch, step, metrics)
                }
            }
            Message::Sample { path, epoch } => self.sample(&path, epoch),
            Message::Finished { reason } => {
                self.finished = Some(reason);
                Ok(ok())
            }
            Message::Failure { failure, message } => {
                self.failure = Some((failure, message));
                Ok(ok())
            }
            Message::Note { text, is_warning } => {
                let event =
                    if is_warning { Event::Warning { text } } else { Event::Message { text } };
                self.context.event(event);
                Ok(ok())
            }
        }
    }

    /// A reply with what a person asks for besides, in each one until the program has given it.
    pub fn with_requests(&mut self, reply: Reply) -> Result<Reply, StageError> {
        self.is_save_due |= self.requests.take(LiveRequest::Checkpoint)?;
        self.is_sample_due |= self.requests.take(LiveRequest::Sample)?;
        Ok(Reply { save: reply.save || self.is_save_due, sample: self.is_sample_due, ..reply })
    }

    fn step(
        &mut self,
        step: u64,
        (epoch, steps, step_in_epoch): (Option<u64>, Option<u64>, Option<u64>),
        metrics: Metrics,
    ) -> Result<Reply, Refusal> {
        if step < self.position.step {
            return broken(format!("step {step} after step {}", self.position.step));
        }
        let current = self.position.epoch + 1;
        if epoch.is_some_and(|epoch| epoch != current) {
            let told = epoch.unwrap_or(0);
            return broken(format!("a step of epoch {told}, and {} are complete", current - 1));
        }
        self.position.step = step;
        self.position.step_in_epoch =
            step_in_epoch.unwrap_or_else(|| step.saturating_sub(self.epoch_step));
        self.warn_of(&metrics);
        self.write(step, current, &metrics)?;
        if self.told.is_none_or(|at| at.elapsed() >= PROGRESS) {
            self.told = Some(Instant::now());
            let named = ["loss", "train_loss", &self.policy.monitor];
            let value = named.iter().find_map(|name| metrics.values.get(*name).copied());
            self.context.event(Event::Step {
                position: current,
                target: self.target,
                step: self.position.step_in_epoch,
                steps: steps.unwrap_or(0),
                value,
                rate: 0.0,
                memory: None,
            });
        }
        self.decide_inside();
        Ok(ok())
    }

    /// Takes note of an epoch that is complete.
    fn complete(&mut self, epoch: u64, step: Option<u64>, metrics: Metrics) -> Result<(), Refusal> {
        let next = self.position.epoch + 1;
        if epoch != next {
            return broken(format!("epoch {epoch} after {}, expected {next}", next - 1));
        }
        if epoch > self.target {
            return broken(format!("epoch {epoch}, and {} were asked for in all", self.target));
        }
        // Of a program that counts no steps, each epoch is one.
        let step = step.unwrap_or_else(|| self.position.step.max(self.epoch_step + 1));
        if step <= self.epoch_step {
            let before = format!("epoch {} ended at step {}", epoch - 1, self.epoch_step);
            return broken(format!("step {step} at the end of epoch {epoch}, and {before}"));
        }
        self.check_monitor(&metrics)?;
        self.warn_of(&metrics);
        self.position = Position { epoch, step, step_in_epoch: 0 };
        self.epoch_step = step;
        let seconds = self.seconds_in_epoch();
        (self.epoch_started, self.seconds_before) = (Instant::now(), 0.0);
        self.seconds_of_epochs += seconds;
        let mut with_time = metrics.clone();
        with_time.values.insert("epoch_seconds".to_owned(), seconds);
        self.write(step, epoch, &with_time)?;
        self.context.event(Event::Round {
            position: epoch,
            target: self.target,
            metrics: metrics.values.clone(),
            seconds,
            rate: 0.0,
        });
        self.manager.record_epoch(EpochRecord {
            epoch,
            global_step: step,
            metrics: metrics.values.clone(),
            learning_rate: metrics.values.get("learning_rate").copied().unwrap_or(0.0),
            seconds,
            images_per_second: 0.0,
            data_wait: 0.0,
            saved: None,
        });
        self.epoch_metrics = metrics;
        self.decide_ending();
        Ok(())
    }

    /// The metric that decides which checkpoint is the best must be told, now or at an epoch before.
    fn check_monitor(&mut self, metrics: &Metrics) -> Result<(), Refusal> {
        let before = self.manager.metadata().history.iter().flat_map(|epoch| epoch.metrics.keys());
        let told = || metrics.names().chain(before.clone()).map(String::as_str);
        self.check_stopping(told())?;
        let Err(wrong) = self.policy.check_reported(told()) else { return Ok(()) };
        let text = format!("checkpoint.monitor: {}", wrong.message);
        let is_default = self.policy.monitor == CheckpointPolicy::default().monitor;
        let is_silent = told().next().is_none();
        if !self.policy.enabled || (is_default && is_silent) {
            self.warn(format!("{text}: the last checkpoint stands for the best"));
            return Ok(());
        }
        let advice = "; name one of these, with `mode: max` where higher is better";
        broken(if is_silent { text } else { text + advice })
    }

    fn warn_of(&mut self, metrics: &Metrics) {
        for name in &metrics.left_out {
            self.warn(format!("metric {name} is no finite number, and is left out"));
        }
    }

    fn warn(&mut self, text: String) {
        if self.warned.insert(text.clone()) {
            self.context.event(Event::Warning { text });
        }
    }

    fn write(&mut self, step: u64, epoch: u64, metrics: &Metrics) -> Result<(), Refusal> {
        let values = || metrics.values.iter().map(|(name, value)| (name.as_str(), *value));
        if !metrics.values.is_empty() {
            self.metrics.append(step, epoch, values())?;
            self.events.scalars(step, values())?;
        }
        Ok(())
    }

    /// Whether the policy wants the checkpoint of the last complete epoch.
    fn is_wanted(&self) -> bool {
        let header = self.header(self.position, self.epoch_metrics.clone());
        self.manager.wants(&header, self.is_final())
    }

    /// Whether there will be no further epoch.
    fn is_final(&self) -> bool {
        self.position.epoch == self.target || self.finished.is_some() || self.ending.is_some()
    }

    fn header(&self, position: Position, metrics: Metrics) -> Header {
        let stage = ("stage".to_owned(), self.context.stage.to_string());
        Header {
            epoch: position.epoch,
            global_step: position.step,
            step_in_epoch: position.step_in_epoch,
            metrics: metrics.values,
            scheduler_state_dict: Value::Null,
            loop_state: if position.step_in_epoch > 0 {
                json!({ SECONDS: self.seconds_in_epoch() })
            } else {
                Value::Null
            },
            saved_at: chrono::Utc::now(),
            identity: self.manager.metadata().identity.clone(),
            seed: self.seed,
            model_config: Value::Null,
            extra: [stage].into(),
        }
    }
}

fn ok() -> Reply {
    Reply { ok: true, ..Reply::default() }
}
