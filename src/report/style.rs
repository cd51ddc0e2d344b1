//! Colours on stderr: only on a terminal that has them, and not where `NO_COLOR` or `TERM=dumb`
//! asks for none.

use std::fmt::Display;
use std::sync::OnceLock;

use anstyle::{AnsiColor, Style};

pub const ERROR: Style = AnsiColor::Red.on_default().bold();
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
pub const HINT: Style = AnsiColor::Cyan.on_default();
pub const STRONG: Style = Style::new().bold();
pub const FAINT: Style = Style::new().dimmed();

/// Whether stderr shows colours.
pub fn colours() -> bool {
    static COLOURS: OnceLock<bool> = OnceLock::new();
    *COLOURS.get_or_init(|| shows_colours(&std::io::stderr()))
}

/// Whether stdout shows colours.
pub fn stdout_colours() -> bool {
    static COLOURS: OnceLock<bool> = OnceLock::new();
    *COLOURS.get_or_init(|| shows_colours(&std::io::stdout()))
}

fn shows_colours(stream: &impl anstream::stream::RawStream) -> bool {
    anstream::AutoStream::choice(stream) != anstream::ColorChoice::Never
}

/// Text in a style, where stdout shows colours.
pub fn paint_stdout(style: Style, text: impl Display) -> String {
    if stdout_colours() { styled(style, text) } else { text.to_string() }
}

/// How the status of a stage or run is painted, or what a plan does with a stage.
pub fn of_word(word: &str) -> Option<Style> {
    Some(match word {
        "done" | "completed" => AnsiColor::Green.on_default(),
        "partial" | "stale" | "interrupted" => AnsiColor::Yellow.on_default(),
        "failed" => AnsiColor::Red.on_default(),
        "running" | "run" | "run?" | "resume" | "extend" => HINT,
        "not run" | "on demand" | "skip" => FAINT,
        _ => return None,
    })
}

/// Text in a style.
pub fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A message with its label, such as `error`: the excerpt's frame faint, the marks under it and the
/// help in colour.
pub fn message(label: &str, style: Style, text: &str) -> String {
    if !colours() {
        return format!("{label}: {text}");
    }
    let mut lines = text.lines();
    let first =
        format!("{} {}", styled(style, format!("{label}:")), lines.next().unwrap_or_default());
    let rest = lines
        .map(|line| help(line).or_else(|| excerpt(line, style)).unwrap_or_else(|| line.to_owned()));
    std::iter::once(first).chain(rest).collect::<Vec<_>>().join("\n")
}

/// `  = did you mean …`
fn help(line: &str) -> Option<String> {
    let text = line.strip_prefix("  = ")?;
    Some(format!("  {} {text}", styled(HINT, "=")))
}

/// `12 | text` and `   |   ^^^`
fn excerpt(line: &str, style: Style) -> Option<String> {
    let (number, text) = line.split_once(" |")?;
    if !number.chars().all(|c| c.is_ascii_digit() || c == ' ') {
        return None;
    }
    let marks = text.trim_start();
    let is_marks = !marks.is_empty() && marks.chars().all(|c| c == '^');
    let lead = &text[..text.len() - marks.len()];
    let text = if is_marks { format!("{lead}{}", styled(style, marks)) } else { text.to_owned() };
    Some(format!("{}{text}", styled(FAINT, format!("{number} |"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_help_are_painted_and_text_is_not() {
        assert_eq!(help("  = try this").unwrap(), "  \u{1b}[36m=\u{1b}[0m try this");
        let marks = excerpt("   |   ^^^", ERROR).unwrap();
        assert_eq!(marks, "\u{1b}[2m   |\u{1b}[0m   \u{1b}[1m\u{1b}[31m^^^\u{1b}[0m");
        assert_eq!(excerpt("12 | a: b", ERROR).unwrap(), "\u{1b}[2m12 |\u{1b}[0m a: b");
        assert_eq!(excerpt("base | a: b", ERROR), None);
        assert_eq!(help("plain"), None);
    }
}
