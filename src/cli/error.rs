//! How a command ends: its exit code, or the messages of what went wrong.

use std::fmt;

use pipe_core::error::{SpecError, SpecErrors};
use pipe_engine::graph::Graph;
use pipe_engine::kind::{Failure, StageError, StageId};

/// What the process ends with; see the help's last lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode(pub u8);

impl ExitCode {
    pub const SUCCESS: Self = Self(0);
}

impl From<u8> for ExitCode {
    fn from(code: u8) -> Self {
        Self(code)
    }
}

/// What ends the program with a message.
#[derive(Debug)]
pub struct CliError {
    messages: Vec<Message>,
    code: u8,
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Message {
    pub text: String,
    /// The same by its parts, of what stands in a file.
    pub spec: Option<SpecError>,
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self { text, spec: None }
    }
}

impl From<SpecError> for Message {
    fn from(error: SpecError) -> Self {
        Self { text: error.to_string(), spec: Some(error) }
    }
}

impl CliError {
    /// Bad usage, file or setting.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { messages: vec![message.to_string().into()], code: 2 }
    }

    /// The work itself failed.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self { messages: vec![message.to_string().into()], code: 1 }
    }

    /// What went wrong with a stage.
    pub fn stage(stage: &str, error: &StageError) -> Self {
        let message = format!("stage {stage}: {error}");
        match error.failure {
            Failure::Setting => Self::usage(message),
            _ => Self::failed(message),
        }
    }

    /// The same of a stage of a file that somebody wrote: at the setting that is to blame, if one is.
    pub fn stage_of(graph: &Graph, id: &StageId, error: &StageError) -> Self {
        let blamed = error.key.as_deref().zip(graph.stage(id));
        let Some((key, stage)) = blamed else { return Self::stage(id.as_str(), error) };
        let reason = if id.as_str() == id.declared() {
            error.reason().to_owned()
        } else {
            format!("{id}: {}", error.reason())
        };
        let told = Self::from(stage.error_at(&graph.pipeline.source, key, reason));
        Self { code: Self::stage(id.as_str(), error).code, ..told }
    }

    /// What is to be printed, each with `error:` before it.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// All of it as one text.
    pub fn to_text(&self) -> String {
        self.messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// All that is wrong with several things.
    pub fn all(errors: Vec<Self>) -> Option<Self> {
        let code = errors.iter().map(|e| e.code).max()?;
        Some(Self { messages: errors.into_iter().flat_map(|e| e.messages).collect(), code })
    }

    /// Two things that went wrong; the first says how the process ends.
    pub fn both(first: Self, second: Self) -> Self {
        Self { messages: [first.messages, second.messages].concat(), code: first.code }
    }

    /// Adds a line of help to the last message.
    pub fn note(mut self, note: impl fmt::Display) -> Self {
        if let Some(message) = self.messages.last_mut() {
            message.text.push_str(&format!("\n  = {note}"));
        }
        self
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl From<SpecError> for CliError {
    fn from(error: SpecError) -> Self {
        SpecErrors::from(error).into()
    }
}

impl From<SpecErrors> for CliError {
    fn from(errors: SpecErrors) -> Self {
        Self { messages: errors.iter().cloned().map(Message::from).collect(), code: 2 }
    }
}
