//! The stage kinds that a program has.

use std::sync::Arc;

use pipe_engine::kind::StageKind;

/// The stage kinds that pipeline files may use.
pub type Kinds = [Arc<dyn StageKind>];
