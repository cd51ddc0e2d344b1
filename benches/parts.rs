//! The parts of a training step on the CPU, each alone: `cargo bench -p pipe-train --bench parts [-- FILTER]`
//!
//! Sizes are those of `diffit_small` at 16 px with a batch of 16. Criterion says how each changed since it was last run.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use pipe_train::data::{Augmentation, Dataset, DatasetSettings, Loader, LoaderOptions, Split};
use pipe_train::diffit::{Pass, Preset};
use pipe_train::fit::ema;
use pipe_train::kernels::{self, AdamWStep};
use pipe_train::noise::{Edm, Sampler};
use pipe_train::rng::{Purpose, stream};
use rand_distr::{Distribution as _, StandardNormal};

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 16;
const SIZE: usize = 16;
const CHANNELS: usize = 128;
const HEADS: usize = 4;
const WINDOW: usize = 8;

criterion_group!(parts, blocks, updates, data, sampler);
criterion_main!(parts);

fn drawn<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 0.1), device)
}

fn blocks(criterion: &mut Criterion) {
    let device = Device::flex().autodiff();
    let [vector, wide] = [CHANNELS, 4 * CHANNELS].map(|n| drawn([n], &device));
    let image = || drawn([BATCH, SIZE, SIZE, CHANNELS], &device);
    let half = drawn([BATCH, SIZE / 2, SIZE / 2, CHANNELS], &device);
    let kernel = drawn([CHANNELS, CHANNELS, 3, 3], &device);
    let square = drawn([CHANNELS, CHANNELS], &device);
    let (qkv, token) = (drawn([BATCH, SIZE, SIZE, 3 * CHANNELS], &device), drawn([BATCH, 3 * CHANNELS], &device));
    let table = drawn([(2 * WINDOW - 1).pow(2), HEADS], &device);
    let (up, down) = (drawn([4 * CHANNELS, CHANNELS], &device), drawn([CHANNELS, 4 * CHANNELS], &device));

    let mut group = criterion.benchmark_group("block");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(20);
    both(&mut group, "conv2d", image(), |x| kernels::conv2d(x, kernel.clone(), vector.clone(), 1));
    both(&mut group, "conv2d, half the side", image(), |x| {
        kernels::conv2d(x, kernel.clone(), vector.clone(), 2)
    });
    both(&mut group, "double_conv2d", half, |x| kernels::double_conv2d(x, kernel.clone(), vector.clone()));
    both(&mut group, "linear", image(), |x| kernels::linear(x, square.clone(), Some(vector.clone())));
    both(&mut group, "mlp", image(), |x| {
        kernels::mlp(x, [up.clone(), down.clone()], [wide.clone(), vector.clone()])
    });
    both(&mut group, "window_attention", qkv, |x| {
        kernels::window_attention(x, token.clone(), table.clone(), HEADS, WINDOW)
    });
    both(&mut group, "layer_norm", image(), |x| kernels::layer_norm(x, vector.clone(), vector.clone()));
    both(&mut group, "group_norm_silu", image(), |x| {
        kernels::group_norm_silu(x, vector.clone(), vector.clone())
    });
}

/// The forward pass alone, and with the gradients of everything.
fn both(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    x: Tensor<4>,
    block: impl Fn(Tensor<4>) -> Tensor<4>,
) {
    let x = x.require_grad();
    group.bench_function(format!("{name}, forward"), |bench| bench.iter(|| black_box(block(x.clone()))));
    group.bench_function(format!("{name}, and backward"), |bench| {
        bench.iter(|| black_box(block(x.clone()).backward()));
    });
}

fn updates(criterion: &mut Criterion) {
    const PARAMETERS: usize = 1 << 20;
    let device = Device::flex();
    let mut group = criterion.benchmark_group("update");
    group.throughput(Throughput::Elements(PARAMETERS as u64));
    let step = AdamWStep {
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-8,
        learning_rate: 1e-3,
        weight_decay: 0.01,
        time: 1,
    };
    let gradient = drawn([PARAMETERS], &device);
    let mut arrays = Some([(); 3].map(|()| drawn([PARAMETERS], &device).abs()));
    group.bench_function("adamw", |bench| {
        bench.iter(|| arrays = arrays.take().map(|arrays| kernels::adamw(step, arrays, &gradient)));
    });
    let net = Preset::ALL[0].config(SIZE, 0).init(0, &device.clone().autodiff()).expect("a preset is valid");
    let mut mean = Some(net.valid());
    group.throughput(Throughput::Elements(net.num_params() as u64));
    group.bench_function("ema", |bench| {
        bench.iter(|| mean = mean.take().map(|mean| ema::update(mean, &net, 0.999)));
    });
}

fn data(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("data");
    let augmentation = Augmentation { enabled: true, horizontal_flip: true, rotation_degrees: 10.0 };
    let settings = DatasetSettings { num_images: 1024, augmentation, ..DatasetSettings::default() };
    let dataset = Arc::new(Dataset::open(&settings, Path::new("."), &()).expect("drawn images need no file"));
    let options = LoaderOptions { batch_size: BATCH, num_workers: 0, seed: 0 };
    let loader = Loader::new(dataset, Split::Train, options).expect("there are images");
    group.throughput(Throughput::Elements(1024));
    group.bench_function("an epoch of augmented images", |bench| {
        bench.iter(|| loader.epoch(1, 0).map(|batch| batch.map_or(0, |b| b.labels.len())).sum::<usize>());
    });
    let mut noise = vec![0.0f32; BATCH * 3 * 32 * 32];
    group.throughput(Throughput::Elements(noise.len() as u64));
    group.bench_function("noise of a batch", |bench| {
        bench.iter(|| {
            let mut rng = stream(0, Purpose::Noise, 1, 1);
            noise.iter_mut().for_each(|v| *v = StandardNormal.sample(&mut rng));
            black_box(&noise);
        });
    });
}

fn sampler(criterion: &mut Criterion) {
    let device = Device::flex();
    let net = Preset::ALL[0].config(SIZE, 0).init(0, &device).expect("a preset is valid");
    let noise = drawn([4, 3, SIZE, SIZE], &device);
    let mut group = criterion.benchmark_group("sampler");
    group.throughput(Throughput::Elements(4)).sample_size(10);
    group.bench_function("4 images in 4 steps", |bench| {
        let sampler = Sampler { steps: 4, ..Sampler::default() };
        bench.iter(|| sampler.sample(&Edm::default(), &net, noise.clone(), None, |_| true));
    });
    group.bench_function("the network", |bench| {
        let c_noise = Tensor::<1>::zeros([4], &device);
        bench.iter(|| black_box(net.forward(noise.clone(), c_noise.clone(), None, &Pass::inference())));
    });
}
