//! What a training step asks of a GPU, counted instead of timed: kernel launches, loops of single
//! threads, bytes.
//!
//! The counts depend on the network, the shapes and the compute runtime, and not on the card. So
//! they can be taken on a software adapter, and a test can hold them.

mod blocks;
mod kernel_times;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::optim::GradientsAccumulator;
use burn::tensor::{Device, Tensor};
use burn_fusion::observer::{BlockOperations, FusionObservation, FusionObserver};
use burn_ir::OperationIr;
use cubecl::dry_run::DryRun;
use cubecl::logging::{LaunchObservation, LaunchObserver};
use pipe_engine::kind::{Failure, StageError};
use serde::Serialize;

use self::blocks::Blocks;
pub use self::kernel_times::{KernelTime, KernelTimes, time};
use super::backward::Backward;
use super::ema;
use super::noised_batch::{BatchKey, LabelDropout, NoisedBatch};
use super::optimizer::StepSettings;
use super::precision::Precision;
use super::settings::OptimizerSettings;
use super::train_state::TrainState;
use crate::architecture::ModelConfig;
use crate::data::Batch;
use crate::diffusion::{Objective, Sampler};
use crate::nn::{Dropout, Scope};

/// Steps before the one that is counted: the runtime finds out in these what it can fuse.
const WARM_UP: u64 = 4;
/// Arrays of parameters that an optimizer step moves: weights, gradients, both moments and EMA read,
/// all but the gradients written.
const PASSES: u64 = 9;

/// What one training step asks of a GPU: forward, backward, clipping, AdamW and EMA.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepCounts {
    /// Kernels that are launched.
    pub launches: u64,
    /// The same by kernel.
    pub kernels: BTreeMap<String, u64>,
    /// Iterations of the longest loop of one thread that sums or scatters, summed over the
    /// launches. Loops of matrix products and convolutions are not among them.
    pub serial_iterations: u64,
    /// The longest of these loops.
    pub longest_loop: u64,
    /// Where most of the iterations are.
    pub loops: Vec<SumLoop>,
    /// Bytes that kernels read and write, each tensor once a launch.
    pub bytes: u64,
    /// Bytes that must be moved: what matrix products and convolutions read and write, and nine
    /// passes over the parameters.
    pub essential_bytes: u64,
    /// Tensors that the host sends.
    pub uploads: u64,
    /// Command buffers that a step of one image submits.
    pub submits: u64,
    /// Buffers that the host reads back in it.
    pub read_backs: u64,
    /// Bytes that the runtime holds on the device behind the step.
    pub pool_bytes: u64,
    /// Bytes that must be held: the most at a time of tensors that are still to be read.
    pub essential_pool_bytes: u64,
    /// Kernels that a step of the sampler launches, which looks at the network twice: for a batch
    /// of any size.
    pub sampler_step_launches: u64,
}

/// Sums of tensors of one shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SumLoop {
    /// Numbers that one thread adds up.
    pub iterations: u64,
    /// Of the tensor whose numbers these are.
    pub shape: Vec<usize>,
    /// Launches with such a loop.
    pub launches: u64,
}

/// So many kinds of loops are listed.
const LOOPS: usize = 12;

/// Counts a step of a batch of so many images. `calls` says how many command buffers were submitted
/// and how many buffers read back in this process so far.
///
/// # Errors
/// The device computes in host memory, or fails.
pub fn count(
    config: &ModelConfig,
    batch: u64,
    optimizer: &OptimizerSettings,
    device: &Device,
    calls: impl Fn() -> [u64; 2],
) -> Result<StepCounts, StageError> {
    // Kernels are compiled and not run: what a software adapter would compute for minutes.
    let dry = DryRun::new();
    let counted = count_step(config, batch, optimizer, device)?;
    let sampler_step_launches = count_sampling(config, batch, device)?;
    let mut single = Trial::new(config, 1, optimizer, device)?;
    // A kernel that is not run is not submitted.
    drop(dry);
    let before = calls();
    single.step()?;
    let after = calls();
    let costs = counted.blocks.costs();
    Ok(StepCounts {
        launches: counted.kernels.values().sum(),
        kernels: counted.kernels,
        serial_iterations: costs.iter().map(|cost| cost.iterations).sum(),
        longest_loop: costs.iter().map(|cost| cost.longest_loop).max().unwrap_or_default(),
        loops: counted
            .blocks
            .longest_loops(LOOPS)
            .into_iter()
            .map(|(iterations, shape, launches)| SumLoop { iterations, shape, launches })
            .collect(),
        bytes: costs.iter().map(|cost| cost.bytes).sum(),
        essential_bytes: PASSES * 4 * counted.parameters
            + costs.iter().map(|cost| cost.product_bytes).sum::<u64>(),
        uploads: counted.blocks.uploads,
        submits: after[0] - before[0],
        read_backs: after[1] - before[1],
        pool_bytes: counted.pool_bytes,
        essential_pool_bytes: counted.blocks.live_bytes(),
        sampler_step_launches,
    })
}

/// What was seen of one step.
struct Counted {
    kernels: BTreeMap<String, u64>,
    blocks: Blocks,
    parameters: u64,
    pool_bytes: u64,
}

/// What an observer gathers, which other threads tell.
fn held<T>(gathered: &Mutex<T>) -> MutexGuard<'_, T> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Launches(Mutex<BTreeMap<String, u64>>);

impl LaunchObserver for Launches {
    fn launched(&self, kernel: &'static str) {
        *held(&self.0).entry(short_name(kernel)).or_default() += 1;
    }
}

/// `cubek::reduce::launch::kernel<F>` is `kernel`, with what stands before it where that says more.
fn short_name(kernel: &str) -> String {
    let whole = kernel.split('<').next().unwrap_or(kernel);
    let mut parts = whole.rsplit("::");
    let last = parts.next().unwrap_or(whole);
    match parts.next() {
        Some(before) => format!("{before}::{last}"),
        None => last.to_owned(),
    }
}

#[derive(Default)]
struct Operations(Mutex<Blocks>);

impl FusionObserver for Operations {
    fn registered(&self, operation: &OperationIr) {
        if matches!(operation, OperationIr::Init(_)) {
            held(&self.0).uploads += 1;
        }
    }

    fn block_starts(&self, block: BlockOperations<'_>) {
        held(&self.0).push(block.iter());
    }

    fn block_ran(&self) {}
}

fn count_step(
    config: &ModelConfig,
    images: u64,
    optimizer: &OptimizerSettings,
    device: &Device,
) -> Result<Counted, StageError> {
    let mut trial = Trial::new(config, images, optimizer, device)?;
    let parameters = trial.state.model.num_params() as u64;
    let (launches, operations) = (Arc::new(Launches::default()), Arc::new(Operations::default()));
    let watching =
        (LaunchObservation::new(launches.clone()), FusionObservation::new(operations.clone()));
    trial.step()?;
    drop(watching);
    let kernels = std::mem::take(&mut *held(&launches.0));
    if kernels.is_empty() {
        return Err(StageError::setting("launches are those of a GPU, and this device is none"));
    }
    let blocks = std::mem::take(&mut *held(&operations.0));
    let pool = device.memory_pool_usage();
    let pool_bytes = pool.map_or(0, |usage| usage.bytes_reserved);
    Ok(Counted { kernels, blocks, parameters, pool_bytes })
}

/// Launches of a step of the sampler for a batch.
fn count_sampling(config: &ModelConfig, images: u64, device: &Device) -> Result<u64, StageError> {
    let net = config.init(7, device).map_err(|e| StageError::new(Failure::Bug, e.to_string()))?;
    let size = config.image_size();
    let noise = Tensor::<4>::zeros([images as usize, config.channels(), size, size], device);
    let launches = Arc::new(Launches::default());
    let mut watching = None;
    let mut synced = Ok(());
    Sampler::default().sample(&net, noise, None, |steps| {
        synced = self::synced(device);
        watching = (steps as u64 == WARM_UP).then(|| LaunchObservation::new(launches.clone()));
        synced.is_ok() && steps as u64 <= WARM_UP
    });
    drop(watching);
    synced?;
    Ok(held(&launches.0).values().sum())
}

fn synced(device: &Device) -> Result<(), StageError> {
    device.sync().map_err(|e| StageError::new(Failure::DeviceLost, e.to_string()))
}

/// A training of synthetic images.
struct Trial<'a> {
    state: TrainState,
    config: &'a ModelConfig,
    images: u64,
    /// With autodiff.
    device: Device,
    /// Steps that were done.
    steps: u64,
}

impl<'a> Trial<'a> {
    /// One that has done the first steps already.
    fn new(
        config: &'a ModelConfig,
        images: u64,
        optimizer: &OptimizerSettings,
        device: &Device,
    ) -> Result<Self, StageError> {
        let device = device.clone().autodiff();
        let model =
            config.init(7, &device).map_err(|e| StageError::new(Failure::Bug, e.to_string()))?;
        let state = TrainState::new(model, Scope::All, optimizer, true);
        let mut trial = Self { state, config, images, device, steps: 0 };
        (0..WARM_UP).try_for_each(|_| trial.step())?;
        Ok(trial)
    }

    /// The step of the training loop: gradients, clipping, optimizer, EMA.
    fn step(&mut self) -> Result<(), StageError> {
        let Self { state, config, images, device, steps } = self;
        let pixels = *images as usize * config.channels() * config.image_size().pow(2);
        let classes = config.num_classes();
        let batch = Batch {
            images: (0..pixels).map(|i| (0.37 * i as f32).sin()).collect(),
            labels: (0..*images as i64).map(|image| image % classes.max(1) as i64).collect(),
            indices: (0..*images as usize).collect(),
            augment: Vec::new(),
        };
        let key = BatchKey { seed: 1, epoch: 1, batch: *steps };
        let backward = Backward::new(config, Precision::F32, Dropout::default(), 1);
        let labels = LabelDropout { classes, dropout: 0.0 };
        let noised = NoisedBatch::for_training(batch, key, &Objective::default(), labels);
        let mut gradients = GradientsAccumulator::new();
        let _loss = backward.add(&mut gradients, &state.model, noised, 1, device);
        let settings = StepSettings {
            learning_rate: 1e-4 / (1 + *steps) as f64,
            clip: Some(1.0),
            ema_decay: ema::decay_at(0.999, *steps),
            done: *steps,
        };
        state.step(gradients.grads(), settings);
        *steps += 1;
        synced(device)
    }
}
