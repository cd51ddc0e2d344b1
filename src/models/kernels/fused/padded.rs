//! Convolutions of images whose rows are copied with their padding, a few at a time. In such a copy
//! each patch is a few runs of numbers, which products read where they lie.

use std::ops::Range;

use rayon::prelude::*;

use super::fresh::in_pieces_of;
use super::im2col::Patches;
use super::partition::task_rows;
use super::product::{self, Left, Packed};
use super::simd::WriteMode;

/// Output pixels that one task takes at most.
const PIXELS: usize = 256;
/// Output pixels that a weight's gradient takes at a time, about.
const CHUNK: usize = 128;
/// Rows of a weight's gradient that one task makes at most. Each task copies the image's rows.
const PIECE: usize = 192;
/// Tasks that the columns of a weight's gradient are divided among, at most.
const GROUPS: usize = 4;

/// Some rows of images, with their padding.
#[derive(Default)]
pub(super) struct Padded {
    numbers: Vec<f32>,
    /// Where the patch of each output pixel begins.
    at: Vec<usize>,
}

impl Padded {
    fn clear(&mut self) {
        self.numbers.clear();
        self.at.clear();
    }

    /// Copies what lies under some output rows, which are counted through all images.
    pub fn fill(&mut self, patches: &Patches, images: &[f32], rows: Range<usize>) {
        self.clear();
        let mut row = rows.start;
        while row < rows.end {
            let first = row % patches.out_height;
            let count = (rows.end - row).min(patches.out_height - first);
            let start = self.numbers.len();
            for line in 0..(count - 1) * patches.stride + patches.kernel {
                let from =
                    patches.image_row(row / patches.out_height, first * patches.stride + line);
                self.push_line(patches, images, from);
            }
            for row in 0..count {
                self.push_places(patches, start + row * patches.stride * patches.line());
            }
            row += count;
        }
    }

    /// Appends the image's row that begins at `from`, or zeros.
    fn push_line(&mut self, patches: &Patches, images: &[f32], from: Option<usize>) {
        let end = self.numbers.len() + patches.line();
        if let Some(from) = from {
            let left = patches.left * patches.channels;
            self.numbers.resize(end - patches.line() + left, 0.0);
            let taken = (patches.width * patches.channels).min(patches.line() - left);
            self.numbers.extend_from_slice(&images[from..from + taken]);
        }
        self.numbers.resize(end, 0.0);
    }

    /// Appends where the patches of a row of output pixels begin, the first at `start`.
    fn push_places(&mut self, patches: &Patches, start: usize) {
        let apart = patches.stride * patches.channels;
        self.at.extend((0..patches.out_width).map(|x| start + x * apart));
    }

    /// The patches: a row for each output pixel.
    pub fn left(&self, patches: &Patches) -> Left<'_> {
        let run = patches.kernel * patches.channels;
        Left { data: &self.numbers, at: &self.at, runs: patches.kernel, run, step: patches.line() }
    }
}

/// Output rows that one task takes.
pub(super) fn rows_of_task(patches: &Patches, rows: usize) -> usize {
    (task_rows(rows * patches.out_width, PIXELS) / patches.out_width).max(1)
}

/// The convolution of `images` with `weight [patch, outputs]`, and `bias [outputs]` added, or one
/// number for all: `[rows, out_width, outputs]` of all output rows.
pub(super) fn convolve(
    patches: &Patches,
    images: &[f32],
    weight: &Packed,
    bias: &[f32],
) -> Vec<f32> {
    let n = weight.outputs();
    let rows = images.len() / patches.image() * patches.out_height;
    let task = rows_of_task(patches, rows);
    let row = patches.out_width * n;
    let work = |padded: &mut Padded, number: usize, y: &mut [f32]| {
        let first = number * task;
        padded.fill(patches, images, first..first + y.len() / row);
        weight.multiply(padded.left(patches), 1.0, WriteMode::Accumulate, y, n);
    };
    in_pieces_of(bias, rows * row, task * row, Padded::default, work).0
}

/// The gradient `[patch, outputs]` of the weight of a convolution of `images`, whose result has the
/// gradient `dy [rows, out_width, outputs]`. `None` where the processor lacks the instructions, or
/// there are more channels than this is good for.
pub(super) fn weight_gradient(
    patches: &Patches,
    images: &[f32],
    dy: &[f32],
    outputs: usize,
) -> Option<Vec<f32>> {
    if !product::adds_transposed(patches.stride * patches.channels) {
        return None;
    }
    let columns = product::panel_columns(outputs)?;
    let run = patches.kernel * patches.channels;
    let mut dw = vec![0.0; patches.len() * outputs];
    let columns = outputs.div_ceil(columns).div_ceil(GROUPS) * columns;
    // A task makes some rows of one row of taps, of some panels.
    let mut pieces = Vec::new();
    for tap in 0..patches.kernel {
        for first in (0..run).step_by(PIECE) {
            pieces.extend((0..outputs).step_by(columns).map(|column| (tap, first, column)));
        }
    }
    let found: Vec<Vec<f32>> = pieces
        .par_iter()
        .map(|(tap, first, column)| {
            let rows = *first..run.min(first + PIECE);
            let columns = *column..outputs.min(column + columns);
            piece_of_gradient(patches, images, dy, outputs, *tap, rows, columns)
        })
        .collect();
    for ((tap, first, column), piece) in pieces.into_iter().zip(found) {
        let count = columns.min(outputs - column);
        for (row, numbers) in piece.chunks_exact(count).enumerate() {
            let row = tap * run + first + row;
            dw[row * outputs + column..][..count].copy_from_slice(numbers);
        }
    }
    Some(dw)
}

/// Of the gradient of a weight: some of the rows under row `tap` of the kernel, and some columns.
fn piece_of_gradient(
    patches: &Patches,
    images: &[f32],
    dy: &[f32],
    outputs: usize,
    tap: usize,
    rows: Range<usize>,
    columns: Range<usize>,
) -> Vec<f32> {
    let count = columns.len();
    let mut piece = vec![0.0; rows.len() * count];
    let (mut padded, mut right_at) = (Padded::default(), Vec::new());
    let all = images.len() / patches.image() * patches.out_height;
    let together = (CHUNK / patches.out_width).max(1);
    let mut add = |padded: &mut Padded, right_at: &mut Vec<usize>| {
        let left = Left {
            data: &padded.numbers[rows.start.min(padded.numbers.len())..],
            at: &padded.at,
            runs: 1,
            run: rows.len(),
            step: 0,
        };
        product::add_transposed(left, dy, right_at, count, &mut piece, count);
        padded.clear();
        right_at.clear();
    };
    for row in 0..all {
        // Padding adds nothing.
        let Some(from) = patches.source_row(row, tap) else { continue };
        let start = padded.numbers.len();
        padded.push_line(patches, images, Some(from));
        padded.push_places(patches, start);
        let first = row * patches.out_width * outputs + columns.start;
        right_at.extend((0..patches.out_width).map(|x| first + x * outputs));
        if right_at.len() >= together * patches.out_width {
            add(&mut padded, &mut right_at);
        }
    }
    add(&mut padded, &mut right_at);
    piece
}
