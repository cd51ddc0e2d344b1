//! Pipeline files: what people write, read into layers of settings with the place of every value.

mod apply;
mod declared;
mod dependencies;
mod document;
pub mod environment;
mod executor;
mod fsync;
mod halved;
mod hooks;
mod judges;
mod keys;
mod layers;
mod load;
mod matrix;
mod matrix_conflicts;
mod origin;
mod overrides;
mod params;
mod paths;
mod pattern_overlaps;
mod pipeline;
mod resolve_params;
mod stage;
mod stage_bodies;
mod stage_layers;
mod store;
mod sweeps;
mod swept;
mod typing;

pub(crate) use executor::properties as executor_properties;
pub use executor::{ExecutorKind, ExecutorSettings};
pub(crate) use keys::{COMMON_KEYS, OPTION_KEYS, policy_keys};
pub use layers::{Layer, Origin, StageLayers};
pub use load::load;
pub(crate) use matrix::schema as matrix_schema;
pub use overrides::{Override, OverrideSource, Precedence};
pub use pipeline::{PipelineFile, StageDeclaration};
pub use store::{Scheme, StoreUrl};

pub use crate::graph::{Input, LoadedPipeline, LoadedStage};
