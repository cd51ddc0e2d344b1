//! Programs that a stage of another kind starts: by the same code that runs those of `command`
//! stages.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pipe_core::failure::StageError;

use super::files::{Files, digested};
use super::{Program, process};
use crate::kind::{ContentContext, RunContext};
use crate::state::Output;

/// A program, and how it is started and ended.
pub struct Launch<'a> {
    pub program: &'a Program,
    /// Where it is started.
    pub folder: &'a Path,
    /// Variables besides those of this process.
    pub env: &'a BTreeMap<String, String>,
    /// Time between the request to stop and the end by force.
    pub grace: Duration,
    /// Whether the request to stop goes to all that the program started, and not to it alone.
    pub tells_all: bool,
    /// Raised when it is to end although nobody asked the stage to stop.
    pub cancelled: &'a AtomicBool,
}

/// Runs a program to its end: its output becomes events, and all that it started ends with it.
///
/// # Errors
/// It could not be started, ended badly, or was stopped.
pub fn launch(context: &RunContext, launch: &Launch) -> Result<(), StageError> {
    process::run(context, launch)
}

/// The files that one path or pattern among a stage's inputs means now.
pub struct InputFiles {
    pub pattern: String,
    /// `None` if there is none.
    pub files: Option<Vec<Output>>,
}

/// The files that paths, folders and patterns among a stage's settings mean now. What did not change
/// since the stage noted it is not read again.
pub fn input_files(
    at: &ContentContext,
    patterns: &[String],
) -> Result<Vec<InputFiles>, StageError> {
    let ContentContext { root, stage, graph, made, formats } = *at;
    let files = Files { root, graph, formats, stage, own: &[], others: OnceCell::new() };
    let known = made.map_or(&[][..], |made| &made.inputs);
    let look = |pattern: &String| {
        let mut found = Vec::new();
        let is_there = files.read(pattern, &mut found)?;
        let digested = || digested(root, formats, found, known);
        let files = is_there.then(digested).transpose()?;
        Ok(InputFiles { pattern: pattern.clone(), files })
    };
    patterns.iter().map(look).collect()
}
