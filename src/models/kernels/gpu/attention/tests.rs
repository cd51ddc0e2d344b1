//! Attention on a GPU and its generic form compute the same, and twice the same bits.

use burn::tensor::{DType, Device, FloatDType};

use super::super::super::equivalence_tests::{assert_close, grad, leaf, run};
use super::super::super::{generic, gpu};
use super::super::tests::{devices, from};
use super::Attention;
use super::sums::Stages;

#[derive(Debug, Clone, Copy)]
struct Case {
    batch: usize,
    image: [usize; 2],
    heads: usize,
    /// Numbers of a head.
    width: usize,
    window: usize,
}

const CASES: [([usize; 3], usize, usize, usize); 9] = [
    // Batch and image, heads, numbers of a head, window.
    ([1, 2, 2], 1, 5, 2),
    ([2, 3, 9], 3, 5, 3), // a window's pixels are no multiple of a chunk
    ([2, 8, 4], 4, 24, 4),
    ([3, 16, 8], 2, 16, 8),
    ([2, 9, 9], 1, 17, 9), // blocks of queries that begin within a row, slices with a zero
    ([1, 16, 16], 2, 32, 16),
    ([1, 17, 34], 1, 4, 17), // a large window
    ([1, 8, 4], 1, 128, 4),  // the widest head
    ([150, 2, 2], 1, 4, 2),  // windows in stages
];

fn cases() -> impl Iterator<Item = Case> {
    CASES.into_iter().map(|([batch, h, w], heads, width, window)| Case {
        batch,
        image: [h, w],
        heads,
        width,
        window,
    })
}

/// The result of attention in windows and all gradients.
fn in_windows(case: Case, device: &Device, dtype: FloatDType) -> Vec<Vec<f32>> {
    let Case { batch, image: [h, w], heads, width, window } = case;
    let channels = 3 * heads * width;
    let qkv = leaf([batch, h, w, channels], 1, device);
    let qkv_t = leaf([batch, channels], 2, device);
    let table = leaf([(2 * window - 1).pow(2), heads], 3, device);
    let [low_t, low_table] = [&qkv_t, &table].map(|tensor| tensor.clone().cast(dtype));
    let low = qkv.clone().cast(dtype);
    let own = gpu::window_attention(&low, &low_t, &low_table, heads, window);
    let y = from(own, device, || generic::window_attention(low, low_t, low_table, heads, window));
    let y = y.cast(FloatDType::F32);
    run(y, |g| vec![grad(&qkv, g), grad(&qkv_t, g), grad(&table, g)])
}

/// The result of attention over square images and its gradient.
fn over_images([batch, side, heads, width]: [usize; 4], device: &Device) -> Vec<Vec<f32>> {
    let qkv = leaf([batch, side, side, 3 * heads * width], 1, device);
    let own = gpu::attention(&qkv, heads);
    let y = from(own, device, || generic::attention(qkv.clone(), heads));
    run(y, |g| vec![grad(&qkv, g)])
}

#[test]
fn window_attention_agrees() {
    let test = "kernels::gpu::attention::tests::window_attention_agrees";
    let Some([gpu, cpu]) = devices(test) else { return };
    for case in cases() {
        assert_close(
            &in_windows(case, &gpu, FloatDType::F32),
            &in_windows(case, &cpu, FloatDType::F32),
        );
    }
}

#[test]
fn attention_over_images_agrees() {
    let test = "kernels::gpu::attention::tests::attention_over_images_agrees";
    let Some([gpu, cpu]) = devices(test) else { return };
    for sizes in [[2, 2, 1, 4], [1, 8, 4, 64], [2, 16, 1, 16], [1, 5, 1, 128], [1, 32, 1, 8]] {
        assert_close(&over_images(sizes, &gpu), &over_images(sizes, &cpu));
    }
}

#[test]
fn attention_gives_the_same_bits_again() {
    let test = "kernels::gpu::attention::tests::attention_gives_the_same_bits_again";
    let Some([gpu, _]) = devices(test) else { return };
    let case = Case { batch: 2, image: [16, 16], heads: 2, width: 24, window: 8 };
    let bits = |arrays: Vec<Vec<f32>>| -> Vec<Vec<u32>> {
        arrays.into_iter().map(|array| array.into_iter().map(f32::to_bits).collect()).collect()
    };
    let first = bits(in_windows(case, &gpu, FloatDType::F32));
    for _ in 0..3 {
        assert!(bits(in_windows(case, &gpu, FloatDType::F32)) == first);
    }
}

/// In half precision numbers are off by 5e-4 of themselves, and sums of them by more.
#[test]
fn attention_in_half_precision_is_close() {
    let test = "kernels::gpu::attention::tests::attention_in_half_precision_is_close";
    let Some([gpu, cpu]) = devices(test) else { return };
    if !gpu.supports_dtype(FloatDType::F16) {
        eprintln!("skipped: the device has no f16");
        return;
    }
    let case = Case { batch: 2, image: [8, 8], heads: 2, width: 24, window: 4 };
    let low = in_windows(case, &gpu, FloatDType::F16);
    for (index, (a, b)) in low.iter().zip(&in_windows(case, &cpu, FloatDType::F32)).enumerate() {
        let size = b.iter().fold(0f32, |max, v| max.max(v.abs()));
        let worst = a.iter().zip(b).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
        assert!(worst < 0.02 * size, "array {index}: off by {worst}, largest {size}");
    }
}

#[test]
fn every_size_of_attention_has_room() {
    for window in 2..=32 {
        for width in 4..=128 {
            for biased in [false, true] {
                let qkv = [1, window, 2 * window, 3 * 2 * width];
                let kernel = Attention::new(qkv, DType::F32, 2, window, biased);
                let plans = kernel.expect("every window and head is served").plans();
                for plan in if biased { &plans[..] } else { &plans[..1] } {
                    assert!(plan.units() <= 128, "{plan:?}");
                    assert!(plan.memory() <= 4096, "{plan:?}");
                    assert!(plan.blocks() * plan.rows >= window * window, "{plan:?}");
                    assert_eq!(plan.lanes() * plan.each, plan.rows, "{plan:?}");
                    assert_eq!(plan.tile % plan.chunk, 0, "{plan:?}");
                    assert!(plan.pitch() >= width, "{plan:?}");
                }
            }
        }
    }
}

#[test]
fn sizes_that_do_not_divide_are_left_to_others() {
    let kernel = |qkv, heads, window| Attention::new(qkv, DType::F32, heads, window, true);
    assert!(kernel([1, 8, 8, 24], 2, 4).is_some());
    assert!(kernel([1, 8, 6, 24], 2, 4).is_none());
    assert!(kernel([1, 8, 8, 24], 3, 4).is_none());
    assert!(kernel([1, 1, 1, 24], 2, 1).is_none());
    assert!(kernel([1, 8, 8, 3 * 4096], 1, 4).is_none());
}

#[test]
fn no_stage_has_a_long_loop() {
    for rows in (1..5000).chain([65_535, 65_536, 65_537, 1 << 20, 1 << 24]) {
        for most in [1, 4, 31, 256] {
            let stages = Stages::new(rows, most);
            assert!(stages.left() <= most.max(1), "{rows} {most}");
            assert!(stages.cost(1, false).longest <= 256, "{rows} {most}");
        }
    }
}
