//! What both forms of the building blocks have in common.

/// Added to the variance in every norm, as in PyTorch.
pub const NORM_EPSILON: f64 = 1e-5;

/// For each (query, key) of a window's pixels, row by row: the row of the bias table, which counts
/// the vertical, then the horizontal distance from key to query.
pub(super) fn relative_position(window: usize) -> Vec<usize> {
    let n = window * window;
    let distance = |query: usize, key: usize| query + window - 1 - key;
    let row = |query: usize, key: usize| {
        let (dy, dx) =
            (distance(query / window, key / window), distance(query % window, key % window));
        dy * (2 * window - 1) + dx
    };
    (0..n).flat_map(|query| (0..n).map(move |key| row(query, key))).collect()
}
