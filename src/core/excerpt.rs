//! One line of a file with marks under a piece of it, cut to what a terminal shows in one line.

/// Characters of a line that are shown; with the number before them they fit into 80 columns.
const WIDTH: usize = 72;
/// Characters before a marked piece, at least, and behind it, that stay when a line is cut.
const BEFORE: usize = 24;
const BEHIND: usize = 4;

pub(crate) struct Excerpt {
    pub text: String,
    /// What stands under it, up to the marks.
    pub lead: String,
    pub marks: String,
}

impl Excerpt {
    /// `column` is counted from 1, in characters.
    pub fn of(line: &str, column: usize) -> Self {
        let all: Vec<char> = line.trim_end().chars().collect();
        let at = column.saturating_sub(1);
        let length = token(line, column);
        let start = if at + length <= WIDTH || all.len() <= WIDTH {
            0
        } else {
            (at + length.min(WIDTH - BEFORE - BEHIND) + BEHIND).saturating_sub(WIDTH)
        };
        let end = all.len().min(start + WIDTH);
        let (before, after) =
            (if start > 0 { "…" } else { "" }, if end < all.len() { "…" } else { "" });
        let shown: String = all.get(start..end).unwrap_or_default().iter().collect();
        // The marks are placed by characters, as terminals show them.
        let spaces = |c: &char| if *c == '\t' { '\t' } else { ' ' };
        let gap: String =
            all.get(start..at.min(all.len())).unwrap_or_default().iter().map(spaces).collect();
        let room = (start + WIDTH).saturating_sub(at).max(1);
        Self {
            text: format!("{before}{shown}{after}"),
            lead: format!("{}{gap}", " ".repeat(before.chars().count())),
            marks: "^".repeat(length.min(room)),
        }
    }
}

/// How many characters the key or value takes that begins at `column` (counted from 1) of a line,
/// as far as the line goes; at least 1. YAML's words, quotes, lists and mappings as people write
/// them; only marks under an excerpt depend on it.
fn token(line: &str, column: usize) -> usize {
    let line: Vec<char> = line.trim_end().chars().collect();
    let (before, rest) = line.split_at(column.saturating_sub(1).min(line.len()));
    let Some(&first) = rest.first() else { return 1 };
    let length = match first {
        '"' | '\'' => rest.iter().skip(1).position(|c| *c == first).map(|at| at + 2),
        '[' | '{' => closing(rest),
        '|' | '>' => Some(1),
        _ => {
            let inside = before.iter().any(|c| matches!(c, '[' | '{'));
            let ends = |at: usize| match rest[at] {
                ':' => rest.get(at + 1).is_none_or(|c| c.is_whitespace()),
                '#' => at > 0 && rest[at - 1].is_whitespace(),
                ',' | ']' | '}' => inside,
                _ => false,
            };
            let end = (0..rest.len()).find(|at| ends(*at)).unwrap_or(rest.len());
            Some(rest[..end].iter().rposition(|c| !c.is_whitespace()).map_or(1, |last| last + 1))
        }
    };
    length.unwrap_or(rest.len()).max(1)
}

/// The length of a list or mapping in brackets, if it ends on this line.
fn closing(text: &[char]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    for (at, c) in text.iter().enumerate() {
        match (quote, c) {
            (Some(open), c) if open == *c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(*c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') if depth == 1 => return Some(at + 1),
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_and_the_marks_stay_under_their_piece() {
        let line = format!("  base: {{ kind: train, classes: [{}], epocs: 3 }}", "a, ".repeat(60));
        let piece = line.find("epocs").unwrap();
        for column in (1..=line.len()).step_by(7).chain([piece + 1]) {
            let Excerpt { text, lead, marks } = Excerpt::of(&line, column);
            assert!(text.chars().count() <= WIDTH + 2, "{text}");
            assert!(lead.chars().count() + marks.len() <= WIDTH + 2, "{lead}{marks}");
            let under: String = text.chars().skip(lead.chars().count()).take(1).collect();
            assert_eq!(under, line.chars().nth(column - 1).unwrap().to_string(), "column {column}");
        }
        let Excerpt { text, lead, marks } = Excerpt::of(&line, piece + 1);
        assert!(text.starts_with('…') && text.ends_with("epocs: 3 …"), "{text}");
        assert_eq!((lead.chars().count(), marks.as_str()), (64, "^^^^^"));
    }

    #[test]
    fn a_token_is_a_word_a_quoted_text_or_what_stands_in_brackets() {
        let lengths = [
            ("    epocs: 5", 5, 5),
            ("    epocs: 5", 12, 1),
            ("name: two words   # why", 7, 9),
            ("name: 'it is: so' # why", 7, 11),
            ("a: { kind: dataset, n: [1, '}'] } # x", 4, 30),
            ("a: { kind: data set, n: [1, 2] }", 12, 8),
            ("a: { kind: dataset", 4, 15),
            ("a: b:c", 4, 3),
            ("text: |", 7, 1),
            ("äé: ü", 5, 1),
            ("", 1, 1),
            ("short", 99, 1),
        ];
        for (line, column, length) in lengths {
            assert_eq!(token(line, column), length, "{line:?} at {column}");
        }
    }
}
