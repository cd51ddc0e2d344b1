//! Digests as text.

/// Enough of a digest to tell two apart, of whatever kind it is (`sha256:…`, `blake3-head:…`); any
/// other text as it is.
pub fn short_digest(text: &str) -> &str {
    let (kind, digits) = text.rsplit_once(':').unwrap_or(("", text));
    let is_digest = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    match text.char_indices().nth(kind.len() + usize::from(!kind.is_empty()) + SHOWN_DIGITS) {
        Some((end, _)) if is_digest => &text[..end],
        _ => text,
    }
}

/// Digits of a digest that people are shown.
const SHOWN_DIGITS: usize = 12;

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_every_kind_are_shortened_and_nothing_else() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(short_digest(&format!("blake3-head:{digits}")), "blake3-head:0123456789ab");
        assert_eq!(short_digest(&format!("sha256:{digits}")), "sha256:0123456789ab");
        assert_eq!(short_digest(&digits), "0123456789ab");
        for other in ["", "sha256:12", "data/a:b", &"x".repeat(64)] {
            assert_eq!(short_digest(other), other);
        }
    }
}
