//! Secrets in text that is shown or kept: `***` stands in their place.
//!
//! Secret are the values of a command's `env:`, and user, password and query of addresses. The
//! values are learned where settings are read. They are taken out of what is told: messages, a
//! program's output, events, reasons. Settings are never changed by it: what decides a result is
//! compared by its digest.
//!
//! A value that would say nothing as a secret, and whose loss would make messages useless, is no
//! secret: one of fewer than four characters, a number, `true` and the like. One of fewer than
//! eight is taken out where it stands by itself: `train` leaves `training` alone.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::digest::hex;

/// What stands in the place of a secret.
pub const MASK: &str = "***";
/// Characters of the shortest secret.
const SHORTEST: usize = 4;
/// Characters from which on a secret is found inside a longer word, too.
const LONG: usize = 8;
/// Bytes of a message that is kept.
const LONGEST: usize = 64 << 10;
const NO_SECRETS: [&str; 8] = ["true", "false", "none", "null", "auto", "info", "debug", "warn"];

/// The longest first: one may be a part of another. For the whole process, as what it prints is:
/// a panic of any thread is masked too.
static LEARNED: RwLock<Vec<String>> = RwLock::new(Vec::new());
/// What anybody may know, such as the names of stages.
static OPEN: RwLock<BTreeSet<String>> = RwLock::new(BTreeSet::new());

/// Takes note of a value that is not to be shown; of one in several lines each.
pub fn learn(value: &str) {
    let mut learned = LEARNED.write().unwrap_or_else(PoisonError::into_inner);
    let escaped = format!("{value:?}");
    let escaped = escaped.get(1..escaped.len() - 1).unwrap_or_default();
    for piece in [value, escaped].into_iter().chain(value.lines()) {
        let piece = piece.trim();
        if is_secret(piece) && !learned.iter().any(|known| known == piece) {
            learned.push(piece.to_owned());
        }
    }
    learned.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
}

/// Takes note of a name that stands in files and messages anyway: a value that is called so is no
/// secret.
pub fn is_open(name: &str) {
    if is_secret(name) {
        OPEN.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }
}

/// Takes note of passwords and queries in the addresses of a text.
///
/// Any word can be a user's name, or a value in a query: those of few characters are taken out of
/// addresses only.
pub fn learn_addresses(text: &str) {
    for (start, end) in secrets_of_addresses(text) {
        let piece = &text[start..end];
        if text[..start].ends_with("://") {
            learn(piece.split_once(':').map_or("", |(_, password)| password))
        } else {
            let values =
                piece.split(['&', ';']).map(|part| part.split_once('=').map_or(part, |(_, v)| v));
            values.filter(|value| value.chars().count() >= LONG).for_each(learn);
        }
    }
}

fn is_secret(text: &str) -> bool {
    text.chars().count() >= SHORTEST
        && text.parse::<f64>().is_err()
        && !NO_SECRETS.contains(&text.to_ascii_lowercase().as_str())
}

/// The text without secrets that were learned, and without those of addresses in it.
pub fn mask(text: &str) -> Cow<'_, str> {
    let mut found = secrets_of_addresses(text);
    found.extend(learned_in(text));
    replaced(text, found)
}

/// Takes secrets out of the addresses in a value.
pub fn mask_addresses_in(value: &mut Value) {
    match value {
        Value::String(text) => {
            let found = secrets_of_addresses(text);
            *text = replaced(text, found).into_owned();
        }
        Value::Array(items) => items.iter_mut().for_each(mask_addresses_in),
        Value::Object(map) => map.values_mut().for_each(mask_addresses_in),
        _ => {}
    }
}

/// A text as it is kept and told: without secrets, and not too long.
pub fn told(text: &str) -> String {
    let mut text = mask(text).into_owned();
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push_str(" … (the rest is left out)");
    }
    text
}

/// The text without secrets that were learned.
pub fn mask_learned(text: &str) -> Cow<'_, str> {
    replaced(text, learned_in(text))
}

/// A text that was cut at its end, without the beginning of a secret there.
pub fn without_half(text: &str) -> &str {
    let learned = LEARNED.read().unwrap_or_else(PoisonError::into_inner);
    let half = |secret: &String| {
        let ends = secret.char_indices().map(|(at, _)| at).skip(1);
        ends.filter(|at| text.ends_with(&secret[..*at])).max().unwrap_or(0)
    };
    let longest = learned.iter().map(half).max().unwrap_or(0);
    &text[..text.len() - longest]
}

fn learned_in(text: &str) -> Vec<(usize, usize)> {
    let learned = LEARNED.read().unwrap_or_else(PoisonError::into_inner);
    if learned.is_empty() {
        return Vec::new();
    }
    let open = OPEN.read().unwrap_or_else(PoisonError::into_inner);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for secret in learned.iter().filter(|secret| !open.contains(*secret)) {
        let is_short = secret.chars().count() < LONG;
        let may_be_key = secret.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        for (at, _) in text.match_indices(secret.as_str()) {
            let end = at + secret.len();
            let joined = text[..at].ends_with(is_word) && secret.starts_with(is_word)
                || text[end..].starts_with(is_word) && secret.ends_with(is_word);
            // The key of an object in JSON is a word of this program.
            let is_key = may_be_key && text[..at].ends_with('"') && text[end..].starts_with("\":");
            if !(is_key || (is_short && joined)) {
                found.push((at, end));
            }
        }
    }
    found
}

/// Where user and password, and the query, of each address in a text are.
fn secrets_of_addresses(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, mark) in text.match_indices("://") {
        let start = at + mark.len();
        let is_end =
            |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '|' | '\\');
        let address = text[start..].split(is_end).next().unwrap_or_default();
        let authority = address.split(['/', '?', '#']).next().unwrap_or_default();
        // Passwords are not always written as the standard wants it: a `/` or `?` may stand in one.
        let authority = if authority.contains('@') {
            authority
        } else {
            address
                .split_once('@')
                .filter(|(user, _)| user.contains(':'))
                .map_or(authority, |_| address)
        };
        if let Some(length) = authority.rfind('@').filter(|length| *length > 0) {
            found.push((start, start + length));
        }
        if let Some(query) = address.find('?') {
            let length =
                address[query..].trim_end_matches([')', ']', '}', ',', '.', ';', ':']).len();
            found.push((start + query + 1, start + query + length.max(1)));
        }
    }
    found.retain(|(start, end)| start < end && &text[*start..*end] != MASK);
    found
}

/// The text with a digest in the place of what is secret in its addresses: enough to tell two
/// apart. It depends on the text alone.
pub fn sealed(text: &str) -> Cow<'_, str> {
    let found = secrets_of_addresses(text);
    if found.is_empty() || text.contains(SEAL) {
        return Cow::Borrowed(text);
    }
    let digest = hex(&Sha256::digest(text));
    let short = digest.get(..16).unwrap_or_default();
    Cow::Owned(format!("{} {SEAL}{short})", replaced(text, found)))
}

/// What begins the digest of a text whose secrets were taken out.
const SEAL: &str = "(secrets: sha256:";

fn replaced(text: &str, mut found: Vec<(usize, usize)>) -> Cow<'_, str> {
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    found.sort_unstable();
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for (start, end) in found {
        if start >= at {
            out.push_str(&text[at..start]);
            out.push_str(MASK);
        }
        at = at.max(end);
    }
    out.push_str(&text[at..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_user_password_and_query() {
        for (text, masked) in [
            ("at http://user:pw@host/x.tgz?sig=abc: 404", "at http://***@host/x.tgz?***: 404"),
            ("s3://user:a/b@bucket/x", "s3://***@bucket/x"),
            ("(https://h/a?b)", "(https://h/a?***)"),
            ("`https://h/a?b` and http://u@h", "`https://h/a?***` and http://***@h"),
            ("https://h/a@b", "https://h/a@b"),
            ("http://h/?", "http://h/?"),
            ("no address: a?b@c", "no address: a?b@c"),
        ] {
            assert_eq!(mask(text), masked);
            assert_eq!(mask(&mask(text)), masked, "twice");
        }
    }

    #[test]
    fn what_was_learned_is_masked_and_trivial_values_are_not() {
        for value in [
            "s3cr3t",
            "hunter2SECRET",
            "first line\nlonger second line",
            "1234",
            "true",
            "abc",
            "a\"b\\c",
        ] {
            learn(value);
        }
        for (text, masked) in [
            ("got s3cr3t.", "got ***."),
            ("notas3cr3tword", "notas3cr3tword"),
            ("xhunter2SECRETx", "x***x"),
            ("longer second line", "***"),
            ("1234 true abc", "1234 true abc"),
            ("{\"a\": \"a\\\"b\\\\c\"}", "{\"a\": \"***\"}"),
        ] {
            assert_eq!(mask_learned(text), masked);
        }
        learn("epoch_of");
        assert_eq!(mask_learned(r#"{"epoch_of": "epoch_of"}"#), r#"{"epoch_of": "***"}"#);
        assert_eq!(without_half("a hunter2SE"), "a ");
        assert_eq!(without_half("a hunter3"), "a hunter3");
        learn("shape_net");
        is_open("shape_net");
        assert_eq!(mask("shape_net"), "shape_net", "the name of a stage");
    }

    #[test]
    fn a_sealed_text_tells_others_apart_and_nothing_else() {
        let (one, two) = (sealed("curl http://u:one@h"), sealed("curl http://u:two@h"));
        assert!(one.starts_with("curl http://***@h (secrets: sha256:"), "{one}");
        assert!(one != two && !one.contains("one"));
        assert_eq!(sealed(&one), one, "twice");
        assert_eq!(sealed("curl http://h/a"), "curl http://h/a");
    }

    #[test]
    fn whatever_a_text_holds_its_secrets_go() {
        learn("property-secret");
        let pieces = ["property-secret", "://", "@", "?", "a", " ", "\"", "é", "***", "property-"];
        let mut seed = 7u64;
        for _ in 0..5000 {
            let mut text = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            let masked = mask(&text);
            assert!(!masked.contains("property-secret"), "{text}: {masked}");
        }
    }
}
