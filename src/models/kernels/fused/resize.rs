//! What a U-Net does between its blocks: halving and doubling an image, setting two side by side,
//! adding two. Each is a pass over memory, shared out by rows of the image.

use burn::tensor::Shape;

use super::autodiff_op::Kernel;
use super::fresh::in_pieces;

/// Numbers that one task writes, about.
const NUMBERS: usize = 64 * 1024;

/// Rows of `len` numbers that one task takes.
fn rows_of(len: usize) -> usize {
    (NUMBERS / len).max(1)
}

/// `numbers` numbers in rows of `len`: `write` makes each row, by its number.
fn of_rows(
    numbers: usize,
    len: usize,
    write: impl Fn(usize, &mut [f32]) + Send + Sync,
) -> Vec<f32> {
    let task = rows_of(len);
    let rows = |number: usize, rows: &mut [f32]| {
        for (row, out) in rows.chunks_exact_mut(len).enumerate() {
            write(number * task + row, out);
        }
    };
    in_pieces(numbers, task * len, rows).0
}

/// Each square of four pixels as its sum times `scale`: `x [rows, width, channels]` to `[rows / 2,
/// width / 2, channels]`.
fn halve(x: &[f32], [width, channels]: [usize; 2], scale: f32) -> Vec<f32> {
    of_rows(x.len() / 4, width / 2 * channels, |row, out| {
        let (upper, lower) =
            x[2 * row * width * channels..][..2 * width * channels].split_at(width * channels);
        let pairs = upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels));
        for (out, (upper, lower)) in out.chunks_exact_mut(channels).zip(pairs) {
            let ((a, b), (c, d)) = (upper.split_at(channels), lower.split_at(channels));
            for ((out, (a, c)), (b, d)) in out.iter_mut().zip(a.iter().zip(c)).zip(b.iter().zip(d))
            {
                *out = ((a + c) + (b + d)) * scale;
            }
        }
    })
}

/// Each pixel times `scale` as a square of four: `x [rows, width, channels]` to `[2 rows, 2 width,
/// channels]`.
fn double(x: &[f32], [width, channels]: [usize; 2], scale: f32) -> Vec<f32> {
    of_rows(4 * x.len(), 2 * width * channels, |row, out| {
        let pixels = x[row / 2 * width * channels..][..width * channels].chunks_exact(channels);
        for (out, pixel) in out.chunks_exact_mut(2 * channels).zip(pixels) {
            let (left, right) = out.split_at_mut(channels);
            for ((left, right), v) in left.iter_mut().zip(right).zip(pixel) {
                (*left, *right) = (v * scale, v * scale);
            }
        }
    })
}

/// The mean of each square of four pixels of `x [batch, height, width, channels]`.
#[derive(Debug, Clone)]
pub(super) struct AveragePool {
    pub input: [usize; 4],
}

impl Kernel<1> for AveragePool {
    const KEEPS_INPUTS: bool = false;

    fn shape(&self) -> Shape {
        let [batch, height, width, channels] = self.input;
        [batch, height / 2, width / 2, channels].into()
    }

    fn forward(&self, [x]: [&[f32]; 1], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let [.., width, channels] = self.input;
        (halve(x, [width, channels], 0.25), Vec::new())
    }

    fn backward(
        &self,
        _: [&[f32]; 1],
        _kept: &[f32],
        dy: &[f32],
        wanted: [bool; 1],
    ) -> [Option<Vec<f32>>; 1] {
        let [.., width, channels] = self.input;
        [wanted[0].then(|| double(dy, [width / 2, channels], 0.25))]
    }
}

/// Each pixel of `x [batch, height, width, channels]` as a square of four.
#[derive(Debug, Clone)]
pub(super) struct Upsample {
    pub input: [usize; 4],
}

impl Kernel<1> for Upsample {
    const KEEPS_INPUTS: bool = false;

    fn shape(&self) -> Shape {
        let [batch, height, width, channels] = self.input;
        [batch, 2 * height, 2 * width, channels].into()
    }

    fn forward(&self, [x]: [&[f32]; 1], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let [.., width, channels] = self.input;
        (double(x, [width, channels], 1.0), Vec::new())
    }

    fn backward(
        &self,
        _: [&[f32]; 1],
        _kept: &[f32],
        dy: &[f32],
        wanted: [bool; 1],
    ) -> [Option<Vec<f32>>; 1] {
        let [.., width, channels] = self.input;
        [wanted[0].then(|| halve(dy, [2 * width, channels], 1.0))]
    }
}

/// `a [.., left]` and `b [.., right]` as `[.., left + right]`.
#[derive(Debug, Clone)]
pub(super) struct Concat {
    pub shape: Shape,
    pub left: usize,
    pub right: usize,
}

impl Kernel<2> for Concat {
    const KEEPS_INPUTS: bool = false;

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [a, b]: [&[f32]; 2], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let (left, right) = (self.left, self.right);
        let y = of_rows(a.len() + b.len(), left + right, |row, out| {
            out[..left].copy_from_slice(&a[row * left..][..left]);
            out[left..].copy_from_slice(&b[row * right..][..right]);
        });
        (y, Vec::new())
    }

    fn backward(
        &self,
        _: [&[f32]; 2],
        _kept: &[f32],
        dy: &[f32],
        wanted: [bool; 2],
    ) -> [Option<Vec<f32>>; 2] {
        let both = self.left + self.right;
        let part = |first: usize, len: usize| {
            of_rows(dy.len() / both * len, len, |row, out| {
                out.copy_from_slice(&dy[row * both + first..][..len]);
            })
        };
        [wanted[0].then(|| part(0, self.left)), wanted[1].then(|| part(self.left, self.right))]
    }
}

/// `(a + b) * scale`, of two arrays of one shape.
#[derive(Debug, Clone)]
pub(super) struct ScaledSum {
    pub shape: Shape,
    pub scale: f32,
}

impl Kernel<2> for ScaledSum {
    const KEEPS_INPUTS: bool = false;

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [a, b]: [&[f32]; 2], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let (y, _) = in_pieces(a.len(), NUMBERS, |number, y| {
            let [a, b] = [a, b].map(|all| &all[number * NUMBERS..][..y.len()]);
            for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                *y = (a + b) * self.scale;
            }
        });
        (y, Vec::new())
    }

    fn backward(
        &self,
        _: [&[f32]; 2],
        _kept: &[f32],
        dy: &[f32],
        wanted: [bool; 2],
    ) -> [Option<Vec<f32>>; 2] {
        wanted.map(|wanted| {
            wanted.then(|| {
                let scale = |number: usize, scaled: &mut [f32]| {
                    let dy = &dy[number * NUMBERS..][..scaled.len()];
                    scaled.iter_mut().zip(dy).for_each(|(scaled, dy)| *scaled = dy * self.scale);
                };
                in_pieces(dy.len(), NUMBERS, scale).0
            })
        })
    }
}
