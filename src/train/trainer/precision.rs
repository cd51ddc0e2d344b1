//! Half precision: the forward and backward pass on 16-bit copies of the weights, the update on the
//! 32-bit ones (Micikevicius et al. 2018, arXiv 1710.03740).

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Number format of the forward and backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    /// 16-bit floats of the IEEE kind; the loss is scaled up so that small gradients do not vanish.
    F16,
    /// 16-bit floats with the range of f32.
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

    /// What the loss is multiplied with before the backward pass.
    pub fn loss_scale(self) -> f64 {
        if self == Self::F16 { F16_LOSS_SCALE } else { 1.0 }
    }

    /// The weights to compute with: a 16-bit copy with the same parameter ids, or the weights
    /// themselves.
    pub fn weights<M: Module>(self, module: &M) -> M {
        struct Lower(FloatDType);
        impl ModuleMapper for Lower {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let (id, tensor, mapper) = param.consume();
                let trained = tensor.is_require_grad();
                let copy =
                    Tensor::from_inner(tensor.inner().cast(self.0)).set_require_grad(trained);
                Param::from_mapped_value(id, copy, mapper)
            }
        }
        match self.dtype() {
            Some(dtype) => module.clone().map(&mut Lower(dtype)),
            None => module.clone(),
        }
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
                self.raised
                    .register(param.id, gradient.cast(FloatDType::F32).mul_scalar(self.factor));
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
