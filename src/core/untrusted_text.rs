//! Text that others wrote (headers of files, names, messages of servers, output of programs), on
//! its way to a terminal.
//!
//! A terminal obeys control characters: they move, remove and rename what it shows, and some make
//! it answer. So they are shown, not sent: as `\u001b`, which means the same character inside a
//! JSON string. Colours stay where there are any.

use std::borrow::Cow;
use std::fmt::Write;

/// Parameters of a colour sequence, at most.
const LONGEST: usize = 40;

/// The text with everything that a terminal would obey made visible. `colours`: sequences that set
/// colours and weight are passed on, and undone at the end of each line; without it they are left
/// out.
pub fn escape_control(text: &str, colours: bool) -> Cow<'_, str> {
    if !text.chars().any(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut coloured = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some((sequence, length)) = colour(rest) {
            if colours && is_harmless(sequence) {
                out.push_str(&rest[..length]);
                coloured = !matches!(sequence, "" | "0");
            }
            rest = &rest[length..];
            continue;
        }
        match c {
            '\n' if coloured => {
                out.push_str("\x1b[0m\n");
                coloured = false;
            }
            // The end of a line as Windows writes it.
            '\r' if rest[1..].starts_with('\n') => {}
            c if is_obeyed(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    if coloured {
        out.push_str("\x1b[0m");
    }
    Cow::Owned(out)
}

/// The parameters of a sequence of colours at the start of a text, and the length of the whole.
fn colour(text: &str) -> Option<(&str, usize)> {
    let parameters = text.strip_prefix("\x1b[")?;
    let length = parameters
        .bytes()
        .take(LONGEST)
        .take_while(|b| b.is_ascii_digit() || matches!(b, b';' | b':'));
    let length = length.count();
    parameters[length..].starts_with('m').then_some((&parameters[..length], length + 3))
}

/// Whether it hides nothing: 8 conceals what follows. What follows 38, 48 or 58 is a colour's
/// number.
fn is_harmless(parameters: &str) -> bool {
    let mut all = parameters.split([';', ':']);
    while let Some(one) = all.next() {
        let skipped = match one {
            "38" | "48" | "58" => match all.next() {
                Some("5") => 1,
                Some("2") => 3,
                _ => return false,
            },
            "8" | "08" | "008" => return false,
            _ => 0,
        };
        for _ in 0..skipped {
            all.next();
        }
    }
    true
}

/// Control characters but for line feed and tab, and those that turn the direction of text.
fn is_obeyed(c: char) -> bool {
    let turns =
        matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    turns || (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_made_visible() {
        for (text, plain) in [
            ("plain\ttext\nÄ 模", "plain\ttext\nÄ 模"),
            ("\x1b]0;owned\x07", "\\u001b]0;owned\\u0007"),
            ("\x1b[2J\x1b[31mred\x1b[0m.", "\\u001b[2Jred."),
            ("a\u{9b}31m", "a\\u009b31m"),
            ("a\u{202e}b\u{7f}", "a\\u202eb\\u007f"),
            ("50%\rdone\r\n", "50%\\u000ddone\n"),
            ("\x1b[\u{e0041}", "\\u001b[\\udb40\\udc41"),
        ] {
            assert_eq!(escape_control(text, false), plain);
            assert_eq!(escape_control(&escape_control(text, false), false), plain, "twice");
        }
    }

    #[test]
    fn colours_stay_within_their_line_and_hide_nothing() {
        assert_eq!(escape_control("\x1b[1;31mred\nnext", true), "\x1b[1;31mred\x1b[0m\nnext");
        assert_eq!(escape_control("\x1b[38;5;8mgrey\x1b[m", true), "\x1b[38;5;8mgrey\x1b[m");
        assert_eq!(escape_control("\x1b[1;8mhidden", true), "hidden");
        assert_eq!(escape_control("\x1b[2Aup", true), "\\u001b[2Aup");
        let long = format!("\x1b[{}m", "1;".repeat(100));
        assert!(!escape_control(&long, true).contains('\x1b'));
    }

    #[test]
    fn nothing_that_is_obeyed_comes_through() {
        let pieces = [
            "\x1b", "[", "3", ";", "m", "8", "J", "\u{9b}", "\r", "\n", "a", "\u{202e}",
            "\u{2066}", "é",
        ];
        let mut seed = 3u64;
        for round in 0..20_000 {
            let mut text = String::new();
            for _ in 0..10 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            let out = escape_control(&text, round % 2 == 0);
            let mut rest: &str = &out;
            while let Some(at) = rest.find('\x1b') {
                assert!(round % 2 == 0, "{text:?}: {out:?}");
                let (parameters, length) = colour(&rest[at..]).unwrap();
                assert!(is_harmless(parameters), "{text:?}: {out:?}");
                rest = &rest[at + length..];
            }
            assert!(!out.contains(|c| is_obeyed(c) && c != '\x1b'), "{text:?}: {out:?}");
        }
    }
}
