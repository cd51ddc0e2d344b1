//! An address that events are sent to.

use pipe_core::secret;
use schemars::JsonSchema;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

/// An address that can be sent to.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(super) struct HookUrl(
    #[schemars(regex(pattern = "^https?://"))]
    String,
);

impl<'de> Deserialize<'de> for HookUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(String::deserialize(deserializer)?)
    }
}

impl HookUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a line is an address rather than a command: it begins with a scheme.
    pub fn begins_address(line: &str) -> bool {
        let is_known = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        line.split_once("://")
            .is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.chars().all(is_known))
    }

    /// Scheme and host of an address.
    pub fn host(&self) -> String {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        format!("{scheme}://{place}")
    }

    pub fn read<E: Error>(text: String) -> Result<Self, E> {
        // Whatever is wrong with it, no message may repeat its secrets.
        learn(&text);
        match wrong(&text) {
            Some(message) => Err(E::custom(message)),
            None => Ok(Self(text)),
        }
    }
}

/// What is wrong with an address. It is not repeated: it may hold a secret.
fn wrong(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    let Some(rest) = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"))
    else {
        return Some("expected an address that begins with `https://` or `http://`");
    };
    if !text.chars().all(|c| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c)) {
        return Some(
            "expected an address without spaces, quotes, brackets and letters beyond ASCII: write \
             them as `%20` and the like",
        );
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    if host.is_empty() {
        return Some("the address names no host");
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Some("the address has a port that is no number up to 65535");
    }
    None
}

/// Takes note of what is secret in an address: user, password and query, and in its path what looks
/// like a token, which the addresses of chat services have there.
fn learn(url: &str) {
    secret::learn_addresses(url);
    let path = url.split_once("://").map_or("", |(_, rest)| rest);
    path.split(['/', '?', '#']).skip(1).filter(|part| is_token(part)).for_each(secret::learn);
}

/// Whether a part of a path was drawn at random rather than given as a name: it is long, and has
/// digits, small and capital letters, or is a number of hexadecimal digits.
fn is_token(part: &str) -> bool {
    const SHORTEST: usize = 16;
    const HEXADECIMAL: usize = 32;
    let has = |is: fn(&char) -> bool| part.chars().any(|c| is(&c));
    let is_mixed =
        has(char::is_ascii_digit) && has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase);
    let is_hexadecimal = part.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    part.len() >= SHORTEST && is_mixed || part.len() >= HEXADECIMAL && is_hexadecimal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_sent_to_is_told_from_what_cannot() {
        for good in [
            "https://example.org/hook",
            "HTTP://user:pw@h:8080/a?b=c#d",
            "http://[::1]:80/x",
            "http://127.0.0.1",
            "https://h/%20a@b:c",
        ] {
            assert_eq!(wrong(good), None, "{good}");
        }
        for (bad, said) in [
            ("ftp://h", "begins with"),
            ("https:/h", "begins with"),
            ("https://", "no host"),
            ("https://user@/x", "no host"),
            ("http://:80", "no host"),
            ("http://h:x", "port"),
            ("http://h:99999", "port"),
            ("http://h/\u{e9}", "ASCII"),
            ("http://h/a b", "spaces"),
        ] {
            assert!(wrong(bad).is_some_and(|message| message.contains(said)), "{bad}");
        }
        let begins = ["https://h", "s3+x://h", "echo http://h", "://h", "curl"];
        assert_eq!(begins.map(HookUrl::begins_address), [true, true, false, false, false]);
    }

    #[test]
    fn of_an_address_the_host_is_shown_and_tokens_are_masked() {
        let token = "aB3dE6gH9jK2mN5pQ8rS";
        let id = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
        let text =
            format!("https://u:p@hooks.example.org/services/T0/base_training_run_001/{token}/{id}");
        let url = HookUrl::read::<serde_json::Error>(text).unwrap();
        assert_eq!(url.host(), "https://hooks.example.org");
        let said = format!("services base_training_run_001 {token} {id}");
        assert_eq!(secret::mask(&said), "services base_training_run_001 *** ***");
    }
}
