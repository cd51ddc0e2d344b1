//! A batch with the random numbers of its training step: noise levels, noise, dropped labels. A
//! pure function of `(seed, epoch, batch)`.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::RngExt;
use rand_distr::StandardNormal;

use crate::data::Batch;
use crate::diffusion::Objective;
use crate::rng::{Purpose, stream};

/// A batch, or a shard of one, with all that was drawn for it. In host memory.
#[derive(Debug, Clone)]
pub struct NoisedBatch {
    /// `[images, 3, size, size]`
    image: Vec<f32>,
    /// `[images]`
    sigma: Vec<f32>,
    /// `[images, 3, size, size]`
    noise: Vec<f32>,
    /// `[images]`
    label: Vec<i64>,
    /// `[images, labels]`, or empty.
    augment: Vec<f32>,
    shard: Shard,
}

/// Which part of a batch: in data-parallel training each device has one.
#[derive(Debug, Clone, Copy)]
pub struct Shard {
    pub key: BatchKey,
    /// The first of its images.
    pub first: usize,
    /// Images of the whole batch.
    pub of: usize,
}

/// A shard, or a micro-batch of one, on a device, ready for the loss.
pub struct LossInputs {
    /// `[batch, 3, size, size]`
    pub image: Tensor<4>,
    /// `[batch]`
    pub sigma: Tensor<1>,
    /// `[batch, 3, size, size]`
    pub noise: Tensor<4>,
    /// `[batch]`; `None` for a model without classes.
    pub label: Option<Tensor<1, Int>>,
    /// `[batch, labels]`; `None` where the network is not told what the augmentation did.
    pub augment: Option<Tensor<2>>,
    pub shard: Shard,
}

/// Names the random numbers of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchKey {
    pub seed: u64,
    pub epoch: u64,
    /// Number of the batch in its epoch.
    pub batch: u64,
}

/// Labels that are dropped, for classifier-free guidance.
#[derive(Debug, Clone, Copy)]
pub struct LabelDropout {
    /// 0 for a model without classes.
    pub classes: usize,
    /// Share of labels replaced by "no class".
    pub dropout: f64,
}

impl NoisedBatch {
    /// Draws for training.
    pub fn for_training(
        batch: Batch,
        key: BatchKey,
        objective: &Objective,
        labels: LabelDropout,
    ) -> Self {
        let of = |purpose| stream(key.seed, purpose, key.epoch, key.batch);
        let sigma = objective.draw_levels(batch.labels.len(), &mut of(Purpose::Sigma));
        let noise = of(Purpose::Noise).sample_iter(StandardNormal).take(batch.images.len());
        let noise = noise.collect();
        let mut rng = of(Purpose::LabelDropout);
        let kept = batch.labels.iter().map(|label| {
            if rng.random::<f64>() < labels.dropout { labels.classes as i64 } else { *label }
        });
        let label: Vec<i64> = kept.collect();
        let shard = Shard { key, first: 0, of: label.len() };
        Self { image: batch.images, sigma, noise, label, augment: batch.augment, shard }
    }

    /// Draws for validation: no label is dropped, and every epoch gets the same numbers.
    pub fn for_validation(batch: Batch, key: BatchKey, objective: &Objective) -> Self {
        let mut rng = stream(key.seed, Purpose::Validation, 0, key.batch);
        let sigma = objective.draw_levels(batch.labels.len(), &mut rng);
        let noise: Vec<f32> = (0..batch.images.len()).map(|_| rng.sample(StandardNormal)).collect();
        let shard = Shard { key, first: 0, of: batch.labels.len() };
        Self {
            image: batch.images,
            sigma,
            noise,
            label: batch.labels,
            augment: batch.augment,
            shard,
        }
    }

    /// The noise level σ of each image.
    pub fn levels(&self) -> &[f32] {
        &self.sigma
    }

    /// The label that each image is trained with: the number of classes where it was dropped.
    pub fn labels(&self) -> &[i64] {
        &self.label
    }

    /// The images before noise, as the network's input has them: `[3, size, size]` each.
    pub fn images(&self) -> impl Iterator<Item = &[f32]> {
        self.image.chunks_exact((self.image.len() / self.label.len().max(1)).max(1))
    }

    /// The batch cut into a shard for each of so many devices, as even as can be, the larger ones
    /// first. Of a batch with fewer images than devices there are fewer shards.
    pub fn shards(self, devices: usize) -> Vec<Self> {
        let images = self.label.len();
        if devices <= 1 || images == 0 {
            return vec![self];
        }
        let pixels = self.image.len() / images;
        let told = self.augment.len() / images;
        let (each, more) = (images / devices, images % devices);
        let cut = |device: usize| {
            let from = device * each + device.min(more);
            let to = from + each + usize::from(device < more);
            Self {
                image: self.image[from * pixels..to * pixels].to_vec(),
                sigma: self.sigma[from..to].to_vec(),
                noise: self.noise[from * pixels..to * pixels].to_vec(),
                label: self.label[from..to].to_vec(),
                augment: self.augment[from * told..to * told].to_vec(),
                shard: Shard { first: self.shard.first + from, ..self.shard },
            }
        };
        (0..devices.min(images)).map(cut).collect()
    }

    /// As tensors, for images of `size` and a model of so many classes.
    pub fn on_device(self, classes: usize, size: usize, device: &Device) -> LossInputs {
        let count = self.sigma.len();
        let shape = [count, 3, size, size];
        LossInputs {
            image: Tensor::from_data(TensorData::new(self.image, shape), device),
            sigma: Tensor::from_data(TensorData::new(self.sigma, [count]), device),
            noise: Tensor::from_data(TensorData::new(self.noise, shape), device),
            label: (classes > 0)
                .then(|| Tensor::from_data(TensorData::new(self.label, [count]), device)),
            augment: (!self.augment.is_empty()).then(|| {
                let shape = [count, self.augment.len() / count];
                Tensor::from_data(TensorData::new(self.augment, shape), device)
            }),
            shard: self.shard,
        }
    }
}

impl LossInputs {
    /// Cut into micro-batches. What was drawn does not depend on it.
    pub fn micro_batches(self, count: usize) -> Vec<Self> {
        let images = self.images();
        if count <= 1 || images <= 1 {
            return vec![self];
        }
        let step = images.div_ceil(count.min(images));
        let cut = |from: usize| {
            let to = (from + step).min(images);
            Self {
                image: self.image.clone().slice(from..to),
                sigma: self.sigma.clone().slice(from..to),
                noise: self.noise.clone().slice(from..to),
                label: self.label.clone().map(|label| label.slice(from..to)),
                augment: self.augment.clone().map(|augment| augment.slice(from..to)),
                shard: Shard { first: self.shard.first + from, ..self.shard },
            }
        };
        (0..images).step_by(step).map(cut).collect()
    }

    fn images(&self) -> usize {
        self.sigma.dims()[0]
    }

    /// Its images as a fraction of the whole batch's.
    pub fn fraction(&self) -> f64 {
        self.images() as f64 / self.shard.of as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_models::diffit::DiffitConfig;

    use crate::architecture::Architecture;
    use crate::nn::Pass;

    #[test]
    fn micro_batches_and_shards_are_the_batch() {
        let (count, size) = (5, 4);
        let images: Vec<f32> = (0..count * 3 * size * size).map(|i| i as f32).collect();
        let batch = Batch {
            images,
            labels: vec![0, 1, 0, 1, 1],
            indices: (0..count).collect(),
            augment: Vec::new(),
        };
        let key = BatchKey { seed: 1, epoch: 1, batch: 0 };
        let labels = LabelDropout { classes: 2, dropout: 0.0 };
        let noised =
            || NoisedBatch::for_training(batch.clone(), key, &Objective::default(), labels);
        let whole = || noised().on_device(2, size, &Device::flex());
        let numbers = |inputs: Vec<LossInputs>| -> Vec<f32> {
            let of = |t: Tensor<4>| t.into_data().try_to_vec::<f32>().unwrap();
            inputs.into_iter().flat_map(|i| [of(i.image), of(i.noise)].concat()).collect()
        };
        let sorted = |mut all: Vec<f32>| {
            all.sort_by(f32::total_cmp);
            all
        };
        for (count, sizes) in [(1, vec![5]), (2, vec![3, 2]), (4, vec![2, 2, 1]), (16, vec![1; 5])]
        {
            let micro_batches = whole().micro_batches(count);
            let found: Vec<usize> = micro_batches.iter().map(LossInputs::images).collect();
            assert_eq!(found, sizes);
            assert!(
                (micro_batches.iter().map(LossInputs::fraction).sum::<f64>() - 1.0).abs() < 1e-12
            );
            let firsts: Vec<usize> =
                micro_batches.iter().map(|micro_batch| micro_batch.shard.first).collect();
            assert_eq!(firsts, places(&sizes));
            assert_eq!(sorted(numbers(micro_batches)), sorted(numbers(vec![whole()])));
        }
        for (devices, sizes) in [(1, vec![5]), (2, vec![3, 2]), (3, vec![2, 2, 1]), (7, vec![1; 5])]
        {
            let shards = noised().shards(devices);
            let found: Vec<usize> = shards.iter().map(|shard| shard.label.len()).collect();
            assert_eq!(found, sizes, "{devices} devices");
            let firsts: Vec<usize> = shards.iter().map(|shard| shard.shard.first).collect();
            assert_eq!(firsts, places(&sizes));
            let labels: Vec<i64> = shards.iter().flat_map(|shard| shard.label.clone()).collect();
            assert_eq!(labels, noised().label);
            let shards: Vec<LossInputs> =
                shards.into_iter().map(|shard| shard.on_device(2, size, &Device::flex())).collect();
            assert!((shards.iter().map(LossInputs::fraction).sum::<f64>() - 1.0).abs() < 1e-12);
            assert_eq!(sorted(numbers(shards)), sorted(numbers(vec![whole()])));
        }
    }

    /// Where shards of these sizes begin.
    fn places(sizes: &[usize]) -> Vec<usize> {
        (0..sizes.len()).map(|i| sizes[..i].iter().sum()).collect()
    }

    #[test]
    fn the_loss_and_gradients_of_the_micro_batches_are_those_of_the_batch() {
        let text = r#"{"dim": 16, "mults": [1, 2], "depths": [1, 1], "heads": 2, "window": 4, "image_size": 8,
                       "channels": 3, "num_classes": 2}"#;
        let config: DiffitConfig = serde_json::from_str(text).unwrap();
        let device = Device::flex().autodiff();
        let net = config.init(7, &device).unwrap();
        let images: Vec<f32> = (0..5 * 3 * 64).map(|i| (0.37 * i as f32).sin()).collect();
        let batch = Batch {
            images,
            labels: vec![0, 1, 0, 1, 1],
            indices: (0..5).collect(),
            augment: Vec::new(),
        };
        let key = BatchKey { seed: 1, epoch: 1, batch: 0 };
        let labels = LabelDropout { classes: 2, dropout: 0.0 };
        // The mean loss, and the gradient of the first convolution.
        let of = |count: usize| -> (f32, Vec<f32>) {
            let (mut whole, mut gradient) = (0.0, Vec::new());
            let noised =
                NoisedBatch::for_training(batch.clone(), key, &Objective::default(), labels);
            for micro_batch in noised.on_device(2, 8, &device).micro_batches(count) {
                let fraction = micro_batch.fraction();
                let pass = Pass::inference();
                let loss = Objective::default().loss(
                    &net,
                    micro_batch.image,
                    micro_batch.sigma,
                    micro_batch.noise,
                    micro_batch.label,
                    &pass,
                ) * fraction;
                whole += loss.clone().into_scalar::<f32>();
                let found = net.tokenizer.weight.grad(&loss.backward()).unwrap();
                let found = found.into_data().try_to_vec::<f32>().unwrap();
                gradient = if gradient.is_empty() {
                    found
                } else {
                    gradient.iter().zip(found).map(|(a, b)| a + b).collect()
                };
            }
            (whole, gradient)
        };
        let (loss, gradient) = of(1);
        for count in [2, 4] {
            let (micro_batches, sum) = of(count);
            assert!((micro_batches - loss).abs() < 1e-5 * loss, "{micro_batches} {loss}");
            let scale = gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
            assert!(gradient.iter().zip(&sum).all(|(a, b)| (a - b).abs() < 1e-5 * scale));
        }
    }
}
