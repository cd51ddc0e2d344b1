//! One line of a file with marks under a piece of it, cut to what a terminal shows in one line.

use crate::source::token;

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
        let start = match at + length <= WIDTH || all.len() <= WIDTH {
            true => 0,
            false => (at + length.min(WIDTH - BEFORE - BEHIND) + BEHIND).saturating_sub(WIDTH),
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
}
