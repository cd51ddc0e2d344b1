//! The stage kinds that this crate brings to the engine.

mod belonging;
mod choice;
mod concerns;
mod copy_best;
mod dataset;
mod elsewhere;
mod from_file;
mod handed;
mod lora;
mod sample;
mod sampling;
mod select_best;
mod source;
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
