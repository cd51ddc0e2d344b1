//! A replica of the network in a thread of its own, which computes gradients of its shards.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData, Transaction};
use pipe_core::threads::STACK_SIZE;
use pipe_engine::kind::{Failure, StageError, panic_message};

use super::super::backward::Backward;
use super::super::noised_batch::NoisedBatch;
use super::params::{Params, with_params};
use crate::architecture::Network;
use crate::{device, kernels};

/// Shards that wait for a replica at most, in host memory, where a step has many batches.
pub(super) const QUEUE_DEPTH: usize = 2;

/// A further device, on which a replica computes.
#[derive(Debug, Clone)]
pub struct Worker {
    /// With autodiff.
    pub device: Device,
    /// For messages.
    pub name: String,
    /// Threads of the CPU that are its own, if it is the CPU.
    pub threads: Option<usize>,
}

/// The thread of a replica, as the training sees it.
pub(super) struct Replica {
    name: String,
    /// Until the end.
    work: Option<SyncSender<Work>>,
    done: Receiver<Result<ShardGradients, StageError>>,
    thread: Option<JoinHandle<()>>,
}

/// What a replica is told to do.
pub(super) enum Work {
    /// New numbers of the parameters that are trained, in the network's order.
    Weights(Arc<Vec<TensorData>>),
    /// Add the gradients of a shard of batch `number` in a step of `group` batches.
    Shard { shard: NoisedBatch, number: usize, group: usize },
    /// Hand over what was computed since this was last asked.
    Reduce,
}

/// What a replica computed for one optimizer step.
#[derive(Default)]
pub(crate) struct ShardGradients {
    pub gradients: Vec<(ParamId, TensorData)>,
    /// Part of the mean loss of a batch, by its number in the step.
    pub losses: Vec<(usize, f32)>,
}

impl Replica {
    /// Starts the thread. It copies the network to its device, with the numbers of all parameters
    /// from `data`.
    pub fn start(
        worker: Worker,
        network: Network,
        data: Arc<Vec<TensorData>>,
        backward: Backward,
    ) -> Result<Self, StageError> {
        let Worker { device, name, threads } = worker;
        let (work, works) = sync_channel(QUEUE_DEPTH);
        let (dones, done) = channel();
        let own = move || {
            let replica = move || {
                let weights = with_params(network, &data, Params::All, &device);
                drop(data);
                compute(weights, &device, backward, works, &dones);
            };
            match threads {
                Some(threads) => kernels::in_own_pool_of(Some(threads), replica),
                None => replica(),
            }
        };
        let builder =
            std::thread::Builder::new().name(format!("replica on {name}")).stack_size(STACK_SIZE);
        let thread = builder.spawn(own).map_err(|e| {
            StageError::new(Failure::Bug, format!("failed to start a thread for {name}: {e}"))
        })?;
        Ok(Self { name, work: Some(work), done, thread: Some(thread) })
    }

    pub fn send(&mut self, work: Work) -> Result<(), StageError> {
        let sent = self.work.as_ref().is_some_and(|channel| channel.send(work).is_ok());
        if sent { Ok(()) } else { Err(self.why_ended()) }
    }

    pub fn receive(&mut self) -> Result<ShardGradients, StageError> {
        match self.done.recv() {
            Ok(result) => result.map_err(|error| self.named(error)),
            Err(_) => Err(self.why_ended()),
        }
    }

    fn named(&self, error: StageError) -> StageError {
        StageError { message: format!("on {}: {}", self.name, error.message), ..error }
    }

    /// Why the thread ended before it was told to: an error that nobody has asked for yet, or a
    /// panic.
    fn why_ended(&mut self) -> StageError {
        self.work = None;
        if let Ok(Err(error)) = self.done.try_recv() {
            return self.named(error);
        }
        let text = match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => format!("a bug in this program: {}", panic_message(panic.as_ref())),
            _ => "its thread is gone".to_owned(),
        };
        self.named(StageError::new(Failure::Bug, text))
    }

    /// Tells the thread to end, after what it is computing just now.
    pub fn close(&mut self) {
        self.work = None;
    }

    /// Waits until the thread has ended.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a replica's thread does.
fn compute(
    mut weights: Network,
    device: &Device,
    backward: Backward,
    works: Receiver<Work>,
    done: &Sender<Result<ShardGradients, StageError>>,
) {
    let mut gradients = GradientsAccumulator::new();
    let mut losses: Vec<(usize, Tensor<1>)> = Vec::new();
    for work in works {
        match work {
            Work::Weights(data) => weights = with_params(weights, &data, Params::Trainable, device),
            Work::Shard { shard, number, group } => {
                let loss = backward.add(&mut gradients, &weights, shard, group, device);
                losses.extend(loss.map(|loss| (number, loss)));
            }
            Work::Reduce => {
                let computed =
                    read_gradients(&weights, gradients.grads(), std::mem::take(&mut losses));
                let failed = computed.is_err();
                if done.send(computed).is_err() || failed {
                    return;
                }
            }
        }
    }
}

/// Copies what was computed to host memory: the one place where a replica's thread waits for its
/// device.
pub(crate) fn read_gradients(
    weights: &Network,
    gradients: GradientsParams,
    losses: Vec<(usize, Tensor<1>)>,
) -> Result<ShardGradients, StageError> {
    struct Register {
        gradients: GradientsParams,
        ids: Vec<ParamId>,
        read: Transaction,
    }
    impl ModuleVisitor for Register {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(gradient) = self.gradients.remove::<D>(param.id) else { return };
            self.ids.push(param.id);
            self.read = std::mem::take(&mut self.read).register(gradient);
        }
    }
    let (batches, losses): (Vec<usize>, Vec<Tensor<1>>) = losses.into_iter().unzip();
    if losses.is_empty() {
        return Ok(ShardGradients::default());
    }
    let mut register = Register { gradients, ids: Vec::new(), read: Transaction::default() };
    weights.visit(&mut register);
    let mut data = device::read_all(register.read.register(Tensor::cat(losses, 0)))?;
    let losses = data.pop().map(|data| data.iter::<f32>().collect::<Vec<_>>()).unwrap_or_default();
    Ok(ShardGradients {
        gradients: register.ids.into_iter().zip(data).collect(),
        losses: batches.into_iter().zip(losses).collect(),
    })
}
