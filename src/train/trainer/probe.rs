//! What a replay sees of a training's steps: which images, at which noise levels, with which losses
//! and gradients.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::optim::GradientsAccumulator;
use burn::tensor::{Device, Tensor};
use pipe_engine::kind::StageError;
use serde::Serialize;

use super::backward::Backward;
use super::noised_batch::NoisedBatch;
use super::optimizer::squared_norm;
use crate::architecture::Network;
use crate::data::Dataset;
use crate::device;

/// A step as it was computed.
#[derive(Debug, Clone, Serialize)]
pub struct ProbedStep {
    /// Optimizer steps since the start, this one among them.
    pub step: u64,
    /// The epoch that it belongs to, from 1.
    pub epoch: u64,
    /// Mean of the losses of its batches, as the training has them.
    pub loss: f64,
    /// Of all its gradients together, before they are clipped; `None` for a step that was only
    /// passed on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// In the order of the batches; none of a step that was only passed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ProbedImage>,
}

/// An image in a step.
#[derive(Debug, Clone, Serialize)]
pub struct ProbedImage {
    /// Its place in the data set.
    pub index: usize,
    /// `None` where images are no files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub class: String,
    /// It was trained without its class.
    pub is_label_dropped: bool,
    /// The noise level σ.
    pub sigma: f64,
    /// Its own loss; the mean over the step's images is the step's, where batches are equally large.
    pub loss: f64,
    /// Norm of the gradient of its own loss, where one step alone is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// `[3, size, size]` in -1..=1, augmented, before noise; empty unless one step is looked at.
    #[serde(skip)]
    pub pixels: Vec<f32>,
}

/// Looks at a range of steps.
pub struct StepProbe {
    from: u64,
    to: u64,
    /// In the order of the steps. The last one may still lack its end.
    steps: Mutex<Vec<ProbedStep>>,
    /// Of the step under way.
    images: Mutex<Vec<ProbedImage>>,
}

/// A batch of the training, as a probe looks at it.
pub(super) struct BatchView<'a> {
    /// In the data set.
    pub indices: &'a [usize],
    pub noised: &'a NoisedBatch,
    /// In the precision of the training.
    pub weights: &'a Network,
    pub backward: &'a Backward,
    pub dataset: &'a Dataset,
    pub device: &'a Device,
}

impl StepProbe {
    /// Of the steps `from..=to`, counted from 1. With one step it looks at each image's gradient, too.
    pub fn new(from: u64, to: u64) -> Self {
        Self { from, to, steps: Mutex::default(), images: Mutex::default() }
    }

    /// The steps that it saw, those before the range with their losses alone.
    pub fn steps(&self) -> Vec<ProbedStep> {
        held(&self.steps).clone()
    }

    /// Whether a step is in the range.
    pub(super) fn looks_at(&self, step: u64) -> bool {
        (self.from..=self.to).contains(&step)
    }

    /// Whether nothing is to be seen behind a step.
    pub(super) fn is_last(&self, step: u64) -> bool {
        step >= self.to
    }

    /// Looks at one batch of the step under way. Waits for the device.
    pub(super) fn look(&self, batch: &BatchView) -> Result<(), StageError> {
        let alone = self.from == self.to;
        let (losses, norms) =
            if alone { batch.gradients()? } else { (batch.losses()?, Vec::new()) };
        let BatchView { indices, noised, dataset, .. } = batch;
        let size = dataset.image_size();
        let images = noised.images().zip(noised.levels()).zip(noised.labels()).zip(*indices);
        let seen = images.zip(losses).enumerate().map(|(at, ((of, index), loss))| {
            let ((pixels, sigma), label) = of;
            let class = dataset.label(*index) as usize;
            ProbedImage {
                index: *index,
                file: dataset.file(*index).map(|file| file.display().to_string()),
                class: dataset.class_names().get(class).cloned().unwrap_or_default(),
                is_label_dropped: usize::try_from(*label).is_ok_and(|label| label != class),
                sigma: f64::from(*sigma),
                loss,
                gradient_norm: norms.get(at).copied(),
                pixels: if alone { pixels[..3 * size * size].to_vec() } else { Vec::new() },
            }
        });
        held(&self.images).extend(seen);
        Ok(())
    }

    /// Ends the step under way.
    pub(super) fn end_step(&self, step: u64, epoch: u64, losses: &[f64], norm: Option<f64>) {
        let loss = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let images = std::mem::take(&mut *held(&self.images));
        held(&self.steps).push(ProbedStep { step, epoch, loss, gradient_norm: norm, images });
    }
}

impl BatchView<'_> {
    /// Each image's loss.
    fn losses(&self) -> Result<Vec<f64>, StageError> {
        read(self.backward.each_loss(self.weights, self.noised.clone(), self.device))
    }

    /// Each image's loss, and the norm of its gradient.
    fn gradients(&self) -> Result<(Vec<f64>, Vec<f64>), StageError> {
        let images = self.noised.levels().len();
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for image in self.noised.clone().shards(images) {
            let mut gradients = GradientsAccumulator::new();
            let loss = self.backward.add(&mut gradients, self.weights, image, 1, self.device);
            losses.extend(loss);
            norms.extend(squared_norm(self.weights, &gradients.grads()).map(|sum| sum.sqrt()));
        }
        // Each counts for its share of the batch there.
        let whole = |values: Vec<f64>| values.into_iter().map(|v| v * images as f64).collect();
        Ok((whole(read(losses)?), whole(read(norms)?)))
    }
}

/// Numbers `[1]` each, read at once.
fn read(values: Vec<Tensor<1>>) -> Result<Vec<f64>, StageError> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    Ok(device::read(Tensor::cat(values, 0))?.iter::<f32>().map(f64::from).collect())
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
