//! The further devices of a training. Each has a copy of the network and computes its share of
//! every batch, in a thread of its own; the main device has all else: weights in f32, optimizer,
//! running mean, checkpoints. Two things travel, once in an optimizer step and through host memory,
//! which is the one way between devices of any kind: gradients to the main device, and the weights
//! that it makes of them back to the others.
//!
//! Knows nothing of optimizers, schedules or files.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData, Transaction};
use pipe_engine::kind::{Failure, StageError, panic_message};
use rayon::prelude::*;

use super::backward::Backward;
use super::draw::Drawn;
use crate::architecture::Network;
use crate::device;
use crate::kernels;

/// Shares that wait for a replica at most, in host memory, where a step has many batches.
const AHEAD: usize = 2;

/// A further device.
#[derive(Debug, Clone)]
pub struct Other {
    /// With autodiff.
    pub device: Device,
    /// For messages.
    pub name: String,
    /// Threads of the CPU that are its own, if it is the CPU.
    pub threads: Option<usize>,
}

/// All of them; none for a training on one device, where every call here does nothing.
pub struct Replicas {
    all: Vec<Replica>,
    /// They have the newest weights.
    fresh: bool,
}

struct Replica {
    name: String,
    /// Until the end.
    work: Option<SyncSender<Work>>,
    done: Receiver<Result<Computed, StageError>>,
    thread: Option<JoinHandle<()>>,
}

enum Work {
    /// New numbers of the parameters that are trained, in the network's order.
    Weights(Arc<Vec<TensorData>>),
    /// Add the gradients of a share of batch `number` in a step of `group` batches.
    Share { share: Drawn, number: usize, group: usize },
    /// Hand over what was computed since this was last asked.
    Collect,
}

/// What a replica computed for one optimizer step.
#[derive(Default)]
pub(super) struct Computed {
    pub gradients: Vec<(ParamId, TensorData)>,
    /// Part of the mean loss of a batch, by its number in the step.
    pub losses: Vec<(usize, f32)>,
}

impl Replicas {
    /// Copies the network, in the number format that it computes in, to further devices. Waits for
    /// the device that it is on.
    pub fn start(
        others: &[Other],
        weights: &Network,
        backward: Backward,
    ) -> Result<Self, StageError> {
        let mut replicas = Self { all: Vec::new(), fresh: true };
        if others.is_empty() {
            return Ok(replicas);
        }
        let data = Arc::new(numbers(weights, Which::All)?);
        for Other { device, name, threads } in others.iter().cloned() {
            let (work, works) = sync_channel(AHEAD);
            let (dones, done) = channel();
            let (network, data) = (weights.clone(), data.clone());
            let own = move || {
                let replica = move || {
                    let weights = with_numbers(network, &data, Which::All, &device);
                    drop(data);
                    compute(weights, &device, backward, works, &dones);
                };
                match threads {
                    Some(threads) => kernels::in_own_pool_of(Some(threads), replica),
                    None => replica(),
                }
            };
            // As deep as the main thread's: networks are walked recursively.
            let builder =
                std::thread::Builder::new().name(format!("replica on {name}")).stack_size(8 << 20);
            let thread = builder.spawn(own).map_err(|e| {
                StageError::new(Failure::Bug, format!("failed to start a thread for {name}: {e}"))
            })?;
            replicas.all.push(Replica { name, work: Some(work), done, thread: Some(thread) });
        }
        Ok(replicas)
    }

    /// Gives the newest weights to all, where they have others. Waits for the main device then.
    pub fn renew(&mut self, weights: &Network) -> Result<(), StageError> {
        if self.all.is_empty() || self.fresh {
            return Ok(());
        }
        let data = Arc::new(numbers(weights, Which::Trained)?);
        self.fresh = true;
        self.all.iter_mut().try_for_each(|replica| replica.ask(Work::Weights(data.clone())))
    }

    /// Cuts a batch into shares, lets the replicas begin with theirs, and gives back the main
    /// device's. `number` counts the batches of a step, of which there are `group`. Waits only for
    /// a replica that is behind by some batches of the step.
    pub fn begin(
        &mut self,
        batch: Drawn,
        number: usize,
        group: usize,
    ) -> Result<Drawn, StageError> {
        if self.all.is_empty() {
            return Ok(batch);
        }
        let mut shares = batch.shares(1 + self.all.len());
        let rest = shares.split_off(1);
        for (replica, share) in self.all.iter_mut().zip(rest) {
            replica.ask(Work::Share { share, number, group })?;
        }
        shares.pop().ok_or_else(|| StageError::new(Failure::Bug, "a batch without images"))
    }

    /// Adds what the replicas found to the gradients and losses of the main device, always in the
    /// order of the list: no bit depends on who is done first. Waits for the replicas.
    pub fn collect(
        &mut self,
        gradients: GradientsParams,
        losses: &mut [Tensor<1>],
        weights: &Network,
    ) -> Result<GradientsParams, StageError> {
        if self.all.is_empty() {
            return Ok(gradients);
        }
        self.fresh = false; // An optimizer step follows.
        for replica in &mut self.all {
            replica.ask(Work::Collect)?;
        }
        let (mut sums, mut parts) = (HashMap::new(), vec![0.0f32; losses.len()]);
        for replica in &mut self.all {
            let found = replica.answer()?;
            for (id, data) in found.gradients {
                add_to(&mut sums, id, data)?;
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
    fn ask(&mut self, work: Work) -> Result<(), StageError> {
        let sent = self.work.as_ref().is_some_and(|channel| channel.send(work).is_ok());
        if sent { Ok(()) } else { Err(self.ended()) }
    }

    fn answer(&mut self) -> Result<Computed, StageError> {
        match self.done.recv() {
            Ok(answer) => answer.map_err(|error| self.named(error)),
            Err(_) => Err(self.ended()),
        }
    }

    fn named(&self, error: StageError) -> StageError {
        StageError { message: format!("on {}: {}", self.name, error.message), ..error }
    }

    /// Why the thread ended before it was told to: an error that nobody has asked for yet, or a
    /// panic.
    fn ended(&mut self) -> StageError {
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

impl Drop for Replicas {
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
    done: &Sender<Result<Computed, StageError>>,
) {
    let mut gradients = GradientsAccumulator::new();
    let mut losses: Vec<(usize, Tensor<1>)> = Vec::new();
    for work in works {
        match work {
            Work::Weights(data) => weights = with_numbers(weights, &data, Which::Trained, device),
            Work::Share { share, number, group } => {
                let loss = backward.add(&mut gradients, &weights, share, group, device);
                losses.extend(loss.map(|loss| (number, loss)));
            }
            Work::Collect => {
                let computed = read(&weights, gradients.grads(), std::mem::take(&mut losses));
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
pub(super) fn read(
    weights: &Network,
    gradients: GradientsParams,
    losses: Vec<(usize, Tensor<1>)>,
) -> Result<Computed, StageError> {
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
        return Ok(Computed::default());
    }
    let mut register = Register { gradients, ids: Vec::new(), read: Transaction::default() };
    weights.visit(&mut register);
    let mut data = device::read_all(register.read.register(Tensor::cat(losses, 0)))?;
    let losses = data.pop().map(|data| data.iter::<f32>().collect::<Vec<_>>()).unwrap_or_default();
    Ok(Computed {
        gradients: register.ids.into_iter().zip(data).collect(),
        losses: batches.into_iter().zip(losses).collect(),
    })
}

/// Which parameters travel.
#[derive(Clone, Copy, PartialEq)]
enum Which {
    All,
    /// Those that an optimizer step changes.
    Trained,
}

impl Which {
    fn holds<const D: usize>(self, param: &Param<Tensor<D>>) -> bool {
        self == Self::All || param.is_require_grad()
    }
}

/// The numbers of parameters, in the network's order. Waits for the device once.
fn numbers(weights: &Network, which: Which) -> Result<Vec<TensorData>, StageError> {
    struct Register {
        read: Transaction,
        which: Which,
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
    numbers: std::slice::Iter<'a, TensorData>,
    which: Which,
    device: &'a Device,
}

impl ModuleMapper for Replace<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let new = self.which.holds(&param).then(|| self.numbers.next()).flatten();
        let Some(data) = new.cloned() else { return param };
        let (trained, dtype) = (param.is_require_grad(), data.dtype());
        let (id, _, mapper) = param.consume();
        let value = Tensor::from_data(data, (self.device, dtype)).set_require_grad(trained);
        Param::from_mapped_value(id, value, mapper)
    }
}

/// The network with other numbers, on a device.
fn with_numbers(
    weights: Network,
    numbers: &[TensorData],
    which: Which,
    device: &Device,
) -> Network {
    weights.map(&mut Replace { numbers: numbers.iter(), which, device })
}

/// Adds numbers to the sum of a parameter.
fn add_to(
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
    use crate::architecture::ModelConfig;
    use crate::data::Batch;
    use crate::diffit::param_paths;
    use crate::fit::Precision;
    use crate::fit::draw::{Key, Labels};
    use crate::noise::Edm;

    fn network() -> (Network, Backward) {
        let text = r#"{"dim": 16, "mults": [1, 2], "depths": [1, 1], "heads": 2, "window": 4, "image_size": 8,
                       "channels": 3, "num_classes": 2}"#;
        let config: ModelConfig = serde_json::from_str(text).unwrap();
        let network = config.init(7, &Device::flex().autodiff()).unwrap();
        (network, Backward::new(&config, Precision::F32, 0.0, 1))
    }

    /// Batch `number` of an epoch.
    fn drawn(images: usize, number: u64) -> Drawn {
        let pixels =
            (0..images * 3 * 64).map(|i| (0.37 * (i as f32 + number as f32)).sin()).collect();
        let labels = (0..images).map(|i| i as i64 % 2).collect();
        let batch = Batch { images: pixels, labels, indices: (0..images).collect() };
        let labels = Labels { classes: 2, dropout: 0.1 };
        Drawn::train(batch, Key { seed: 1, epoch: 1, batch: number }, &Edm::default(), labels)
    }

    fn start(further: usize, network: &Network, backward: Backward) -> Replicas {
        let other = |i| Other {
            device: Device::flex().autodiff(),
            name: format!("cpu {i}"),
            threads: Some(1),
        };
        let others: Vec<Other> = (1..=further).map(other).collect();
        Replicas::start(&others, network, backward).unwrap()
    }

    /// What a step of these batches finds: the losses, and all gradients one after another.
    fn step(
        replicas: &mut Replicas,
        network: &Network,
        backward: Backward,
        batches: &[Drawn],
    ) -> (Vec<f32>, Vec<f32>) {
        step_on(&Device::flex().autodiff(), replicas, network, backward, batches)
    }

    fn step_on(
        device: &Device,
        replicas: &mut Replicas,
        network: &Network,
        backward: Backward,
        batches: &[Drawn],
    ) -> (Vec<f32>, Vec<f32>) {
        let (mut gradients, mut losses) = (GradientsAccumulator::new(), Vec::new());
        replicas.renew(network).unwrap();
        for (number, batch) in batches.iter().enumerate() {
            let share = replicas.begin(batch.clone(), number, batches.len()).unwrap();
            losses.extend(backward.add(&mut gradients, network, share, batches.len(), device));
        }
        let gradients = replicas.collect(gradients.grads(), &mut losses, network).unwrap();
        let losses: Vec<(usize, Tensor<1>)> = losses.into_iter().enumerate().collect();
        let computed = read(network, gradients, losses).unwrap();
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
    fn shares_add_up_to_the_batch_and_to_the_same_bits_each_time() {
        let (network, backward) = network();
        let many = (0..2 * AHEAD as u64 + 2).map(|number| drawn(3, number)).collect();
        for batches in [vec![drawn(7, 0)], vec![drawn(7, 0), drawn(2, 1)], vec![drawn(1, 0)], many]
        {
            let alone = step(&mut start(0, &network, backward), &network, backward, &batches);
            for further in [1, 2, 3] {
                let mut replicas = start(further, &network, backward);
                let several = step(&mut replicas, &network, backward, &batches);
                assert_close(&several, &alone);
                assert!(
                    several == step(&mut replicas, &network, backward, &batches),
                    "not the same bits"
                );
            }
        }
    }

    #[test]
    fn a_share_cut_into_pieces_is_the_share() {
        let (network, backward) = network();
        let whole = step(&mut start(1, &network, backward), &network, backward, &[drawn(7, 0)]);
        let cut = Backward { pieces: 2, ..backward };
        assert_close(&step(&mut start(1, &network, cut), &network, cut, &[drawn(7, 0)]), &whole);
    }

    #[test]
    fn new_weights_reach_the_replicas() {
        let (network, backward) = network();
        let mut replicas = start(2, &network, backward);
        let batches = [drawn(6, 0)];
        let before = step(&mut replicas, &network, backward, &batches);
        struct Shrink;
        impl ModuleMapper for Shrink {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|value| Tensor::from_inner(value.inner() * 0.5).require_grad())
            }
        }
        let network = network.map(&mut Shrink);
        let after = step(&mut replicas, &network, backward, &batches);
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
        assert_eq!(numbers(&network, Which::All).unwrap().len(), all);
        assert_eq!(numbers(&network, Which::Trained).unwrap().len(), all);
        let frozen = network.set_require_grad_group(ParamGroup::from_path("head.weight"), false);
        assert_eq!(numbers(&frozen, Which::Trained).unwrap().len(), all - 1);
        let mut replicas = start(1, &frozen, backward);
        let batches = [drawn(4, 0)];
        for _ in 0..2 {
            let several = step(&mut replicas, &frozen, backward, &batches);
            assert_close(
                &several,
                &step(&mut start(0, &frozen, backward), &frozen, backward, &batches),
            );
        }
    }

    /// A batch whose labels mean nothing to a network of 2 classes, from the second image on.
    fn spoilt() -> Drawn {
        let batch = Batch { images: vec![0.0; 2 * 192], labels: vec![0, 99], indices: vec![0, 1] };
        let labels = Labels { classes: 2, dropout: 0.0 };
        Drawn::train(batch, Key { seed: 1, epoch: 1, batch: 0 }, &Edm::default(), labels)
    }

    #[test]
    fn a_replica_that_breaks_off_is_named_and_nobody_waits_for_it() {
        let (network, backward) = network();
        let mut replicas = start(1, &network, backward);
        let own = replicas.begin(spoilt(), 0, 1).unwrap();
        assert_eq!(own.shares(2).len(), 1, "the main device's share is the first image");
        let error = replicas.collect(GradientsParams::new(), &mut [], &network).err().unwrap();
        assert_eq!(error.failure, Failure::Bug);
        assert!(
            error.message.starts_with("on cpu 1: a bug in this program: "),
            "{}",
            error.message
        );
        let again = replicas.begin(drawn(2, 0), 0, 1).err().unwrap();
        assert!(again.message.starts_with("on cpu 1: "), "{}", again.message);
    }

    #[test]
    fn the_threads_end_with_the_training() {
        let (network, backward) = network();
        let mut replicas = start(2, &network, backward);
        // As when the main device fails in the middle of a step: there is work that nobody will
        // collect.
        replicas.begin(drawn(6, 0), 0, 1).unwrap();
        drop(replicas);
    }

    #[test]
    fn a_bf16_network_travels_in_16_bits_and_its_gradients_in_32() {
        let (network, backward) = network();
        let backward = Backward { precision: Precision::Bf16, ..backward };
        let weights = backward.precision.weights(&network);
        let sizes: Vec<usize> =
            numbers(&weights, Which::Trained).unwrap().iter().map(|d| d.bytes().len()).collect();
        let full: Vec<usize> =
            numbers(&network, Which::Trained).unwrap().iter().map(|d| d.bytes().len()).collect();
        assert_eq!(sizes.iter().map(|size| 2 * size).collect::<Vec<_>>(), full);
        let alone = step(&mut start(0, &weights, backward), &weights, backward, &[drawn(4, 0)]);
        let several = step(&mut start(1, &weights, backward), &weights, backward, &[drawn(4, 0)]);
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

        const DRIVERS: &str = "VK_DRIVER_FILES";
        let Ok(icd) = std::env::var("PIPE_TEST_VULKAN_ICD") else {
            eprintln!("skipped: PIPE_TEST_VULKAN_ICD names no software Vulkan driver");
            return;
        };
        if std::env::var(DRIVERS).as_ref() != Ok(&icd) {
            // The driver has to be named before the process begins.
            let this = std::env::current_exe().unwrap();
            let name = "fit::replicas::tests::two_devices_of_wgpu_share_a_batch";
            let child = std::process::Command::new(this)
                .args(["--exact", name, "--nocapture"])
                .env(DRIVERS, icd)
                .output()
                .unwrap();
            let told =
                String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
            assert!(child.status.success() && told.contains("1 passed"), "{told}");
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
        let batches = [drawn(5, 0), drawn(3, 1)];
        let alone = step(&mut start(0, &network, backward), &network, backward, &batches);
        let there = with_numbers(
            network.clone(),
            &numbers(&network, Which::All).unwrap(),
            Which::All,
            &main,
        );
        let others = [Other { device: other, name: "the second".into(), threads: None }];
        let mut replicas = Replicas::start(&others, &there, backward).unwrap();
        for _ in 0..2 {
            let several = step_on(&main, &mut replicas, &there, backward, &batches);
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
        replicas.begin(batches[0].clone(), 0, 1).unwrap();
        let error = replicas.collect(GradientsParams::new(), &mut [], &there).err().unwrap();
        assert!(error.message.starts_with("on the second: "), "{}", error.message);
        assert_eq!(error.failure, Failure::DeviceLost, "{}", error.message);
    }

    /// What travels in a step, and how long the host takes for it: between CPUs, where nothing else
    /// does.
    #[test]
    #[ignore = "prints figures"]
    fn what_a_step_costs_besides() {
        use std::time::Instant;

        use crate::architecture::{ModelSettings, Preset};

        let ms = |from: Instant| from.elapsed().as_secs_f64() * 1e3;
        for preset in [Preset::DiffitTiny, Preset::DiffitSmall] {
            let settings = ModelSettings { preset: Some(preset), ..Default::default() };
            let config = settings.config(16, 2);
            let device = Device::flex().autodiff();
            let network = config.init(7, &device).unwrap();
            let other = Other { device: device.clone(), name: "cpu".into(), threads: Some(1) };
            let mut best = [f64::INFINITY; 4];
            for further in [1, 2] {
                for _ in 0..9 {
                    let began = Instant::now();
                    let weights = numbers(&network, Which::Trained).unwrap();
                    best[0] = best[0].min(ms(began));
                    let began = Instant::now();
                    drop(with_numbers(network.clone(), &weights, Which::Trained, &other.device));
                    best[1] = best[1].min(ms(began));
                    let began = Instant::now();
                    let mut sums = HashMap::new();
                    for _ in 0..further {
                        for (data, (id, ..)) in weights.iter().zip(param_paths(&network)) {
                            add_to(&mut sums, id, data.clone()).unwrap();
                        }
                    }
                    best[1 + further] = best[1 + further].min(ms(began));
                }
            }
            let bytes: usize =
                numbers(&network, Which::Trained).unwrap().iter().map(|d| d.bytes().len()).sum();
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
