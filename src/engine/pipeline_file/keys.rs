//! Keys of stages whose value may be the name of a policy.

use std::sync::Arc;

use crate::kind::StageKind;

/// Keys of every stage whose value may be the name of a policy. Stage kinds have further ones:
/// [`StageKind::policies`](crate::kind::StageKind::policies).
const OPTION_POLICIES: [&str; 4] = ["retry", "timeout", "resume", "halving"];

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
