//! Pipeline files: what people write, read into layers of settings with the place of every value.

mod document;
mod layers;
mod load;
mod matrix;
mod overrides;
mod params;
mod pipeline;

pub use layers::{Layer, Origin, StageLayers};
pub(crate) use load::POLICY_KEYS;
pub use load::{Input, LoadedPipeline, LoadedStage, load};
pub use overrides::{Override, Strength, environment};
pub use pipeline::{PipelineFile, StageDeclaration};
