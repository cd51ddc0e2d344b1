//! Keys that stages have whatever their kind.

use std::sync::Arc;

use crate::kind::StageKind;

/// Keys of every stage whose value may be the name of a policy. Stage kinds have further ones:
/// [`StageKind::policies`](crate::kind::StageKind::policies).
const OPTION_POLICIES: [&str; 4] = ["retry", "timeout", "resume", "halving"];
/// Keys of every stage that say how it is carried out: those of
/// [`ExecutionOptions`](crate::policy::ExecutionOptions).
pub(crate) const OPTION_KEYS: [&str; 8] =
    ["retry", "timeout", "on_failure", "resume", "resources", "slurm", "halving", "on"];
/// Further keys of every stage, whatever its kind.
pub(crate) const COMMON_KEYS: [&str; 4] = ["kind", "config", "needs", "matrix"];

/// Stage keys whose value may be the name of a policy: those of the kinds, then those of every
/// stage.
pub(crate) fn policy_keys(kinds: &[Arc<dyn StageKind>]) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let of_kinds = kinds.iter().flat_map(|kind| kind.policies());
    for key in of_kinds.chain(&OPTION_POLICIES) {
        if !keys.contains(key) {
            keys.push(*key);
        }
    }
    keys
}
