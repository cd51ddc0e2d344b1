//! Pipeline files: what people write, read into layers of settings with the place of every value.

mod layers;
mod load;
mod overrides;
mod params;
mod pipeline;

pub use layers::{Layer, Origin, StageLayers};
pub(crate) use load::POLICY_KEYS;
pub use load::{LoadedPipeline, LoadedStage, load};
pub use overrides::{Override, Strength, environment};
pub use pipeline::{PipelineFile, StageDeclaration};
