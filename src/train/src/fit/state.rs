//! Everything that training changes: weights, their running mean, the optimizer's state. To tensors and back.

use burn::module::Module;
use burn::tensor::Device;
use pipe_engine::kind::{Failure, StageError};
use pipe_engine::store::checkpoint::Checkpoint;
use pipe_engine::store::tensor::HostTensor;

use super::optimizer::{self, Optimizer};
use super::settings::TrainSettings;
use crate::diffit::{Diffit, DiffitConfig, load_state_dict, state_dict};

/// Prefix of the weights in a checkpoint.
pub const WEIGHTS: &str = "state_dict.";
/// Prefix of the weights' running mean.
pub const EMA_WEIGHTS: &str = "ema_state_dict.";

/// What a checkpoint holds besides its header.
pub struct TrainState {
    /// On an autodiff device.
    pub model: Diffit,
    /// Without autodiff; `None` when switched off.
    pub ema: Option<Diffit>,
    pub optimizer: Optimizer,
}

impl TrainState {
    /// Initial weights, a pure function of the seed.
    pub fn fresh(
        config: &DiffitConfig,
        settings: &TrainSettings,
        device: &Device,
    ) -> Result<Self, StageError> {
        let model = config
            .init(settings.seed, device)
            .map_err(|e| StageError::new(Failure::Setting, format!("model: {e}")))?;
        let optimizer = Optimizer::new(&settings.optimizer, &model);
        let ema = settings.ema.enabled.then(|| model.clone().valid());
        Ok(Self { model, ema, optimizer })
    }

    /// The state that a checkpoint holds, to the bit.
    pub fn restore(
        checkpoint: &Checkpoint,
        config: &DiffitConfig,
        settings: &TrainSettings,
        device: &Device,
    ) -> Result<Self, StageError> {
        let wrong = |message: String| {
            StageError::new(
                Failure::Input,
                format!("failed to load {}: {message}", checkpoint.path().display()),
            )
        };
        let names: Vec<String> = checkpoint.tensors().map(|t| t.name.clone()).collect();
        let read = |name: &str| match names.iter().any(|n| n == name) {
            true => checkpoint.read(name).map(Some),
            false => Ok(None),
        };
        let mut state = Self::fresh(config, settings, device)?;
        let available = || names.iter().map(String::as_str);
        state.model =
            load_state_dict(state.model, WEIGHTS, available(), read).map_err(|e| wrong(e.to_string()))?;
        state.ema = match state.ema {
            Some(ema) => {
                Some(load_state_dict(ema, EMA_WEIGHTS, available(), read).map_err(|e| wrong(e.to_string()))?)
            }
            None => None,
        };
        // Before the first step there are no moments.
        if names.iter().any(|n| n.starts_with(optimizer::PREFIX)) {
            let lookup = |name: &str| read(name).ok().flatten();
            state.optimizer.load_state_dict(&state.model, device, lookup).map_err(wrong)?;
        }
        Ok(state)
    }

    /// Copies everything to host memory; waits for the device.
    pub fn tensors(&self) -> Vec<HostTensor> {
        let mut tensors = state_dict(&self.model, WEIGHTS);
        if let Some(ema) = &self.ema {
            tensors.extend(state_dict(ema, EMA_WEIGHTS));
        }
        tensors.extend(self.optimizer.state_dict(&self.model));
        tensors
    }

    /// The weights to judge and sample with: the running mean where there is one.
    pub fn weights(&self) -> Diffit {
        self.ema.clone().unwrap_or_else(|| self.model.clone().valid())
    }
}
