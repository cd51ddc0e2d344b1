//! Everything that training changes: weights, EMA weights, the optimizer's state. To tensors
//! and back.

use std::convert::Infallible;

use burn::module::Module;
use burn::tensor::Device;
use pipe_engine::kind::{Failure, StageError};
use pipe_runs::Loaded;
use pipe_runs::tensor::HostTensor;

use super::optimizer::{self, Optimizer};
use super::settings::TrainingSettings;
use crate::architecture::Network;
use crate::device::read_parameters;
use crate::nn::{Scope, load_state_dict};

/// Prefix of the weights in a checkpoint.
pub const WEIGHTS: &str = "state_dict.";
/// Prefix of the EMA weights in a checkpoint.
pub const EMA_WEIGHTS: &str = "ema_state_dict.";

/// What a checkpoint holds besides its header.
pub struct TrainState {
    /// On an autodiff device.
    pub model: Network,
    /// Without autodiff; `None` when switched off.
    pub ema: Option<Network>,
    pub optimizer: Optimizer,
    /// The parameters that change; only they are saved.
    pub scope: Scope,
}

impl TrainState {
    /// The state before the first step. Parameters of `model` outside `scope` are frozen already.
    pub fn new(model: Network, scope: Scope, settings: &TrainingSettings) -> Self {
        let optimizer = Optimizer::new(&settings.optimizer, &model);
        let ema = settings.ema.enabled.then(|| model.clone().valid());
        Self { model, ema, optimizer, scope }
    }

    /// The state that a checkpoint holds, to the bit. A file of weights alone has no EMA weights
    /// and no optimizer's state: the average begins at the weights, as in a new training, and the
    /// optimizer at nothing.
    pub fn restore(mut self, checkpoint: &mut Loaded, device: &Device) -> Result<Self, StageError> {
        let path = checkpoint.path().display().to_string();
        let wrong = |message: String| {
            StageError::new(Failure::Input, format!("failed to load {path}: {message}"))
        };
        let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
        let names = || names.iter().map(String::as_str);
        let mut load = |model: Network, prefix: &str| {
            let lookup = |name: &str| Ok::<_, Infallible>(checkpoint.take(name));
            load_state_dict(model, &self.scope, prefix, names(), lookup)
                .map_err(|e| wrong(e.to_string()))
        };
        self.model = load(self.model, WEIGHTS)?;
        self.ema = match self.ema {
            Some(ema) if names().any(|name| name.starts_with(EMA_WEIGHTS)) => {
                Some(load(ema, EMA_WEIGHTS)?)
            }
            Some(_) => Some(self.model.clone().valid()),
            None => None,
        };
        // Before the first step there are no moments.
        if names().any(|n| n.starts_with(optimizer::PREFIX)) {
            let lookup = |name: &str| checkpoint.take(name);
            self.optimizer
                .load_state_dict(&self.model, &self.scope, device, lookup)
                .map_err(wrong)?;
        }
        Ok(self)
    }

    /// About how large a checkpoint is: `trainable` weights, their EMA, and Adam's two moments, 4
    /// bytes each.
    pub fn checkpoint_bytes(&self, trainable: u64) -> u64 {
        4 * trainable * (3 + u64::from(self.ema.is_some()))
    }

    /// Copies everything to host memory; waits for the device.
    pub fn tensors(&self) -> Result<Vec<HostTensor>, StageError> {
        let mut tensors = read_parameters(&self.model, &self.scope, WEIGHTS)?;
        if let Some(ema) = &self.ema {
            tensors.extend(read_parameters(ema, &self.scope, EMA_WEIGHTS)?);
        }
        tensors.extend(self.optimizer.state_dict(&self.model)?);
        Ok(tensors)
    }

    /// The weights to validate and sample with: the EMA weights where there are any.
    pub fn weights(&self) -> Network {
        self.ema.clone().unwrap_or_else(|| self.model.clone().valid())
    }
}
