//! Halving and doubling an image, setting two side by side, adding two.

use burn::tensor::Tensor;

use super::exact::upsampled;
use super::{Case, flat};
use crate::kernels;

pub(super) fn halved() -> Case {
    const SIZES: [usize; 4] = [2, 4, 6, 3];
    let exact = |a: &[Vec<f64>]| {
        let [batch, h, w, channels] = SIZES;
        let pixel =
            |b: usize, y: usize, x: usize, c: usize| a[0][((b * h + y) * w + x) * channels + c];
        let mut result = Vec::new();
        for (b, y) in (0..batch).flat_map(|b| (0..h / 2).map(move |y| (b, 2 * y))) {
            for (x, c) in (0..w / 2).flat_map(|x| (0..channels).map(move |c| (2 * x, c))) {
                let rows = [y, y + 1].map(|y| pixel(b, y, x, c) + pixel(b, y, x + 1, c));
                result.push((rows[0] + rows[1]) / 4.0);
            }
        }
        result
    };
    Case {
        name: "average_pool",
        counts: vec![SIZES.iter().product()],
        range: 1.0,
        exact: Box::new(exact),
        on_device: Box::new(|_, a| flat(kernels::average_pool(a[0].clone().reshape(SIZES)))),
    }
}

pub(super) fn upsampling() -> Case {
    const SIZES: [usize; 4] = [2, 2, 3, 4];
    Case {
        name: "upsample",
        counts: vec![SIZES.iter().product()],
        range: 1.0,
        exact: Box::new(|a| upsampled(&a[0], SIZES)),
        on_device: Box::new(|_, a| flat(kernels::upsample(a[0].clone().reshape(SIZES)))),
    }
}

pub(super) fn joined() -> Case {
    const PIXELS: [usize; 3] = [2, 2, 3];
    const CHANNELS: [usize; 2] = [3, 2];
    let count = PIXELS.iter().product::<usize>();
    let images = |a: &[Tensor<1>]| {
        [0, 1].map(|i| a[i].clone().reshape([PIXELS[0], PIXELS[1], PIXELS[2], CHANNELS[i]]))
    };
    Case {
        name: "concat",
        counts: CHANNELS.map(|channels| count * channels).to_vec(),
        range: 1.0,
        exact: Box::new(|a| {
            let pixels = a[0].chunks(CHANNELS[0]).zip(a[1].chunks(CHANNELS[1]));
            pixels.flat_map(|(a, b)| [a, b].concat()).collect()
        }),
        on_device: Box::new(move |_, a| {
            let [a, b] = images(a);
            flat(kernels::concat(a, b))
        }),
    }
}

pub(super) fn residual() -> Case {
    const SIZES: [usize; 4] = [2, 2, 3, 4];
    Case {
        name: "scaled_sum",
        counts: vec![SIZES.iter().product(); 2],
        range: 1.0,
        exact: Box::new(|a| a[0].iter().zip(&a[1]).map(|(a, b)| (a + b) * 0.7).collect()),
        on_device: Box::new(|_, a| {
            let [a, b] = [0, 1].map(|i| a[i].clone().reshape(SIZES));
            flat(kernels::scaled_sum(a, b, 0.7))
        }),
    }
}
