//! Two training steps give the same bits in every process and on any number of threads: what exact
//! resume rests on.

use std::process::Command;

use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use pipe_models::architecture::ModelConfig;
use pipe_models::diffit::DiffitConfig;
use pipe_models::diffusion::Objective;
use pipe_models::lora::{LoraConfig, LoraPlan};
use pipe_models::nn::{Pass, Scope, state_dict};

/// A digest (FNV-1a) of all parameters after two steps, of the whole network or of LoRA's factors
/// beside some of its layers.
fn two_steps(targets: &[&str]) -> u64 {
    let config = DiffitConfig {
        dim: 32,
        mults: vec![1, 2],
        depths: vec![1, 1],
        heads: 2,
        window: 4,
        image_size: 16,
        channels: 3,
        num_classes: 0,
        augment_labels: 0,
    };
    let device = Device::flex().autodiff();
    let mut net = ModelConfig::from(config).init(5, &device).expect("the config is valid");
    if !targets.is_empty() {
        let target_modules = targets.iter().map(|name| name.to_string()).collect();
        let config = LoraConfig { target_modules, ..LoraConfig::default() };
        net = LoraPlan::new(&config, &net).expect("the layers are there").inject(net, 7).model;
    }
    let mut optimizer = AdamWConfig::new().init();
    for step in 0..2 {
        let wave = |speed: f64| {
            let values: Vec<f32> =
                (0..6 * 3 * 256).map(|i| (speed * f64::from(i + step)).sin() as f32).collect();
            Tensor::<4>::from_data(TensorData::new(values, [6, 3, 16, 16]), &device)
        };
        let sigma = Tensor::<1>::from_floats([0.1, 0.2, 0.4, 0.8, 1.6, 3.2], &device);
        let loss = Objective::default().loss(
            &net,
            wave(0.37),
            sigma,
            wave(1.93),
            None,
            &Pass::inference(),
        );
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(1e-3, net, grads);
    }
    let bytes = state_dict(&net, &Scope::All, "")
        .expect("read")
        .into_iter()
        .flat_map(|tensor| tensor.bytes);
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

#[test]
fn two_steps_give_the_same_bits_in_any_process_and_on_any_number_of_threads() {
    const CHILD: &str = "PIPE_TEST_PRINTS_TWO_STEPS";
    let convolutions = ["tokenizer", "conv", "down.0", "up.0", "merge.0"];
    let (whole, factors) = (two_steps(&[]), two_steps(&convolutions));
    assert_ne!(whole, factors);
    let found = format!("digest {whole:016x} {factors:016x}");
    println!("{found}");
    if std::env::var_os(CHILD).is_some() {
        return;
    }
    for threads in ["1", "2", "5"] {
        let this = std::env::current_exe().expect("a test knows its own program");
        let child = Command::new(this)
            .args(["--nocapture", "two_steps_give_the_same_bits"])
            .env(CHILD, "1")
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .expect("the test's program starts again");
        let stdout = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && stdout.contains(&found),
            "{threads} threads: {stdout}, here {found}"
        );
    }
}
