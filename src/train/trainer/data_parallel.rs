//! Data-parallel training on several devices. Each further device has a replica of the network and
//! computes its shard of every batch, in a thread of its own; the main device has all else: weights
//! in f32, optimizer, EMA weights, checkpoints. Two things travel, once in an optimizer step and
//! through host memory, which is the one way between devices of any kind: gradients to the main
//! device, and the weights that it makes of them back to the others.
//!
//! Knows nothing of optimizers, schedules or files.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData, Transaction};
use pipe_core::threads::STACK_SIZE;
use pipe_engine::kind::{Failure, StageError, panic_message};
use rayon::prelude::*;

use super::backward::Backward;
use super::noised_batch::NoisedBatch;
use crate::architecture::Network;
use crate::{device, kernels};

/// Shards that wait for a replica at most, in host memory, where a step has many batches.
const QUEUE_DEPTH: usize = 2;

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

/// The replicas; none for a training on one device, where every call here does nothing.
pub struct DataParallel {
    all: Vec<Replica>,
    /// They have the newest weights.
    weights_are_current: bool,
}

struct Replica {
    name: String,
    /// Until the end.
    work: Option<SyncSender<Work>>,
    done: Receiver<Result<ShardGradients, StageError>>,
    thread: Option<JoinHandle<()>>,
}

enum Work {
    /// New numbers of the parameters that are trained, in the network's order.
    Weights(Arc<Vec<TensorData>>),
    /// Add the gradients of a shard of batch `number` in a step of `group` batches.
    Shard { shard: NoisedBatch, number: usize, group: usize },
    /// Hand over what was computed since this was last asked.
    Reduce,
}

/// What a replica computed for one optimizer step.
#[derive(Default)]
pub(super) struct ShardGradients {
    pub gradients: Vec<(ParamId, TensorData)>,
    /// Part of the mean loss of a batch, by its number in the step.
    pub losses: Vec<(usize, f32)>,
}

impl DataParallel {
    /// Copies the network, in the number format that it computes in, to further devices. Waits for
    /// the device that it is on.
    pub fn start(
        workers: &[Worker],
        weights: &Network,
        backward: Backward,
    ) -> Result<Self, StageError> {
        let mut parallel = Self { all: Vec::new(), weights_are_current: true };
        if workers.is_empty() {
            return Ok(parallel);
        }
        let data = Arc::new(params_of(weights, Params::All)?);
        for Worker { device, name, threads } in workers.iter().cloned() {
            let (work, works) = sync_channel(QUEUE_DEPTH);
            let (dones, done) = channel();
            let (network, data) = (weights.clone(), data.clone());
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
            let builder = std::thread::Builder::new()
                .name(format!("replica on {name}"))
                .stack_size(STACK_SIZE);
            let thread = builder.spawn(own).map_err(|e| {
                StageError::new(Failure::Bug, format!("failed to start a thread for {name}: {e}"))
            })?;
            parallel.all.push(Replica { name, work: Some(work), done, thread: Some(thread) });
        }
        Ok(parallel)
    }

    /// Gives the newest weights to all, where they have others. Waits for the main device then.
    pub fn broadcast_weights(&mut self, weights: &Network) -> Result<(), StageError> {
        if self.all.is_empty() || self.weights_are_current {
            return Ok(());
        }
        let data = Arc::new(params_of(weights, Params::Trainable)?);
        self.weights_are_current = true;
        self.all.iter_mut().try_for_each(|replica| replica.send(Work::Weights(data.clone())))
    }

    /// Cuts a batch into shards, lets the replicas begin with theirs, and gives back the main
    /// device's. `number` counts the batches of a step, of which there are `group`. Waits only for
    /// a replica that is behind by some batches of the step.
    pub fn scatter(
        &mut self,
        batch: NoisedBatch,
        number: usize,
        group: usize,
    ) -> Result<NoisedBatch, StageError> {
        if self.all.is_empty() {
            return Ok(batch);
        }
        let mut shards = batch.shards(1 + self.all.len());
        let rest = shards.split_off(1);
        for (replica, shard) in self.all.iter_mut().zip(rest) {
            replica.send(Work::Shard { shard, number, group })?;
        }
        shards.pop().ok_or_else(|| StageError::new(Failure::Bug, "a batch without images"))
    }

    /// Adds what the replicas found to the gradients and losses of the main device, always in the
    /// order of the list: no bit depends on who is done first. Waits for the replicas.
    pub fn reduce_gradients(
        &mut self,
        gradients: GradientsParams,
        losses: &mut [Tensor<1>],
        weights: &Network,
    ) -> Result<GradientsParams, StageError> {
        if self.all.is_empty() {
            return Ok(gradients);
        }
        self.weights_are_current = false; // An optimizer step follows.
        for replica in &mut self.all {
            replica.send(Work::Reduce)?;
        }
        let (mut sums, mut parts) = (HashMap::new(), vec![0.0f32; losses.len()]);
        for replica in &mut self.all {
            let found = replica.receive()?;
            for (id, data) in found.gradients {
                accumulate(&mut sums, id, data)?;
            }
            for (number, part) in found.losses {
                parts[number] += part;
            }
        }
        for (loss, part) in losses.iter_mut().zip(parts) {
            *loss = loss.clone() + part;
        }
        let mut add = Add { gradients, sums };
        weights.visit(&mut add);
        Ok(add.gradients)
    }
}

impl Replica {
    fn send(&mut self, work: Work) -> Result<(), StageError> {
        let sent = self.work.as_ref().is_some_and(|channel| channel.send(work).is_ok());
        if sent { Ok(()) } else { Err(self.why_ended()) }
    }

    fn receive(&mut self) -> Result<ShardGradients, StageError> {
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
}

impl Drop for DataParallel {
    /// The threads end with the training: after what they are computing just now.
    fn drop(&mut self) {
        for replica in &mut self.all {
            replica.work = None;
        }
        for thread in self.all.iter_mut().filter_map(|replica| replica.thread.take()) {
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
pub(super) fn read_gradients(
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

/// Which parameters travel.
#[derive(Clone, Copy, PartialEq)]
enum Params {
    All,
    /// Those that an optimizer step changes.
    Trainable,
}

impl Params {
    fn holds<const D: usize>(self, param: &Param<Tensor<D>>) -> bool {
        self == Self::All || param.is_require_grad()
    }
}

/// The numbers of parameters, in the network's order. Waits for the device once.
fn params_of(weights: &Network, which: Params) -> Result<Vec<TensorData>, StageError> {
    struct Register {
        read: Transaction,
        which: Params,
    }
    impl ModuleVisitor for Register {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.which.holds(param) {
                self.read = std::mem::take(&mut self.read).register(param.base());
            }
        }
    }
    let mut register = Register { read: Transaction::default(), which };
    weights.visit(&mut register);
    device::read_all(register.read)
}

/// Puts numbers into a network, on a device.
struct Replace<'a> {
    values: std::slice::Iter<'a, TensorData>,
    which: Params,
    device: &'a Device,
}

impl ModuleMapper for Replace<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let new = self.which.holds(&param).then(|| self.values.next()).flatten();
        let Some(data) = new.cloned() else { return param };
        let (trained, dtype) = (param.is_require_grad(), data.dtype());
        let (id, _, mapper) = param.consume();
        let value = Tensor::from_data(data, (self.device, dtype)).set_require_grad(trained);
        Param::from_mapped_value(id, value, mapper)
    }
}

/// The network with other numbers, on a device.
fn with_params(weights: Network, values: &[TensorData], which: Params, device: &Device) -> Network {
    weights.map(&mut Replace { values: values.iter(), which, device })
}

/// Adds numbers to the sum of a parameter.
fn accumulate(
    sums: &mut HashMap<ParamId, TensorData>,
    id: ParamId,
    data: TensorData,
) -> Result<(), StageError> {
    /// Numbers that a thread adds at a time.
    const RUN: usize = 1 << 16;
    let Some(sum) = sums.get_mut(&id) else {
        sums.insert(id, data);
        return Ok(());
    };
    let unlike = |_| StageError::new(Failure::Bug, "gradients of two devices do not go together");
    let (sum, data) =
        (sum.as_mut_slice::<f32>().map_err(unlike)?, data.as_slice::<f32>().map_err(unlike)?);
    sum.par_chunks_mut(RUN).zip(data.par_chunks(RUN)).for_each(|(sum, data)| {
        sum.iter_mut().zip(data).for_each(|(sum, x)| *sum += x);
    });
    Ok(())
}

/// Adds the replicas' sums to the main device's gradients.
struct Add {
    gradients: GradientsParams,
    sums: HashMap<ParamId, TensorData>,
}

impl ModuleVisitor for Add {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(sum) = self.sums.remove(&param.id) else { return };
        let sum = Tensor::<D>::from_data(sum, &param.device().inner());
        let whole = match self.gradients.remove::<D>(param.id) {
            Some(own) => own + sum,
            None => sum,
        };
        self.gradients.register(param.id, whole);
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamGroup;

    use super::*;
    use crate::architecture::Architectures;
    use crate::data::Batch;
    use crate::diffusion::Edm;
    use crate::nn::param_paths;
    use crate::trainer::Precision;
    use crate::trainer::noised_batch::{BatchKey, LabelDropout};

    fn network() -> (Network, Backward) {
        let text = r#"{"dim": 16, "mults": [1, 2], "depths": [1, 1], "heads": 2, "window": 4, "image_size": 8,
                       "channels": 3, "num_classes": 2}"#;
        let config = Architectures::builtin().read(serde_json::from_str(text).unwrap()).unwrap();
        let network = config.init(7, &Device::flex().autodiff()).unwrap();
        (network, Backward::new(&config, Precision::F32, 0.0, 1))
    }

    /// Batch `number` of an epoch.
    fn noised(images: usize, number: u64) -> NoisedBatch {
        let pixels =
            (0..images * 3 * 64).map(|i| (0.37 * (i as f32 + number as f32)).sin()).collect();
        let labels = (0..images).map(|i| i as i64 % 2).collect();
        let batch = Batch { images: pixels, labels, indices: (0..images).collect() };
        let labels = LabelDropout { classes: 2, dropout: 0.1 };
        NoisedBatch::for_training(
            batch,
            BatchKey { seed: 1, epoch: 1, batch: number },
            &Edm::default(),
            labels,
        )
    }

    fn start(further: usize, network: &Network, backward: Backward) -> DataParallel {
        let worker = |i| Worker {
            device: Device::flex().autodiff(),
            name: format!("cpu {i}"),
            threads: Some(1),
        };
        let workers: Vec<Worker> = (1..=further).map(worker).collect();
        DataParallel::start(&workers, network, backward).unwrap()
    }

    /// What a step of these batches finds: the losses, and all gradients one after another.
    fn step(
        parallel: &mut DataParallel,
        network: &Network,
        backward: Backward,
        batches: &[NoisedBatch],
    ) -> (Vec<f32>, Vec<f32>) {
        step_on(&Device::flex().autodiff(), parallel, network, backward, batches)
    }

    fn step_on(
        device: &Device,
        parallel: &mut DataParallel,
        network: &Network,
        backward: Backward,
        batches: &[NoisedBatch],
    ) -> (Vec<f32>, Vec<f32>) {
        let (mut gradients, mut losses) = (GradientsAccumulator::new(), Vec::new());
        parallel.broadcast_weights(network).unwrap();
        for (number, batch) in batches.iter().enumerate() {
            let shard = parallel.scatter(batch.clone(), number, batches.len()).unwrap();
            losses.extend(backward.add(&mut gradients, network, shard, batches.len(), device));
        }
        let gradients = parallel.reduce_gradients(gradients.grads(), &mut losses, network).unwrap();
        let losses: Vec<(usize, Tensor<1>)> = losses.into_iter().enumerate().collect();
        let computed = read_gradients(network, gradients, losses).unwrap();
        let all =
            computed.gradients.iter().flat_map(|(_, data)| data.iter::<f32>().collect::<Vec<_>>());
        (computed.losses.iter().map(|(_, loss)| *loss).collect(), all.collect())
    }

    #[track_caller]
    fn assert_close(ours: &(Vec<f32>, Vec<f32>), theirs: &(Vec<f32>, Vec<f32>)) {
        for (ours, theirs) in [(&ours.0, &theirs.0), (&ours.1, &theirs.1)] {
            let scale = theirs.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert_eq!(ours.len(), theirs.len());
            assert!(worst < 1e-5 * scale, "they differ by up to {worst}, of {scale}");
        }
    }

    #[test]
    fn shards_add_up_to_the_batch_and_to_the_same_bits_each_time() {
        let (network, backward) = network();
        let many = (0..2 * QUEUE_DEPTH as u64 + 2).map(|number| noised(3, number)).collect();
        for batches in
            [vec![noised(7, 0)], vec![noised(7, 0), noised(2, 1)], vec![noised(1, 0)], many]
        {
            let alone = step(&mut start(0, &network, backward), &network, backward, &batches);
            for further in [1, 2, 3] {
                let mut parallel = start(further, &network, backward);
                let several = step(&mut parallel, &network, backward, &batches);
                assert_close(&several, &alone);
                assert!(
                    several == step(&mut parallel, &network, backward, &batches),
                    "not the same bits"
                );
            }
        }
    }

    #[test]
    fn a_shard_in_micro_batches_is_the_shard() {
        let (network, backward) = network();
        let whole = step(&mut start(1, &network, backward), &network, backward, &[noised(7, 0)]);
        let cut = Backward { micro_batches: 2, ..backward };
        assert_close(&step(&mut start(1, &network, cut), &network, cut, &[noised(7, 0)]), &whole);
    }

    #[test]
    fn new_weights_reach_the_replicas() {
        let (network, backward) = network();
        let mut parallel = start(2, &network, backward);
        let batches = [noised(6, 0)];
        let before = step(&mut parallel, &network, backward, &batches);
        struct Shrink;
        impl ModuleMapper for Shrink {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|value| Tensor::from_inner(value.inner() * 0.5).require_grad())
            }
        }
        let network = network.map(&mut Shrink);
        let after = step(&mut parallel, &network, backward, &batches);
        assert_ne!(before.0, after.0);
        assert_close(
            &after,
            &step(&mut start(0, &network, backward), &network, backward, &batches),
        );
    }

    #[test]
    fn only_what_is_trained_travels() {
        let (network, backward) = network();
        let all = param_paths(&network).len();
        assert_eq!(params_of(&network, Params::All).unwrap().len(), all);
        assert_eq!(params_of(&network, Params::Trainable).unwrap().len(), all);
        let frozen = network.set_require_grad_group(ParamGroup::from_path("head.weight"), false);
        assert_eq!(params_of(&frozen, Params::Trainable).unwrap().len(), all - 1);
        let mut parallel = start(1, &frozen, backward);
        let batches = [noised(4, 0)];
        for _ in 0..2 {
            let several = step(&mut parallel, &frozen, backward, &batches);
            assert_close(
                &several,
                &step(&mut start(0, &frozen, backward), &frozen, backward, &batches),
            );
        }
    }

    /// A batch whose labels mean nothing to a network of 2 classes, from the second image on.
    fn spoilt() -> NoisedBatch {
        let batch = Batch { images: vec![0.0; 2 * 192], labels: vec![0, 99], indices: vec![0, 1] };
        let labels = LabelDropout { classes: 2, dropout: 0.0 };
        NoisedBatch::for_training(
            batch,
            BatchKey { seed: 1, epoch: 1, batch: 0 },
            &Edm::default(),
            labels,
        )
    }

    #[test]
    fn a_replica_that_breaks_off_is_named_and_nobody_waits_for_it() {
        let (network, backward) = network();
        let mut parallel = start(1, &network, backward);
        let own = parallel.scatter(spoilt(), 0, 1).unwrap();
        assert_eq!(own.shards(2).len(), 1, "the main device's share is the first image");
        let error =
            parallel.reduce_gradients(GradientsParams::new(), &mut [], &network).err().unwrap();
        assert_eq!(error.failure, Failure::Bug);
        assert!(
            error.message.starts_with("on cpu 1: a bug in this program: "),
            "{}",
            error.message
        );
        let again = parallel.scatter(noised(2, 0), 0, 1).err().unwrap();
        assert!(again.message.starts_with("on cpu 1: "), "{}", again.message);
    }

    #[test]
    fn the_threads_end_with_the_training() {
        let (network, backward) = network();
        let mut parallel = start(2, &network, backward);
        // As when the main device fails in the middle of a step: there is work that nobody will
        // collect.
        parallel.scatter(noised(6, 0), 0, 1).unwrap();
        drop(parallel);
    }

    #[test]
    fn a_bf16_network_travels_in_16_bits_and_its_gradients_in_32() {
        let (network, backward) = network();
        let backward = Backward { precision: Precision::Bf16, ..backward };
        let weights = backward.precision.weights(&network);
        let sizes: Vec<usize> = params_of(&weights, Params::Trainable)
            .unwrap()
            .iter()
            .map(|d| d.bytes().len())
            .collect();
        let full: Vec<usize> = params_of(&network, Params::Trainable)
            .unwrap()
            .iter()
            .map(|d| d.bytes().len())
            .collect();
        assert_eq!(sizes.iter().map(|size| 2 * size).collect::<Vec<_>>(), full);
        let alone = step(&mut start(0, &weights, backward), &weights, backward, &[noised(4, 0)]);
        let several = step(&mut start(1, &weights, backward), &weights, backward, &[noised(4, 0)]);
        let scale = alone.1.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let worst = several.1.iter().zip(&alone.1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 0.02 * scale, "they differ by up to {worst}, of {scale}");
    }
    /// Two logical devices on one software adapter: each with its own queue and memory, as two GPUs
    /// have.
    #[cfg(feature = "wgpu")]
    #[test]
    fn two_devices_of_wgpu_share_a_batch() {
        use burn_wgpu::graphics::AutoGraphicsApi;
        use burn_wgpu::{RuntimeOptions, WgpuDevice, WgpuSetup, init_device, init_setup, wgpu};

        use crate::device::has_driver;

        if !has_driver("trainer::data_parallel::tests::two_devices_of_wgpu_share_a_batch") {
            return;
        }
        let first =
            init_setup::<AutoGraphicsApi>(&WgpuDevice::default(), RuntimeOptions::default());
        let second = || {
            let features = first.adapter.features() - wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
            let asked = first.adapter.request_device(&wgpu::DeviceDescriptor {
                required_features: features - wgpu::Features::all_experimental_mask(),
                required_limits: first.adapter.limits(),
                ..Default::default()
            });
            let (device, queue) = burn::tensor::try_read_sync(asked).unwrap().unwrap();
            let (instance, adapter, backend) =
                (first.instance.clone(), first.adapter.clone(), first.backend);
            let setup = WgpuSetup { instance, adapter, device: device.clone(), queue, backend };
            (Device::new(init_device(setup, RuntimeOptions::default())).autodiff(), device)
        };
        let ((main, _), (other, plug)) = (second(), second());
        assert_ne!(main, other);

        let (network, backward) = network();
        let batches = [noised(5, 0), noised(3, 1)];
        let alone = step(&mut start(0, &network, backward), &network, backward, &batches);
        let there = with_params(
            network.clone(),
            &params_of(&network, Params::All).unwrap(),
            Params::All,
            &main,
        );
        let workers = [Worker { device: other, name: "the second".into(), threads: None }];
        let mut parallel = DataParallel::start(&workers, &there, backward).unwrap();
        for _ in 0..2 {
            let several = step_on(&main, &mut parallel, &there, backward, &batches);
            let scale = alone.1.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let worst =
                several.1.iter().zip(&alone.1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-3 * scale, "gradients differ by up to {worst}, of {scale}");
            for (a, b) in several.0.iter().zip(&alone.0) {
                assert!((a / b - 1.0).abs() < 1e-4, "losses {a} and {b}");
            }
        }

        // A lost device is told as such, by its name.
        plug.destroy();
        parallel.scatter(batches[0].clone(), 0, 1).unwrap();
        let error =
            parallel.reduce_gradients(GradientsParams::new(), &mut [], &there).err().unwrap();
        assert!(error.message.starts_with("on the second: "), "{}", error.message);
        assert_eq!(error.failure, Failure::DeviceLost, "{}", error.message);
    }

    /// What travels in a step, and how long the host takes for it: between CPUs, where nothing else
    /// does.
    #[test]
    #[ignore = "prints times"]
    fn what_a_step_costs_besides() {
        use std::time::Instant;

        use crate::architecture::ModelConfig;
        use pipe_models::diffit::Preset;

        let ms = |from: Instant| from.elapsed().as_secs_f64() * 1e3;
        for preset in [Preset::Tiny, Preset::Small] {
            let config = ModelConfig::from(preset.config(16, 2));
            let device = Device::flex().autodiff();
            let network = config.init(7, &device).unwrap();
            let worker = Worker { device: device.clone(), name: "cpu".into(), threads: Some(1) };
            let mut best = [f64::INFINITY; 4];
            for further in [1, 2] {
                for _ in 0..9 {
                    let began = Instant::now();
                    let weights = params_of(&network, Params::Trainable).unwrap();
                    best[0] = best[0].min(ms(began));
                    let began = Instant::now();
                    drop(with_params(network.clone(), &weights, Params::Trainable, &worker.device));
                    best[1] = best[1].min(ms(began));
                    let began = Instant::now();
                    let mut sums = HashMap::new();
                    for _ in 0..further {
                        for (data, (id, ..)) in weights.iter().zip(param_paths(&network)) {
                            accumulate(&mut sums, id, data.clone()).unwrap();
                        }
                    }
                    best[1 + further] = best[1 + further].min(ms(began));
                }
            }
            let bytes: usize = params_of(&network, Params::Trainable)
                .unwrap()
                .iter()
                .map(|d| d.bytes().len())
                .sum();
            let [read, put, one, two] = best;
            println!(
                "{}: {:.1} MB each way; weights read in {read:.2} ms and put in {put:.2} ms; gradients of one device \
                 taken in {one:.2} ms, of two summed in {two:.2} ms",
                preset.name(),
                bytes as f64 / 1e6,
            );
        }
    }
}
