//! `pipe runs note` and `pipe runs tag`.

use pipe_runs::{Labels, Run};

use crate::cli::{CliError, ExitCode};
use crate::report::stdout::say;

/// Writes a note in the place of the old one; no text removes it.
pub fn note(run: &Run, text: Option<String>) -> Result<ExitCode, CliError> {
    let mut labels = Labels::load(run).map_err(CliError::failed)?;
    labels.note = text.filter(|text| !text.trim().is_empty());
    labels.save(run).map_err(CliError::failed)?;
    match &labels.note {
        Some(note) => say!("run {}: {note}", run.number),
        None => say!("run {} has no note now", run.number),
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds tags, or takes them off.
pub fn tag(run: &Run, tags: Vec<String>, remove: bool) -> Result<ExitCode, CliError> {
    if let Some(wrong) = tags.iter().find(|tag| tag.is_empty() || tag.contains(char::is_whitespace))
    {
        return Err(CliError::usage(format!("a tag is one word, found {wrong:?}")));
    }
    let mut labels = Labels::load(run).map_err(CliError::failed)?;
    for tag in tags {
        if remove {
            labels.tags.remove(&tag);
        } else {
            labels.tags.insert(tag);
        }
    }
    labels.save(run).map_err(CliError::failed)?;
    let shown = if labels.tags.is_empty() { "no tags".to_owned() } else { labels.shown_tags() };
    say!("run {}: {shown}", run.number);
    Ok(ExitCode::SUCCESS)
}
