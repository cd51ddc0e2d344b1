//! Element-wise updates of long arrays, in place and on every core: what an optimizer step and a
//! EMA weights are.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::autodiff_op::{from_numbers, numbers, with_numbers};
use super::simd::with_simd;

/// Elements that one task takes.
const CHUNK: usize = 1 << 15;

/// AdamW's numbers for one step.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    pub beta_1: f32,
    pub beta_2: f32,
    pub epsilon: f32,
    pub learning_rate: f64,
    pub weight_decay: f32,
    /// Steps done, this one included.
    pub time: i32,
}

/// [`adamw`](crate::kernels::adamw), in the order of burn's operations, so that the bits are the
/// same.
pub(crate) fn adamw(
    step: AdamWStep,
    [value, moment_1, moment_2]: [Tensor<1>; 3],
    gradient: &Tensor<1>,
) -> [Tensor<1>; 3] {
    let AdamWStep { beta_1, beta_2, epsilon, learning_rate, weight_decay, time } = step;
    let (factor_1, factor_2) = (1.0 - beta_1, 1.0 - beta_2);
    let (bias_1, bias_2) = (1.0 - beta_1.powi(time), 1.0 - beta_2.powi(time));
    let keep = (1.0 - learning_rate * f64::from(weight_decay)) as f32;
    let rate = learning_rate as f32;
    let mut arrays = [numbers(value), numbers(moment_1), numbers(moment_2)];
    with_numbers(gradient, |gradient| {
        let [value, m, v] = arrays.each_mut().map(|array| array.par_chunks_mut(CHUNK));
        value.zip(m).zip(v).zip(gradient.par_chunks(CHUNK)).for_each(
            |(((value, m), v), gradient)| {
                with_simd(
                    #[inline(always)]
                    || {
                        for (((value, m), v), g) in value.iter_mut().zip(m).zip(v).zip(gradient) {
                            *m = *m * beta_1 + g * factor_1;
                            *v = *v * beta_2 + g * g * factor_2;
                            let delta = (*m / bias_1) / ((*v / bias_2).sqrt() + epsilon);
                            *value = *value * keep - delta * rate;
                        }
                    },
                );
            },
        );
    });
    arrays.map(from_numbers)
}

/// [`blend`](crate::kernels::blend).
pub(crate) fn blend(mean: Tensor<1>, value: &Tensor<1>, decay: f64) -> Tensor<1> {
    let (keep, take) = (decay as f32, (1.0 - decay) as f32);
    let mut mean = numbers(mean);
    with_numbers(value, |value| {
        mean.par_chunks_mut(CHUNK).zip(value.par_chunks(CHUNK)).for_each(|(mean, value)| {
            with_simd(
                #[inline(always)]
                || {
                    mean.iter_mut()
                        .zip(value)
                        .for_each(|(mean, value)| *mean = *mean * keep + value * take)
                },
            );
        });
    });
    from_numbers(mean)
}
