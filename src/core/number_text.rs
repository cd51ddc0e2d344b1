//! Numbers as people read them in a line.

use std::fmt::Display;

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

/// `1 image`, `2 images`, `3 classes`.
pub fn counted<N: Display + PartialEq + From<u8>>(n: N, what: &str) -> String {
    let noun = plural(&n, what);
    format!("{n} {noun}")
}

/// The word for so many: `image` of one, `images` of all others.
pub fn plural<N: PartialEq + From<u8>>(n: &N, what: &str) -> String {
    let ending = match (*n == N::from(1), what.ends_with('s')) {
        (true, _) => "",
        (false, true) => "es",
        (false, false) => "s",
    };
    format!("{what}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_that_of_its_number() {
        assert_eq!(
            [0, 1, 2].map(|n: usize| counted(n, "image")),
            ["0 images", "1 image", "2 images"]
        );
        assert_eq!([1, 3].map(|n: u64| counted(n, "class")), ["1 class", "3 classes"]);
    }

    #[test]
    fn small_numbers_are_not_shown_as_nothing() {
        let shown = [0.0, 0.5, -2.0, 0.001, 3e-5, 1.234_56e-7, -1e-4, f64::NAN].map(short);
        let expected =
            ["0.0000", "0.5000", "-2.0000", "0.0010", "3e-5", "1.235e-7", "-1e-4", "NaN"];
        assert_eq!(shown, expected);
    }
}
