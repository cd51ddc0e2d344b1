//! Plain tables: a header, a rule, rows; columns as wide as their widest cell.

use chrono::{DateTime, Local, Utc};
use unicode_width::UnicodeWidthStr;

/// Lays rows out under headings. The last column is not padded.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|h| h.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| pad(cell, *width)).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let total = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
    let mut text = vec![line(headings.to_vec()), "-".repeat(total)];
    text.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    text.join("\n")
}

/// A cell filled up with spaces to so many columns of a terminal, of which a letter may take two or
/// none.
fn pad(cell: &str, width: usize) -> String {
    format!("{cell}{}", " ".repeat(width.saturating_sub(cell.width())))
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
