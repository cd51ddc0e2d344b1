//! The outermost keys of files.

/// Those of a pipeline file.
pub(crate) const OF_PIPELINES: [&str; 12] = [
    "name", "include", "params", "policies", "profiles", "executor", "store", "fsync", "on",
    "budget", "until", "stages",
];
/// Those of an included file. Its name is for who runs it by itself.
pub(crate) const OF_INCLUDED: [&str; 5] = ["name", "include", "params", "policies", "stages"];
/// What a profile may change.
pub(crate) const OF_PROFILES: [&str; 9] =
    ["params", "policies", "executor", "store", "fsync", "on", "budget", "until", "stages"];
/// By when all trainings of a pipeline have come to their end, or one of them; keys of both.
pub(crate) const TIME_LIMITS: [&str; 2] = ["budget", "until"];
