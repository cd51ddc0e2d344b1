//! Everything that training changes: weights, EMA weights, the optimizer's state. To tensors
//! and back.

use std::convert::Infallible;
use std::path::Path;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use pipe_engine::kind::{Failure, StageError};
use pipe_runs::Loaded;
use pipe_runs::tensor::HostTensor;

use super::ema;
use super::flat::{self, Flat};
use super::optimizer::{self, Optimizer, StepSettings, clip_by_norm};
use super::periods::Period;
use super::power_ema;
use super::precision::Precision;
use super::settings::OptimizerSettings;
use crate::architecture::Network;
use crate::device::read_parameters;
use crate::nn::{Scope, load_state_dict};

/// Prefix of the weights in a checkpoint.
pub const WEIGHTS: &str = "state_dict.";
/// Prefix of the EMA weights in a checkpoint.
pub const EMA_WEIGHTS: &str = "ema_state_dict.";

/// Prefix of the averages by power functions in a checkpoint; behind it a length and a slash.
pub const POWER_EMA: &str = "power_ema.";
/// The folder of a run that holds snapshots of those averages.
pub const SNAPSHOTS: &str = "ema";

/// An average of the weights by a power function.
struct PowerMean {
    length: f64,
    gamma: f64,
    /// Without autodiff.
    mean: Network,
}

impl PowerMean {
    /// Of its tensors in a checkpoint.
    fn prefix(&self) -> String {
        format!("{POWER_EMA}{}/", self.length)
    }
}

/// What a new training takes of a checkpoint.
pub struct Taken {
    /// Of the weights.
    pub prefix: &'static str,
    /// The parameters; the others stay as they are in a new training.
    pub scope: Scope,
    /// The optimizer's state of those parameters, too.
    pub optimizer: bool,
}

/// What a checkpoint holds besides its header.
pub struct TrainState {
    /// On an autodiff device.
    pub model: Network,
    /// Without autodiff; `None` when switched off, and while `flat` holds them.
    ema: Option<Network>,
    power: Vec<PowerMean>,
    /// Without moments while `flat` holds them.
    optimizer: Optimizer,
    /// Whether steps are taken on long arrays: on devices whose memory is not the host's.
    is_flat: bool,
    /// From the first such step on.
    flat: Option<Flat>,
    /// The parameters that change; only they are saved.
    pub scope: Scope,
}

impl TrainState {
    /// The state before the first step. Parameters of `model` outside `scope` are frozen already.
    pub fn new(model: Network, scope: Scope, settings: &OptimizerSettings, ema: bool) -> Self {
        let optimizer = Optimizer::new(settings, &model);
        let (ema, is_flat) = (ema.then(|| model.clone().valid()), flat::suits(&model));
        Self { model, ema, power: Vec::new(), optimizer, is_flat, flat: None, scope }
    }

    /// The same with averages by power functions of these lengths, which begin at the first step.
    pub fn with_lengths(mut self, lengths: &[f64]) -> Self {
        let mean = self.model.clone().valid();
        let power = |length: &f64| {
            let gamma = power_ema::exponent(*length);
            PowerMean { length: *length, gamma, mean: mean.clone() }
        };
        self.power = lengths.iter().map(power).collect();
        self
    }

    /// Goes on by the settings of a period; what was learned stays.
    pub fn enter(&mut self, period: &Period) {
        self.optimizer.set_rule(&period.settings.optimizer);
        let Some(objective) = period.objective else { return };
        self.model = self.model.clone().with_objective(objective);
        self.ema = self.ema.take().map(|ema| ema.with_objective(objective));
        for power in &mut self.power {
            power.mean = power.mean.clone().with_objective(objective);
        }
    }

    /// One optimizer step: clipping, new weights, EMA weights. Waits for nothing.
    pub fn step(&mut self, gradients: GradientsParams, settings: StepSettings) {
        self.change_weights(gradients, settings);
        let updated = |power: PowerMean| {
            let decay = power_ema::decay(power.gamma, settings.done + 1);
            PowerMean { mean: ema::update(power.mean, &self.model, decay), ..power }
        };
        self.power = std::mem::take(&mut self.power).into_iter().map(updated).collect();
    }

    fn change_weights(&mut self, mut gradients: GradientsParams, settings: StepSettings) {
        if self.is_flat && flat::is_complete(&self.model, &gradients) {
            let flat = self.flat.get_or_insert_with(|| {
                self.optimizer.flatten(&self.model, self.ema.take().as_ref())
            });
            self.model = flat.step(self.model.clone(), gradients, &self.optimizer, settings);
            return;
        }
        if let Some(flat) = self.flat.take() {
            self.ema = flat.mean(self.model.clone().valid());
            self.optimizer.take_apart(&flat);
        }
        if let Some(max) = settings.clip {
            gradients = clip_by_norm(&self.model, gradients, max);
        }
        self.model = self.optimizer.step(settings.learning_rate, self.model.clone(), gradients);
        if let Some(mean) = self.ema.take() {
            self.ema = Some(ema::update(mean, &self.model, settings.ema_decay));
        }
    }

    /// The weights to compute with in training: see [`Precision::weights`].
    pub fn weights_in(&self, precision: Precision) -> Network {
        match (&self.flat, precision.dtype()) {
            (Some(flat), Some(dtype)) => precision.weights(&flat.cast(self.model.clone(), dtype)),
            _ => precision.weights(&self.model),
        }
    }

    /// The EMA weights, without autodiff; `None` when switched off.
    fn ema(&self) -> Option<Network> {
        let mean = |flat: &Flat| flat.mean(self.model.clone().valid());
        self.ema.clone().or_else(|| self.flat.as_ref().and_then(mean))
    }

    /// The state that a checkpoint holds, to the bit. A file of weights alone has no EMA weights
    /// and no optimizer's state: the average begins at the weights, as in a new training, and the
    /// optimizer at nothing.
    pub fn restore(mut self, checkpoint: &mut Loaded, device: &Device) -> Result<Self, StageError> {
        let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
        let has = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
        let mut load = |model, prefix: &str| {
            weights_of(checkpoint, model, &self.scope, prefix, names.iter().map(String::as_str))
        };
        self.model = load(self.model, WEIGHTS)?;
        self.ema = match self.ema {
            Some(ema) if has(EMA_WEIGHTS) => Some(load(ema, EMA_WEIGHTS)?),
            Some(_) => Some(self.model.clone().valid()),
            None => None,
        };
        for power in std::mem::take(&mut self.power) {
            let prefix = power.prefix();
            let mean =
                if has(&prefix) { load(power.mean, &prefix)? } else { self.model.clone().valid() };
            self.power.push(PowerMean { mean, ..power });
        }
        // Before the first step there are no moments.
        if has(optimizer::PREFIX) {
            let scope = self.scope.clone();
            self.take_optimizer(checkpoint, &scope, device)?;
        }
        Ok(self)
    }

    /// The state of a new training that begins with a checkpoint's weights. The EMA weights begin
    /// at those, too: a young average forgets what it began at within a few steps.
    ///
    /// # Errors
    /// Tensors that are missing or of another shape, and numbers that are not finite.
    pub fn begin_with(
        mut self,
        checkpoint: &mut Loaded,
        taken: &Taken,
        device: &Device,
    ) -> Result<Self, StageError> {
        let Taken { prefix, scope, optimizer } = taken;
        let is_taken = |name: &&str| name.strip_prefix(prefix).is_some_and(|n| scope.holds(n));
        let names: Vec<String> = checkpoint.names().filter(is_taken).map(str::to_owned).collect();
        let names = names.iter().map(String::as_str);
        self.model = weights_of(checkpoint, self.model, scope, prefix, names)?;
        self.ema = self.ema.is_some().then(|| self.model.clone().valid());
        self.power.iter_mut().for_each(|power| power.mean = self.model.clone().valid());
        let weights = read_parameters(&self.model, scope, "")?;
        if let Some(wrong) = weights.iter().find(|tensor| !tensor.is_finite()) {
            let path = checkpoint.path().display();
            let text = format!("{path}: `{}` holds numbers that are not finite", wrong.name);
            return Err(StageError::new(Failure::Input, text));
        }
        if *optimizer {
            self.take_optimizer(checkpoint, scope, device)?;
        }
        Ok(self)
    }

    fn take_optimizer(
        &mut self,
        checkpoint: &mut Loaded,
        scope: &Scope,
        device: &Device,
    ) -> Result<(), StageError> {
        let path = checkpoint.path().to_owned();
        let lookup = |name: &str| checkpoint.take(name);
        let loaded = self.optimizer.load_state_dict(&self.model, scope, device, lookup);
        loaded.map_err(|message| failed_to_load(&path, &message))
    }

    /// About how large a checkpoint is: `trainable` weights, their EMA, and Adam's two moments, 4
    /// bytes each.
    pub fn checkpoint_bytes(&self, trainable: u64) -> u64 {
        4 * trainable * (3 + u64::from(self.ema().is_some()) + self.power.len() as u64)
    }

    /// Copies everything to host memory; waits for the device.
    pub fn tensors(&self) -> Result<Vec<HostTensor>, StageError> {
        let mut tensors = read_parameters(&self.model, &self.scope, WEIGHTS)?;
        if let Some(ema) = self.ema() {
            tensors.extend(read_parameters(&ema, &self.scope, EMA_WEIGHTS)?);
        }
        tensors.extend(self.snapshot()?);
        let mut optimizer = self.optimizer.clone();
        if let Some(flat) = &self.flat {
            optimizer.take_apart(flat);
        }
        tensors.extend(optimizer.state_dict(&self.model)?);
        Ok(tensors)
    }

    /// The averages by power functions; waits for the device.
    pub fn snapshot(&self) -> Result<Vec<HostTensor>, StageError> {
        let of = |power: &PowerMean| read_parameters(&power.mean, &self.scope, &power.prefix());
        Ok(self.power.iter().map(of).collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// The weights to validate and sample with: the EMA weights where there are any.
    pub fn weights(&self) -> Network {
        self.ema().unwrap_or_else(|| self.model.clone().valid())
    }
}

/// A model with the weights of a checkpoint under a prefix. `available`: the names on offer.
fn weights_of<'n>(
    checkpoint: &mut Loaded,
    model: Network,
    scope: &Scope,
    prefix: &str,
    available: impl Iterator<Item = &'n str>,
) -> Result<Network, StageError> {
    let path = checkpoint.path().to_owned();
    let lookup = |name: &str| Ok::<_, Infallible>(checkpoint.take(name));
    load_state_dict(model, scope, prefix, available, lookup)
        .map_err(|e| failed_to_load(&path, &e.to_string()))
}

fn failed_to_load(path: &Path, message: &str) -> StageError {
    StageError::new(Failure::Input, format!("failed to load {}: {message}", path.display()))
}

#[cfg(test)]
mod tests;
