//! What was probably meant where a file is no YAML: a key that stands twice, a colon or a space that
//! is missing. Only messages depend on it.

use crate::position::Position;

/// What to do about a message of the YAML library, which is about that place.
pub(crate) fn help(text: &str, at: Option<Position>, message: &str) -> Option<String> {
    let number = at.map_or(0, |at| at.line);
    let line = text.lines().nth(number.wrapping_sub(1)).unwrap_or_default();
    let has = |piece: &str| message.contains(piece);
    if has("expected ':'")
        && let Some(joined) = without_space(text, number)
    {
        return Some(joined);
    }
    let is_of_keys = ["expected ':'", "expected key", "not allowed in this context"];
    if is_of_keys.into_iter().any(has)
        && let Some(key) = without_colon(text, number)
    {
        return Some(key);
    }
    if has("not allowed in this context")
        && let Some(value) = value_above_keys(text, number)
    {
        return Some(value);
    }
    let help = if line.trim_start_matches(' ').starts_with('\t') {
        "YAML is indented with spaces, not with tabs"
    } else if let Some(quoted) =
        at.filter(|_| has("expected ',' or")).and_then(|at| bare_parameter(line, at))
    {
        return Some(format!("inside braces and brackets a parameter is in quotes: {quoted}"));
    } else if has("expected ',' or") {
        "a bracket before this place is not closed, or a comma is missing"
    } else if has("duplicate entry with key \"<<\"") {
        "several mappings stand in one list: `<<: [*first, *second]`"
    } else if has("expected key") || has("block mapping") || has("not allowed in this context") {
        "keys of one mapping begin in the same column, deeper ones further to the right"
    } else {
        return None;
    };
    Some(help.to_owned())
}

/// A value with a `${…}`, in quotes, where the YAML library stumbled over the brace of that.
fn bare_parameter(line: &str, at: Position) -> Option<String> {
    let (brace, _) = line.char_indices().nth(at.column - 1)?;
    let (before, after) = line.split_at_checked(brace)?;
    let (before, inside) = (before.strip_suffix('$')?, after.strip_prefix('{')?);
    let name = &inside[..inside.find('}')?];
    let from = before.rfind([' ', ',', '[', '{']).map_or(0, |last| last + 1);
    let rest = &inside[name.len() + 1..];
    let to = rest.find([' ', ',', ']', '}']).unwrap_or(rest.len());
    Some(format!("\"{}${{{name}}}{}\"", &before[from..], &rest[..to]))
}

/// Where a key stands twice in a mapping that begins at `at`: the first line and the second place.
pub(crate) fn twice(text: &str, at: Position, message: &str) -> Option<(usize, Position)> {
    let (_, quoted) = message.split_once("duplicate entry with key \"")?;
    let key = quoted.strip_suffix('"')?;
    let first = text.lines().nth(at.line - 1)?;
    let places = if first.chars().nth(at.column - 1) == Some('{') {
        in_braces(text, at, key)
    } else {
        in_lines(text, at, key)
    };
    let [first, second, ..] = places[..] else { return None };
    Some((first.line, second))
}

/// Whether `key` and a colon stand at the beginning of a text, in quotes or without.
fn begins_with_key(text: &str, key: &str) -> bool {
    let bare = text.trim_start_matches(['"', '\'']).strip_prefix(key);
    bare.is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
}

/// The places of a key in a mapping of lines.
fn in_lines(text: &str, at: Position, key: &str) -> Vec<Position> {
    let indented = |text: &str| text.len() - text.trim_start().len();
    let lines = text.lines().enumerate().skip(at.line - 1);
    // The first line may have a dash in front of the mapping.
    let inside = |(number, text): &(usize, &str)| {
        let blank = text.trim().is_empty() || text.trim_start().starts_with('#');
        blank || number + 1 == at.line || indented(text) + 1 >= at.column
    };
    let of_key = |(_, text): &(usize, &str)| {
        let here = text.get(at.column - 1..).is_some_and(|rest| begins_with_key(rest, key));
        here && indented(text) < at.column
    };
    let found = lines.take_while(inside).filter(of_key);
    found.map(|(number, _)| Position { line: number + 1, column: at.column }).collect()
}

/// The places of a key in a mapping in braces.
fn in_braces(text: &str, at: Position, key: &str) -> Vec<Position> {
    let (mut depth, mut quote, mut may_begin) = (0_usize, None, false);
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate().skip(at.line - 1) {
        let from = if number + 1 == at.line { at.column - 1 } else { 0 };
        let mut before = ' ';
        for (column, (byte, c)) in line.char_indices().enumerate().skip(from) {
            if c == '#' && quote.is_none() && before.is_whitespace() {
                break;
            }
            if depth == 1 && may_begin && quote.is_none() && !c.is_whitespace() {
                may_begin = false;
                if begins_with_key(&line[byte..], key) {
                    found.push(Position { line: number + 1, column: column + 1 });
                }
            }
            match (quote, c) {
                (Some(open), c) => quote = Some(open).filter(|open| *open != c),
                (None, '"' | '\'') => quote = Some(c),
                (None, '{' | '[') => {
                    depth += 1;
                    may_begin = depth == 1;
                }
                (None, '}' | ']') if depth <= 1 => return found,
                (None, '}' | ']') => depth -= 1,
                (None, ',') => may_begin = depth == 1,
                _ => {}
            }
            before = c;
        }
    }
    found
}

/// Lines from this one upwards in which a slip is looked for.
const FAR: usize = 3;

/// This line and those shortly above it, with their numbers and without what indents them.
fn near(text: &str, number: usize) -> impl Iterator<Item = (usize, &str)> {
    let first = number.saturating_sub(FAR).max(1);
    let lines: Vec<_> = text.lines().enumerate().skip(first - 1).take(number + 1 - first).collect();
    lines
        .into_iter()
        .rev()
        .map(|(above, text)| (above + 1, text.trim_start().trim_start_matches("- ").trim_end()))
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

/// A line in which a key and its value are one word.
fn without_space(text: &str, number: usize) -> Option<String> {
    near(text, number).find_map(|(number, text)| {
        let (key, value) = text.split_once(':').filter(|(key, _)| is_key(key))?;
        let is_joined = !value.is_empty() && !value.starts_with([' ', '/']);
        is_joined.then(|| {
            format!("a space is missing after the colon in line {number}: `{key}: {value}`")
        })
    })
}

/// A line of a key and its value that has no colon between them.
fn without_colon(text: &str, number: usize) -> Option<String> {
    near(text, number).find_map(|(number, text)| {
        let text = text.split(" #").next().unwrap_or(text).trim_end();
        let (key, value) = text.split_once(' ').filter(|(key, _)| is_key(key))?;
        let value = value.trim_start();
        let is_one = !text.contains(':') && !value.contains(' ') && !value.starts_with('#');
        is_one.then(|| format!("a colon is missing in line {number}: `{key}: {value}`"))
    })
}

/// A line with a value, below which this one stands as a key of it.
fn value_above_keys(text: &str, number: usize) -> Option<String> {
    let indented = |text: &str| text.len() - text.trim_start_matches([' ', '-']).len();
    let line = |number: usize| text.lines().nth(number.checked_sub(1)?);
    let is_filled = |number: &usize| line(*number).is_some_and(|text| !text.trim().is_empty());
    let above = (1..number).rev().find(is_filled)?;
    let deeper = indented(line(number)?) > indented(line(above)?);
    let (key, value) = line(above)?.trim_start_matches([' ', '-']).split_once(": ")?;
    let value = value.split(" #").next().unwrap_or(value).trim();
    let is_both = deeper && is_key(key) && !value.is_empty() && !value.starts_with('#');
    is_both.then(|| {
        format!(
            "`{key}` in line {above} has the value `{value}` already, and keys below it as well"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(text: &str, (line, column): (usize, usize)) -> Option<(usize, usize, usize)> {
        let message = "duplicate entry with key \"a\"";
        let (first, second) = twice(text, Position { line, column }, message)?;
        Some((first, second.line, second.column))
    }

    #[test]
    fn a_key_that_stands_twice_is_found_in_lines_and_in_braces() {
        assert_eq!(second("a: 1\nb: { a: 1 }\na: 2\n", (1, 1)), Some((1, 3, 1)));
        assert_eq!(second("x: { a: 1, b: 2, a: 3 }\n", (1, 4)), Some((1, 1, 18)));
        let deeper = "x: { b: { a: 1 }, c: [a, 'a: 2, }'], a: 3, # a: 5\n  \"a\": 4 }\n";
        assert_eq!(second(deeper, (1, 4)), Some((1, 2, 3)));
        assert_eq!(second("x: { b: { a: 1 }, a: 3 }\na: 4\n", (1, 4)), None);
        assert_eq!(second("ж: { a: 1, a: 3 }\n", (1, 4)), Some((1, 1, 12)));
    }

    #[test]
    fn a_missing_colon_is_told_with_its_line() {
        let told = |text: &str, line: usize| {
            let at = Some(Position { line, column: 1 });
            help(text, at, "mapping values are not allowed in this context")
        };
        let colon =
            |line: usize, what: &str| Some(format!("a colon is missing in line {line}: `{what}`"));
        assert_eq!(told("data:\n  kind dataset  # why\n  n: 3\n", 3), colon(2, "kind: dataset"));
        assert_eq!(told("- lr 0.1\n  n: 3\n", 2), colon(1, "lr: 0.1"));
        let columns =
            "keys of one mapping begin in the same column, deeper ones further to the right";
        let both = "`a` in line 1 has the value `b` already, and keys below it as well";
        assert_eq!(told("a: b  # why\n   n: 3\n", 2).as_deref(), Some(both));
        assert_eq!(told("- a: b\n\n      n: 3\n", 3).as_deref(), Some(both));
        for text in ["a: b\nn: 3\n", "two long words\n   n: 3\n", "# a word\nn: 3\n"] {
            assert_eq!(told(text, 2).as_deref(), Some(columns), "{text}");
        }
    }
}
