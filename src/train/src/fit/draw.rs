//! What one batch of training draws: noise levels, noise, dropped labels. A pure function of
//! `(seed, epoch, batch)`.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::RngExt;
use rand_distr::StandardNormal;

use crate::data::Batch;
use crate::noise::Edm;
use crate::rng::{Purpose, stream};

/// A batch, or a share of one, with all that was drawn for it. In host memory.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// `[images, 3, size, size]`
    image: Vec<f32>,
    /// `[images]`
    sigma: Vec<f32>,
    /// `[images, 3, size, size]`
    noise: Vec<f32>,
    /// `[images]`
    label: Vec<i64>,
    part: Part,
}

/// Which part of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    pub key: Key,
    /// The first of its images.
    pub first: usize,
    /// Images of the whole batch.
    pub of: usize,
}

/// A part of a batch on a device, ready for the loss.
pub struct Inputs {
    /// `[batch, 3, size, size]`
    pub image: Tensor<4>,
    /// `[batch]`
    pub sigma: Tensor<1>,
    /// `[batch, 3, size, size]`
    pub noise: Tensor<4>,
    /// `[batch]`; `None` for a model without classes.
    pub label: Option<Tensor<1, Int>>,
    pub part: Part,
}

/// Which numbers a batch gets.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub seed: u64,
    pub epoch: u64,
    /// Number of the batch in its epoch.
    pub batch: u64,
}

/// How labels are treated.
#[derive(Debug, Clone, Copy)]
pub struct Labels {
    /// 0 for a model without classes.
    pub classes: usize,
    /// Share of labels replaced by "no class".
    pub dropout: f64,
}

impl Drawn {
    /// Draws for training.
    pub fn train(batch: Batch, key: Key, edm: &Edm, labels: Labels) -> Self {
        let normals = |purpose, count: usize| -> Vec<f32> {
            let mut rng = stream(key.seed, purpose, key.epoch, key.batch);
            (0..count).map(|_| rng.sample(StandardNormal)).collect()
        };
        let sigma = edm.sigma(&normals(Purpose::Sigma, batch.labels.len()));
        let noise = normals(Purpose::Noise, batch.images.len());
        let mut rng = stream(key.seed, Purpose::LabelDropout, key.epoch, key.batch);
        let kept = batch.labels.iter().map(|label| match rng.random::<f64>() < labels.dropout {
            true => labels.classes as i64,
            false => *label,
        });
        let label: Vec<i64> = kept.collect();
        let part = Part { key, first: 0, of: label.len() };
        Self { image: batch.images, sigma, noise, label, part }
    }

    /// Draws for validation: no label is dropped, and every epoch gets the same numbers.
    pub fn validate(batch: Batch, key: Key, edm: &Edm) -> Self {
        let mut rng = stream(key.seed, Purpose::Validation, 0, key.batch);
        let normals: Vec<f32> =
            (0..batch.labels.len()).map(|_| rng.sample(StandardNormal)).collect();
        let noise: Vec<f32> = (0..batch.images.len()).map(|_| rng.sample(StandardNormal)).collect();
        let part = Part { key, first: 0, of: batch.labels.len() };
        Self { image: batch.images, sigma: edm.sigma(&normals), noise, label: batch.labels, part }
    }

    /// The batch cut into a share for each of so many devices, as even as can be, the larger ones
    /// first. Of a batch with fewer images than devices there are fewer shares.
    pub fn shares(self, devices: usize) -> Vec<Self> {
        let images = self.label.len();
        if devices <= 1 || images == 0 {
            return vec![self];
        }
        let pixels = self.image.len() / images;
        let (each, more) = (images / devices, images % devices);
        let cut = |device: usize| {
            let from = device * each + device.min(more);
            let to = from + each + usize::from(device < more);
            Self {
                image: self.image[from * pixels..to * pixels].to_vec(),
                sigma: self.sigma[from..to].to_vec(),
                noise: self.noise[from * pixels..to * pixels].to_vec(),
                label: self.label[from..to].to_vec(),
                part: Part { first: self.part.first + from, ..self.part },
            }
        };
        (0..devices.min(images)).map(cut).collect()
    }

    /// As tensors, for images of `size` and a model of so many classes.
    pub fn on_device(self, classes: usize, size: usize, device: &Device) -> Inputs {
        let count = self.sigma.len();
        let shape = [count, 3, size, size];
        Inputs {
            image: Tensor::from_data(TensorData::new(self.image, shape), device),
            sigma: Tensor::from_data(TensorData::new(self.sigma, [count]), device),
            noise: Tensor::from_data(TensorData::new(self.noise, shape), device),
            label: (classes > 0)
                .then(|| Tensor::from_data(TensorData::new(self.label, [count]), device)),
            part: self.part,
        }
    }
}

impl Inputs {
    /// Cut into pieces. What was drawn does not depend on it.
    pub fn pieces(self, count: usize) -> Vec<Self> {
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
                part: Part { first: self.part.first + from, ..self.part },
            }
        };
        (0..images).step_by(step).map(cut).collect()
    }

    fn images(&self) -> usize {
        self.sigma.dims()[0]
    }

    /// Its share of the batch's images.
    pub fn share(&self) -> f64 {
        self.images() as f64 / self.part.of as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffit::{DiffitConfig, Pass};

    #[test]
    fn pieces_are_the_batch() {
        let (count, size) = (5, 4);
        let images: Vec<f32> = (0..count * 3 * size * size).map(|i| i as f32).collect();
        let batch = Batch { images, labels: vec![0, 1, 0, 1, 1], indices: (0..count).collect() };
        let key = Key { seed: 1, epoch: 1, batch: 0 };
        let labels = Labels { classes: 2, dropout: 0.0 };
        let drawn = || Drawn::train(batch.clone(), key, &Edm::default(), labels);
        let whole = || drawn().on_device(2, size, &Device::flex());
        let numbers = |inputs: Vec<Inputs>| -> Vec<f32> {
            let of = |t: Tensor<4>| t.into_data().try_to_vec::<f32>().unwrap();
            inputs.into_iter().flat_map(|i| [of(i.image), of(i.noise)].concat()).collect()
        };
        let sorted = |mut all: Vec<f32>| {
            all.sort_by(f32::total_cmp);
            all
        };
        for (count, sizes) in [(1, vec![5]), (2, vec![3, 2]), (4, vec![2, 2, 1]), (16, vec![1; 5])]
        {
            let pieces = whole().pieces(count);
            let found: Vec<usize> = pieces.iter().map(Inputs::images).collect();
            assert_eq!(found, sizes);
            assert!((pieces.iter().map(Inputs::share).sum::<f64>() - 1.0).abs() < 1e-12);
            let firsts: Vec<usize> = pieces.iter().map(|piece| piece.part.first).collect();
            assert_eq!(firsts, places(&sizes));
            assert_eq!(sorted(numbers(pieces)), sorted(numbers(vec![whole()])));
        }
        for (devices, sizes) in [(1, vec![5]), (2, vec![3, 2]), (3, vec![2, 2, 1]), (7, vec![1; 5])]
        {
            let shares = drawn().shares(devices);
            let found: Vec<usize> = shares.iter().map(|share| share.label.len()).collect();
            assert_eq!(found, sizes, "{devices} devices");
            let firsts: Vec<usize> = shares.iter().map(|share| share.part.first).collect();
            assert_eq!(firsts, places(&sizes));
            let labels: Vec<i64> = shares.iter().flat_map(|share| share.label.clone()).collect();
            assert_eq!(labels, drawn().label);
            let shares: Vec<Inputs> =
                shares.into_iter().map(|share| share.on_device(2, size, &Device::flex())).collect();
            assert!((shares.iter().map(Inputs::share).sum::<f64>() - 1.0).abs() < 1e-12);
            assert_eq!(sorted(numbers(shares)), sorted(numbers(vec![whole()])));
        }
    }

    /// Where parts of these sizes begin.
    fn places(sizes: &[usize]) -> Vec<usize> {
        (0..sizes.len()).map(|i| sizes[..i].iter().sum()).collect()
    }

    #[test]
    fn the_loss_and_gradients_of_the_pieces_are_those_of_the_batch() {
        let text = r#"{"dim": 16, "mults": [1, 2], "depths": [1, 1], "heads": 2, "window": 4, "image_size": 8,
                       "channels": 3, "num_classes": 2}"#;
        let config: DiffitConfig = serde_json::from_str(text).unwrap();
        let device = Device::flex().autodiff();
        let net = config.init(7, &device).unwrap();
        let images: Vec<f32> = (0..5 * 3 * 64).map(|i| (0.37 * i as f32).sin()).collect();
        let batch = Batch { images, labels: vec![0, 1, 0, 1, 1], indices: (0..5).collect() };
        let key = Key { seed: 1, epoch: 1, batch: 0 };
        let labels = Labels { classes: 2, dropout: 0.0 };
        // The mean loss, and the gradient of the first convolution.
        let of = |count: usize| -> (f32, Vec<f32>) {
            let (mut whole, mut gradient) = (0.0, Vec::new());
            let drawn = Drawn::train(batch.clone(), key, &Edm::default(), labels);
            for piece in drawn.on_device(2, 8, &device).pieces(count) {
                let share = piece.share();
                let pass = Pass::inference();
                let loss = Edm::default().loss(
                    &net,
                    piece.image,
                    piece.sigma,
                    piece.noise,
                    piece.label,
                    &pass,
                ) * share;
                whole += loss.clone().into_scalar::<f32>();
                let found = net.tokenizer.weight.grad(&loss.backward()).unwrap();
                let found = found.into_data().try_to_vec::<f32>().unwrap();
                gradient = match gradient.is_empty() {
                    true => found,
                    false => gradient.iter().zip(found).map(|(a, b)| a + b).collect(),
                };
            }
            (whole, gradient)
        };
        let (loss, gradient) = of(1);
        for count in [2, 4] {
            let (pieces, sum) = of(count);
            assert!((pieces - loss).abs() < 1e-5 * loss, "{pieces} {loss}");
            let scale = gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
            assert!(gradient.iter().zip(&sum).all(|(a, b)| (a - b).abs() < 1e-5 * scale));
        }
    }
}
