//! Keys that stages have whatever their kind.

use pipe_core::error::slips;

/// Keys of every stage that say how it is carried out: those of
/// [`ExecutionOptions`](crate::policy::ExecutionOptions).
pub(crate) const OPTION_KEYS: [&str; 8] =
    ["retry", "timeout", "on_failure", "resume", "resources", "slurm", "halving", "on"];
/// Further keys of every stage, whatever its kind.
pub(crate) const COMMON_KEYS: [&str; 4] = ["kind", "config", "needs", "matrix"];

/// What keys of every stage are called elsewhere.
const KNOWN_AS: [(&str, &[&str]); 4] = [
    ("matrix", &["sweep", "sweeps", "foreach", "grid", "strategy"]),
    ("needs", &["depends_on", "dependencies", "requires", "after"]),
    ("retry", &["retries", "max_retries", "attempts"]),
    ("timeout", &["time_limit", "walltime"]),
];

/// The key of every stage that somebody means who writes `name`.
pub(crate) fn nearest_key(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let known = KNOWN_AS.iter().find(|(_, others)| others.contains(&&*name));
    let misspelt = || COMMON_KEYS.into_iter().chain(OPTION_KEYS).find(|key| slips(&name, key));
    known.map(|(key, _)| *key).or_else(misspelt)
}
