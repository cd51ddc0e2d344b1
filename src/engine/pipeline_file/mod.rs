//! Pipeline files: what people write, read into layers of settings with the place of every value.

mod apply;
mod declared;
mod dependencies;
mod document;
pub mod environment;
mod executor;
mod fsync;
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
mod stage;
mod store;

pub(crate) use executor::properties as executor_properties;
pub use executor::{Executor, ExecutorKind};
pub use layers::{Layer, Origin, StageLayers};
pub use load::load;
pub use overrides::{Override, OverrideSource, Precedence};
pub use pipeline::{PipelineFile, StageDeclaration};
pub use store::{Scheme, StoreUrl};

pub use crate::graph::{Input, LoadedPipeline, LoadedStage};

/// Stage keys whose value may be the name of a policy.
pub(crate) const POLICY_KEYS: [&str; 4] = ["checkpoint", "retry", "timeout", "resume"];
/// Keys of every stage that say how it is carried out: those of
/// [`Conduct`](crate::policy::Conduct).
pub(crate) const OPTION_KEYS: [&str; 6] =
    ["retry", "timeout", "on_failure", "resume", "resources", "slurm"];
/// Further keys of every stage, whatever its kind.
pub(crate) const COMMON_KEYS: [&str; 4] = ["kind", "config", "needs", "matrix"];
