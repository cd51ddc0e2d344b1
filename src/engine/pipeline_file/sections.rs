//! The outermost keys of files.

/// Those of a pipeline file.
pub(crate) const OF_PIPELINES: [&str; 10] = [
    "name", "include", "params", "policies", "profiles", "executor", "store", "fsync", "on",
    "stages",
];
/// Those of an included file. Its name is for who runs it by itself.
pub(crate) const OF_INCLUDED: [&str; 5] = ["name", "include", "params", "policies", "stages"];
/// What a profile may change.
pub(crate) const OF_PROFILES: [&str; 7] =
    ["params", "policies", "executor", "store", "fsync", "on", "stages"];
