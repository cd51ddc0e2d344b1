//! Why a stage did not finish, and what is different when it is tried again. Knows nothing of what
//! the stage was doing.

use std::any::Any;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::stop::Signal;

/// Why a stage did not finish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    pub failure: Failure,
    pub message: String,
    /// The setting whose value it is about: a dotted path, relative to the stage. The message begins
    /// with it.
    pub key: Option<String>,
}

/// A message on one line: what happened, and the last thing that was said of it.
pub fn on_one_line(message: &str) -> String {
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next().unwrap_or_default(), lines.next_back()) {
        (first, Some(last)) => format!("{first} {last}"),
        (first, None) => first.to_owned(),
    }
}

/// The message of a panic that was caught.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Kinds of failure; a later attempt can be worth it for some of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// A setting that cannot work. Exit code 2, not 1.
    Setting,
    /// Data or files that the stage reads.
    Input,
    /// Files that the stage writes.
    Storage,
    /// A result is NaN or infinite.
    NotFinite,
    OutOfMemory,
    DeviceLost,
    /// A program that the stage started failed.
    Command,
    /// The stage's time limit was reached.
    Timeout,
    /// Stopped by a signal, with what was done saved.
    Interrupted(Signal),
    /// A panic: a bug in this program.
    Bug,
}

impl Failure {
    /// As it is written in files.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Setting => "setting",
            Failure::Input => "input",
            Failure::Storage => "storage",
            Failure::NotFinite => "not_finite",
            Failure::OutOfMemory => "out_of_memory",
            Failure::DeviceLost => "device_lost",
            Failure::Command => "command",
            Failure::Timeout => "timeout",
            Failure::Interrupted(_) => "interrupted",
            Failure::Bug => "bug",
        }
    }
}

impl StageError {
    /// A setting that cannot work.
    pub fn setting(message: impl Into<String>) -> Self {
        Self::new(Failure::Setting, message)
    }

    /// A failure with its message for people.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into(), key: None }
    }

    /// The same, of the value of a setting.
    pub fn at(self, key: impl Into<String>) -> Self {
        let key = key.into();
        Self { message: format!("{key}: {}", self.message), key: Some(key), ..self }
    }

    /// What is wrong, without the setting that it is about.
    pub fn reason(&self) -> &str {
        let key = self.key.as_deref().unwrap_or_default();
        self.message.strip_prefix(key).and_then(|m| m.strip_prefix(": ")).unwrap_or(&self.message)
    }
}

/// What is different in the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryChange {
    Nothing,
    /// Each batch goes through the network in twice as many micro-batches.
    SmallerMicroBatch,
    /// The device that was lost is left alone.
    OtherDevice,
}

impl fmt::Display for RetryChange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            RetryChange::Nothing => "as before",
            RetryChange::SmallerMicroBatch => "with half the micro-batch",
            RetryChange::OtherDevice => "on another device",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceback_on_one_line_is_what_it_ends_with() {
        let message =
            "`python train.py` ended with exit code 1:\n  Traceback:\n    x\n  KeyError: 'x'\n";
        assert_eq!(on_one_line(message), "`python train.py` ended with exit code 1: KeyError: 'x'");
        assert_eq!(on_one_line("base: is gone"), "base: is gone");
        assert_eq!(on_one_line(""), "");
    }
}
