//! The parts of a training on the CPU, each alone: `cargo bench --workspace --bench parts [--
//! FILTER]`
//!
//! Blocks have the sizes of `diffit_small` at 16 px with a batch of 16.

use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use pipe_models::architecture::Architecture;
use pipe_models::diffit::Preset;
use pipe_models::diffusion::Sampler;
use pipe_models::kernels::{self, AdamWStep, MatmulPrecision};
use pipe_models::nn::Pass;
use pipe_train::data::{Augmentation, Dataset, DatasetSettings, Loader, LoaderOptions, Split};
use pipe_train::rng::{Purpose, stream};
use pipe_train::trainer::ema;
use rand_distr::{Distribution as _, StandardNormal};

#[path = "../src/allocator.rs"]
mod allocator;

const BATCH: usize = 16;
const SIZE: usize = 16;
const CHANNELS: usize = 128;
const HEADS: usize = 4;
const WINDOW: usize = 8;

fn main() {
    allocator::keep_memory();
    kernels::in_own_pool(divan::main);
}

fn drawn<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 0.1), device)
}

/// Each block's forward pass alone, and with the gradients of all that goes in.
#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod block {
    use super::*;

    const DIRECTIONS: [&str; 2] = ["forward", "and backward"];
    const PRODUCTS: [&str; 4] = ["forward", "and backward", "forward, bf16", "and backward, bf16"];

    fn precision(direction: &str) -> MatmulPrecision {
        if direction.ends_with("bf16") { MatmulPrecision::Bf16 } else { MatmulPrecision::F32 }
    }

    /// Measures `block` of an image `[BATCH, side, side, channels]`.
    fn image(
        bencher: Bencher,
        direction: &str,
        [side, channels]: [usize; 2],
        block: impl Fn(Tensor<4>) -> Tensor<4>,
    ) {
        let x = drawn([BATCH, side, side, channels], &device()).require_grad();
        let bencher = bencher.counter(ItemsCount::new(BATCH));
        match direction {
            "forward" | "forward, bf16" => bencher.bench_local(|| block(black_box(x.clone()))),
            _ => bencher.bench_local(|| block(black_box(x.clone())).backward()),
        }
    }

    fn device() -> Device {
        Device::flex().autodiff()
    }

    fn weight<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        drawn(shape, &device()).require_grad()
    }

    #[divan::bench(args = PRODUCTS)]
    fn conv2d(bencher: Bencher, direction: &str) {
        let precision = precision(direction);
        let (kernel, bias) = (weight([CHANNELS, CHANNELS, 3, 3]), weight([CHANNELS]));
        image(bencher, direction, [SIZE, CHANNELS], |x| {
            kernels::conv2d(x, kernel.clone(), bias.clone(), 1, precision)
        });
    }

    #[divan::bench(args = PRODUCTS)]
    fn upsample_conv2d(bencher: Bencher, direction: &str) {
        let precision = precision(direction);
        let (kernel, bias) = (weight([CHANNELS, CHANNELS, 3, 3]), weight([CHANNELS]));
        image(bencher, direction, [SIZE / 2, CHANNELS], |x| {
            kernels::upsample_conv2d(x, kernel.clone(), bias.clone(), precision)
        });
    }

    #[divan::bench(args = PRODUCTS)]
    fn linear(bencher: Bencher, direction: &str) {
        let precision = precision(direction);
        let (matrix, bias) = (weight([CHANNELS, CHANNELS]), weight([CHANNELS]));
        image(bencher, direction, [SIZE, CHANNELS], |x| {
            kernels::linear(x, matrix.clone(), Some(bias.clone()), precision)
        });
    }

    #[divan::bench(args = PRODUCTS)]
    fn mlp(bencher: Bencher, direction: &str) {
        let precision = precision(direction);
        let (up, down) = (weight([4 * CHANNELS, CHANNELS]), weight([CHANNELS, 4 * CHANNELS]));
        let (first, second) = (weight([4 * CHANNELS]), weight([CHANNELS]));
        image(bencher, direction, [SIZE, CHANNELS], |x| {
            kernels::mlp(x, [up.clone(), down.clone()], [first.clone(), second.clone()], precision)
        });
    }

    #[divan::bench(args = PRODUCTS)]
    fn window_attention(bencher: Bencher, direction: &str) {
        let precision = precision(direction);
        let token = weight([BATCH, 3 * CHANNELS]);
        let table = weight([(2 * WINDOW - 1).pow(2), HEADS]);
        image(bencher, direction, [SIZE, 3 * CHANNELS], |x| {
            kernels::window_attention(x, token.clone(), table.clone(), HEADS, WINDOW, precision)
        });
    }

    #[divan::bench(args = DIRECTIONS)]
    fn layer_norm(bencher: Bencher, direction: &str) {
        let (scale, shift) = (weight([CHANNELS]), weight([CHANNELS]));
        image(bencher, direction, [SIZE, CHANNELS], |x| {
            kernels::layer_norm(x, scale.clone(), shift.clone())
        });
    }

    #[divan::bench(args = DIRECTIONS)]
    fn group_norm_silu(bencher: Bencher, direction: &str) {
        let (scale, shift) = (weight([CHANNELS]), weight([CHANNELS]));
        image(bencher, direction, [SIZE, CHANNELS], |x| {
            kernels::group_norm_silu(x, scale.clone(), shift.clone(), 16)
        });
    }
}

#[divan::bench_group(sample_count = 50, sample_size = 1)]
mod update {
    use super::*;

    #[divan::bench]
    fn adamw(bencher: Bencher) {
        const PARAMETERS: usize = 1 << 20;
        let device = Device::flex();
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
        bencher.counter(ItemsCount::new(PARAMETERS)).bench_local(|| {
            arrays = arrays.take().map(|arrays| kernels::adamw(step, arrays, &gradient));
        });
    }

    #[divan::bench]
    fn moving_average(bencher: Bencher) {
        let device = Device::flex().autodiff();
        let net = Preset::ALL[0].config(SIZE, 0).init(0, &device).expect("a preset is valid");
        let mut mean = Some(net.valid());
        bencher.counter(ItemsCount::new(net.num_params())).bench_local(|| {
            mean = mean.take().map(|mean| ema::update(mean, &net, 0.999));
        });
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod data {
    use super::*;

    #[divan::bench]
    fn epoch_of_augmented_images(bencher: Bencher) {
        const IMAGES: usize = 1024;
        let augmentation = Augmentation {
            enabled: true,
            horizontal_flip: true,
            rotation_degrees: 10.0,
            ..Augmentation::default()
        };
        let settings =
            DatasetSettings { num_images: IMAGES, augmentation, ..DatasetSettings::default() };
        let dataset = Dataset::open(&settings, &Path::new(".").into(), &())
            .expect("drawn images need no file");
        let options = LoaderOptions { batch_size: BATCH, num_workers: 0, seed: 0 };
        let loader =
            Loader::new(Arc::new(dataset), Split::Train, options).expect("there are images");
        bencher.counter(ItemsCount::new(IMAGES)).bench_local(|| {
            loader.epoch(1, 0).map(|batch| batch.map_or(0, |b| b.labels.len())).sum::<usize>()
        });
    }

    #[divan::bench]
    fn noise_of_a_batch(bencher: Bencher) {
        let mut noise = vec![0.0f32; BATCH * 3 * SIZE * SIZE];
        bencher.counter(ItemsCount::new(noise.len())).bench_local(|| {
            let mut rng = stream(0, Purpose::Noise, 1, 1);
            noise.iter_mut().for_each(|v| *v = StandardNormal.sample(&mut rng));
            black_box(&noise);
        });
    }
}

#[divan::bench_group(sample_count = 10, sample_size = 1)]
mod sampling {
    use super::*;

    const IMAGES: usize = 4;

    #[divan::bench]
    fn network(bencher: Bencher) {
        let device = Device::flex();
        let net = Preset::ALL[0].config(SIZE, 0).init(0, &device).expect("a preset is valid");
        let (noise, level) =
            (drawn([IMAGES, 3, SIZE, SIZE], &device), Tensor::<1>::zeros([IMAGES], &device));
        bencher
            .counter(ItemsCount::new(IMAGES))
            .bench_local(|| net.forward(noise.clone(), level.clone(), None, &Pass::inference()));
    }

    #[divan::bench]
    fn heun_in_4_steps(bencher: Bencher) {
        let device = Device::flex();
        let net = Preset::ALL[0].config(SIZE, 0).init(0, &device).expect("a preset is valid");
        let (noise, sampler) =
            (drawn([IMAGES, 3, SIZE, SIZE], &device), Sampler { steps: 4, ..Sampler::default() });
        bencher
            .counter(ItemsCount::new(IMAGES))
            .bench_local(|| sampler.sample(&net, noise.clone(), None, |_| true));
    }
}
