//! Loading a pipeline file from the command line: where the project is, which stage kinds there are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipe_engine::command::CommandKind;
use pipe_engine::graph::Graph;
use pipe_engine::kind::StageKind;
use pipe_engine::spec::{self, Override};

use super::CliError;

/// Every stage kind of the product.
pub fn kinds() -> Vec<Arc<dyn StageKind>> {
    let mut kinds = pipe_train::stages::kinds();
    kinds.push(Arc::new(CommandKind));
    kinds
}

/// The project's folder: where the program was started.
pub fn root() -> Result<PathBuf, CliError> {
    std::env::current_dir().map_err(|e| CliError::usage(format!("failed to find the current folder: {e}")))
}

/// Reads, resolves and checks one pipeline file.
pub fn load(file: &Path, overrides: &[Override]) -> Result<Graph, CliError> {
    let pipeline = spec::load(&root()?, file, &kinds(), overrides)?;
    Ok(Graph::build(pipeline)?)
}
