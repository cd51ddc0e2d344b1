//! How one pass through the network computes: in which precision its products are, and the dropout
//! in front of LoRA's factors, of which there is none at inference.

use std::cell::Cell;

use burn::tensor::{Tensor, TensorData};
use rand::RngExt;

use pipe_core::rng::{Purpose, stream};

use crate::kernels::MatmulPrecision;

/// Words of the stream that one number takes.
const WORDS: u128 = 2;

/// Passed along every layer of one forward pass.
#[derive(Debug, Default)]
pub struct Pass {
    dropout: Option<Dropout>,
    matmul_precision: MatmulPrecision,
}

#[derive(Debug)]
struct Dropout {
    probability: f64,
    seed: u64,
    epoch: u64,
    batch: u64,
    /// Which image of the batch is the first in this pass.
    first: usize,
    /// Layers that have drawn so far: the network's order is fixed, so this numbers them.
    drawn: Cell<u64>,
}

impl Pass {
    /// Nothing is dropped.
    pub fn inference() -> Self {
        Self::default()
    }

    /// Drops the inputs of LoRA's factors with `probability`, as a pure function of `(seed, epoch,
    /// batch)` and the image: a pass of the batch's images from `first` on drops what a pass of the
    /// whole batch drops of them.
    pub fn training(probability: f64, seed: u64, epoch: u64, batch: u64, first: usize) -> Self {
        let dropout = Dropout { probability, seed, epoch, batch, first, drawn: Cell::new(0) };
        Self { dropout: (probability > 0.0).then_some(dropout), ..Self::default() }
    }

    /// The same with its matrix products in another precision than f32, where numbers are f32 in
    /// host memory.
    pub fn with_matmul_precision(self, matmul_precision: MatmulPrecision) -> Self {
        Self { matmul_precision, ..self }
    }

    /// What the factors of matrix products are rounded to.
    pub fn matmul_precision(&self) -> MatmulPrecision {
        self.matmul_precision
    }

    /// Whether anything is dropped.
    pub fn drops(&self) -> bool {
        self.dropout.is_some()
    }

    /// `x` with some elements set to 0 and the others scaled up to keep the mean
    /// (Srivastava et al. 2014, JMLR 15). The first axis counts the images.
    pub fn drop<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let Some(Dropout { probability, seed, epoch, batch, first, drawn }) = &self.dropout else {
            return x;
        };
        let layer = drawn.replace(drawn.get() + 1);
        let mut rng = stream(*seed, Purpose::LoraDropout, *epoch, batch << 16 | layer);
        let each = x.shape().num_elements() / x.dims()[0].max(1);
        rng.set_word_pos(WORDS * (first * each) as u128);
        let kept = (1.0 / (1.0 - probability)) as f32;
        let factor = |_| if rng.random::<f64>() < *probability { 0.0 } else { kept };
        let factors: Vec<f32> = (0..x.shape().num_elements()).map(factor).collect();
        let factors = Tensor::<D>::from_data(TensorData::new(factors, x.shape()), &x.device());
        let dtype = x.dtype();
        x * factors.cast(dtype)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn dropped(pass: &Pass) -> Vec<f32> {
        let x = Tensor::<2>::ones([100, 100], &Device::flex());
        pass.drop(x).into_data().try_into_vec().unwrap()
    }

    #[test]
    fn a_share_is_dropped_and_the_mean_is_kept() {
        let values = dropped(&Pass::training(0.25, 1, 2, 3, 0));
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        assert!((2300..2700).contains(&zeros), "{zeros} of 10000 dropped");
        assert!(values.iter().all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-6));
    }

    #[test]
    fn the_same_pass_drops_the_same_and_its_layers_differ() {
        let (a, b) = (Pass::training(0.5, 1, 2, 3, 0), Pass::training(0.5, 1, 2, 3, 0));
        let first = dropped(&a);
        assert_eq!(first, dropped(&b));
        assert_ne!(first, dropped(&a), "the second layer");
        assert_ne!(first, dropped(&Pass::training(0.5, 1, 2, 4, 0)), "the next batch");
        assert_eq!(dropped(&Pass::inference()), vec![1.0; 10_000]);
    }
    #[test]
    fn any_part_of_a_batch_drops_what_the_whole_batch_does() {
        let of = |first: usize, images: usize| -> Vec<f32> {
            let pass = Pass::training(0.5, 1, 2, 3, first);
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
        assert_eq!(dropped(&Pass::training(0.25, 1, 2, 3, 0)), expected);
    }
}
