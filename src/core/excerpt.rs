//! One line of a file with marks under a piece of it, cut to what a terminal shows in one line.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Cells of a terminal that an excerpt takes.
const WIDTH: usize = 80;

/// The line of this number, with marks under what begins at `column`, counted from 1 in characters.
pub(crate) fn excerpt(line: &str, number: usize, column: usize) -> String {
    let line = line.trim_end();
    let byte = |characters: usize| {
        line.char_indices().nth(characters).map_or(line.len(), |(byte, _)| byte)
    };
    let start = column.saturating_sub(1);
    let marked = byte(start)..byte(start + token(line, column));
    let snippet = Snippet::source(line).line_start(number).fold(false);
    let snippet = snippet.annotation(AnnotationKind::Primary.span(marked));
    let group = Group::with_level(Level::ERROR).element(snippet);
    Renderer::plain().term_width(WIDTH).render(&[group])
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
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn a_long_line_is_cut_and_the_marks_stay_under_their_piece() {
        let line = format!("  base: {{ kind: train, classes: [{}], epocs: 3 }}", "a, ".repeat(60));
        let piece = line.find("epocs").unwrap();
        for column in (1..line.len()).step_by(7).chain([piece + 1]) {
            let shown = excerpt(&line, 7, column);
            let lines: Vec<&str> = shown.lines().collect();
            let [_, text, marks] = lines[..] else { panic!("{shown}") };
            assert!(text.width() <= WIDTH + 4, "{shown}");
            let under = marks.find('^').unwrap();
            let expected = line.chars().nth(column - 1).unwrap();
            assert_eq!(text.chars().nth(under), Some(expected), "column {column}\n{shown}");
        }
        let shown = excerpt(&line, 7, piece + 1);
        assert!(shown.lines().nth(1).unwrap().ends_with("epocs: 3 }"), "{shown}");
        assert!(shown.ends_with(" ^^^^^"), "{shown}");
    }

    #[test]
    fn marks_stand_under_letters_of_two_cells() {
        let shown = excerpt("  野菜: { a: b }", 12, 7);
        assert_eq!(shown, "   |\n12 |   野菜: { a: b }\n   |         ^^^^^^^^");
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
