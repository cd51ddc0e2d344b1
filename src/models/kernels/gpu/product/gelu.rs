//! The exact GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415) and its slope.

use cubecl::prelude::*;

/// x Φ(x).
#[cube]
pub(super) fn gelu(x: f32) -> f32 {
    x * (0.5f32 + 0.5f32 * Erf::erf(x * 0.707_106_77f32))
}

/// The derivative of [`gelu`]: Φ(x) + x φ(x).
#[cube]
pub(super) fn gelu_slope(x: f32) -> f32 {
    let share = 0.5f32 + 0.5f32 * Erf::erf(x * 0.707_106_77f32);
    share + x * 0.398_942_3f32 * f32::exp(-0.5f32 * x * x)
}
