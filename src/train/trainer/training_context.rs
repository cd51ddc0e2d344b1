//! What a training is given, and how far it is.

use std::sync::Arc;

use burn::tensor::Device;
use pipe_engine::kind::RunContext;
use pipe_runs::{Header, Place};

use super::data_parallel::Worker;
use super::loss_meter::LossTotals;
use super::periods::Periods;
use super::probe::StepProbe;
use super::settings::TrainingSettings;
use crate::architecture::ModelConfig;
use crate::data::Dataset;

/// All that the loop needs.
pub struct TrainingContext<'a> {
    /// Those of all periods alike are read here.
    pub settings: &'a TrainingSettings,
    pub periods: &'a Periods,
    /// In all; the last one in part where `max_steps` ends inside it.
    pub epochs: u64,
    /// The number of epochs, where time has decided it by now.
    pub planned: Option<u64>,
    pub config: &'a ModelConfig,
    /// Micro-batches that each device's shard of a batch is cut into, to save memory.
    pub micro_batches: usize,
    /// Steps that were done besides those that the position makes with the steps that an epoch has
    /// there: the batch size was another one in earlier epochs. 0 where it was none.
    pub other_steps: i64,
    pub dataset: Arc<Dataset>,
    /// The main device, with autodiff.
    pub device: Device,
    /// Further devices, which take their shard of each batch.
    pub workers: &'a [Worker],
    pub context: &'a RunContext<'a>,
    /// What looks at the steps of a replay, and ends it.
    pub probe: Option<Arc<StepProbe>>,
}

/// How far training is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Position {
    /// Completed epochs.
    pub epoch: u64,
    /// Optimizer steps since the start.
    pub global_step: u64,
    /// Optimizer steps into the epoch after the completed ones; 0 between epochs.
    pub step_in_epoch: u64,
    /// Losses of the epoch that is under way.
    pub loss_totals: LossTotals,
    /// Seconds that the epoch under way was trained for, by those before this process too.
    pub seconds_in_epoch: f64,
}

impl Position {
    /// The same without steps over all epochs and losses.
    pub fn place(&self) -> Place {
        Place { epoch: self.epoch, step_in_epoch: self.step_in_epoch }
    }

    /// Where the training was that wrote a checkpoint.
    pub fn of(header: &Header) -> Self {
        Self {
            epoch: header.epoch,
            global_step: header.global_step,
            step_in_epoch: header.step_in_epoch,
            loss_totals: serde_json::from_value(header.loop_state["sums"].clone())
                .unwrap_or_default(),
            seconds_in_epoch: header.seconds_in_epoch(),
        }
    }
}
