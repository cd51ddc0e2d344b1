//! Training: the loop, its settings, and what it keeps.

mod backward;
mod draw;
pub mod ema;
mod optimizer;
mod precision;
mod record;
mod replicas;
mod run;
mod schedule;
pub mod self_test;
mod settings;
mod state;
mod tally;
mod writer;

pub use optimizer::{Optimizer, clip_by_norm};
pub use precision::Precision;
pub use record::{About, AfterBest, Recorder};
pub use replicas::Other;
pub use run::{Job, Position, fit};
pub use schedule::{Schedule, ScheduleKind};
pub use settings::{
    EmaSettings, FitSettings, LoraSettings, ModelSettings, OptimizerKind, OptimizerSettings,
    TrainSettings,
};
pub use state::{EMA_WEIGHTS, TrainState, WEIGHTS};
