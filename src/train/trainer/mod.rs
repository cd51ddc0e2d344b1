//! Training: the loop, its settings, and what it keeps.

mod backward;
mod batches;
mod checkpoint_writer;
mod data_parallel;
pub mod ema;
mod ema_settings;
mod entries;
mod flat;
mod init_settings;
mod loss_meter;
mod noised_batch;
mod optimizer;
mod optimizer_settings;
mod periods;
pub mod power_ema;
mod precision;
mod probe;
mod recorder;
mod schedule;
pub mod self_test;
mod settings;
mod settings_check;
#[cfg(feature = "wgpu")]
pub mod step_counts;
mod then;
mod train_state;
mod training_context;
mod training_length;
mod training_loop;
mod validation;

pub use data_parallel::Worker;
pub use ema_settings::EmaSettings;
pub use init_settings::{InitSettings, InitWeights};
pub use optimizer::{Optimizer, PREFIX as OPTIMIZER_STATE, StepSettings, clip_by_norm};
pub use periods::{HORIZON_STEPS, Period, Periods};
pub use precision::Precision;
pub use probe::{ProbedImage, ProbedStep, StepProbe};
pub use recorder::{ModelInfo, OnNewBest, Recorder};
pub use schedule::{Horizon, Schedule, ScheduleKind};
pub use settings::{
    LoraSettings, ModelSettings, OptimizerKind, OptimizerSettings, TrainSettings, TrainingSettings,
};
pub use train_state::{EMA_WEIGHTS, POWER_EMA, SNAPSHOTS, Taken, TrainState, WEIGHTS};
pub use training_context::{Position, TrainingContext};
pub use training_loop::fit;
