//! How durable files are.

use serde::Deserialize;

/// What the disk is asked to keep through a power cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Files and the folders that name them: what is reported as saved survives a power cut.
    #[default]
    Full,
    /// Files, and not folders: after a power cut, what was saved last can stand without a name, or
    /// with its old content.
    Data,
    /// Nothing: a power cut can leave anything, also files that look whole and are not. A process
    /// that is killed loses nothing.
    Off,
}
