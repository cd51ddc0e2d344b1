//! Numbers as people read them in a line.

/// A number in a few characters: `0.1375`, `12.0000`, and `3e-5` where four decimals would show
/// nothing of it.
pub fn short(value: f64) -> String {
    if value == 0.0 || value.abs() >= 1e-3 || !value.is_finite() {
        return format!("{value:.4}");
    }
    let text = format!("{value:.3e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_are_not_shown_as_nothing() {
        let shown = [0.0, 0.5, -2.0, 0.001, 3e-5, 1.234_56e-7, -1e-4, f64::NAN].map(short);
        let expected =
            ["0.0000", "0.5000", "-2.0000", "0.0010", "3e-5", "1.235e-7", "-1e-4", "NaN"];
        assert_eq!(shown, expected);
    }
}
