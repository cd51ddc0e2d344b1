//! Plain tables: a header, a rule, rows; columns as wide as their widest cell. On a terminal what
//! the last one says goes on below where a line ends.

use std::collections::BTreeMap;

use chrono::{DateTime, Local, Utc};
pub use pipe_core::number_text::short as number;
use pipe_engine::identity::short_digest;
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::style;

/// The narrowest last column that is worth a line of its own for each few words.
const NARROWEST: usize = 24;

/// The longest rule where there is no terminal.
const LONGEST_RULE: usize = 160;

/// Lays rows out under headings. The last column is not padded.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    laid_out(headings, rows, line_width(), |_, cell| cell.to_owned())
}

/// The same for stdout, with the words of one column coloured by what they say.
pub fn with_status(headings: &[&str], rows: &[Vec<String>], status: usize) -> String {
    laid_out(headings, rows, line_width(), |column, cell| match style::of_word(cell) {
        Some(style) if column == status => style::paint_stdout(style, cell),
        _ => cell.to_owned(),
    })
}

/// Cells of a line of the terminal that stdout is.
fn line_width() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0))
}

/// `paint` gives a cell of a column its colour, which takes no room.
fn laid_out(
    headings: &[&str],
    rows: &[Vec<String>],
    line_width: Option<usize>,
    paint: impl Fn(usize, &str) -> String,
) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|h| h.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let before: usize = widths.iter().rev().skip(1).map(|width| width + 2).sum();
    let total = before + widths.last().unwrap_or(&0);
    let room = line_width.map(|width| width.saturating_sub(before)).filter(|r| *r >= NARROWEST);
    let line = |cells: Vec<(&str, String)>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|((cell, painted), width)| {
                format!("{painted}{}", " ".repeat(width.saturating_sub(cell.width())))
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let heads = headings.iter().map(|heading| (*heading, (*heading).to_owned()));
    // What the last column says may be as long as a message; other columns are looked for below.
    let longest = line_width.unwrap_or(LONGEST_RULE.max(before + NARROWEST));
    let rule = "-".repeat(total.min(longest));
    let mut text = vec![line(heads.collect()), rule];
    for row in rows {
        let last = row.len().checked_sub(1).filter(|_| row.len() == headings.len());
        let pieces = match (last, room) {
            (Some(last), Some(room)) => pieces(&row[last], room),
            _ => Vec::new(),
        };
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let cell = pieces.first().filter(|_| Some(column) == last).unwrap_or(cell);
            (cell.as_str(), paint(column, cell))
        });
        text.push(line(cells.collect()));
        text.extend(pieces.iter().skip(1).map(|piece| format!("{}{piece}", " ".repeat(before))));
    }
    text.join("\n")
}

/// Text in lines of so many cells, each a few words; a longer word has a line of its own.
fn pieces(text: &str, room: usize) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match pieces.last_mut().filter(|piece| piece.width() + 1 + word.width() <= room) {
            Some(piece) => *piece = format!("{piece} {word}"),
            None => pieces.push(word.to_owned()),
        }
    }
    pieces
}

/// Comma-separated values (RFC 4180), without the last line's end.
pub fn csv(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing into memory does not fail.
    let _ = writer.write_record(headings);
    for row in rows {
        let _ = writer.write_record(&row);
    }
    let text = writer.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

/// Metrics in one line: `train_loss=0.1375, val_loss=0.1502`.
pub fn metrics(metrics: &BTreeMap<String, f64>) -> String {
    let each = metrics.iter().map(|(name, value)| format!("{name}={}", number(*value)));
    each.collect::<Vec<_>>().join(", ")
}

/// A setting or result in a cell: digests by their beginning, and `-` for what is not there.
pub fn value(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => short_digest(text).chars().take(40).collect(),
        Some(Value::Number(n)) if n.is_f64() => {
            let text = number(n.as_f64().unwrap_or_default());
            if text.contains('e') {
                return text;
            }
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        Some(other) => other.to_string(),
    }
}

/// A time on this machine's clock.
pub fn time(time: &DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// `1.5 MB`, in powers of 1000.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["1".into(), "long name".into()], vec!["12".into(), "x".into()]];
        assert_eq!(
            table(&["Run #", "Name"], &rows),
            "Run #  Name\n----------------\n1      long name\n12     x"
        );
    }

    #[test]
    fn on_a_narrow_terminal_the_last_column_goes_on_below() {
        let long =
            "failed to decode the image /a/path/that/is/longer/than/the/room/b.png: replace it";
        let rows =
            [["data", long], ["base", "no run yet"]].map(|row| row.map(str::to_owned).to_vec());
        let text = laid_out(&["Stage", "Why"], &rows, Some(40), |_, cell| cell.to_owned());
        let expected = [
            "Stage  Why",
            "----------------------------------------",
            "data   failed to decode the image",
            "       /a/path/that/is/longer/than/the/room/b.png:",
            "       replace it",
            "base   no run yet",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        // Where there is no room for it, and where no terminal is, lines stay whole.
        for width in [Some(20), None] {
            let text = laid_out(&["Stage", "Why"], &rows, width, |_, cell| cell.to_owned());
            assert_eq!(text.lines().nth(2), Some(format!("data   {long}").as_str()));
        }
    }

    #[test]
    fn columns_line_up_in_every_script() {
        let rows = [["野菜", "1"], ["cafe\u{301}", "2"], ["груша", "3"]]
            .map(|row| row.map(str::to_owned).to_vec());
        let lines = table(&["Class", "N"], &rows);
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines, ["Class  N", "--------", "野菜   1", "cafe\u{301}   2", "груша  3"]);
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([bytes(999), bytes(1500), bytes(12_345_678)], ["999 B", "1.5 kB", "12.3 MB"]);
    }
}
