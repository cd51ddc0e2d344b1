//! The optimizer step over a whole module, with its state keyed by parameter path.
//!
//! The update rules are burn's `Adam` and `AdamW`. burn's own module optimizer keys its state by
//! `ParamId`, which is random in each process; here a state belongs to a path from the start, so
//! that a checkpoint can hold it.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::{
    Adam, AdamConfig, AdamState, AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState,
    GradientsParams, Optimizer as UpdateRule,
};
use burn::tensor::{Device, Tensor, TensorData, Transaction};
use pipe_engine::kind::StageError;
use pipe_runs::tensor::{Dtype, HostTensor};

use super::flat::Flat;
use super::settings::{OptimizerKind, OptimizerSettings};
use crate::device;
use crate::kernels::{self, AdamWStep};
use crate::nn::{Scope, host_tensor, param_paths, sum_all};

/// Prefix of the state's tensors in a checkpoint.
pub const PREFIX: &str = "optimizer_state_dict.";

/// What an optimizer step is told besides the gradients.
#[derive(Debug, Clone, Copy)]
pub struct StepSettings {
    pub learning_rate: f64,
    /// The largest norm that all gradients together may have.
    pub clip: Option<f64>,
    /// Share of the EMA weights that stays.
    pub ema_decay: f64,
    /// Steps that were done before.
    pub done: u64,
}

/// Adam or AdamW over all parameters of a module.
#[derive(Clone)]
pub struct Optimizer {
    rule: Rule,
    paths: HashMap<ParamId, String>,
    /// Moments by parameter path, flattened: the rules work element by element.
    moments: BTreeMap<String, AdaptiveMomentumState<1>>,
}

#[derive(Clone)]
enum Rule {
    Adam(Adam),
    /// With its numbers, for the kernel that does the same in host memory.
    AdamW(AdamW, AdamWStep),
}

impl Rule {
    fn of(settings: &OptimizerSettings) -> Self {
        let ([beta_1, beta_2], eps) = (settings.betas.map(|b| b as f32), settings.eps as f32);
        let decay = settings.weight_decay as f32;
        match settings.kind {
            OptimizerKind::Adam => Self::Adam(
                AdamConfig::new()
                    .with_beta_1(beta_1)
                    .with_beta_2(beta_2)
                    .with_epsilon(eps)
                    .with_weight_decay((decay > 0.0).then(|| WeightDecayConfig::new(decay)))
                    .build(),
            ),
            OptimizerKind::Adamw => Self::AdamW(
                AdamWConfig::new()
                    .with_beta_1(beta_1)
                    .with_beta_2(beta_2)
                    .with_epsilon(eps)
                    .with_weight_decay(decay)
                    .build(),
                AdamWStep {
                    beta_1,
                    beta_2,
                    epsilon: eps,
                    learning_rate: 0.0,
                    weight_decay: decay,
                    time: 0,
                },
            ),
        }
    }
}

impl Optimizer {
    /// An optimizer without state for the parameters of `module`.
    pub fn new<M: Module>(settings: &OptimizerSettings, module: &M) -> Self {
        let paths = param_paths(module).into_iter().map(|(id, path, _)| (id, path)).collect();
        Self { rule: Rule::of(settings), paths, moments: BTreeMap::new() }
    }

    /// Goes on by other settings, with the moments that it has.
    pub fn set_rule(&mut self, settings: &OptimizerSettings) {
        self.rule = Rule::of(settings);
    }

    /// One step down the gradients; parameters without a gradient stay.
    pub fn step<M: Module>(
        &mut self,
        learning_rate: f64,
        module: M,
        gradients: GradientsParams,
    ) -> M {
        module.map(&mut Step { optimizer: self, learning_rate, gradients })
    }

    /// Hands the moments of `module`'s parameters over to long arrays, with the EMA weights `mean`.
    pub(super) fn flatten<M: Module>(&mut self, module: &M, mean: Option<&M>) -> Flat {
        Flat::new(module, &self.paths, &std::mem::take(&mut self.moments), mean)
    }

    /// Takes the moments of long arrays over.
    pub(super) fn take_apart(&mut self, flat: &Flat) {
        self.moments.extend(flat.moments());
    }

    /// The rule on one array of parameters, its gradient and its moments, `None` before the first
    /// step: the new array and moments.
    pub(super) fn update(
        &self,
        learning_rate: f64,
        value: Tensor<1>,
        gradient: Tensor<1>,
        state: Option<AdaptiveMomentumState<1>>,
    ) -> (Tensor<1>, Option<AdaptiveMomentumState<1>>) {
        match &self.rule {
            Rule::Adam(rule) => {
                let (value, state) =
                    rule.step(learning_rate, value, gradient, state.map(AdamState::new));
                (value, state.map(|s| s.momentum))
            }
            Rule::AdamW(_, numbers) if kernels::in_host_memory(&value) => {
                let (device, [count]) = (value.device(), value.dims());
                let zeros = || Tensor::zeros([count], &device);
                let state =
                    state.unwrap_or_else(|| AdaptiveMomentumState::new(0, zeros(), zeros()));
                let time = state.time + 1;
                let step = AdamWStep { learning_rate, time: time as i32, ..*numbers };
                let arrays = [value, state.moment_1, state.moment_2];
                let [value, first, second] = kernels::adamw(step, arrays, &gradient);
                (value, Some(AdaptiveMomentumState::new(time, first, second)))
            }
            Rule::AdamW(rule, _) => {
                let (value, state) =
                    rule.step(learning_rate, value, gradient, state.map(AdamWState::new));
                (value, state.map(|s| s.momentum))
            }
        }
    }

    /// The state as tensors: `PATH.exp_avg`, `PATH.exp_avg_sq` in the parameter's shape, and
    /// `PATH.step`.
    ///
    /// # Errors
    /// The first tensor that could not be computed on the device: see [`device::read`].
    pub fn state_dict<M: Module>(&self, module: &M) -> Result<Vec<HostTensor>, StageError> {
        let states = param_paths(module).into_iter().filter_map(|(_, path, shape)| {
            let state = self.moments.get(&path)?;
            Some((path, shape, state))
        });
        let (mut tensors, mut moments, mut read) = (Vec::new(), Vec::new(), Transaction::default());
        for (path, shape, state) in states {
            for (field, moment) in [("exp_avg", &state.moment_1), ("exp_avg_sq", &state.moment_2)] {
                moments.push((format!("{PREFIX}{path}.{field}"), shape.clone()));
                read = read.register(moment.clone());
            }
            let step = (state.time as i64).to_le_bytes().to_vec();
            let name = format!("{PREFIX}{path}.step");
            tensors.push(HostTensor { name, dtype: Dtype::I64, shape: vec![], bytes: step });
        }
        let data = device::read_all(read)?;
        tensors.extend(
            moments
                .into_iter()
                .zip(data)
                .map(|((name, shape), data)| host_tensor(name, shape, data)),
        );
        Ok(tensors)
    }

    /// Takes over a saved state of the parameters in `scope`. `lookup` is asked by full name; a
    /// parameter without all three tensors, or with ones of the wrong size, is named in the error.
    pub fn load_state_dict<M: Module>(
        &mut self,
        module: &M,
        scope: &Scope,
        device: &Device,
        mut lookup: impl FnMut(&str) -> Option<HostTensor>,
    ) -> Result<(), String> {
        for (_, path, shape) in
            param_paths(module).into_iter().filter(|(_, path, _)| scope.holds(path))
        {
            let count: usize = shape.iter().product();
            let mut moment = |field: &str| {
                let values = lookup(&format!("{PREFIX}{path}.{field}"))?.to_f32()?;
                (values.len() == count).then(|| {
                    Tensor::<1>::from_data(
                        TensorData::new(values, [count]),
                        &device.clone().inner(),
                    )
                })
            };
            let (first, second) = (moment("exp_avg"), moment("exp_avg_sq"));
            let step = lookup(&format!("{PREFIX}{path}.step")).filter(|t| t.dtype == Dtype::I64);
            let step = step
                .and_then(|t| <[u8; 8]>::try_from(t.bytes.as_slice()).ok())
                .map(i64::from_le_bytes);
            let (Some(first), Some(second), Some(time)) =
                (first, second, step.and_then(|s| usize::try_from(s).ok()))
            else {
                return Err(format!(
                    "the optimizer's state of `{path}` is missing or of another size"
                ));
            };
            self.moments.insert(path, AdaptiveMomentumState::new(time, first, second));
        }
        Ok(())
    }
}

struct Step<'a> {
    optimizer: &'a mut Optimizer,
    learning_rate: f64,
    gradients: GradientsParams,
}

impl ModuleMapper for Step<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove::<D>(param.id) else { return param };
        let Some(path) = self.optimizer.paths.get(&param.id).cloned() else { return param };
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.shape();
        let count = shape.num_elements();
        let (value, gradient) = (tensor.inner().reshape([count]), gradient.reshape([count]));
        let state = self.optimizer.moments.remove(&path);
        let (value, state) = self.optimizer.update(self.learning_rate, value, gradient, state);
        if let Some(state) = state {
            self.optimizer.moments.insert(path, state);
        }
        let updated = Tensor::from_inner(value.reshape(shape)).require_grad();
        Param::from_mapped_value(id, updated, mapper)
    }
}

/// The sum of the squares of all gradients of `module`, `[1]`; `None` if it has none. Waits for
/// nothing.
pub(super) fn squared_norm<M: Module>(
    module: &M,
    gradients: &GradientsParams,
) -> Option<Tensor<1>> {
    struct SquaredNorm<'a> {
        gradients: &'a GradientsParams,
        sum: Option<Tensor<1>>,
    }
    impl ModuleVisitor for SquaredNorm<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(gradient) = self.gradients.get::<D>(param.id) else { return };
            let squared = sum_all(gradient.square()); // [1]
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + squared,
                None => squared,
            });
        }
    }
    let mut norm = SquaredNorm { gradients, sum: None };
    module.visit(&mut norm);
    norm.sum
}

/// Scales all gradients so that their norm over all parameters together is at most `max`
/// (Pascanu et al. 2013, arXiv 1211.5063). Waits for nothing: the norm stays on the device.
pub fn clip_by_norm<M: Module>(
    module: &M,
    gradients: GradientsParams,
    max: f64,
) -> GradientsParams {
    struct Scale {
        gradients: GradientsParams,
        scaled: GradientsParams,
        factor: Tensor<1>,
    }
    impl ModuleVisitor for Scale {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(gradient) = self.gradients.remove::<D>(param.id) else { return };
            self.scaled.register(param.id, gradient * self.factor.clone().unsqueeze::<D>());
        }
    }
    let Some(sum) = squared_norm(module, &gradients) else { return gradients };
    let factor = clip_factor(sum, max);
    let mut scale = Scale { gradients, scaled: GradientsParams::new(), factor };
    module.visit(&mut scale);
    scale.scaled
}

/// What gradients are multiplied with so that their norm is at most `max`: `sum [1]` is the sum of
/// their squares.
pub(super) fn clip_factor(sum: Tensor<1>, max: f64) -> Tensor<1> {
    (sum.sqrt() + 1e-6).recip().mul_scalar(max).clamp_max(1.0)
}
