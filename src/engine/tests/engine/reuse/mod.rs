//! Merge keys, free keys, included files, several config files and profiles.

mod drawn;
mod includes;
mod merge_keys;
mod profiles;
mod written_out;

use std::path::Path;

use pipe_engine::pipeline_file;

use crate::fake::{Project, kinds};

/// What a warning says, and where.
#[track_caller]
fn warnings(project: &Project) -> Vec<String> {
    let loaded =
        pipeline_file::load(project.folder.path(), Path::new("p.yaml"), &kinds(), &project.sets);
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
    loaded
        .warnings
        .iter()
        .map(|warning| warning.to_string().lines().next().unwrap().to_owned())
        .collect()
}

/// The first lines of all errors.
#[track_caller]
fn firsts(project: &Project) -> Vec<String> {
    let error = project.error();
    error
        .lines()
        .filter(|line| !line.starts_with([' ', '|']) && line.contains(": "))
        .filter(|line| !line.chars().next().unwrap().is_ascii_digit())
        .map(str::to_owned)
        .collect()
}
