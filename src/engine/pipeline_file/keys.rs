//! Keys that stages have whatever their kind.

/// Stage keys whose value may be the name of a policy.
pub(crate) const POLICY_KEYS: [&str; 4] = ["checkpoint", "retry", "timeout", "resume"];
/// Keys of every stage that say how it is carried out: those of
/// [`ExecutionOptions`](crate::policy::ExecutionOptions).
pub(crate) const OPTION_KEYS: [&str; 6] =
    ["retry", "timeout", "on_failure", "resume", "resources", "slurm"];
/// Further keys of every stage, whatever its kind.
pub(crate) const COMMON_KEYS: [&str; 4] = ["kind", "config", "needs", "matrix"];
