//! The files that paths, folders and patterns among the settings of a stage of any kind mean now.

use std::cell::OnceCell;

use pipe_core::failure::StageError;

use super::files::{Files, digested};
use crate::kind::ContentContext;
use crate::state::Output;

/// The files that one path or pattern among a stage's inputs means now.
pub struct InputFiles {
    pub pattern: String,
    /// `None` if there is none.
    pub files: Option<Vec<Output>>,
}

/// The files that paths, folders and patterns among a stage's settings mean now. What did not change
/// since it was `seen`, or since the stage noted it, is not read again.
pub fn input_files(
    at: &ContentContext,
    patterns: &[String],
    seen: &[Output],
) -> Result<Vec<InputFiles>, StageError> {
    let ContentContext { root, stage, graph, made, formats } = *at;
    let files = Files { root, graph, formats, stage, own: &[], others: OnceCell::new() };
    let noted = made.map_or(&[][..], |made| &made.inputs);
    let known = if seen.is_empty() { noted } else { seen };
    let look = |pattern: &String| {
        let mut found = Vec::new();
        let is_there = files.read(pattern, &mut found)?;
        let digested = || digested(root, formats, found, known);
        let files = is_there.then(digested).transpose()?;
        Ok(InputFiles { pattern: pattern.clone(), files })
    };
    patterns.iter().map(look).collect()
}
