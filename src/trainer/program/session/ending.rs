//! A training that a setting ends before its target: when that is, and what its program may still
//! say.

use pipe_core::progress::Event;
use pipe_runs::policy::metric;

use super::super::message::{Message, Reply};
use super::{Refusal, Session, broken, ok};

impl Session<'_> {
    /// Whether it has come to its end by a setting, and the state of that moment stands.
    pub fn is_over(&self) -> bool {
        self.ending.is_some() && (self.is_all_saved() || !self.policy.enabled)
    }

    /// Decides whether the epoch that is complete now was the last one.
    pub(super) fn decide_ending(&mut self) {
        if self.ending.is_none() {
            let history = &self.manager.metadata().history;
            self.ending = self.stopping.ending(history, self.position.trained());
            self.tell_ending();
        }
    }

    fn tell_ending(&self) {
        if let Some(ending) = &self.ending {
            let text = format!("Ends after epoch {}: {}", self.position.epoch, ending.reason);
            self.context.event(Event::Message { text });
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
