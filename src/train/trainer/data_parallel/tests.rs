use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};
use pipe_engine::kind::Failure;

use super::params::{Params, accumulate, params_of, with_params};
use super::replica::QUEUE_DEPTH;
use super::{DataParallel, Worker, read_gradients};
use crate::architecture::{Architectures, Network};
use crate::data::Batch;
use crate::diffusion::Objective;
use crate::nn::{Dropout, param_paths};
use crate::trainer::Precision;
use crate::trainer::backward::Backward;
use crate::trainer::noised_batch::{BatchKey, LabelDropout, NoisedBatch};

fn network() -> (Network, Backward) {
    let text = r#"{"dim": 16, "mults": [1, 2], "depths": [1, 1], "heads": 2, "window": 4, "image_size": 8,
                   "channels": 3, "num_classes": 2}"#;
    let config = Architectures::builtin().read(serde_json::from_str(text).unwrap()).unwrap();
    let network = config.init(7, &Device::flex().autodiff()).unwrap();
    (network, Backward::new(&config, Precision::F32, Dropout::default(), 1))
}

/// Batch `number` of an epoch.
fn noised(images: usize, number: u64) -> NoisedBatch {
    let pixels = (0..images * 3 * 64).map(|i| (0.37 * (i as f32 + number as f32)).sin()).collect();
    let labels = (0..images).map(|i| i as i64 % 2).collect();
    let batch =
        Batch { images: pixels, labels, indices: (0..images).collect(), augment: Vec::new() };
    let labels = LabelDropout { classes: 2, dropout: 0.1 };
    NoisedBatch::for_training(
        batch,
        BatchKey { seed: 1, epoch: 1, batch: number },
        &Objective::default(),
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
    for batches in [vec![noised(7, 0)], vec![noised(7, 0), noised(2, 1)], vec![noised(1, 0)], many]
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
    assert_close(&after, &step(&mut start(0, &network, backward), &network, backward, &batches));
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
    let batch = Batch {
        images: vec![0.0; 2 * 192],
        labels: vec![0, 99],
        indices: vec![0, 1],
        augment: Vec::new(),
    };
    let labels = LabelDropout { classes: 2, dropout: 0.0 };
    NoisedBatch::for_training(
        batch,
        BatchKey { seed: 1, epoch: 1, batch: 0 },
        &Objective::default(),
        labels,
    )
}

#[test]
fn a_replica_that_breaks_off_is_named_and_nobody_waits_for_it() {
    let (network, backward) = network();
    let mut parallel = start(1, &network, backward);
    let own = parallel.scatter(spoilt(), 0, 1).unwrap();
    assert_eq!(own.shards(2).len(), 1, "the main device's share is the first image");
    let error = parallel.reduce_gradients(GradientsParams::new(), &mut [], &network).err().unwrap();
    assert_eq!(error.failure, Failure::Bug);
    assert!(error.message.starts_with("on cpu 1: a bug in this program: "), "{}", error.message);
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
fn an_f16_network_travels_in_16_bits_and_its_gradients_in_32() {
    let (network, backward) = network();
    let backward = Backward { precision: Precision::F16, ..backward };
    let weights = backward.precision.weights(&network);
    let sizes: Vec<usize> =
        params_of(&weights, Params::Trainable).unwrap().iter().map(|d| d.bytes().len()).collect();
    let full: Vec<usize> =
        params_of(&network, Params::Trainable).unwrap().iter().map(|d| d.bytes().len()).collect();
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
    let first = init_setup::<AutoGraphicsApi>(&WgpuDevice::default(), RuntimeOptions::default());
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
        let worst = several.1.iter().zip(&alone.1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3 * scale, "gradients differ by up to {worst}, of {scale}");
        for (a, b) in several.0.iter().zip(&alone.0) {
            assert!((a / b - 1.0).abs() < 1e-4, "losses {a} and {b}");
        }
    }

    // A lost device is told as such, by its name.
    crate::device::watch();
    plug.destroy();
    parallel.scatter(batches[0].clone(), 0, 1).unwrap();
    let error = parallel.reduce_gradients(GradientsParams::new(), &mut [], &there).err().unwrap();
    assert!(error.message.starts_with("on the second: "), "{}", error.message);
    assert_eq!(error.failure, Failure::DeviceLost, "{}", error.message);
}

/// What travels in a step, and how long the host takes for it: between CPUs, where nothing else
/// does.
#[test]
#[ignore = "prints times"]
fn what_a_step_costs_besides() {
    use std::time::Instant;

    use pipe_models::diffit::Preset;

    use crate::architecture::ModelConfig;

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
        let bytes: usize =
            params_of(&network, Params::Trainable).unwrap().iter().map(|d| d.bytes().len()).sum();
        let [read, put, one, two] = best;
        println!(
            "{}: {:.1} MB each way; weights read in {read:.2} ms and put in {put:.2} ms; gradients of one device \
             taken in {one:.2} ms, of two summed in {two:.2} ms",
            preset.name(),
            bytes as f64 / 1e6,
        );
    }
}
