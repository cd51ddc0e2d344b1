//! im2col: unfolding an image into the patches that a convolution multiplies, and folding patches
//! back, a band of output rows at a time: the patches of a band stay in the cache, and are made
//! again rather than stored.

use std::ops::Range;

use rayon::prelude::*;

use super::matmul::{MatmulPrecision, RightFactor};
use super::simd::{MatrixView, WriteMode, with_simd};

/// Numbers in the patches of one band, about.
const BAND: usize = 160 * 1024;
/// Channels of a tap that one task takes.
const BLOCK: usize = 128;
/// Output pixels that such a task takes at a time, about.
const PIXELS: usize = 256;

/// Where the patches of an image `[height, width, channels]` lie. A patch is ordered (row, column,
/// channel).
#[derive(Debug, Clone, Copy)]
pub(super) struct Patches {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Side of a patch.
    pub kernel: usize,
    pub stride: usize,
    /// Rows of zeros above the image.
    pub above: usize,
    /// Columns of zeros to the left of the image.
    pub left: usize,
    pub out_height: usize,
    pub out_width: usize,
}

impl Patches {
    /// Patches of a convolution padded by half its kernel.
    pub fn padded([height, width, channels]: [usize; 3], kernel: usize, stride: usize) -> Self {
        let pad = kernel / 2;
        let out = |side: usize| (side + 2 * pad - kernel) / stride + 1;
        let (out_height, out_width) = (out(height), out(width));
        Self {
            height,
            width,
            channels,
            kernel,
            stride,
            above: pad,
            left: pad,
            out_height,
            out_width,
        }
    }

    /// Numbers in one patch.
    pub fn len(&self) -> usize {
        self.kernel * self.kernel * self.channels
    }

    /// Numbers in an image.
    pub fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Output pixels of an image.
    pub fn pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Output rows in one band. Rows are counted through all images, so a band may hold several
    /// small ones.
    pub fn band(&self) -> usize {
        (BAND / (self.len() * self.out_width)).max(1)
    }

    /// Whole images whose rows fill a band: what one task folds.
    pub fn group(&self) -> usize {
        (self.band() / self.out_height).max(1)
    }

    /// The output rows of band `number`, which has so many pixels.
    pub fn rows_of(&self, number: usize, pixels: usize) -> Range<usize> {
        let first = number * self.band();
        first..first + pixels / self.out_width
    }

    /// Room for the patches of one band.
    pub fn buffer(&self) -> Vec<f32> {
        vec![0.0; self.band() * self.out_width * self.len()]
    }

    /// Writes the patches of some output rows: `[pixels, patch]`.
    pub fn unfold(&self, images: &[f32], rows: Range<usize>, patches: &mut [f32]) {
        let run = self.kernel * self.channels;
        for (row, y) in rows.enumerate() {
            for dy in 0..self.kernel {
                let from = self.source_row(y, dy);
                for x in 0..self.out_width {
                    let to =
                        &mut patches[(row * self.out_width + x) * self.len() + dy * run..][..run];
                    match from {
                        None => to.fill(0.0),
                        Some(from) => {
                            let (inside, start) = self.source_columns(x);
                            to[..inside.start].fill(0.0);
                            to[inside.end..].fill(0.0);
                            let start = from + start;
                            let len = inside.len();
                            to[inside].copy_from_slice(&images[start..start + len]);
                        }
                    }
                }
            }
        }
    }

    /// Adds the patches of some output rows to the places in the images that they came from.
    pub fn fold(&self, patches: &[f32], rows: Range<usize>, images: &mut [f32]) {
        let run = self.kernel * self.channels;
        with_simd(
            #[inline(always)]
            || {
                for (row, y) in rows.enumerate() {
                    for dy in 0..self.kernel {
                        let Some(from) = self.source_row(y, dy) else { continue };
                        for x in 0..self.out_width {
                            let (inside, start) = self.source_columns(x);
                            let patch = &patches
                                [(row * self.out_width + x) * self.len() + dy * run..][inside];
                            let image = &mut images[from + start..][..patch.len()];
                            image.iter_mut().zip(patch).for_each(|(image, v)| *image += v);
                        }
                    }
                }
            },
        );
    }

    /// Output rows whose pixels a task of a weight's gradient takes at a time.
    fn part_rows(&self) -> usize {
        (PIXELS / self.out_width).max(1)
    }

    /// The gradient `dy [pixels, outputs]` in the parts that every such task multiplies with.
    pub fn gradient_parts<'a>(
        &self,
        precision: MatmulPrecision,
        dy: &'a [f32],
        outputs: usize,
    ) -> Vec<RightFactor<'a>> {
        let parts = dy.par_chunks(self.part_rows() * self.out_width * outputs);
        parts
            .map(|dy| precision.right(MatrixView::rows(dy, outputs), [dy.len() / outputs, outputs]))
            .collect()
    }

    /// The tasks that make a weight's gradient `dw [patch, outputs]`: each some channels under one
    /// tap.
    pub fn tap_blocks<'a>(&self, dw: &'a mut [f32], outputs: usize) -> Vec<TapBlock<'a>> {
        let taps = dw.chunks_mut(self.channels * outputs).enumerate();
        taps.flat_map(|(tap, dw)| {
            let blocks = dw.chunks_mut(BLOCK * outputs).enumerate();
            blocks.map(move |(block, dw)| TapBlock { tap, first: block * BLOCK, dw })
        })
        .collect()
    }

    /// Where the image row under row `dy` of the patches at output row `y` begins; `None` in the
    /// padding.
    #[inline(always)]
    pub fn source_row(&self, y: usize, dy: usize) -> Option<usize> {
        self.image_row(y / self.out_height, y % self.out_height * self.stride + dy)
    }

    /// Where row `y` of an image, counted from the first of its padding, begins; `None` in the
    /// padding.
    #[inline(always)]
    pub fn image_row(&self, image: usize, y: usize) -> Option<usize> {
        let y = y.checked_sub(self.above).filter(|y| *y < self.height)?;
        Some((image * self.height + y) * self.width * self.channels)
    }

    /// Numbers in a row of an image with its padding, as far as patches reach.
    pub fn line(&self) -> usize {
        ((self.out_width - 1) * self.stride + self.kernel) * self.channels
    }

    /// Where a result `[out_height, out_width, outputs]` passes its gradient back to: a convolution
    /// of the gradient, by the same taps in the opposite order. For a stride of 1.
    pub fn transposed(&self, outputs: usize) -> Self {
        Self {
            height: self.out_height,
            width: self.out_width,
            channels: outputs,
            above: self.kernel - 1 - self.above,
            left: self.kernel - 1 - self.left,
            out_height: self.height,
            out_width: self.width,
            ..*self
        }
    }

    /// Writes what lies under one tap at the pixels of output row `y`: `[out_width, channels]` of
    /// the channels from `first` on, zeros in the padding.
    fn under(
        &self,
        images: &[f32],
        y: usize,
        tap: usize,
        first: usize,
        channels: usize,
        out: &mut [f32],
    ) {
        let Some(row) = self.source_row(y, tap / self.kernel) else { return out.fill(0.0) };
        for (x, out) in out.chunks_exact_mut(channels).enumerate() {
            let column = (x * self.stride + tap % self.kernel).checked_sub(self.left);
            match column.filter(|column| *column < self.width) {
                None => out.fill(0.0),
                Some(column) => {
                    out.copy_from_slice(
                        &images[row + column * self.channels + first..][..channels],
                    );
                }
            }
        }
    }

    /// For a row of the patch at output column `x`: which of its numbers lie in the image, and
    /// where in the image's row they begin. Neighbouring columns lie side by side in both.
    #[inline(always)]
    fn source_columns(&self, x: usize) -> (Range<usize>, usize) {
        let first = x * self.stride;
        let skipped = self.left.saturating_sub(first);
        let column = first + skipped - self.left;
        let taken = (self.kernel - skipped).min(self.width - column);
        (skipped * self.channels..(skipped + taken) * self.channels, column * self.channels)
    }
}

/// The gradient of some rows of a weight: `dw [channels, outputs]` of the channels from `first` on
/// under one tap. One task adds up all of it, in the order of the pixels, so that no partial sums
/// have to be kept.
pub(super) struct TapBlock<'a> {
    tap: usize,
    first: usize,
    dw: &'a mut [f32],
}

impl TapBlock<'_> {
    /// Adds up what each output pixel contributes: the image under the tap times its gradient, of
    /// which `dy` has [`Patches::gradient_parts`].
    pub fn add_up(self, patches: &Patches, images: &[f32], outputs: usize, dy: &[RightFactor]) {
        let (channels, width) = (self.dw.len() / outputs, patches.out_width);
        let rows = patches.part_rows();
        let mut under = vec![0.0; rows * width * channels];
        for (part, dy) in dy.iter().enumerate() {
            for (row, under) in under.chunks_exact_mut(width * channels).enumerate() {
                if row * width < dy.depth() {
                    let y = part * rows + row;
                    patches.under(images, y, self.tap, self.first, channels, under);
                }
            }
            let under = MatrixView::rows(&under, channels).t();
            dy.multiply(channels, 1.0, under, WriteMode::Accumulate, self.dw, outputs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_have_zeros_around_the_image_and_fold_back() {
        let patches = Patches::padded([2, 3, 1], 3, 1);
        let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut found = patches.buffer();
        patches.unfold(&image, 0..2, &mut found);
        assert_eq!(found[..9], [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 4.0, 5.0]);
        assert_eq!(found[5 * 9..6 * 9], [2.0, 3.0, 0.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0]);

        // Each pixel comes back as often as patches hold it: 4 at the sides' ends, 6 in the middle.
        let mut back = [0.0; 6];
        patches.fold(&found, 0..2, &mut back);
        assert_eq!(back, [4.0, 12.0, 12.0, 16.0, 30.0, 24.0]);
    }

    #[test]
    fn a_stride_of_two_halves_the_image() {
        let patches = Patches::padded([4, 4, 1], 3, 2);
        assert_eq!((patches.out_height, patches.out_width), (2, 2));
        let image: Vec<f32> = (1..=16).map(|v| v as f32).collect();
        let mut found = patches.buffer();
        patches.unfold(&image, 0..2, &mut found);
        assert_eq!(found[3 * 9..4 * 9], [6.0, 7.0, 8.0, 10.0, 11.0, 12.0, 14.0, 15.0, 16.0]);
    }
}
