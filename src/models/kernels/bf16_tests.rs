//! The blocks that multiply matrices, with the factors rounded to bf16.

use super::MatmulPrecision::{Bf16, F32};
use super::equivalence_tests::Path::{self, Fused};
use super::equivalence_tests::{attend, convolve, convolve_upsampled, perceive, project};
use super::in_own_pool_of;

/// Every block that multiplies matrices, at sizes with odd numbers and several blocks of each kind.
fn products(path: Path) -> Vec<Vec<Vec<f32>>> {
    vec![
        convolve([3, 8, 8, 3, 5], 3, 1, path),
        convolve([2, 40, 40, 32, 4], 3, 1, path),
        convolve([40, 4, 4, 96, 8], 3, 2, path),
        convolve_upsampled([3, 6, 6, 33, 50], path),
        project([3, 16, 16, 24], 40, true, path),
        project([5, 2, 2, 70], 100, true, path),
        project([1, 1, 1, 4], 3, false, path),
        perceive([2, 24, 24, 16], 64, path),
        perceive([5, 2, 2, 70], 100, path),
        attend([9, 8, 16, 12], 3, 4, path),
        attend([2, 1, 2, 4], 2, 1, path),
    ]
}

#[test]
fn blocks_in_bf16_are_near_those_in_f32() {
    for (case, (bf16, f32)) in products(Fused(Bf16)).iter().zip(&products(Fused(F32))).enumerate() {
        for (array, (a, b)) in bf16.iter().zip(f32).enumerate() {
            // A factor is off by 1/256 at most, some 1/700 in the mean, and three follow one another.
            let of = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let apart: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
            let share = of(&apart) / of(b).max(1e-12);
            assert!(share < 0.02, "case {case}, array {array}: {share}");
        }
        assert_ne!(bf16[0], f32[0], "case {case}: nothing was rounded");
    }
}

#[test]
fn the_bits_of_bf16_do_not_depend_on_the_number_of_threads() {
    let on = |threads| -> Vec<u32> {
        let all = in_own_pool_of(Some(threads), || products(Fused(Bf16)));
        all.concat().concat().into_iter().map(f32::to_bits).collect()
    };
    let one = on(1);
    assert!(one == on(3) && one == on(7));
}
