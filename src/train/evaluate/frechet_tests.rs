//! The distance against cases that have a formula, and against themselves.

use super::*;

/// Numbers in [-1, 1) that look random.
fn numbers(count: usize, stream: u64) -> Vec<f64> {
    let number = |i: u64| {
        let mut h = (i * 747_796_405 + stream * 2_891_336_453 + 1) & 0xFFFF_FFFF;
        h ^= h >> 16;
        h = (h * 0x45D_9F3B) & 0xFFFF_FFFF;
        h ^= h >> 16;
        h as f64 / 2f64.powi(31) - 1.0
    };
    (0..count as u64).map(number).collect()
}

/// The covariance `A Aᵀ / k` of a random `d` by `k` matrix: of rank `k`, or `d` if that is less.
fn covariance(d: usize, k: usize, stream: u64) -> Vec<f64> {
    let a = numbers(d * k, stream);
    let a: Vec<f64> = a.iter().map(|v| v / (k as f64).sqrt()).collect();
    let mut c = vec![0.0; d * d];
    product([d, k, d], View::rows(&a, k), View::rows(&a, k).t(), false, &mut c);
    c
}

fn statistics(mean: Vec<f64>, covariance: Vec<f64>) -> Statistics {
    Statistics { mean, covariance }
}

#[track_caller]
fn assert_close(found: f64, wanted: f64, relative: f64) {
    assert!((found - wanted).abs() <= relative * wanted.abs(), "{found} is not {wanted}");
}

#[test]
fn diagonal_covariances_have_a_formula() {
    let d = 37;
    let square = |stream| numbers(d, stream).iter().map(|v| v * v).collect::<Vec<f64>>();
    let (mut a, mut b) = (square(1), square(2));
    (a[3], b[3], a[5], b[6]) = (0.0, 0.0, 0.0, 0.0); // singular ones
    let diagonal = |v: &[f64]| {
        (0..d * d).map(|i| if i / d == i % d { v[i % d] } else { 0.0 }).collect::<Vec<f64>>()
    };
    let (m1, m2) = (numbers(d, 3), numbers(d, 4));
    let wanted: f64 =
        (0..d).map(|i| (m1[i] - m2[i]).powi(2) + (a[i].sqrt() - b[i].sqrt()).powi(2)).sum();
    let (one, two) = (statistics(m1, diagonal(&a)), statistics(m2, diagonal(&b)));
    assert_close(frechet_distance(&one, &two).unwrap(), wanted, 1e-12);
}

#[test]
fn a_set_and_its_multiple_have_a_formula_of_any_rank() {
    // Of C and s² C the trace of the root is s tr C, singular or not.
    for (d, k) in [(1, 1), (2, 1), (60, 60), (60, 200), (150, 20)] {
        let c = covariance(d, k, 5);
        let trace: f64 = (0..d).map(|i| c[i * d + i]).sum();
        for s in [0.5f64, 1.5, 10.0] {
            let more = c.iter().map(|v| v * s * s).collect();
            let (one, two) = (statistics(vec![0.0; d], c.clone()), statistics(vec![0.0; d], more));
            let wanted = trace * (1.0 - s).powi(2);
            let found = frechet_distance(&one, &two).unwrap();
            assert_close(found, wanted, 1e-9);
            assert_close(frechet_distance(&two, &one).unwrap(), wanted, 1e-9);
        }
        let same = statistics(numbers(d, 9), c.clone());
        assert!(frechet_distance(&same, &same).unwrap() < 1e-7 * trace);
    }
}

#[test]
fn singular_values_are_those_that_were_put_in() {
    // Reflections from both sides leave the singular values of a matrix as they are.
    let (m, n) = (90, 70);
    for decay in [1.0f64, 0.8, 0.3] {
        let values: Vec<f64> = (0..n).map(|i| decay.powi(i as i32)).collect();
        let mut matrix = vec![0.0; m * n];
        values.iter().enumerate().for_each(|(i, v)| matrix[i * n + i] = *v);
        for stream in 0..3 {
            let mut left = numbers(m, 20 + stream);
            let (_, tau) = reflect(&mut left);
            let sums = column_sums(&matrix, n, 0, &left);
            for (row, left) in matrix.chunks_exact_mut(n).zip(&left) {
                add_scaled(row, -tau * left, &sums);
            }
            let mut right = numbers(n, 30 + stream);
            let (_, tau) = reflect(&mut right);
            for row in matrix.chunks_exact_mut(n) {
                let along = dot(row, &right);
                add_scaled(row, -tau * along, &right);
            }
        }
        let found = sum_of_singular_values(matrix, m, n).unwrap();
        assert_close(found, values.iter().sum(), 1e-13);
    }
}

#[test]
fn the_factor_gives_back_its_covariance_and_knows_its_rank() {
    for (d, k) in [(40, 40), (100, 13), (7, 30)] {
        let c = covariance(d, k, 11);
        let factor = Factor::of(&c, d);
        assert_eq!(factor.rank, d.min(k));
        let mut again = vec![0.0; d * d];
        let rows = View::rows(&factor.rows, d);
        product([d, d, d], rows, rows.t(), false, &mut again);
        let most = c.iter().zip(&again).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(most < 1e-14, "{most}");
    }
    assert_eq!(Factor::of(&[0.0; 9], 3).rank, 0);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let d = 200;
    let one = statistics(numbers(d, 1), covariance(d, 300, 2));
    let two = statistics(numbers(d, 3), covariance(d, 90, 4));
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| frechet_distance(&one, &two).unwrap())
    };
    let alone = on(1);
    assert!(alone > 0.0);
    for threads in [2, 3, 8] {
        assert_eq!(on(threads).to_bits(), alone.to_bits());
    }
}

#[test]
fn what_cannot_be_compared_is_said() {
    let one = statistics(vec![0.0; 2], vec![0.0; 4]);
    let error = frechet_distance(&one, &statistics(vec![0.0], vec![1.0])).unwrap_err();
    assert!(error.to_string().contains("2 features and the other 1"), "{error}");
    let wrong = statistics(vec![0.0; 2], vec![f64::NAN; 4]);
    assert!(matches!(frechet_distance(&one, &wrong), Err(FrechetError::NotFinite)));
    assert_eq!(frechet_distance(&one, &one).unwrap(), 0.0);
}
