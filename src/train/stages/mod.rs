//! The stage kinds that this crate brings to the engine.

mod artifacts;
mod copy_best;
mod dataset;
mod file_formats;
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

pub use file_formats::RunFiles;

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
