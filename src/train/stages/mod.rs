//! The stage kinds that this crate brings to the engine.

pub mod artifacts;
mod copy_best;
mod dataset;
mod lint;
mod lint_sample;
mod lora;
mod relocated_runs;
mod resume_checkpoint;
mod resume_compatibility;
mod run_catalog;
mod run_match;
mod sample;
mod select_best;
mod train;
mod training;

use std::sync::Arc;

use pipe_engine::kind::StageKind;

/// Every stage kind.
pub fn kinds() -> Vec<Arc<dyn StageKind>> {
    vec![
        Arc::new(dataset::DatasetKind),
        Arc::new(train::TrainKind),
        Arc::new(copy_best::CopyBestKind),
        Arc::new(select_best::SelectBestKind),
        Arc::new(lora::LoraKind),
        Arc::new(sample::SampleKind),
    ]
}
