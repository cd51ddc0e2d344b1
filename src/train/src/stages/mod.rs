//! The stage kinds that this crate brings to the engine.

mod dataset;
mod train;

use std::sync::Arc;

use pipe_engine::kind::StageKind;

/// Every stage kind.
pub fn kinds() -> Vec<Arc<dyn StageKind>> {
    vec![Arc::new(dataset::DatasetKind), Arc::new(train::TrainKind)]
}
