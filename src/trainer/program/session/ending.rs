//! A training that a setting ends before its target: when that is, and what its program may still
//! say.

use pipe_core::progress::Event;
use pipe_runs::policy::metric;

use super::super::message::{Message, Reply};
use super::{Position, Refusal, Session, broken, ok};
use crate::stopping::{Ending, Trained};

impl Session<'_> {
    /// Whether it has come to its end by a setting, and the state of that moment stands.
    pub fn is_over(&self) -> bool {
        self.ending.is_some() && (self.is_all_saved() || !self.policy.enabled)
    }

    /// Whether there is nothing left to train: its last epoch is complete, and saved. Not where the
    /// program says that it failed.
    pub fn is_whole(&self) -> bool {
        let is_saved = self.is_epoch_saved() || !self.policy.enabled;
        self.is_final() && is_saved && self.failure.is_none()
    }

    /// How far it is, as the rules see it that end it.
    fn trained(&self) -> Trained {
        let seconds = self.seconds_of_epochs + self.seconds_in_epoch();
        Trained { epochs: self.position.epoch, steps: self.position.step, seconds }
    }

    /// Seconds that the epoch under way was trained for.
    pub(super) fn seconds_in_epoch(&self) -> f64 {
        self.seconds_before + self.epoch_started.elapsed().as_secs_f64()
    }

    /// Decides whether the epoch that is complete now was the last one.
    pub(super) fn decide_ending(&mut self) {
        let history = &self.manager.metadata().history;
        let ending = self.stopping.ending(history, self.trained());
        self.note_ending(ending);
    }

    /// Decides the same inside an epoch.
    pub(super) fn decide_inside(&mut self) {
        self.note_ending(self.stopping.ending_inside(self.trained()));
    }

    fn note_ending(&mut self, ending: Option<Ending>) {
        if let (None, Some(ending)) = (&self.ending, ending) {
            let Position { epoch, step_in_epoch, .. } = self.position;
            let inside =
                if step_in_epoch > 0 { format!(", step {step_in_epoch}") } else { String::new() };
            let text = format!("Ends after epoch {epoch}{inside}: {}", ending.reason);
            self.context.event(Event::Message { text });
            self.ending = Some(ending);
        }
    }

    /// The metric that ends the training must be one that is told.
    pub(super) fn check_stopping<'a>(
        &self,
        told: impl Iterator<Item = &'a str>,
    ) -> Result<(), Refusal> {
        let Some(monitor) = self.stopping.monitor() else { return Ok(()) };
        match metric::find(monitor, told, "the training reports") {
            Ok(()) => Ok(()),
            Err(wrong) => broken(format!("early_stopping.monitor: {wrong}")),
        }
    }

    /// Whether a message tells of what comes behind the end. A program that has not read `stop` yet
    /// may say such things.
    pub(super) fn is_too_late(&self, message: &Message) -> bool {
        match message {
            Message::Step { .. } => {
                self.is_over() || (self.ending.is_some() && self.position.step_in_epoch == 0)
            }
            Message::Epoch { .. } | Message::Checkpoint { .. } => self.is_over(),
            _ => false,
        }
    }

    /// Nothing of it is kept.
    pub(super) fn pass_over(&self, message: &Message) -> Result<Reply, Refusal> {
        let Message::Checkpoint { path, .. } = message else { return Ok(ok()) };
        let path = self.in_scratch(path)?;
        pipe_runs::checkpoint::remove(self.manager.run().disk(), &path)?;
        Ok(Reply { kept: Some(false), ..ok() })
    }
}
