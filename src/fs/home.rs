//! Paths as people name them.

use std::path::{Path, PathBuf};

/// The path that a setting of a project names: `~/` is the home folder, and a relative one starts at
/// the project.
pub fn path_in(project: &Path, named: &Path) -> PathBuf {
    let home = || std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    match named.strip_prefix("~").ok().zip(home()) {
        Some((below, home)) => home.join(below),
        None => project.join(named),
    }
}
