//! The stage kinds that this crate brings to the engine.

pub mod artifacts;
mod checkpoint_file;
mod class_names;
mod copy_best;
mod dataset;
mod evaluate;
mod file_formats;
mod images;
mod init;
mod lint;
mod lint_init;
mod lint_sample;
mod lint_selection;
mod lora;
mod progress;
mod result_files;
mod resume_checkpoint;
mod resume_compatibility;
mod sample;
mod sample_each;
mod sample_guide;
mod sample_settings;
mod select_best;
mod train;
mod training;

use std::sync::Arc;

use pipe_engine::kind::StageKind;

use crate::architecture::Architectures;
pub use dataset::data_failure;
pub use file_formats::RunFiles;

/// Every stage kind, for models of these architectures.
pub fn kinds(architectures: &Architectures) -> Vec<Arc<dyn StageKind>> {
    let architectures = || architectures.clone();
    vec![
        Arc::new(dataset::DatasetKind),
        Arc::new(checkpoint_file::CheckpointKind),
        Arc::new(train::TrainKind(architectures())),
        Arc::new(copy_best::CopyBestKind(architectures())),
        Arc::new(select_best::SelectBestKind),
        Arc::new(lora::LoraKind(architectures())),
        Arc::new(sample::SampleKind(architectures())),
        Arc::new(evaluate::EvaluateKind(architectures())),
    ]
}
