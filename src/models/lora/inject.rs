//! Injects factors beside a network's projections and convolutions and freezes everything else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use burn::module::{Lora, LoraAdapter, Module, Param, Reparameterizer};
use burn::tensor::Tensor;
use rand::RngExt;

use super::settings::LoraConfig;
use super::targets::{
    Layer, RANKS, TARGETS, TargetError, layers, matches_target, names_of, short_names,
};
use crate::architecture::Network;
use crate::nn::{LORA_A, LORA_B, Scope, fill, param_paths, parameter};
use pipe_core::rng::{Purpose, stream};

/// The rank and the scale of the factors beside each layer, by path.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LoraPlan {
    pub ranks: BTreeMap<String, usize>,
    pub scales: BTreeMap<String, f64>,
}

/// A network with factors.
pub struct AdaptedModel {
    pub model: Network,
    /// The factors, and whatever else is trained.
    pub scope: Scope,
}

impl LoraPlan {
    /// Finds the layers that the settings mean.
    ///
    /// # Errors
    /// A name in `target_modules` that means no layer, or a pattern in `rank_pattern` that covers
    /// none.
    pub fn new(config: &LoraConfig, model: &Network) -> Result<Self, TargetError> {
        let all = layers(model);
        for target in &config.target_modules {
            if !all.iter().any(|layer| layer.is_target_of(target)) {
                let mut available = names_of(&all);
                available.extend(all.iter().map(|layer| layer.path.clone()));
                return Err(TargetError { key: TARGETS, name: target.clone(), available });
            }
        }
        let is_chosen =
            |layer: &&Layer| config.target_modules.iter().any(|t| layer.is_target_of(t));
        let chosen: Vec<&str> =
            all.iter().filter(is_chosen).map(|layer| layer.path.as_str()).collect();
        for pattern in config.rank_pattern.keys() {
            if !chosen.iter().any(|path| matches_target(pattern, path)) {
                let mut available = short_names(chosen.iter().copied());
                available.extend(chosen.iter().map(|path| path.to_string()));
                return Err(TargetError { key: RANKS, name: pattern.clone(), available });
            }
        }
        let rank = |path: &str| {
            let fitting =
                config.rank_pattern.iter().filter(|(pattern, _)| matches_target(pattern, path));
            fitting.max_by_key(|(pattern, _)| pattern.len()).map_or(config.r, |(_, r)| *r)
        };
        let ranks: BTreeMap<String, usize> =
            chosen.into_iter().map(|path| (path.to_owned(), rank(path))).collect();
        let scales = ranks.iter().map(|(path, r)| (path.clone(), config.scale(*r))).collect();
        Ok(Self { ranks, scales })
    }

    /// The layers that get a higher rank than their own size allows, each with its `[outputs,
    /// inputs]`.
    pub fn above_full_rank(&self, model: &Network) -> Vec<(String, [usize; 2])> {
        let is_above =
            |p: &Layer| self.ranks.get(&p.path).is_some_and(|r| *r > p.outputs.min(p.inputs));
        let above = layers(model).into_iter().filter(is_above);
        above.map(|p| (p.path, [p.outputs, p.inputs])).collect()
    }

    /// Injects the factors into a network: A uniform within ±1/√in, where `in` counts all numbers
    /// that go into one output, as PEFT has it; B at 0, so that nothing changes yet. Every other parameter is frozen. Each A has a stream of its own,
    /// numbered by its place in the order of names.
    pub fn inject(&self, model: Network, seed: u64) -> AdaptedModel {
        let model = model.apply_reparameterization(Inject(self));
        let factors: Vec<(String, Vec<usize>)> = param_paths(&model)
            .into_iter()
            .filter(|(_, name, _)| name.ends_with(LORA_A) || name.ends_with(LORA_B))
            .map(|(_, name, shape)| (name, shape))
            .collect();
        let draw = |(index, (name, shape)): (usize, &(String, Vec<usize>))| {
            let count = shape.iter().product();
            if name.ends_with(LORA_B) {
                return (name.clone(), vec![0.0; count]);
            }
            let mut rng = stream(seed, Purpose::Lora, 0, index as u64);
            let inputs: usize = shape[1..].iter().product();
            let bound = 1.0 / (inputs as f32).sqrt();
            (name.clone(), (0..count).map(|_| bound * (2.0 * rng.random::<f32>() - 1.0)).collect())
        };
        let values: HashMap<String, Vec<f32>> = factors.iter().enumerate().map(draw).collect();
        let names: BTreeSet<String> = factors.into_iter().map(|(name, _)| name).collect();
        AdaptedModel { model: fill(model, values), scope: Scope::Only(Arc::new(names)) }
    }
}

/// burn's own LoRA, with a rank for each layer. (`Module::apply_lora` knows one rank, and
/// applied twice it freezes the factors of the first time.)
struct Inject<'a>(&'a LoraPlan);

impl Reparameterizer for Inject<'_> {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        let module = path.strip_suffix(".weight").unwrap_or(path);
        let Some((rank, scale)) = self.0.ranks.get(module).zip(self.0.scales.get(module)) else {
            return (param.set_require_grad(false), None);
        };
        if D == 2 {
            let mut lora = Lora::new(*rank, scale * *rank as f64);
            return lora.reparameterize(path, param);
        }
        // burn's knows matrices. What it computes of factors, a product in the shape of the weight,
        // is right for every kernel.
        let (shape, device) = (param.lazy_shape(), param.lazy_device());
        let outputs = shape.first().copied().unwrap_or(0);
        let inputs: usize = shape.iter().skip(1).product();
        let adapter = LoraAdapter {
            a: parameter([outputs, *rank], &device),
            b: parameter([*rank, inputs], &device),
            scale: *scale,
        };
        (param.set_require_grad(false), Some(adapter))
    }
}
