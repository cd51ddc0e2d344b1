//! Half precision: the forward and backward pass on 16-bit copies of the weights, the update on the
//! 32-bit ones (Micikevicius et al. 2018, arXiv 1710.03740). On the CPU bf16 is another thing: all
//! numbers stay f32, and the factors of matrix products are rounded.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernels::{self, MatmulPrecision};

/// Number format of the forward and backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    /// 16-bit floats of the IEEE kind; the loss is scaled up so that small gradients do not vanish.
    F16,
    /// 16-bit floats with the range of f32. On the CPU the factors of matrix products alone.
    Bf16,
}

/// Factor on an f16 loss. EDM's loss is about 1 and gradients are clipped, so a fixed one does.
const F16_LOSS_SCALE: f64 = 1024.0;

impl Precision {
    /// The name used in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// What the weights are cast to.
    pub(super) fn dtype(self) -> Option<FloatDType> {
        match self {
            Self::F32 => None,
            Self::F16 => Some(FloatDType::F16),
            Self::Bf16 => Some(FloatDType::BF16),
        }
    }

    /// Whether a device can compute with it.
    pub fn runs_on(self, device: &Device) -> bool {
        self.dtype().is_none_or(|dtype| device.supports_dtype(dtype))
    }

    /// Those that a device can compute with.
    pub fn all_on(device: &Device) -> Vec<Self> {
        let all = [Self::F32, Self::F16, Self::Bf16];
        all.into_iter().filter(|precision| precision.runs_on(device)).collect()
    }

    /// What the factors of matrix products are rounded to on the CPU, where the weights are f32.
    pub fn matmul(self) -> MatmulPrecision {
        if self == Self::Bf16 { MatmulPrecision::Bf16 } else { MatmulPrecision::F32 }
    }

    /// The format of the weights to compute with on a device, where it is another one than f32.
    fn lowered_on(self, device: &Device) -> Option<FloatDType> {
        self.dtype().filter(|_| !(self == Self::Bf16 && kernels::is_cpu(device)))
    }

    /// What the loss is multiplied with before the backward pass.
    pub fn loss_scale(self) -> f64 {
        if self == Self::F16 { F16_LOSS_SCALE } else { 1.0 }
    }

    /// The weights to compute with: a 16-bit copy with the same parameter ids, or the weights
    /// themselves for f32, and for bf16 on the CPU.
    pub fn weights<M: Module>(self, module: &M) -> M {
        struct Lower(Precision);
        impl ModuleMapper for Lower {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let Some(dtype) = self.0.lowered_on(&param.device()) else { return param };
                let (id, tensor, mapper) = param.consume();
                let trained = tensor.is_require_grad();
                let copy = Tensor::from_inner(tensor.inner().cast(dtype)).set_require_grad(trained);
                Param::from_mapped_value(id, copy, mapper)
            }
        }
        if self == Self::F32 { module.clone() } else { module.clone().map(&mut Lower(self)) }
    }

    /// Gradients of the 16-bit copy as 32-bit ones, with the loss's factor taken off.
    pub fn gradients<M: Module>(self, module: &M, gradients: GradientsParams) -> GradientsParams {
        struct Raise {
            gradients: GradientsParams,
            raised: GradientsParams,
            factor: f64,
        }
        impl ModuleVisitor for Raise {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let Some(gradient) = self.gradients.remove::<D>(param.id) else { return };
                let gradient = gradient.cast(FloatDType::F32);
                let scaled =
                    if self.factor == 1.0 { gradient } else { gradient.mul_scalar(self.factor) };
                self.raised.register(param.id, scaled);
            }
        }
        if self == Self::F32 {
            return gradients;
        }
        let mut raise =
            Raise { gradients, raised: GradientsParams::new(), factor: 1.0 / self.loss_scale() };
        module.visit(&mut raise);
        raise.raised
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use burn::optim::GradientsAccumulator;
    use pipe_models::diffit::DiffitConfig;

    use super::*;
    use crate::architecture::ModelConfig;
    use crate::data::{Dataset, DatasetSettings, Loader, LoaderOptions, Split};
    use crate::diffusion::Objective;
    use crate::nn::{Dropout, Scope, state_dict};
    use crate::trainer::backward::Backward;
    use crate::trainer::noised_batch::{BatchKey, LabelDropout, NoisedBatch};
    use crate::trainer::{Optimizer, OptimizerSettings};

    const EPOCHS: u64 = 40;
    const BATCHES: usize = 8;
    const BATCH: usize = 8;

    fn config() -> ModelConfig {
        ModelConfig::from(DiffitConfig {
            dim: 16,
            mults: vec![1, 2],
            depths: vec![1, 1],
            heads: 2,
            window: 4,
            image_size: 8,
            channels: 3,
            num_classes: 0,
            augment_labels: 0,
        })
    }

    /// The mean loss of each fifth of a training on the CPU, weights and noise drawn by `seed`, and
    /// the weights that it ends with.
    fn train(seed: u64, precision: Precision) -> (Vec<f64>, Vec<f32>) {
        let settings = DatasetSettings {
            num_images: 2 * BATCHES * BATCH,
            image_size: 8,
            ..DatasetSettings::default()
        };
        let dataset = Dataset::open(&settings, &Path::new(".").into(), &()).unwrap();
        let options = LoaderOptions { batch_size: BATCH, num_workers: 0, seed };
        let loader = Loader::new(Arc::new(dataset), Split::Train, options).unwrap();
        let device = Device::flex().autodiff();
        let config = config();
        let mut network = config.init(seed, &device).unwrap();
        let mut optimizer = Optimizer::new(&OptimizerSettings::default(), &network);
        let backward = Backward::new(&config, precision, Dropout::default(), 1);
        let labels = LabelDropout { classes: 0, dropout: 0.0 };
        let mut losses = Vec::new();
        for epoch in 1..=EPOCHS {
            for (number, batch) in loader.epoch(epoch, 0).take(BATCHES).enumerate() {
                let key = BatchKey { seed, epoch, batch: number as u64 };
                let noised =
                    NoisedBatch::for_training(batch.unwrap(), key, &Objective::default(), labels);
                let (weights, mut gradients) =
                    (precision.weights(&network), GradientsAccumulator::new());
                let loss = backward.add(&mut gradients, &weights, noised, 1, &device).unwrap();
                losses.push(f64::from(loss.into_scalar::<f32>()));
                network = optimizer.step(2e-3, network, gradients.grads());
            }
        }
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let tensors = state_dict(&network, &Scope::default(), "").unwrap();
        let weights: Vec<u8> = tensors.into_iter().flat_map(|tensor| tensor.bytes).collect();
        let weights = weights.as_chunks().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
        (losses.chunks(losses.len() / 5).map(mean).collect(), weights)
    }

    #[test]
    fn on_the_cpu_the_loss_in_bf16_is_that_in_f32_within_the_noise_of_seeds() {
        const SEEDS: u64 = 4;
        let of = |precision| -> Vec<Vec<f64>> {
            (1..=SEEDS).map(|seed| train(seed, precision).0).collect()
        };
        let (f32, bf16) = (of(Precision::F32), of(Precision::Bf16));
        let mean = |curves: &[Vec<f64>], fifth: usize| {
            curves.iter().map(|curve| curve[fifth]).sum::<f64>() / SEEDS as f64
        };
        for fifth in 0..5 {
            let centre = mean(&f32, fifth);
            let variance = f32.iter().map(|curve| (curve[fifth] - centre).powi(2)).sum::<f64>();
            let deviation = (variance / (SEEDS - 1) as f64).sqrt();
            let apart = mean(&bf16, fifth) - centre;
            println!("f32 {centre:.4}, deviation {deviation:.4}, bf16 less f32 {apart:+.4}");
            assert!(apart.abs() < deviation, "fifth {fifth}: {apart} of {deviation}");
        }
        assert!(mean(&f32, 4) < 0.7 * mean(&f32, 0), "{f32:?}: nothing was learned");
        assert_ne!(f32, bf16, "nothing was rounded");
    }

    #[test]
    fn a_training_in_bf16_has_the_same_bits_on_any_number_of_threads() {
        let on = |threads| {
            crate::kernels::in_own_pool_of(Some(threads), || {
                train(1, Precision::Bf16).1.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            })
        };
        assert!(on(1) == on(3));
    }

    #[test]
    fn on_the_cpu_weights_stay_as_they_are_for_bf16_and_are_halved_for_f16() {
        let network = config().init(1, &Device::flex().autodiff()).unwrap();
        let dtypes = |network: &crate::architecture::Network| {
            struct Seen(Vec<burn::tensor::DType>);
            impl ModuleVisitor for Seen {
                fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                    self.0.push(param.val().dtype());
                }
            }
            let mut seen = Seen(Vec::new());
            network.visit(&mut seen);
            seen.0.dedup();
            seen.0
        };
        assert_eq!(dtypes(&Precision::Bf16.weights(&network)), [burn::tensor::DType::F32]);
        assert_eq!(dtypes(&Precision::F16.weights(&network)), [burn::tensor::DType::F16]);
    }
}
