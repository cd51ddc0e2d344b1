//! `on:`: who is told of what happens to a stage. Nothing of it is part of a stage's identity.

use std::time::Duration;

use pipe_core::secret;
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Serialize};

use super::hook_url::HookUrl;
use super::{HookList, Span};
use crate::command::Program;

/// Commands and addresses that are told what happens, by the event. They run beside the stage, and
/// what becomes of them changes nothing for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// A checkpoint stands that is the best so far.
    #[serde(skip_serializing_if = "HookList::is_empty")]
    pub new_best: HookList,
    /// An epoch was done.
    #[serde(skip_serializing_if = "HookList::is_empty")]
    pub epoch_end: HookList,
    /// The stage has failed for good, after its last attempt, or was stopped.
    #[serde(skip_serializing_if = "HookList::is_empty")]
    pub failure: HookList,
    /// The stage has ended, well or badly. For the whole pipeline: once, at the end of a run in
    /// which anything was done.
    #[serde(skip_serializing_if = "HookList::is_empty")]
    pub end: HookList,
}

/// What hooks are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookEvent {
    NewBest,
    EpochEnd,
    Failure,
    End,
}

impl HookEvent {
    /// As settings call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NewBest => "new_best",
            Self::EpochEnd => "epoch_end",
            Self::Failure => "failure",
            Self::End => "end",
        }
    }
}

impl Hooks {
    pub fn is_empty(&self) -> bool {
        self.all().all(HookList::is_empty)
    }

    fn all(&self) -> impl Iterator<Item = &HookList> {
        [&self.new_best, &self.epoch_end, &self.failure, &self.end].into_iter()
    }

    pub(crate) fn of(&self, event: HookEvent) -> &[Hook] {
        match event {
            HookEvent::NewBest => self.new_best.hooks(),
            HookEvent::EpochEnd => self.epoch_end.hooks(),
            HookEvent::Failure => self.failure.hooks(),
            HookEvent::End => self.end.hooks(),
        }
    }
}

/// A command or an address with its time limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// The program and its arguments as a list, or one line for the shell (`sh -c`). It has the
    /// event as JSON on its standard input, and as variables: `PIPE_EVENT`, `PIPE_STAGE`,
    /// `PIPE_EVENT_EPOCH` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<Program>,
    /// An address that gets the event as JSON by a POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<HookUrl>,
    /// Longest time for it, such as `10s`. Then it is ended, with all that it started.
    #[serde(default = "default_timeout")]
    timeout: Span,
}

/// What a hook does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HookAction<'a> {
    Run(&'a Program),
    Post(&'a str),
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

fn default_timeout() -> Span {
    Span(DEFAULT_TIMEOUT)
}

impl Hook {
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.0
    }

    pub(crate) fn action(&self) -> Option<HookAction<'_>> {
        let run = self.run.as_ref().map(HookAction::Run);
        run.or(self.url.as_ref().map(|url| HookAction::Post(url.as_str())))
    }

    /// In a few words, for messages. Of an address no more than the host: the rest may be a secret.
    pub(crate) fn shown(&self) -> String {
        const WIDTH: usize = 80;
        let text = match (&self.run, &self.url) {
            (Some(program), _) => secret::mask(&program.shown()).replace('\n', " "),
            (None, Some(url)) => url.host(),
            (None, None) => String::new(),
        };
        match text.char_indices().nth(WIDTH) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }

    pub(super) fn of_line<E: Error>(line: String) -> Result<Self, E> {
        let (mut run, mut url) = (None, None);
        if HookUrl::begins_address(&line) {
            url = Some(HookUrl::read(line)?);
        } else {
            run = Some(Program::Shell(line));
        }
        Self { run, url, timeout: default_timeout() }.validated()
    }

    pub(super) fn of_words<E: Error>(words: Vec<String>) -> Result<Self, E> {
        let run = Some(Program::Arguments(words));
        Self { run, url: None, timeout: default_timeout() }.validated()
    }

    /// The same, if it makes sense.
    pub(super) fn validated<E: Error>(self) -> Result<Self, E> {
        let program = match (&self.run, &self.url) {
            (Some(_), Some(_)) => {
                return Err(E::custom("expected either `run` or `url`, found both"));
            }
            (None, None) => {
                let text = "expected `run` (a command) or `url` (an address)";
                return Err(E::custom(text));
            }
            (Some(Program::Shell(line)), None) => Some(line.trim()),
            (Some(Program::Arguments(words)), None) => {
                Some(words.first().map_or("", String::as_str))
            }
            (None, Some(_)) => None,
        };
        if program == Some("") {
            return Err(E::custom(
                "expected a program with its arguments, or a line for the shell",
            ));
        }
        if self.timeout.0.is_zero() {
            return Err(E::custom("expected a `timeout` longer than nothing, such as `10s`"));
        }
        if let Some(program) = &self.run {
            secret::learn_addresses(&program.shown());
        }
        Ok(self)
    }
}
