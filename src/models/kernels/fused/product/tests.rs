use super::*;

/// Fixed numbers in [-1, 1).
fn numbers(len: usize, stream: u64) -> Vec<f32> {
    let hash = |i: u64| (i * 747_796_405 + stream * 2_891_336_453 + 1) as u32 as u64 * 0x45D_9F3B;
    (0..len as u64).map(|i| (hash(i) >> 7 & 0xFFFF) as f32 / 32_768.0 - 1.0).collect()
}

/// What stands in front of each result and behind it.
const UNTOUCHED: f32 = 7.5;

/// `[rows, depth, outputs]`: whole tiles and panels, parts of them, sums of several blocks.
const SIZES: [[usize; 3]; 9] = [
    [1, 1, 1],
    [6, 4, 16],
    [7, 3, 17],
    [13, 300, 50],
    [64, 32, 32],
    [5, 27, 3],
    [130, 515, 8],
    [8, 7, 100],
    [300, 10, 9],
];

fn assert_is_product(
    found: &[f32],
    [rows, outputs]: [usize; 2],
    mode: WriteMode,
    expected: impl Fn(usize, usize) -> f64,
) {
    let before = if mode == WriteMode::Accumulate { f64::from(UNTOUCHED) } else { 0.0 };
    for (i, row) in found.chunks_exact(outputs + 1).enumerate().take(rows) {
        assert_eq!(row[outputs], UNTOUCHED, "behind row {i}");
        for (j, found) in row[..outputs].iter().enumerate() {
            let apart = f64::from(*found) - before - expected(i, j);
            assert!(apart.abs() < 5e-5, "{rows} {outputs} at {i} {j}: {apart}");
        }
    }
}

#[test]
fn a_product_is_the_sum_of_its_terms_whatever_the_sizes() {
    if !is_supported() {
        return;
    }
    for [rows, depth, outputs] in SIZES {
        // Rows stand apart, in no order.
        let data = numbers(rows * (depth + 2), 1);
        let at: Vec<usize> = (0..rows).map(|row| (rows - 1 - row) * (depth + 2) + 1).collect();
        let b = numbers(depth * outputs, 2);
        let left = Left { data: &data, at: &at, runs: 1, run: depth, step: 0 };
        let expected = |i: usize, j: usize| -> f64 {
            let term = |k: usize| f64::from(data[at[i] + k]) * f64::from(b[k * outputs + j]);
            0.5 * (0..depth).map(term).sum::<f64>()
        };
        let packed = Packed::new(MatrixView::rows(&b, outputs), [depth, outputs]).unwrap();
        for mode in [WriteMode::Overwrite, WriteMode::Accumulate] {
            let mut out = vec![UNTOUCHED; rows * (outputs + 1)];
            packed.multiply(left, 0.5, mode, &mut out, outputs + 1);
            assert_is_product(&out, [rows, outputs], mode, expected);
        }
    }
}

#[test]
fn a_row_may_be_made_of_runs() {
    if !is_supported() {
        return;
    }
    let (rows, runs, run, step, outputs) = (11, 3, 290, 301, 20);
    let data = numbers(rows * 5 + runs * step, 1);
    let at: Vec<usize> = (0..rows).map(|row| row * 5).collect();
    let b = numbers(runs * run * outputs, 2);
    let packed = Packed::new(MatrixView::rows(&b, outputs), [runs * run, outputs]).unwrap();
    let mut out = vec![UNTOUCHED; rows * (outputs + 1)];
    let left = Left { data: &data, at: &at, runs, run, step };
    packed.multiply(left, 1.0, WriteMode::Overwrite, &mut out, outputs + 1);
    assert_is_product(&out, [rows, outputs], WriteMode::Overwrite, |i, j| {
        let term = |k: usize| {
            let left = data[at[i] + k / run * step + k % run];
            f64::from(left) * f64::from(b[k * outputs + j])
        };
        (0..runs * run).map(term).sum()
    });
}

#[test]
fn a_transposed_left_factor_adds_up_its_rows() {
    if !is_supported() {
        return;
    }
    for [rows, run, outputs] in SIZES {
        let (data, b) = (numbers(rows * (run + 1), 1), numbers(rows * (outputs + 3), 2));
        let at: Vec<usize> = (0..rows).map(|row| row * (run + 1)).collect();
        let right_at: Vec<usize> =
            (0..rows).map(|row| (rows - 1 - row) * (outputs + 3) + 2).collect();
        let left = Left { data: &data, at: &at, runs: 1, run, step: 0 };
        let mut out = vec![UNTOUCHED; run * (outputs + 1)];
        add_transposed(left, &b, &right_at, outputs, &mut out, outputs + 1);
        assert_is_product(&out, [run, outputs], WriteMode::Accumulate, |i, j| {
            let term = |k: usize| f64::from(data[at[k] + i]) * f64::from(b[right_at[k] + j]);
            (0..rows).map(term).sum()
        });
    }
}

#[test]
fn what_is_no_number_stays_visible_and_stays_in_its_row() {
    if !is_supported() {
        return;
    }
    for bad in [f32::NAN, f32::INFINITY] {
        let (mut a, b) = (numbers(8 * 40, 1), numbers(40 * 32, 2));
        a[3 * 40 + 39] = bad;
        let at: Vec<usize> = (0..8).map(|row| row * 40).collect();
        let packed = Packed::new(MatrixView::rows(&b, 32), [40, 32]).unwrap();
        let mut out = vec![0.0; 8 * 33];
        let left = Left { data: &a, at: &at, runs: 1, run: 40, step: 0 };
        packed.multiply(left, 1.0, WriteMode::Overwrite, &mut out, 33);
        for (i, row) in out.chunks_exact(33).enumerate() {
            assert_eq!(row[..32].iter().all(|v| v.is_finite()), i != 3, "row {i}");
        }
    }
}

#[test]
fn a_left_factor_beyond_its_slice_is_refused() {
    let Some(packed) = Packed::new(MatrixView::rows(&[0.0; 6], 2), [3, 2]) else { return };
    let left = |at: &'static [usize]| Left { data: &[0.0; 5], at, runs: 1, run: 3, step: 0 };
    let multiply = |left, len: usize| {
        packed.multiply(left, 1.0, WriteMode::Overwrite, &mut vec![0.0; len], 2);
    };
    let is_refused = |left, len| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| multiply(left, len))).is_err()
    };
    assert!(!is_refused(left(&[0, 2]), 4));
    assert!(is_refused(left(&[0, 3]), 4), "a row of the left factor ends behind its slice");
    assert!(is_refused(left(&[0, 2]), 3), "the result is too small");
}
