//! How one pass through the network computes: in which precision its products are, and what is
//! dropped in training. Nothing is at inference.

use std::cell::Cell;

use burn::tensor::{Tensor, TensorData};
use rand::{Rng, RngExt};
use rayon::prelude::*;

use pipe_core::rng::{Purpose, stream};

use crate::kernels::MatmulPrecision;

/// Words of the stream that one number of LoRA's dropout takes.
const WORDS: u128 = 2;
/// In how many parts the numbers of [`Pass::drop_features`] divide a probability.
const PARTS: f64 = 65_536.0;

/// Passed along every layer of one forward pass.
#[derive(Debug, Default)]
pub struct Pass {
    dropout: Dropout,
    of: DroppedFrom,
    /// Layers that have drawn so far: the network's order is fixed, so this numbers them.
    adapted: Cell<u64>,
    features: Cell<u64>,
    augment: Option<Tensor<2>>,
    matmul_precision: MatmulPrecision,
}

/// Shares of what is dropped in training (Srivastava et al. 2014, JMLR 15).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Dropout {
    /// Of the inputs of LoRA's factors.
    pub lora: f64,
    /// Of the features in front of the last layer of each residual block.
    pub features: f64,
}

/// The images of a pass.
#[derive(Debug, Clone, Copy, Default)]
struct DroppedFrom {
    seed: u64,
    epoch: u64,
    batch: u64,
    /// Which image of the batch is the first in this pass.
    first: usize,
}

impl Pass {
    /// Nothing is dropped.
    pub fn inference() -> Self {
        Self::default()
    }

    /// Drops as a pure function of `(seed, epoch, batch)` and the image: a pass of the batch's
    /// images from `first` on drops what a pass of the whole batch drops of them.
    pub fn training(dropout: Dropout, seed: u64, epoch: u64, batch: u64, first: usize) -> Self {
        Self { dropout, of: DroppedFrom { seed, epoch, batch, first }, ..Self::default() }
    }

    /// The same with its matrix products in another precision than f32, where numbers are f32 in
    /// host memory.
    pub fn with_matmul_precision(self, matmul_precision: MatmulPrecision) -> Self {
        Self { matmul_precision, ..self }
    }

    /// The same for images that were augmented, as the labels `[batch, labels]` say. Without any, the
    /// images are as they are.
    pub fn with_augment(self, augment: Option<Tensor<2>>) -> Self {
        Self { augment, ..self }
    }

    /// What was done to the images, `[batch, labels]`.
    pub fn augment(&self) -> Option<&Tensor<2>> {
        self.augment.as_ref()
    }

    /// What the factors of matrix products are rounded to.
    pub fn matmul_precision(&self) -> MatmulPrecision {
        self.matmul_precision
    }

    /// Whether inputs of LoRA's factors are dropped.
    pub fn drops(&self) -> bool {
        self.dropout.lora > 0.0
    }

    /// Whether features are dropped.
    pub fn drops_features(&self) -> bool {
        self.dropout.features > 0.0
    }

    /// The input of LoRA's factors: `x` with some elements set to 0 and the others scaled up to keep
    /// the mean. The first axis counts the images.
    pub fn drop<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if !self.drops() {
            return x;
        }
        let (probability, first) = (self.dropout.lora, self.of.first);
        let mut rng = self.stream(Purpose::LoraDropout, &self.adapted);
        let each = x.shape().num_elements() / x.dims()[0].max(1);
        rng.set_word_pos(WORDS * (first * each) as u128);
        let kept = (1.0 / (1.0 - probability)) as f32;
        let factor = |_| if rng.random::<f64>() < probability { 0.0 } else { kept };
        let factors = (0..x.shape().num_elements()).map(factor).collect();
        scaled(x, factors)
    }

    /// The same of features inside the network. Each word of an image's part of the stream decides
    /// two of its numbers, with the probability rounded to 1/65536.
    pub fn drop_features<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if !self.drops_features() {
            return x;
        }
        let rng = self.stream(Purpose::Dropout, &self.features);
        let dropped = (self.dropout.features * PARTS).round();
        let (limit, kept) = (dropped as u32, (PARTS / (PARTS - dropped)) as f32);
        let each = (x.shape().num_elements() / x.dims()[0].max(1)).max(1);
        let mut factors = vec![kept; x.shape().num_elements()];
        let first = self.of.first;
        factors.par_chunks_mut(each).enumerate().for_each(|(image, factors)| {
            let mut rng = rng.clone();
            rng.set_word_pos((each.div_ceil(2) * (first + image)) as u128);
            for pair in factors.chunks_mut(2) {
                let word = rng.next_u32();
                for (factor, number) in pair.iter_mut().zip([word & 0xffff, word >> 16]) {
                    if number < limit {
                        *factor = 0.0;
                    }
                }
            }
        });
        scaled(x, factors)
    }

    /// The stream of the next layer that draws.
    fn stream(&self, purpose: Purpose, drawn: &Cell<u64>) -> pipe_core::rng::ChaCha8Rng {
        let DroppedFrom { seed, epoch, batch, .. } = self.of;
        let layer = drawn.replace(drawn.get() + 1);
        stream(seed, purpose, epoch, batch << 16 | layer)
    }
}

/// `x` times factors, one for each of its numbers.
fn scaled<const D: usize>(x: Tensor<D>, factors: Vec<f32>) -> Tensor<D> {
    let factors = Tensor::<D>::from_data(TensorData::new(factors, x.shape()), &x.device());
    let dtype = x.dtype();
    x * factors.cast(dtype)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn lora(share: f64) -> Dropout {
        Dropout { lora: share, features: 0.0 }
    }

    fn dropped(pass: &Pass) -> Vec<f32> {
        let x = Tensor::<2>::ones([100, 100], &Device::flex());
        pass.drop(x).into_data().try_into_vec().unwrap()
    }

    #[test]
    fn a_share_is_dropped_and_the_mean_is_kept() {
        let values = dropped(&Pass::training(lora(0.25), 1, 2, 3, 0));
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        assert!((2300..2700).contains(&zeros), "{zeros} of 10000 dropped");
        assert!(values.iter().all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-6));
    }

    #[test]
    fn the_same_pass_drops_the_same_and_its_layers_differ() {
        let (a, b) = (Pass::training(lora(0.5), 1, 2, 3, 0), Pass::training(lora(0.5), 1, 2, 3, 0));
        let first = dropped(&a);
        assert_eq!(first, dropped(&b));
        assert_ne!(first, dropped(&a), "the second layer");
        assert_ne!(first, dropped(&Pass::training(lora(0.5), 1, 2, 4, 0)), "the next batch");
        assert_eq!(dropped(&Pass::inference()), vec![1.0; 10_000]);
    }
    #[test]
    fn any_part_of_a_batch_drops_what_the_whole_batch_does() {
        let of = |first: usize, images: usize| -> Vec<f32> {
            let pass = Pass::training(lora(0.5), 1, 2, 3, first);
            let layer = |width: usize| {
                let x = Tensor::<3>::ones([images, 3, width], &Device::flex());
                pass.drop(x).into_data().try_into_vec::<f32>().unwrap()
            };
            [layer(5), layer(7)].into_iter().flatten().collect()
        };
        let whole = of(0, 10);
        let (wide, narrow) = (whole[..150].to_vec(), whole[150..].to_vec());
        for cuts in [vec![0, 5, 10], vec![0, 4, 7, 10], vec![0, 1, 10]] {
            let (mut first_layer, mut second_layer) = (Vec::new(), Vec::new());
            for cut in cuts.windows(2) {
                let images = cut[1] - cut[0];
                let part = of(cut[0], images);
                first_layer.extend_from_slice(&part[..15 * images]);
                second_layer.extend_from_slice(&part[15 * images..]);
            }
            assert_eq!(first_layer, wide, "{cuts:?}");
            assert_eq!(second_layer, narrow, "{cuts:?}");
        }
    }

    #[test]
    fn what_a_whole_batch_drops_never_changes() {
        // As before parts of a batch could be drawn by themselves: the numbers in the order of the
        // stream.
        let mut rng = stream(1, Purpose::LoraDropout, 2, 3 << 16);
        let expected: Vec<f32> = (0..10_000)
            .map(|_| if rng.random::<f64>() < 0.25 { 0.0 } else { (1.0 / 0.75) as f32 })
            .collect();
        assert_eq!(dropped(&Pass::training(lora(0.25), 1, 2, 3, 0)), expected);
    }

    fn features(pass: &Pass, images: usize, each: usize) -> Vec<f32> {
        let x = Tensor::<2>::ones([images, each], &Device::flex());
        pass.drop_features(x).into_data().try_into_vec().unwrap()
    }

    fn of(share: f64, batch: u64, first: usize) -> Pass {
        Pass::training(Dropout { lora: 0.0, features: share }, 1, 2, batch, first)
    }

    #[test]
    fn features_are_dropped_with_their_share_and_keep_their_mean() {
        for share in [0.13, 0.5, 0.9] {
            let values = features(&of(share, 3, 0), 100, 999);
            let zeros = values.iter().filter(|v| **v == 0.0).count() as f64 / values.len() as f64;
            assert!((zeros - share).abs() < 0.01, "{zeros} of {share}");
            let kept = (1.0 / (1.0 - share)) as f32;
            assert!(values.iter().all(|v| *v == 0.0 || (*v / kept - 1.0).abs() < 1e-4));
            assert_eq!(values, features(&of(share, 3, 0), 100, 999));
            assert_ne!(values, features(&of(share, 4, 0), 100, 999), "the next batch");
        }
        let pass = of(0.5, 3, 0);
        assert_ne!(features(&pass, 9, 9), features(&pass, 9, 9), "the second layer");
        assert_eq!(features(&Pass::inference(), 2, 5), [1.0; 10]);
        assert_eq!(dropped(&of(0.5, 3, 0)), vec![1.0; 10_000], "LoRA's are others");
    }

    #[test]
    fn any_part_of_a_batch_drops_the_features_that_the_whole_batch_does() {
        for each in [6, 7] {
            let whole = features(&of(0.4, 3, 0), 10, each);
            for cuts in [vec![0, 5, 10], vec![0, 4, 7, 10], vec![0, 1, 10]] {
                let parts = cuts.windows(2);
                let parts =
                    parts.flat_map(|cut| features(&of(0.4, 3, cut[0]), cut[1] - cut[0], each));
                assert_eq!(parts.collect::<Vec<_>>(), whole, "{cuts:?}");
            }
        }
    }
}
