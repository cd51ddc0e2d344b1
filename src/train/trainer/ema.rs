//! EMA weights: the exponential moving average of the weights, kept beside those that are trained.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use crate::kernels;

/// Share of the old average that a step keeps: `decay`, less in the first steps, when the average
/// is still mostly the initial weights. `step` counts from 0.
pub fn decay_at(decay: f64, step: u64) -> f64 {
    decay.min((1.0 + step as f64) / (10.0 + step as f64))
}

/// `mean * decay + module * (1 - decay)`, for each parameter that is trained. `mean` is a copy of
/// `module` without gradients.
pub fn update<M: Module>(mean: M, module: &M, decay: f64) -> M {
    struct Flatten(HashMap<ParamId, Tensor<1>>);
    impl ModuleVisitor for Flatten {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !param.is_require_grad() {
                return;
            }
            let value = param.val().inner();
            let count = value.shape().num_elements();
            self.0.insert(param.id, value.reshape([count]));
        }
    }
    struct Blend {
        values: HashMap<ParamId, Tensor<1>>,
        decay: f64,
    }
    impl ModuleMapper for Blend {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(value) = self.values.remove(&param.id) else { return param };
            let (id, mean, mapper) = param.consume();
            let shape = mean.shape();
            let count = shape.num_elements();
            let blended = blend(mean.reshape([count]), value, self.decay);
            Param::from_mapped_value(id, blended.reshape(shape), mapper)
        }
    }
    let mut flatten = Flatten(HashMap::new());
    module.visit(&mut flatten);
    mean.map(&mut Blend { values: flatten.0, decay })
}

/// `mean * decay + value * (1 - decay)` of two arrays `[n]` without gradients.
pub(super) fn blend(mean: Tensor<1>, value: Tensor<1>, decay: f64) -> Tensor<1> {
    if kernels::in_host_memory(&mean) && kernels::in_host_memory(&value) {
        kernels::blend(mean, &value, decay)
    } else {
        mean.mul_scalar(decay) + value.mul_scalar(1.0 - decay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_steps_keep_less() {
        assert_eq!(decay_at(0.999, 0), 0.1);
        assert!((decay_at(0.999, 90) - 0.91).abs() < 1e-12);
        assert_eq!(decay_at(0.999, 1_000_000), 0.999);
    }
}
