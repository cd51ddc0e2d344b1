//! The building blocks in f64, written as their definitions say.

use super::super::NORM_EPSILON;

pub(super) fn linear(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
    let product = |row: &[f64], o: usize| -> f64 {
        row.iter().zip(&weight[o * inputs..]).map(|(x, w)| x * w).sum::<f64>() + bias[o]
    };
    x.chunks(inputs).flat_map(|row| (0..outputs).map(move |o| product(row, o))).collect()
}

pub(super) fn conv2d(
    x: &[f64],
    [batch, h, w, inputs]: [usize; 4],
    weight: &[f64],
    bias: &[f64],
    [kernel, stride]: [usize; 2],
) -> Vec<f64> {
    let mut result = Vec::new();
    let pixel = |b: usize, y: isize, x_at: isize, i: usize| -> f64 {
        let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x_at);
        if inside { x[((b * h + y as usize) * w + x_at as usize) * inputs + i] } else { 0.0 }
    };
    for b in 0..batch {
        for y in (0..h).step_by(stride) {
            for x_at in (0..w).step_by(stride) {
                for (o, bias) in bias.iter().enumerate() {
                    let mut sum = *bias;
                    for i in 0..inputs {
                        for ky in 0..kernel {
                            for kx in 0..kernel {
                                let half = (kernel / 2) as isize;
                                let (y, x_at) =
                                    ((y + ky) as isize - half, (x_at + kx) as isize - half);
                                let weight = weight[((o * inputs + i) * kernel + ky) * kernel + kx];
                                sum += weight * pixel(b, y, x_at, i);
                            }
                        }
                    }
                    result.push(sum);
                }
            }
        }
    }
    result
}

pub(super) fn upsampled(x: &[f64], [batch, h, w, channels]: [usize; 4]) -> Vec<f64> {
    let mut result = Vec::new();
    for b in 0..batch {
        for y in 0..2 * h {
            for x_at in 0..2 * w {
                let from = ((b * h + y / 2) * w + x_at / 2) * channels;
                result.extend(&x[from..from + channels]);
            }
        }
    }
    result
}

/// (x - mean) / deviation.
pub(super) fn normal(x: &[f64]) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
    x.iter().map(|x| (x - mean) / (variance + NORM_EPSILON).sqrt()).collect()
}

pub(super) fn scaled(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let channels = weight.len();
    x.iter().enumerate().map(|(i, x)| x * weight[i % channels] + bias[i % channels]).collect()
}

/// `x [batch, pixels, channels]`, `weight` and `bias` `[batch, channels]`.
pub(super) fn group_norm(
    x: &[f64],
    [pixels, channels, size]: [usize; 3],
    weight: &[f64],
    bias: &[f64],
) -> Vec<f64> {
    let mut all = vec![0.0; x.len()];
    for image in (0..x.len()).step_by(pixels * channels) {
        for group in (0..channels).step_by(size) {
            let places: Vec<usize> = (0..pixels)
                .flat_map(|pixel| (0..size).map(move |c| image + pixel * channels + group + c))
                .collect();
            let of: Vec<f64> = places.iter().map(|place| x[*place]).collect();
            places.iter().zip(normal(&of)).for_each(|(place, value)| all[*place] = value);
        }
    }
    let images = all.chunks(pixels * channels);
    let affine = weight.chunks(channels).zip(bias.chunks(channels));
    images.zip(affine).flat_map(|(image, (weight, bias))| scaled(image, weight, bias)).collect()
}

pub(super) fn silu(x: Vec<f64>) -> Vec<f64> {
    x.iter().map(|x| x / (1.0 + (-x).exp())).collect()
}

/// x Φ(x); the error function by its Taylor series, which converges everywhere.
pub(super) fn gelu(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut total) = (z, z);
    for n in 1..120 {
        term *= -z * z / f64::from(n);
        total += term / f64::from(2 * n + 1);
    }
    x * 0.5 * (1.0 + total * std::f64::consts::FRAC_2_SQRT_PI)
}

pub(super) struct Windows {
    pub(super) sizes: [usize; 4],
    pub(super) heads: usize,
    pub(super) window: usize,
}

impl Windows {
    pub(super) fn attention(&self, qkv: &[f64], qkv_t: &[f64], table: &[f64]) -> Vec<f64> {
        let ([batch, h, w, dim], window) = (self.sizes, self.window);
        let width = dim / self.heads;
        let mut result = vec![0.0; batch * h * w * dim];
        for b in 0..batch {
            for head in 0..self.heads {
                // The part 0 to 2 (query, key, value) of a pixel.
                let part = |y: usize, x: usize, part: usize| -> Vec<f64> {
                    let from = part * dim + head * width;
                    let pixel = ((b * h + y) * w + x) * 3 * dim + from;
                    (0..width).map(|i| qkv[pixel + i] + qkv_t[b * 3 * dim + from + i]).collect()
                };
                for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
                    let (top, left) = (y / window * window, x / window * window);
                    let query = part(y, x, 0);
                    let keys =
                        (0..window).flat_map(|i| (0..window).map(move |j| (top + i, left + j)));
                    let keys: Vec<(usize, usize)> = keys.collect();
                    let score = |(ky, kx): &(usize, usize)| -> f64 {
                        let (dy, dx) = (y + window - 1 - ky, x + window - 1 - kx);
                        let bias = table[(dy * (2 * window - 1) + dx) * self.heads + head];
                        let dot: f64 =
                            query.iter().zip(part(*ky, *kx, 1)).map(|(q, k)| q * k).sum();
                        dot / (width as f64).sqrt() + bias
                    };
                    let weights: Vec<f64> = keys.iter().map(|key| score(key).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for ((ky, kx), weight) in keys.iter().zip(&weights) {
                        let place = ((b * h + y) * w + x) * dim + head * width;
                        for (i, value) in part(*ky, *kx, 2).iter().enumerate() {
                            result[place + i] += weight / total * value;
                        }
                    }
                }
            }
        }
        result
    }
}
