//! The line of a running stage: what matters most stays when the terminal is narrow. Pure: pieces
//! and a width in, text out.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The bar between brackets is at most so wide, and is left out below so many cells.
const BAR: (usize, usize) = (24, 8);

/// A piece of the line.
pub struct Segment {
    text: String,
    /// Which pieces go first when there is no room: those with the highest number.
    rank: u8,
}

/// A piece that goes when there is no room, the highest rank first.
pub fn segment(rank: u8, text: impl Into<String>) -> Segment {
    Segment { text: text.into(), rank }
}

/// `lead [====>   ] piece  piece` in at most `width` cells. `share`: how far it is, between 0 and
/// 1, where that is known.
pub fn render(width: usize, lead: &str, share: Option<f64>, mut segments: Vec<Segment>) -> String {
    segments.retain(|segment| !segment.text.is_empty());
    let cells = |text: &str| text.width();
    let total = |segments: &[Segment]| {
        cells(lead) + segments.iter().map(|p| 2 + cells(&p.text)).sum::<usize>()
    };
    while total(&segments) > width {
        let Some(rank) = segments.iter().map(|p| p.rank).max() else { break };
        segments.retain(|p| p.rank != rank);
    }
    let room = width.saturating_sub(total(&segments));
    let bar = share.filter(|_| room >= BAR.1 + 3).map(|share| bar(share, (room - 3).min(BAR.0)));
    let mut text = cut(lead, width);
    text.extend(bar.map(|bar| format!(" {bar}")));
    for segment in segments {
        text.push_str("  ");
        text.push_str(&segment.text);
    }
    text
}

/// As much of a text as so many cells of a terminal hold.
fn cut(text: &str, width: usize) -> String {
    let mut room = width;
    let fits = |c: &char| match room.checked_sub(c.width().unwrap_or(0)) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    text.chars().take_while(fits).collect()
}

fn bar(share: f64, width: usize) -> String {
    let full = (share.clamp(0.0, 1.0) * width as f64).floor() as usize;
    let head = if full < width { ">" } else { "" };
    format!("[{:<width$}]", "=".repeat(full) + head)
}

/// A length of time, as exact as one wants to know it: `12 s`, `4 min 05 s`, `2 h 05 min`, `3 d 4
/// h`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_width(width: usize) -> String {
        let segments = vec![
            segment(3, "41/128"),
            segment(1, "loss 0.3121"),
            segment(4, "102 images/s"),
            segment(5, "best 0.2806 (2)"),
            segment(6, "340 MB"),
            segment(2, "4 min 05 s left"),
        ];
        render(width, "Epoch 3/5", Some(0.5), segments)
    }

    #[test]
    fn a_narrow_terminal_keeps_what_matters_most() {
        let lines: Vec<String> = [120, 90, 60, 40, 30, 5].map(of_width).to_vec();
        assert_eq!(
            lines,
            [
                "Epoch 3/5 [============>           ]  41/128  loss 0.3121  102 images/s  best 0.2806 (2)  340 MB  4 min 05 s left",
                "Epoch 3/5  41/128  loss 0.3121  102 images/s  best 0.2806 (2)  340 MB  4 min 05 s left",
                "Epoch 3/5 [=====>    ]  41/128  loss 0.3121  4 min 05 s left",
                "Epoch 3/5  loss 0.3121  4 min 05 s left",
                "Epoch 3/5  loss 0.3121",
                "Epoch",
            ]
            .map(str::to_owned)
        );
        for (text, width) in lines.iter().zip([120, 90, 60, 40, 30, 5]) {
            assert!(text.chars().count() <= width, "{text}");
        }
    }

    #[test]
    fn letters_that_take_two_cells_are_counted_as_two() {
        let line = render(12, "野菜: preparing", None, vec![segment(1, "9/16")]);
        assert_eq!(line, "野菜: prepar");
    }

    #[test]
    fn times_are_short() {
        let shown = [0.4, 59.4, 245.0, 7530.0, 273_600.0].map(duration);
        assert_eq!(shown, ["0 s", "59 s", "4 min 05 s", "2 h 05 min", "3 d 4 h"]);
    }
}
