//! The layers that LoRA can put factors beside, for people who choose among them.

use super::inject::LoraPlan;
use super::targets::{Layer, layers};
use crate::architecture::Network;
use crate::nn::walk;

/// A layer with factors.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct AdaptedLayer {
    /// As `target_modules` takes it.
    pub name: String,
    #[serde(rename = "type")]
    pub kind: LayerKind,
    /// Of its weight, as PyTorch has it: `[out, in]`, with the sides of the kernel behind.
    pub shape: Vec<usize>,
    pub rank: usize,
    /// Numbers in both factors.
    pub parameters: usize,
}

/// What a layer computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerKind {
    Linear,
    Conv2d,
}

impl LayerKind {
    /// Of a weight with so many axes.
    fn of_axes(axes: usize) -> Self {
        if axes == 2 { Self::Linear } else { Self::Conv2d }
    }

    /// PyTorch's name of the layer.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "Linear",
            Self::Conv2d => "Conv2d",
        }
    }
}

impl AdaptedLayer {
    /// Of a weight's shape and a rank: A has `r` rows as long as the weight's, B has `r` columns.
    fn new(name: String, shape: Vec<usize>, rank: usize) -> Self {
        let outputs = shape.first().copied().unwrap_or(0);
        let row: usize = shape.iter().skip(1).product();
        let parameters = rank * (outputs + row);
        Self { name, kind: LayerKind::of_axes(shape.len()), shape, rank, parameters }
    }
}

impl LoraPlan {
    /// The layers of a network that get factors, in the order of their names.
    pub fn layers(&self, model: &Network) -> Vec<AdaptedLayer> {
        let layer = |Layer { path, shape, .. }: Layer| {
            let rank = *self.ranks.get(&path)?;
            Some(AdaptedLayer::new(path, shape, rank))
        };
        layers(model).into_iter().filter_map(layer).collect()
    }
}

impl super::Adapter {
    /// The layers that the adapter has factors for, as their shapes tell, in the order of their
    /// names.
    pub fn layers(&self) -> Vec<AdaptedLayer> {
        use crate::nn::{LORA_A, LORA_B};
        let shape = |name: &str, end: &str| {
            self.tensors.get(&format!("{name}{end}")).map(|tensor| tensor.shape.clone())
        };
        let layer = |(name, rank): (&String, &usize)| {
            let (mut whole, second) = (shape(name, LORA_A)?, shape(name, LORA_B)?);
            *whole.first_mut()? = *second.first()?;
            Some(AdaptedLayer::new(name.clone(), whole, *rank))
        };
        self.plan.ranks.iter().filter_map(layer).collect()
    }

    /// Parameters that are trained in full beside the factors, each with its count.
    pub fn trained_in_full(&self) -> Vec<(String, usize)> {
        use crate::nn::{LORA_A, LORA_B};
        let others = self
            .tensors
            .iter()
            .filter(|(name, _)| !name.ends_with(LORA_A) && !name.ends_with(LORA_B));
        others.map(|(name, tensor)| (name.clone(), tensor.shape.iter().product())).collect()
    }
}

/// The names of all layers of a network that can get factors.
pub fn layer_names(model: &Network) -> Vec<String> {
    layers(model).into_iter().map(|layer| layer.path).collect()
}

/// Numbers in all parameters of a network.
pub fn parameter_count(model: &Network) -> usize {
    walk(model).iter().map(|param| param.shape.iter().product::<usize>()).sum()
}
