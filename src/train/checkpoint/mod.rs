//! Models from checkpoint files: a checkpoint alone is enough to rebuild its model; one of LoRA
//! finds its base model in the folder of its run.

mod adapter_check;
mod compare;
mod export;
pub(crate) mod foreign;
mod guide;
mod import;
mod lora_layers;
mod mapped;
mod post_hoc;
mod rebuild;

pub use adapter_check::{ADAPTER, LoraFile, lora_damage};
pub use compare::{PartDifference, differences};
pub use export::{ExportError, inference_weights, merged, weights_only};
pub use guide::{GuideError, load_guide, no_guide};
pub use import::{ImportError, ImportOptions, import};
pub use lora_layers::{LayersError, LoraLayers};
pub use mapped::{Imported, Mapping, import_mapped};
pub use pipe_models::header::{
    BASE_DIGEST, BASE_WEIGHTS, BASE_WEIGHTS_DIGEST, LABEL_DROPOUT, class_names, label_dropout,
};
pub use post_hoc::{Averaged, EMA_LENGTH, PostHocError, averaged};
pub use rebuild::{
    BASE_FILE, RebuildError, SamplingModel, adapted_model, adapter, base_beside, base_of,
    inference_prefix, load_for_sampling, model, model_for_classes, other_base, probe,
    weights_digest,
};
