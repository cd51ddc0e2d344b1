//! What is said of a stage's settings before anything runs.

/// A finding about the value at a key of a stage: a warning or an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Dotted path, relative to the stage.
    pub key: String,
    pub message: String,
    /// What to do about it.
    pub note: Option<String>,
    /// It can never work: an error, not a warning.
    pub fatal: bool,
}

impl Diagnostic {
    pub fn warning(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), note: None, fatal: false }
    }

    pub fn error(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::warning(key, message) }
    }

    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }
}
