//! What one batch of training draws: noise levels, noise, dropped labels. A pure function of
//! `(seed, epoch, batch)`.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::RngExt;
use rand_distr::StandardNormal;

use crate::data::Batch;
use crate::noise::Edm;
use crate::rng::{Purpose, stream};

/// A batch on the device, ready for the loss.
pub struct Inputs {
    /// `[batch, 3, size, size]`
    pub image: Tensor<4>,
    /// `[batch]`
    pub sigma: Tensor<1>,
    /// `[batch, 3, size, size]`
    pub noise: Tensor<4>,
    /// `[batch]`; `None` for a model without classes.
    pub label: Option<Tensor<1, Int>>,
}

/// Which numbers a batch gets.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub seed: u64,
    pub epoch: u64,
    /// Number of the batch in its epoch.
    pub batch: u64,
}

impl Key {
    /// The batch's number for what is drawn inside the network for one piece of it.
    pub fn piece(self, number: usize) -> u64 {
        self.batch | (number as u64) << 48
    }
}

/// How labels are treated.
#[derive(Debug, Clone, Copy)]
pub struct Labels {
    /// 0 for a model without classes.
    pub classes: usize,
    /// Share of labels replaced by "no class".
    pub dropout: f64,
}

impl Inputs {
    /// Draws for training.
    pub fn train(batch: Batch, key: Key, edm: &Edm, labels: Labels, size: usize, device: &Device) -> Self {
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
        let kept: Vec<i64> = kept.collect();
        Self::on_device(batch.images, sigma, noise, kept, labels, size, device)
    }

    /// Draws for validation: no label is dropped, and every epoch gets the same numbers.
    pub fn validate(batch: Batch, key: Key, edm: &Edm, labels: Labels, size: usize, device: &Device) -> Self {
        let mut rng = stream(key.seed, Purpose::Validation, 0, key.batch);
        let normals: Vec<f32> = (0..batch.labels.len()).map(|_| rng.sample(StandardNormal)).collect();
        let noise: Vec<f32> = (0..batch.images.len()).map(|_| rng.sample(StandardNormal)).collect();
        let kept = batch.labels.clone();
        Self::on_device(batch.images, edm.sigma(&normals), noise, kept, labels, size, device)
    }

    /// The batch cut into pieces, each with its share of the images. What was drawn does not depend on it.
    pub fn pieces(self, count: usize) -> Vec<(Self, f64)> {
        let images = self.sigma.dims()[0];
        if count <= 1 || images <= 1 {
            return vec![(self, 1.0)];
        }
        let step = images.div_ceil(count.min(images));
        let cut = |from: usize| {
            let to = (from + step).min(images);
            let piece = Self {
                image: self.image.clone().slice(from..to),
                sigma: self.sigma.clone().slice(from..to),
                noise: self.noise.clone().slice(from..to),
                label: self.label.clone().map(|label| label.slice(from..to)),
            };
            (piece, (to - from) as f64 / images as f64)
        };
        (0..images).step_by(step).map(cut).collect()
    }

    fn on_device(
        images: Vec<f32>,
        sigma: Vec<f32>,
        noise: Vec<f32>,
        kept: Vec<i64>,
        labels: Labels,
        size: usize,
        device: &Device,
    ) -> Self {
        let count = sigma.len();
        let shape = [count, 3, size, size];
        Self {
            image: Tensor::from_data(TensorData::new(images, shape), device),
            sigma: Tensor::from_data(TensorData::new(sigma, [count]), device),
            noise: Tensor::from_data(TensorData::new(noise, shape), device),
            label: (labels.classes > 0).then(|| Tensor::from_data(TensorData::new(kept, [count]), device)),
        }
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
        let whole = || Inputs::train(batch.clone(), key, &Edm::default(), labels, size, &Device::flex());
        let numbers = |inputs: Vec<Inputs>| -> Vec<f32> {
            let of = |t: Tensor<4>| t.into_data().try_to_vec::<f32>().unwrap();
            inputs.into_iter().flat_map(|i| [of(i.image), of(i.noise)].concat()).collect()
        };
        let sorted = |mut all: Vec<f32>| {
            all.sort_by(f32::total_cmp);
            all
        };
        for (count, sizes) in [(1, vec![5]), (2, vec![3, 2]), (4, vec![2, 2, 1]), (16, vec![1; 5])] {
            let pieces = whole().pieces(count);
            let found: Vec<usize> = pieces.iter().map(|(piece, _)| piece.sigma.dims()[0]).collect();
            assert_eq!(found, sizes);
            assert!((pieces.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-12);
            let cut = numbers(pieces.into_iter().map(|(piece, _)| piece).collect());
            assert_eq!(sorted(cut), sorted(numbers(vec![whole()])));
        }
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
            for (piece, share) in
                Inputs::train(batch.clone(), key, &Edm::default(), labels, 8, &device).pieces(count)
            {
                let pass = Pass::inference();
                let loss =
                    Edm::default().loss(&net, piece.image, piece.sigma, piece.noise, piece.label, &pass)
                        * share;
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
