//! Matrix products of `f32` numbers by the vector instructions of x86 processors (AVX2, AVX-512),
//! which read their left factor where it lies.
//!
//! A product in general copies both factors into an order of its own first, which costs much where
//! the result is narrow: a convolution to 32 channels copies each number for 32 multiplications.
//! Here only the right factor is packed, once, into panels as wide as two vectors. Rows of the left
//! factor may begin anywhere and are made of runs: patches of a padded image are such rows, so that
//! a convolution needs no unfolded copy of its image. (The panels are those of Goto and van de
//! Geijn 2008, "Anatomy of high-performance matrix multiplication".)
//!
//! One thread computes each number, in an order that only the sizes and the width of the
//! processor's vectors decide.
//!
//! Unsafe code calls what is compiled for these instructions. Everything is checked before the call.
#![allow(unsafe_code)]

#[cfg_attr(not(target_arch = "x86_64"), path = "none.rs")]
mod vectors;

use rayon::prelude::*;

use super::simd::{MatrixView, WriteMode};
use vectors::Width;

/// Numbers of a row that are summed before the result is touched: their part of a panel stays in
/// the nearest cache.
const DEPTH: usize = 320;
/// Numbers of both factors that are worked on together where the left one is transposed: the
/// nearest cache holds them.
const NEAR: usize = 6 * 1024;
/// Numbers that each further row of a transposed left factor may bring. Rows of more, often a power
/// of two apart, share places of the nearest cache; a product that packs both factors is faster.
const APART: usize = 96;
/// Numbers in a panel from which on packing it is a task of its own.
const LARGE: usize = 16 * 1024;

/// Whether the processor has the instructions.
pub(super) fn is_supported() -> bool {
    Width::of_processor().is_some()
}

/// Whether [`add_transposed`] is good for rows that bring so many numbers each.
pub(super) fn adds_transposed(apart: usize) -> bool {
    is_supported() && apart <= APART
}

/// Columns of a panel of a factor with so many. `None` where the processor lacks the instructions.
pub(super) fn panel_columns(outputs: usize) -> Option<usize> {
    Width::of_processor().map(|width| width.columns(outputs))
}

/// A left factor: row `i` is `runs` runs of `run` numbers, `step` apart, the first at `at[i]`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub data: &'a [f32],
    pub at: &'a [usize],
    pub runs: usize,
    pub run: usize,
    pub step: usize,
}

impl Left<'_> {
    /// Whether all numbers are there.
    fn is_whole(&self) -> bool {
        let last = self.runs.saturating_sub(1) * self.step + self.run;
        self.at.iter().max().is_none_or(|at| at + last <= self.data.len())
    }

    /// The parts of a row that are summed at a time.
    fn blocks(self) -> impl Iterator<Item = Block> {
        // Parts of a run, or several runs.
        let parts = self.run.div_ceil(DEPTH).max(1);
        let (len, together) = (self.run.div_ceil(parts), (DEPTH / self.run.max(1)).max(1));
        (0..self.runs).step_by(together).flat_map(move |run| {
            (0..self.run).step_by(len.max(1)).map(move |first| Block {
                offset: run * self.step + first,
                depth: run * self.run + first,
                runs: together.min(self.runs - run),
                run: len.min(self.run - first),
                step: self.step,
            })
        })
    }
}

/// A part of a row: `runs` runs of `run` numbers, `step` apart.
#[derive(Clone, Copy)]
struct Block {
    /// Where it begins in the row.
    offset: usize,
    /// Where it begins in the sum.
    depth: usize,
    runs: usize,
    run: usize,
    step: usize,
}

impl Block {
    /// Numbers from its first to its last.
    fn extent(self) -> usize {
        (self.runs - 1) * self.step + self.run
    }
}

/// A right factor `[depth, outputs]`: `[panel, depth, columns]`, zeros behind the last column.
pub(super) struct Packed {
    numbers: Vec<f32>,
    depth: usize,
    outputs: usize,
    width: Width,
}

/// As many rows as the largest tile has, from a block's first number to its last. Those beyond the
/// last row are not written.
struct Rows<'a> {
    rows: [&'a [f32]; 8],
    block: Block,
}

/// Some columns of a left factor: in each row they begin at `at`.
#[derive(Clone, Copy)]
struct Columns<'a> {
    data: &'a [f32],
    at: &'a [usize],
}

/// Where the sums of a tile go: `tall` rows of `count` numbers, `width` apart.
struct Target<'a> {
    out: &'a mut [f32],
    width: usize,
    tall: usize,
    count: usize,
    scale: f32,
    mode: WriteMode,
}

impl Packed {
    /// The factor whose row `i` is `row(i)`, `outputs` numbers. `None` where the processor lacks
    /// the instructions.
    pub fn of_rows<'a>(
        depth: usize,
        outputs: usize,
        row: impl Fn(usize) -> &'a [f32] + Sync,
    ) -> Option<Self> {
        let width = Width::of_processor()?;
        let columns = width.columns(outputs);
        let mut numbers = vec![0.0; outputs.div_ceil(columns) * depth * columns];
        let len = (depth * columns).max(1);
        let fill = |(panel, numbers): (usize, &mut [f32])| {
            let first = panel * columns;
            let count = (outputs - first).min(columns);
            for (number, to) in numbers.chunks_exact_mut(columns).enumerate() {
                to[..count].copy_from_slice(&row(number)[first..][..count]);
            }
        };
        if len < LARGE {
            numbers.chunks_mut(len).enumerate().for_each(fill);
        } else {
            numbers.par_chunks_mut(len).enumerate().for_each(fill);
        }
        Some(Self { numbers, depth, outputs, width })
    }

    /// The factor `b [depth, outputs]`, whose rows are contiguous. `None` where the processor lacks
    /// the instructions.
    pub fn new(b: MatrixView<'_>, [depth, outputs]: [usize; 2]) -> Option<Self> {
        assert!(b.holds(depth, outputs), "a matrix is smaller than its product needs");
        assert!(b.columns == 1, "rows are not contiguous");
        Self::of_rows(depth, outputs, |row| &b.data[row * b.rows..][..outputs])
    }

    /// `out (+)= scale * left self` on this thread. Rows of `out` stand `width` apart.
    pub fn multiply(&self, left: Left, scale: f32, mode: WriteMode, out: &mut [f32], width: usize) {
        let rows = left.at.len();
        assert!(left.is_whole(), "a matrix is smaller than its product needs");
        assert_eq!(left.runs * left.run, self.depth, "factors of different depths");
        if rows == 0 || self.numbers.is_empty() {
            return;
        }
        assert!(self.outputs <= width && (rows - 1) * width + self.outputs <= out.len());
        let (columns, tall) = (self.width.columns(self.outputs), self.width.rows());
        for (number, panel) in self.numbers.chunks_exact(self.depth * columns).enumerate() {
            let first = number * columns;
            let count = (self.outputs - first).min(columns);
            for block in left.blocks() {
                let mode = if block.depth == 0 { mode } else { WriteMode::Accumulate };
                let panel = &panel[block.depth * columns..][..block.runs * block.run * columns];
                for (tile, at) in left.at.chunks(tall).enumerate() {
                    let row = |row: usize| {
                        &left.data[at[row.min(at.len() - 1)] + block.offset..][..block.extent()]
                    };
                    let rows = Rows { rows: std::array::from_fn(row), block };
                    let out = &mut out[tile * tall * width + first..];
                    let target = Target { out, width, tall: at.len(), count, scale, mode };
                    // SAFETY: the processor has the instructions, as `self.width` says. Each row
                    // has the block's numbers, and the panel has as many rows.
                    unsafe { self.width.multiply(columns, &rows, panel, target) }
                }
            }
        }
    }

    /// Columns of the factor.
    pub fn outputs(&self) -> usize {
        self.outputs
    }
}

/// `out += leftᵀ right` on this thread: rows of `left` are one run; those of `right` begin at
/// `right_at` and have `outputs` numbers. `out` is `[run, outputs]`, its rows stand `width` apart.
///
/// Callers ask [`adds_transposed`] first.
#[allow(clippy::expect_used, reason = "the processor was asked before; no input decides it")]
pub(super) fn add_transposed(
    left: Left,
    right: &[f32],
    right_at: &[usize],
    outputs: usize,
    out: &mut [f32],
    width: usize,
) {
    let vectors = Width::of_processor().expect("the caller asks whether there are such products");
    assert!(left.is_whole() && left.runs == 1, "a matrix is smaller than its product needs");
    assert_eq!(left.at.len(), right_at.len(), "factors of different depths");
    if left.at.is_empty() || outputs == 0 || left.run == 0 {
        return;
    }
    assert!(outputs <= width && (left.run - 1) * width + outputs <= out.len());
    let columns = vectors.columns(outputs);
    // What each further row brings. Patches share most of their numbers with their neighbours.
    let apart = left.at.get(1).map_or(left.run, |at| at.abs_diff(left.at[0]).min(left.run));
    let chunk = (NEAR / (apart + columns)).clamp(24, 128);
    let mut panel = vec![0.0; chunk.min(right_at.len()) * columns];
    for (left_at, right_at) in left.at.chunks(chunk).zip(right_at.chunks(chunk)) {
        let panel = &mut panel[..right_at.len() * columns];
        for first in (0..outputs).step_by(columns) {
            let count = (outputs - first).min(columns);
            let right = &right[first..];
            match count {
                8 => pack_rows::<8>(right, right_at, panel, columns),
                16 => pack_rows::<16>(right, right_at, panel, columns),
                32 => pack_rows::<32>(right, right_at, panel, columns),
                _ => {
                    for (to, at) in panel.chunks_exact_mut(columns).zip(right_at) {
                        to[..count].copy_from_slice(&right[*at..][..count]);
                    }
                }
            }
            for [top, tall] in heights(left.run, vectors.rows()) {
                let left = Columns { data: &left.data[top..], at: left_at };
                let out = &mut out[top * width + first..];
                let mode = WriteMode::Accumulate;
                let target = Target { out, width, tall, count, scale: 1.0, mode };
                // SAFETY: the processor has the instructions. `left` is whole, so that `tall`
                // numbers from `top` on are there; the panel has a row for each place.
                unsafe { vectors.multiply_transposed(columns, tall, left, panel, target) }
            }
        }
    }
}

/// Copies `N` numbers from each place to the rows of a panel: of known length, in a few
/// instructions. What stands behind them is not wanted.
fn pack_rows<const N: usize>(from: &[f32], at: &[usize], panel: &mut [f32], columns: usize) {
    for (to, at) in panel.chunks_exact_mut(columns).zip(at) {
        let row: &[f32; N] = from[*at..][..N].as_array().unwrap_or(&[0.0; N]);
        to[..N].copy_from_slice(row);
    }
}

/// Cuts `rows` rows into tiles: where each begins, and its height, which is `whole`, 4 or 1. Two of
/// four rows take less time than one of six and two of one.
fn heights(rows: usize, whole: usize) -> impl Iterator<Item = [usize; 2]> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let tall = match rows - first {
            0 => return None,
            left if left >= whole && left != whole + 2 => whole,
            left if left >= 4 => 4,
            _ => 1,
        };
        first += tall;
        Some([first - tall, tall])
    })
}

#[cfg(test)]
mod tests;
