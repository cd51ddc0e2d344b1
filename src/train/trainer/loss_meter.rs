//! The losses of the epoch so far. Losses stay on the device until somebody needs numbers, so that
//! a step waits for nothing; they are added up in the order of the steps, so that when they are
//! read changes no bit.

use burn::tensor::Tensor;
use pipe_engine::kind::{Failure, StageError};
use serde::{Deserialize, Serialize};

use crate::device;

/// Sum and count of the losses, as kept in a checkpoint written inside an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LossTotals {
    pub loss: f64,
    pub batches: u64,
}

pub struct LossMeter {
    totals: LossTotals,
    /// Losses `[1]` not read yet, with the optimizer step of each.
    unread: Vec<(u64, Tensor<1>)>,
    last: Option<f64>,
}

impl LossMeter {
    pub fn resume(totals: LossTotals) -> Self {
        Self { totals, unread: Vec::new(), last: None }
    }

    /// Adds the loss `[1]` of one batch of optimizer step `step`.
    pub fn add(&mut self, step: u64, loss: Tensor<1>) {
        self.unread.push((step, loss));
    }

    /// Reads the losses that are still on the device. A loss that is not finite is an error that
    /// names its step.
    pub fn read(&mut self) -> Result<LossTotals, StageError> {
        if self.unread.is_empty() {
            return Ok(self.totals);
        }
        let unread = std::mem::take(&mut self.unread);
        let (steps, losses): (Vec<u64>, Vec<Tensor<1>>) = unread.into_iter().unzip();
        let losses = device::read(Tensor::cat(losses, 0))?;
        for (step, loss) in steps.iter().zip(losses.iter::<f32>()) {
            if !loss.is_finite() {
                return Err(StageError::new(
                    Failure::NotFinite,
                    format!(
                        "the loss is {loss} at step {step}; the last good checkpoint stands. A lower learning_rate, \
                         a longer schedule.warmup_steps or gradient_clip_val: 1.0 often helps"
                    ),
                ));
            }
            self.totals.loss += f64::from(loss);
            self.totals.batches += 1;
            self.last = Some(f64::from(loss));
        }
        Ok(self.totals)
    }

    /// The newest loss that was read.
    pub fn last(&self) -> Option<f64> {
        self.last
    }
}

impl LossTotals {
    pub fn mean(&self) -> f64 {
        self.loss / self.batches.max(1) as f64
    }
}
