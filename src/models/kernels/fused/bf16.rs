//! The matrix product of factors rounded to bf16, summed in f32, by the instruction that x86
//! processors have for it (`vdpbf16ps`, AVX-512).
//!
//! Two numbers that follow one another along the summed axis share 32 bits: a pair. The right
//! factor is packed once, into panels of [`COLUMNS`] columns; the left one when it is used, some
//! rows at a time. A sum runs over blocks of [`DEPTH`] pairs, in order. Only the sizes decide where
//! blocks begin.
//!
//! Unsafe code loads and stores vectors, reads vectors as other vectors, and calls what is compiled
//! for these instructions.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::simd::{MatrixView, WriteMode};

/// Numbers of a vector, and pairs of one.
const LANES: usize = 16;
/// Rows of the result that are computed together.
const ROWS: usize = 8;
/// Columns of a panel: two vectors.
const COLUMNS: usize = 2 * LANES;
/// Pairs that are summed before the result is touched: their part of a panel stays in the nearest
/// cache.
const DEPTH: usize = 128;
/// Rows of the left factor that are packed together.
const BLOCK: usize = 64;

/// Sixteen pairs.
type Line = [u32; LANES];

const ZEROS: Line = [0; LANES];

/// A right factor `[k, n]`, rounded: `[panel, pair, COLUMNS]`.
pub(super) struct Packed {
    lines: Vec<Line>,
    k: usize,
    n: usize,
}

/// Whether the processor has the instructions.
fn is_supported() -> bool {
    use std::arch::is_x86_feature_detected as has;
    let wide = has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq");
    wide && has!("avx512bf16") && has!("avx2") && has!("fma")
}

impl Packed {
    /// `None` where the processor lacks the instructions. `b` is contiguous along one axis.
    pub fn new(b: MatrixView, [k, n]: [usize; 2]) -> Option<Self> {
        if !is_supported() {
            return None;
        }
        // SAFETY: the processor has the instructions, as just checked.
        let lines = unsafe { pack_right(b, [k, n]) };
        Some(Self { lines, k, n })
    }

    /// `out (+)= scale * a b` on this thread: `a` is `[m, k]` and contiguous along one axis, rows
    /// of `out` stand `width` apart.
    pub fn multiply(
        &self,
        m: usize,
        scale: f32,
        a: MatrixView,
        mode: WriteMode,
        out: &mut [f32],
        width: usize,
    ) {
        if self.lines.is_empty() {
            return;
        }
        let left = Left { a, m, k: self.k };
        let target = Target { out, width, scale, n: self.n };
        // SAFETY: the processor has the instructions: there is no `Packed` where it lacks them.
        unsafe { multiply(self, left, mode, target) }
    }
}

/// The left factor `[m, k]`.
#[derive(Clone, Copy)]
struct Left<'a> {
    a: MatrixView<'a>,
    m: usize,
    k: usize,
}

/// Where the product `[m, n]` goes.
struct Target<'a> {
    out: &'a mut [f32],
    width: usize,
    scale: f32,
    n: usize,
}

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
fn multiply(b: &Packed, left: Left, mode: WriteMode, mut target: Target) {
    let pairs = b.k.div_ceil(2);
    let by_rows = left.a.columns == 1;
    // A line more than a row needs, so that neighbours do not share places in the cache.
    let stride = pairs.div_ceil(LANES) + 1;
    let mut packed = Vec::new();
    for first in (0..left.m).step_by(BLOCK) {
        let rows = (left.m - first).min(BLOCK);
        let last = rows - 1;
        if by_rows {
            left.pack_rows(first, rows, stride, &mut packed);
        }
        for depth in (0..pairs).step_by(DEPTH) {
            let len = (pairs - depth).min(DEPTH);
            if !by_rows {
                left.pack_columns(first, rows, [depth, len], &mut packed);
            }
            let mode = if depth == 0 { mode } else { WriteMode::Accumulate };
            for (number, panel) in b.lines.chunks_exact(2 * pairs).enumerate() {
                let panel = panel[2 * depth..2 * (depth + len)].as_chunks().0;
                for tile in (0..rows).step_by(ROWS) {
                    let at = [first + tile, number * COLUMNS];
                    let tall = (rows - tile).min(ROWS);
                    if by_rows {
                        let mut rows = [&[][..]; ROWS];
                        for (row, pairs) in rows.iter_mut().enumerate() {
                            let row = (tile + row).min(last); // what is beyond is not written
                            *pairs =
                                &packed[row * stride..][..stride].as_flattened()[depth..][..len];
                        }
                        target.add_tile(at, tall, mode, panel, Rows(rows));
                    } else {
                        let lines = &packed[tile / LANES * len..][..len];
                        target.add_tile(at, tall, mode, panel, Lines(lines, tile % LANES / ROWS));
                    }
                }
            }
        }
    }
}

/// The pairs of a tile's rows, of the left factor.
trait Tile {
    fn pairs(&self, pair: usize) -> [u32; ROWS];
}

/// Row by row.
struct Rows<'a>([&'a [u32]; ROWS]);

/// All rows side by side; which half of a line they are.
struct Lines<'a>(&'a [Line], usize);

impl Tile for Rows<'_> {
    #[inline(always)]
    fn pairs(&self, pair: usize) -> [u32; ROWS] {
        let mut pairs = [0; ROWS];
        for (to, row) in pairs.iter_mut().zip(self.0) {
            *to = row[pair];
        }
        pairs
    }
}

impl Tile for Lines<'_> {
    #[inline(always)]
    fn pairs(&self, pair: usize) -> [u32; ROWS] {
        self.0[pair].as_chunks().0[self.1]
    }
}

impl Left<'_> {
    /// Some rows, whose numbers stand side by side, as rows of pairs: `[row, stride]`.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    fn pack_rows(&self, first: usize, rows: usize, stride: usize, packed: &mut Vec<Line>) {
        packed.clear();
        packed.reserve(rows * stride);
        for row in first..first + rows {
            let numbers = &self.a.data[row * self.a.rows..][..self.k];
            for numbers in numbers.chunks(2 * LANES) {
                packed.push(neighbours(numbers));
            }
            packed.push(ZEROS);
        }
    }

    /// Some rows of some pairs of columns, whose numbers stand side by side: `[rows / LANES, pair,
    /// LANES]`.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    fn pack_columns(
        &self,
        first: usize,
        rows: usize,
        [depth, len]: [usize; 2],
        packed: &mut Vec<Line>,
    ) {
        packed.clear();
        packed.reserve(rows.div_ceil(LANES) * len);
        for block in (0..rows).step_by(LANES) {
            let count = (rows - block).min(LANES);
            for pair in depth..depth + len {
                let [upper, lower] = paired(self.a.t(), pair, self.k, first + block, count);
                packed.push(stacked(upper, lower));
            }
        }
    }
}

/// Of rows `2 pair` and `2 pair + 1` of a matrix with `rows` rows: `count` numbers from `first` on.
/// The second is empty behind the last row.
#[inline(always)]
fn paired(
    matrix: MatrixView<'_>,
    pair: usize,
    rows: usize,
    first: usize,
    count: usize,
) -> [&[f32]; 2] {
    let [upper, lower] = [2 * pair, 2 * pair + 1];
    let beside = &matrix.data[upper * matrix.rows + first..][..count];
    if lower < rows {
        [beside, &matrix.data[lower * matrix.rows + first..][..count]]
    } else {
        [beside, &[]]
    }
}

/// What comes behind the first numbers of a row.
#[inline(always)]
fn behind(row: &[f32], first: usize) -> &[f32] {
    row.get(first..).unwrap_or_default()
}

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
fn pack_right(b: MatrixView, [k, n]: [usize; 2]) -> Vec<Line> {
    let pairs = k.div_ceil(2);
    let mut lines = Vec::with_capacity(n.div_ceil(COLUMNS) * pairs * 2);
    for first in (0..n).step_by(COLUMNS) {
        let count = (n - first).min(COLUMNS);
        if b.columns == 1 {
            for pair in 0..pairs {
                let [upper, lower] = paired(b, pair, k, first, count);
                lines.push(stacked(upper, lower));
                lines.push(stacked(behind(upper, LANES), behind(lower, LANES)));
            }
            continue;
        }
        let panel = lines.len();
        lines.resize(panel + 2 * pairs, ZEROS);
        let panel = lines[panel..].as_chunks_mut::<2>().0;
        for column in 0..count {
            let numbers = &b.data[(first + column) * b.columns..][..k];
            for (numbers, lines) in numbers.chunks(2 * LANES).zip(panel.chunks_mut(LANES)) {
                for (line, pair) in lines.iter_mut().zip(neighbours(numbers)) {
                    line[column / LANES][column % LANES] = pair;
                }
            }
        }
    }
    lines
}

impl Target<'_> {
    /// Adds up the pairs of a panel for the rows of a tile, and writes them from `[row, column]`
    /// on: `tall` rows, and as many columns as there are.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    #[inline]
    fn add_tile(
        &mut self,
        [row, column]: [usize; 2],
        tall: usize,
        mode: WriteMode,
        panel: &[[Line; 2]],
        left: impl Tile,
    ) {
        if self.n - column > LANES {
            self.write([row, column], tall, mode, sums::<2>(panel, left));
        } else {
            self.write([row, column], tall, mode, sums::<1>(panel, left));
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
    #[inline]
    fn write<const VECTORS: usize>(
        &mut self,
        [first, column]: [usize; 2],
        tall: usize,
        mode: WriteMode,
        sums: [[__m512; VECTORS]; ROWS],
    ) {
        let columns = (self.n - column).min(COLUMNS);
        let scale = _mm512_set1_ps(self.scale);
        for (row, sums) in sums.iter().enumerate().take(tall) {
            let out = &mut self.out[(first + row) * self.width + column..][..columns];
            let (whole, rest) = out.as_chunks_mut::<LANES>();
            let mut sums = sums.iter();
            for (out, sum) in whole.iter_mut().zip(sums.by_ref()) {
                finish(*sum, scale, mode, out);
            }
            if let (false, Some(sum)) = (rest.is_empty(), sums.next()) {
                finish(*sum, scale, mode, rest);
            }
        }
    }
}

/// Scales some sums, adds what stands in their places where that is asked for, and writes them.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
#[inline]
fn finish(sum: __m512, scale: __m512, mode: WriteMode, out: &mut [f32]) {
    let value = _mm512_mul_ps(sum, scale);
    let total = match mode {
        WriteMode::Overwrite => value,
        WriteMode::Accumulate => _mm512_add_ps(load(out), value),
    };
    store(total, out);
}

/// The sums over the pairs of a panel, of each row of a tile.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
#[inline]
fn sums<const VECTORS: usize>(panel: &[[Line; 2]], left: impl Tile) -> [[__m512; VECTORS]; ROWS] {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    for (pair, lines) in panel.iter().enumerate() {
        let left = left.pairs(pair);
        let mut right = [_mm512_setzero_si512(); VECTORS];
        for (right, line) in right.iter_mut().zip(lines) {
            // SAFETY: a line is 64 bytes that can be read; nothing needs to be aligned.
            *right = unsafe { _mm512_loadu_si512(line.as_ptr().cast()) };
        }
        for (sums, left) in sums.iter_mut().zip(left) {
            let left = as_bf16(_mm512_set1_epi32(left.cast_signed()));
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = _mm512_dpbf16_ps(*sum, left, as_bf16(right));
            }
        }
    }
    sums
}

/// Which of sixteen lanes a slice has numbers for.
#[inline(always)]
fn lanes(len: usize) -> u16 {
    if len < LANES { (1 << len) - 1 } else { u16::MAX }
}

/// Up to sixteen numbers, and zeros behind them.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
#[inline]
fn load(numbers: &[f32]) -> __m512 {
    // SAFETY: the mask has only lanes for which there is a number, and others are not touched.
    // Nothing needs to be aligned.
    unsafe { _mm512_maskz_loadu_ps(lanes(numbers.len()), numbers.as_ptr()) }
}

/// Writes as many of sixteen numbers as there is room for.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
#[inline]
fn store(vector: __m512, numbers: &mut [f32]) {
    // SAFETY: the mask has only lanes for which there is room, and others are not touched. Nothing
    // needs to be aligned.
    unsafe { _mm512_mask_storeu_ps(numbers.as_mut_ptr(), lanes(numbers.len()), vector) }
}

/// Up to 32 numbers, rounded, as pairs of neighbours.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
#[inline]
fn neighbours(numbers: &[f32]) -> Line {
    let (first, second) = numbers.split_at(numbers.len().min(LANES));
    line(as_bits(_mm512_cvtne2ps_pbh(load(second), load(first))))
}

/// Up to sixteen numbers of each of two rows, rounded, as pairs of one above the other.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
#[inline]
fn stacked(upper: &[f32], lower: &[f32]) -> Line {
    let both = as_bits(_mm512_cvtne2ps_pbh(load(lower), load(upper)));
    let order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
        19, 3, 18, 2, 17, 1, 16, 0,
    );
    line(_mm512_permutexvar_epi16(order, both))
}

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
#[inline]
fn line(vector: __m512i) -> Line {
    let mut line = ZEROS;
    // SAFETY: a line has room for 64 bytes; nothing needs to be aligned.
    unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), vector) };
    line
}

#[inline(always)]
fn as_bits(vector: __m512bh) -> __m512i {
    // SAFETY: both are 512 bits, and any of them are valid.
    unsafe { std::mem::transmute(vector) }
}

#[inline(always)]
fn as_bf16(vector: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits, and any of them are valid.
    unsafe { std::mem::transmute(vector) }
}
