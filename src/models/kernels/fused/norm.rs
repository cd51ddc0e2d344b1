//! Layer norm, and group norm with its swish: each reads its input once more than it must, and
//! stores nothing but means and deviations for the gradient.

use burn::tensor::Shape;

use super::autodiff_op::Kernel;
use super::fresh::in_pieces;
use super::math::{sigmoid, sum, sum_pairs};
use super::partition::{add_up, part_len};
use super::simd::with_simd;
use crate::kernels::definitions::NORM_EPSILON;

/// Rows that one task takes.
const ROWS: usize = 512;

/// Layer norm of `x [rows, channels]` with `weight [channels]` and `bias [channels]`.
#[derive(Debug, Clone)]
pub(super) struct LayerNorm {
    pub shape: Shape,
    pub channels: usize,
}

/// Mean, and one over the standard deviation.
#[inline(always)]
fn moments(row: &[f32]) -> [f32; 2] {
    let mean = sum(row, |v| v) / row.len() as f32;
    let variance = sum(row, |v| (v - mean) * (v - mean)) / row.len() as f32;
    [mean, 1.0 / (variance + NORM_EPSILON as f32).sqrt()]
}

impl Kernel<3> for LayerNorm {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let c = self.channels;
        let (y, _) = in_pieces(x.len(), ROWS * c, |number, y| {
            let x = &x[number * ROWS * c..][..y.len()];
            with_simd(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                        let [mean, scale] = moments(x);
                        for ((y, x), (w, b)) in y.iter_mut().zip(x).zip(weight.iter().zip(bias)) {
                            *y = (x - mean) * scale * w + b;
                        }
                    }
                },
            );
        });
        (y, Vec::new())
    }

    fn backward(
        &self,
        [x, weight, _]: [&[f32]; 3],
        _kept: &[f32],
        dy: &[f32],
        wanted: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let c = self.channels;
        let part = part_len(x.len() / c);
        let (dx, sums): (_, Vec<[Vec<f32>; 2]>) = in_pieces(x.len(), part * c, |number, dx| {
            let [x, dy] = [x, dy].map(|all| &all[number * part * c..][..dx.len()]);
            let (mut dw, mut db) = (vec![0.0; c], vec![0.0; c]);
            let mut normal = vec![0.0; c];
            with_simd(
                #[inline(always)]
                || {
                    let rows =
                        dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(dy.chunks_exact(c));
                    for ((dx, x), dy) in rows {
                        let [mean, scale] = moments(x);
                        for (normal, x) in normal.iter_mut().zip(x) {
                            *normal = (x - mean) * scale;
                        }
                        if wanted[1] || wanted[2] {
                            for ((dw, normal), dy) in dw.iter_mut().zip(&normal).zip(dy) {
                                *dw += dy * normal;
                            }
                            for (db, dy) in db.iter_mut().zip(dy) {
                                *db += dy;
                            }
                        }
                        // Gradient of the normalised row, then of the row (Ba et al. 2016, by
                        // the chain rule).
                        for ((dx, dy), w) in dx.iter_mut().zip(dy).zip(weight) {
                            *dx = dy * w;
                        }
                        let mean = sum(dx, |v| v) / c as f32;
                        let along = sum_pairs(dx, &normal, |d, n| d * n) / c as f32;
                        for (dx, normal) in dx.iter_mut().zip(&normal) {
                            *dx = scale * (*dx - mean - normal * along);
                        }
                    }
                },
            );
            [dw, db]
        });
        let [dw, db] = add_up(sums);
        [wanted[0].then_some(dx), wanted[1].then_some(dw), wanted[2].then_some(db)]
    }
}

/// Group norm of `x [batch, pixels, channels]` in groups of `group` channels, and its swish if
/// `SILU`. `weight` and `bias` are `[channels]` for all images, or `[batch, channels]`.
#[derive(Debug, Clone)]
pub(super) struct GroupNorm<const SILU: bool> {
    pub shape: Shape,
    pub batch: usize,
    pub channels: usize,
    pub group: usize,
}

impl<const SILU: bool> GroupNorm<SILU> {
    /// For each channel of an image: its group's mean, and one over the group's standard deviation.
    #[inline(always)]
    fn moments(&self, image: &[f32]) -> [Vec<f32>; 2] {
        let c = self.channels;
        let count = (image.len() / c * self.group) as f32;
        let mean = self.per_group(&sum_pixels(image, c, |_, v| v), |total| total / count);
        let squares = sum_pixels(image, c, |channel, v| (v - mean[channel]) * (v - mean[channel]));
        let scale =
            self.per_group(&squares, |total| 1.0 / (total / count + NORM_EPSILON as f32).sqrt());
        [mean, scale]
    }

    /// `f` of the sum over each group, given back to each of its channels.
    #[inline(always)]
    fn per_group(&self, channels: &[f32], f: impl Fn(f32) -> f32) -> Vec<f32> {
        let sums = channels.chunks(self.group).map(|group| f(group.iter().sum()));
        sums.flat_map(|value| std::iter::repeat_n(value, self.group)).collect()
    }

    /// The gradient before the swish at one pixel, from the gradient behind it. A loop over few
    /// slices becomes vector instructions; one over many stays scalar.
    #[inline(always)]
    fn before_swish(dy: &[f32], normal: &[f32], weight: &[f32], bias: &[f32], dz: &mut [f32]) {
        if !SILU {
            return dz.copy_from_slice(dy);
        }
        for (((dz, dy), normal), (weight, bias)) in
            dz.iter_mut().zip(dy).zip(normal).zip(weight.iter().zip(bias))
        {
            let z = normal * weight + bias;
            let s = sigmoid(z);
            *dz = dy * s * (1.0 + z * (1.0 - s));
        }
    }

    /// The part of `weight` or `bias` that belongs to an image.
    fn of_image<'a>(&self, values: &'a [f32], image: usize) -> &'a [f32] {
        &values[image * self.channels % values.len()..][..self.channels]
    }
}

/// A pixel's channels, centred and scaled.
#[inline(always)]
fn normalise(x: &[f32], mean: &[f32], scale: &[f32], normal: &mut [f32]) {
    for ((normal, x), (mean, scale)) in normal.iter_mut().zip(x).zip(mean.iter().zip(scale)) {
        *normal = (x - mean) * scale;
    }
}

/// Sum over the pixels of `f(channel, value)`, for each channel.
#[inline(always)]
fn sum_pixels(image: &[f32], c: usize, f: impl Fn(usize, f32) -> f32) -> Vec<f32> {
    let mut total = vec![0.0f32; c];
    // Short sums first: they lose less to rounding.
    for block in image.chunks(64 * c) {
        let mut part = vec![0.0f32; c];
        for pixel in block.chunks_exact(c) {
            for (channel, (part, v)) in part.iter_mut().zip(pixel).enumerate() {
                *part += f(channel, *v);
            }
        }
        total.iter_mut().zip(&part).for_each(|(total, part)| *total += part);
    }
    total
}

impl<const SILU: bool> Kernel<3> for GroupNorm<SILU> {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let (c, image) = (self.channels, x.len() / self.batch);
        let (y, _) = in_pieces(x.len(), image, |number, y| {
            let x = &x[number * image..][..image];
            let [weight, bias] = [weight, bias].map(|values| self.of_image(values, number));
            with_simd(
                #[inline(always)]
                || {
                    let [mean, scale] = self.moments(x);
                    let slope: Vec<f32> =
                        scale.iter().zip(weight).map(|(scale, w)| scale * w).collect();
                    let shift: Vec<f32> = slope
                        .iter()
                        .zip(&mean)
                        .zip(bias)
                        .map(|((slope, mean), b)| b - slope * mean)
                        .collect();
                    for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                        for ((y, x), (slope, shift)) in
                            y.iter_mut().zip(x).zip(slope.iter().zip(&shift))
                        {
                            let z = x * slope + shift;
                            *y = if SILU { z * sigmoid(z) } else { z };
                        }
                    }
                },
            );
        });
        (y, Vec::new())
    }

    fn backward(
        &self,
        [x, weight, bias]: [&[f32]; 3],
        _kept: &[f32],
        dy: &[f32],
        wanted: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let (c, image) = (self.channels, x.len() / self.batch);
        let (dx, sums): (_, Vec<[Vec<f32>; 2]>) = in_pieces(x.len(), image, |number, dx| {
            let [x, dy] = [x, dy].map(|all| &all[number * image..][..image]);
            let [weight, bias] = [weight, bias].map(|values| self.of_image(values, number));
            let (mut dw, mut db) = (vec![0.0; c], vec![0.0; c]);
            with_simd(
                #[inline(always)]
                || {
                    let [mean, scale] = self.moments(x);
                    // Through the swish: `dx` holds the gradient of its input for now.
                    let mut normal = vec![0.0; c];
                    for ((dx, x), dy) in
                        dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(dy.chunks_exact(c))
                    {
                        normalise(x, &mean, &scale, &mut normal);
                        Self::before_swish(dy, &normal, weight, bias, dx);
                        for ((dw, dz), normal) in dw.iter_mut().zip(&*dx).zip(&normal) {
                            *dw += dz * normal;
                        }
                        for (db, dz) in db.iter_mut().zip(&*dx) {
                            *db += dz;
                        }
                    }
                    // Through the norm (Wu and He 2018, by the chain rule).
                    let count = (image / c * self.group) as f32;
                    let weighted = |sums: &[f32]| -> Vec<f32> {
                        sums.iter().zip(weight).map(|(sum, w)| sum * w).collect()
                    };
                    let flat = self.per_group(&weighted(&db), |total| total / count);
                    let along = self.per_group(&weighted(&dw), |total| total / count);
                    for (dx, x) in dx.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                        normalise(x, &mean, &scale, &mut normal);
                        for ((dx, normal), ((weight, scale), (flat, along))) in dx
                            .iter_mut()
                            .zip(&normal)
                            .zip(weight.iter().zip(&scale).zip(flat.iter().zip(&along)))
                        {
                            *dx = scale * (*dx * weight - flat - normal * along);
                        }
                    }
                },
            );
            [dw, db]
        });
        let [dw, db] = if weight.len() == c {
            add_up(sums)
        } else {
            [0, 1].map(|array| sums.iter().flat_map(|sums| sums[array].iter().copied()).collect())
        };
        [wanted[0].then_some(dx), wanted[1].then_some(dw), wanted[2].then_some(db)]
    }
}
