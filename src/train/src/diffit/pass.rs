//! What one pass through the network draws: the dropout in front of LoRA's factors, and nothing at inference.

use std::cell::Cell;

use burn::tensor::{Tensor, TensorData};
use rand::RngExt;

use crate::rng::{Purpose, stream};

/// Passed along every layer of one forward pass.
#[derive(Debug, Default)]
pub struct Pass {
    dropout: Option<Dropout>,
}

#[derive(Debug)]
struct Dropout {
    probability: f64,
    seed: u64,
    epoch: u64,
    batch: u64,
    /// Layers that have drawn so far: the network's order is fixed, so this numbers them.
    drawn: Cell<u64>,
}

impl Pass {
    /// Nothing is dropped.
    pub fn inference() -> Self {
        Self::default()
    }

    /// Drops the inputs of LoRA's factors with `probability`, as a pure function of `(seed, epoch, batch)`.
    pub fn training(probability: f64, seed: u64, epoch: u64, batch: u64) -> Self {
        let dropout = Dropout { probability, seed, epoch, batch, drawn: Cell::new(0) };
        Self { dropout: (probability > 0.0).then_some(dropout) }
    }

    /// Whether anything is dropped.
    pub(super) fn drops(&self) -> bool {
        self.dropout.is_some()
    }

    /// `x` with some elements set to 0 and the others scaled up to keep the mean
    /// (Srivastava et al. 2014, JMLR 15).
    pub(super) fn drop<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let Some(Dropout { probability, seed, epoch, batch, drawn }) = &self.dropout else { return x };
        let layer = drawn.replace(drawn.get() + 1);
        let mut rng = stream(*seed, Purpose::LoraDropout, *epoch, batch << 16 | layer);
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
        let values = dropped(&Pass::training(0.25, 1, 2, 3));
        let zeros = values.iter().filter(|v| **v == 0.0).count();
        assert!((2300..2700).contains(&zeros), "{zeros} of 10000 dropped");
        assert!(values.iter().all(|v| *v == 0.0 || (*v - 4.0 / 3.0).abs() < 1e-6));
    }

    #[test]
    fn the_same_pass_drops_the_same_and_its_layers_differ() {
        let (a, b) = (Pass::training(0.5, 1, 2, 3), Pass::training(0.5, 1, 2, 3));
        let first = dropped(&a);
        assert_eq!(first, dropped(&b));
        assert_ne!(first, dropped(&a), "the second layer");
        assert_ne!(first, dropped(&Pass::training(0.5, 1, 2, 4)), "the next batch");
        assert_eq!(dropped(&Pass::inference()), vec![1.0; 10_000]);
    }
}
