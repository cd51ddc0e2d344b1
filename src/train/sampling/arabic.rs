//! Arabic letters take the form that joins them to their neighbours. Unicode's presentation forms
//! have those as characters of their own, which a font without shaping rules can show.

use unicode_normalization::char::is_combining_mark;

/// Letters in the order of their code points, the first form of the first letter, and how many
/// forms each has. The forms are alone, at the end, at the beginning, in the middle. A letter with
/// two joins only to the one before it.
const LETTERS: [(u32, u32, &[u8]); 16] = [
    (0x621, 0xFE80, b"12222424244444222244444444"),
    (0x641, 0xFED1, b"4444444224"),
    // Persian, Urdu.
    (0x671, 0xFB50, b"2"),
    (0x679, 0xFB66, b"4"),
    (0x67E, 0xFB56, b"4"),
    (0x686, 0xFB7A, b"4"),
    (0x688, 0xFB88, b"2"),
    (0x691, 0xFB8C, b"2"),
    (0x698, 0xFB8A, b"2"),
    (0x6A9, 0xFB8E, b"4"),
    (0x6AF, 0xFB92, b"4"),
    (0x6BA, 0xFB9E, b"2"),
    (0x6BE, 0xFBAA, b"4"),
    (0x6C1, 0xFBA6, b"4"),
    (0x6CC, 0xFBFC, b"4"),
    (0x6D2, 0xFBAE, b"2"),
];

const LAM: char = '\u{644}';
const TATWEEL: char = '\u{640}';

/// What `LAM` and an alef become together: alone; the next one is at the end.
fn lam_with(alef: char) -> Option<u32> {
    match alef {
        '\u{622}' => Some(0xFEF5),
        '\u{623}' => Some(0xFEF7),
        '\u{625}' => Some(0xFEF9),
        '\u{627}' => Some(0xFEFB),
        _ => None,
    }
}

/// The first form of a letter, and how many it has.
fn forms(c: char) -> Option<(u32, u32)> {
    let code = u32::from(c);
    let &(first, mut form, counts) = LETTERS
        .iter()
        .find(|(first, _, counts)| (*first..first + counts.len() as u32).contains(&code))?;
    let mut counts = counts.iter().map(|digit| u32::from(digit - b'0'));
    for _ in first..code {
        form += counts.next()?;
    }
    Some((form, counts.next()?))
}

fn joins_to_next(c: char) -> bool {
    c == TATWEEL || forms(c).is_some_and(|(_, count)| count == 4)
}

fn joins_to_previous(c: char) -> bool {
    c == TATWEEL || forms(c).is_some_and(|(_, count)| count > 1)
}

/// The same text with Arabic letters in their joined forms. Marks are looked through.
pub(super) fn join(text: &str) -> String {
    let all: Vec<char> = text.chars().collect();
    let letter = |at: usize| all.get(at).copied().filter(|c| !is_combining_mark(*c));
    let (mut joined, mut previous, mut at) = (String::with_capacity(text.len()), None, 0);
    while let Some(c) = all.get(at).copied() {
        at += 1;
        if is_combining_mark(c) {
            joined.push(c);
            continue;
        }
        let before = previous.is_some_and(joins_to_next) && joins_to_previous(c);
        if let (LAM, Some((alef, form))) =
            (c, letter(at).and_then(|alef| Some((alef, lam_with(alef)?))))
        {
            joined.extend(char::from_u32(form + u32::from(before)));
            (previous, at) = (Some(alef), at + 1);
            continue;
        }
        let next = (at..all.len()).find_map(letter);
        let after = joins_to_next(c) && next.is_some_and(joins_to_previous);
        let form = forms(c).map(|(form, _)| form + u32::from(before) + 2 * u32::from(after));
        joined.push(form.and_then(char::from_u32).unwrap_or(c));
        previous = Some(c);
    }
    joined
}

#[cfg(test)]
mod tests {
    use unicode_normalization::UnicodeNormalization;

    use super::*;

    #[test]
    fn every_form_is_one_of_the_letter_that_it_stands_for() {
        for (first, _, counts) in LETTERS {
            for code in first..first + counts.len() as u32 {
                let letter = char::from_u32(code).unwrap();
                let (form, count) = forms(letter).unwrap();
                for form in form..form + count {
                    let plain: String = char::from_u32(form).unwrap().nfkc().collect();
                    assert_eq!(plain, letter.to_string(), "{form:x}");
                }
            }
        }
        for alef in "\u{622}\u{623}\u{625}\u{627}".chars() {
            let form = char::from_u32(lam_with(alef).unwrap()).unwrap();
            assert_eq!(form.nfkc().collect::<String>(), format!("{LAM}{alef}"));
        }
    }

    #[test]
    fn letters_join_where_both_can() {
        // beh alone; beh-beh; alef never joins to the next; marks between are looked through.
        assert_eq!(join("\u{628}"), "\u{fe8f}");
        assert_eq!(join("\u{628}\u{628}\u{628}"), "\u{fe91}\u{fe92}\u{fe90}");
        assert_eq!(join("\u{627}\u{628}"), "\u{fe8d}\u{fe8f}");
        assert_eq!(join("\u{628}\u{64e}\u{628}"), "\u{fe91}\u{64e}\u{fe90}");
        assert_eq!(
            join("\u{633}\u{644}\u{627}\u{645}"),
            "\u{feb3}\u{fefc}\u{fee1}",
            "salam, with its ligature"
        );
        assert_eq!(join("\u{628} \u{628}x"), "\u{fe8f} \u{fe8f}x");
        assert_eq!(join("oak 野菜"), "oak 野菜");
    }
}
