//! Tiles of a product, computed by vector instructions: some rows by the one or two vectors of a
//! panel, whose sums stay in registers.
//!
//! Each tile is a call of its own. Inlined into the loops around them, the compiler spreads their
//! bookkeeping over the innermost loop, at half the speed.
//!
//! Unsafe code loads and stores vectors, and calls what is compiled for them.
#![allow(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "loops of known length over indices become registers; iterators over arrays of vectors do not"
)]

use std::arch::x86_64::*;

use super::{Block, Columns, Rows, Target};
use crate::kernels::fused::simd::WriteMode;

/// Columns of the widest panel.
const COLUMNS: usize = 32;

/// The vectors that a processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Avx2,
    Avx512,
}

impl Width {
    /// `None` where it has none of these.
    pub fn of_processor() -> Option<Self> {
        use std::arch::is_x86_feature_detected as has;
        if !has!("avx2") || !has!("fma") {
            return None;
        }
        let wide = has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq");
        Some(if wide { Self::Avx512 } else { Self::Avx2 })
    }

    fn lanes(self) -> usize {
        match self {
            Self::Avx2 => <__m256 as Vector>::LANES,
            Self::Avx512 => <__m512 as Vector>::LANES,
        }
    }

    /// Columns of a panel: two vectors, or one where there are no more.
    pub fn columns(self, outputs: usize) -> usize {
        if outputs <= self.lanes() { self.lanes() } else { 2 * self.lanes() }
    }

    /// Rows of a tile: with two vectors each, their sums fill the registers.
    pub fn rows(self) -> usize {
        match self {
            Self::Avx2 => 6,
            Self::Avx512 => 8,
        }
    }

    /// The sums over the rows of a panel with `columns` columns, of each of `rows`.
    ///
    /// # Safety
    /// The processor has these vectors. Each row has the numbers of its block, and the panel a row
    /// for each of them.
    pub unsafe fn multiply(self, columns: usize, rows: &Rows, panel: &[f32], target: Target) {
        // SAFETY: the caller's.
        unsafe {
            match (self, columns == self.lanes()) {
                (Self::Avx2, true) => multiply_avx2::<1>(rows, panel, target),
                (Self::Avx2, false) => multiply_avx2::<2>(rows, panel, target),
                (Self::Avx512, true) => multiply_avx512::<1>(rows, panel, target),
                (Self::Avx512, false) => multiply_avx512::<2>(rows, panel, target),
            }
        }
    }

    /// The sums over the rows of a panel with `columns` columns, of each of `tall` columns of the
    /// left factor. `tall` is that of a tile, 4 or 1.
    ///
    /// # Safety
    /// The processor has these vectors. `tall` numbers follow each place of the left factor, which
    /// has one for each row of the panel.
    pub unsafe fn multiply_transposed(
        self,
        columns: usize,
        tall: usize,
        left: Columns,
        panel: &[f32],
        target: Target,
    ) {
        // SAFETY: the caller's.
        unsafe {
            match (self, columns == self.lanes(), tall) {
                (Self::Avx2, true, 1) => transposed_avx2::<1, 1>(left, panel, target),
                (Self::Avx2, true, 4) => transposed_avx2::<4, 1>(left, panel, target),
                (Self::Avx2, true, _) => transposed_avx2::<6, 1>(left, panel, target),
                (Self::Avx2, false, 1) => transposed_avx2::<1, 2>(left, panel, target),
                (Self::Avx2, false, 4) => transposed_avx2::<4, 2>(left, panel, target),
                (Self::Avx2, false, _) => transposed_avx2::<6, 2>(left, panel, target),
                (Self::Avx512, true, 1) => transposed_avx512::<1, 1>(left, panel, target),
                (Self::Avx512, true, 4) => transposed_avx512::<4, 1>(left, panel, target),
                (Self::Avx512, true, _) => transposed_avx512::<8, 1>(left, panel, target),
                (Self::Avx512, false, 1) => transposed_avx512::<1, 2>(left, panel, target),
                (Self::Avx512, false, 4) => transposed_avx512::<4, 2>(left, panel, target),
                (Self::Avx512, false, _) => transposed_avx512::<8, 2>(left, panel, target),
            }
        }
    }
}

/// Some numbers side by side. Its functions are for processors that have such vectors, and for
/// places with room for one.
trait Vector: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn broadcast(at: *const f32) -> Self;
    /// `self + a * b`, rounded once.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    unsafe fn store(self, at: *mut f32);
}

macro_rules! vector {
    ($type:ty, $lanes:literal, $zero:ident, $load:ident, $set1:ident, $fmadd:ident, $store:ident) => {
        // SAFETY: what the trait asks for is what each instruction needs; nothing needs to be
        // aligned.
        impl Vector for $type {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn zero() -> Self {
                unsafe { $zero() }
            }
            #[inline(always)]
            unsafe fn load(at: *const f32) -> Self {
                unsafe { $load(at) }
            }
            #[inline(always)]
            unsafe fn broadcast(at: *const f32) -> Self {
                unsafe { $set1(*at) }
            }
            #[inline(always)]
            unsafe fn add_product(self, a: Self, b: Self) -> Self {
                unsafe { $fmadd(a, b, self) }
            }
            #[inline(always)]
            unsafe fn store(self, at: *mut f32) {
                unsafe { $store(at, self) }
            }
        }
    };
}
vector!(
    __m256,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_storeu_ps
);
vector!(
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_storeu_ps
);

#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn multiply_avx2<const VECTORS: usize>(rows: &Rows, panel: &[f32], target: Target) {
    // SAFETY: the caller's.
    unsafe { multiply::<__m256, 6, VECTORS>(rows, panel, target) }
}

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
#[inline(never)]
unsafe fn multiply_avx512<const VECTORS: usize>(rows: &Rows, panel: &[f32], target: Target) {
    // SAFETY: the caller's.
    unsafe { multiply::<__m512, 8, VECTORS>(rows, panel, target) }
}

#[target_feature(enable = "avx2,fma")]
#[inline(never)]
unsafe fn transposed_avx2<const ROWS: usize, const VECTORS: usize>(
    left: Columns,
    panel: &[f32],
    target: Target,
) {
    // SAFETY: the caller's.
    unsafe { transposed::<__m256, ROWS, VECTORS>(left, panel, target) }
}

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
#[inline(never)]
unsafe fn transposed_avx512<const ROWS: usize, const VECTORS: usize>(
    left: Columns,
    panel: &[f32],
    target: Target,
) {
    // SAFETY: the caller's.
    unsafe { transposed::<__m512, ROWS, VECTORS>(left, panel, target) }
}

/// # Safety
/// That of [`Width::multiply`].
#[inline(always)]
unsafe fn multiply<V: Vector, const ROWS: usize, const VECTORS: usize>(
    rows: &Rows,
    panel: &[f32],
    target: Target,
) {
    let columns = VECTORS * V::LANES;
    let mut sums = [[unsafe { V::zero() }; VECTORS]; ROWS];
    let mut from = [panel.as_ptr(); ROWS];
    for row in 0..ROWS {
        from[row] = rows.rows[row].as_ptr();
    }
    let Block { runs, run, step, .. } = rows.block;
    let mut panel = panel.as_ptr();
    for _ in 0..runs {
        // SAFETY: each row has the numbers of its block, the panel a row for each, by the caller's
        // word.
        unsafe {
            for k in 0..run {
                let mut right = [V::zero(); VECTORS];
                for vector in 0..VECTORS {
                    right[vector] = V::load(panel.add(vector * V::LANES));
                }
                for row in 0..ROWS {
                    let left = V::broadcast(from[row].add(k));
                    for vector in 0..VECTORS {
                        sums[row][vector] = sums[row][vector].add_product(left, right[vector]);
                    }
                }
                panel = panel.add(columns);
            }
        }
        for row in 0..ROWS {
            from[row] = from[row].wrapping_add(step); // beyond the last run it is not read
        }
    }
    // SAFETY: the caller's.
    unsafe { write(sums, target) }
}

/// # Safety
/// That of [`Width::multiply_transposed`], with `tall` being `ROWS`.
#[inline(always)]
unsafe fn transposed<V: Vector, const ROWS: usize, const VECTORS: usize>(
    left: Columns,
    panel: &[f32],
    target: Target,
) {
    let columns = VECTORS * V::LANES;
    let mut sums = [[unsafe { V::zero() }; VECTORS]; ROWS];
    for (at, panel) in left.at.iter().zip(panel.chunks_exact(columns)) {
        // SAFETY: a row of the panel is as long, and `ROWS` numbers are at each place, by the
        // caller's word.
        unsafe {
            let left = left.data.as_ptr().add(*at);
            let mut right = [V::zero(); VECTORS];
            for vector in 0..VECTORS {
                right[vector] = V::load(panel.as_ptr().add(vector * V::LANES));
            }
            for row in 0..ROWS {
                let left = V::broadcast(left.add(row));
                for vector in 0..VECTORS {
                    sums[row][vector] = sums[row][vector].add_product(left, right[vector]);
                }
            }
        }
    }
    // SAFETY: the caller's.
    unsafe { write(sums, target) }
}

/// Scales the sums, adds what stands in their places where that is asked for, and writes them.
///
/// # Safety
/// The processor has such vectors.
#[inline(always)]
unsafe fn write<V: Vector, const ROWS: usize, const VECTORS: usize>(
    sums: [[V; VECTORS]; ROWS],
    target: Target,
) {
    let Target { out, width, tall, count, scale, mode } = target;
    let (tall, adds) = (tall.min(ROWS), mode == WriteMode::Accumulate);
    assert!(tall > 0 && count <= width && (tall - 1) * width + count <= out.len());
    // SAFETY: the caller's. Whole vectors are written to `out` only where it has room for them.
    unsafe {
        let scale = V::broadcast(&scale);
        if count == VECTORS * V::LANES {
            for row in 0..ROWS {
                if row < tall {
                    for vector in 0..VECTORS {
                        let to = out.as_mut_ptr().add(row * width + vector * V::LANES);
                        let before = if adds { V::load(to) } else { V::zero() };
                        before.add_product(sums[row][vector], scale).store(to);
                    }
                }
            }
            return;
        }
        let mut rows = [[0.0; COLUMNS]; ROWS];
        for row in 0..ROWS {
            for vector in 0..VECTORS {
                let to = rows[row].as_mut_ptr().add(vector * V::LANES);
                V::zero().add_product(sums[row][vector], scale).store(to);
            }
        }
        for (out, row) in out.chunks_mut(width).zip(&rows).take(tall) {
            let pairs = out[..count].iter_mut().zip(row);
            pairs.for_each(|(out, sum)| *out = if adds { *out + sum } else { *sum });
        }
    }
}
