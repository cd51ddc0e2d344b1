//! A metric over the epochs, drawn in the terminal with Braille characters: two by four dots each.

use std::collections::BTreeSet;

use pipe_runs::Metadata;

use crate::report::table;

/// Size in characters, and in dots.
const WIDTH: usize = 60;
const HEIGHT: usize = 12;
const DOTS_ACROSS: usize = 2 * WIDTH;
const DOTS_DOWN: usize = 4 * HEIGHT;

/// A plot for each metric of the run's history; nothing for those with fewer than two finite
/// values.
pub fn plots(metadata: &Metadata) -> String {
    let names: BTreeSet<&String> =
        metadata.history.iter().flat_map(|epoch| epoch.metrics.keys()).collect();
    let plot = |name: &String| {
        let points = metadata.history.iter().filter_map(|epoch| {
            let value = epoch.metrics.get(name).copied().filter(|v| v.is_finite())?;
            Some((epoch.epoch, value))
        });
        Some(format!("{name}\n{}", plot(&points.collect::<Vec<_>>())?))
    };
    names.into_iter().filter_map(plot).collect::<Vec<_>>().join("\n\n")
}

fn plot(points: &[(u64, f64)]) -> Option<String> {
    let [(first, _), .., (last, _)] = points else { return None };
    let low = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let range = if high > low { high - low } else { 1.0 };
    let across = (last - first).max(1) as f64;
    let place = |(epoch, value): &(u64, f64)| {
        let x = (epoch - first) as f64 / across * (DOTS_ACROSS - 1) as f64;
        (x, (high - value) / range * (DOTS_DOWN - 1) as f64)
    };
    let mut cells = vec![[0u8; WIDTH]; HEIGHT];
    for pair in points.windows(2) {
        let [a, b] = pair else { continue };
        let ((x0, y0), (x1, y1)) = (place(a), place(b));
        let steps = (x1 - x0).abs().max((y1 - y0).abs()).ceil().max(1.0);
        for step in 0..=steps as usize {
            let share = step as f64 / steps;
            let x = (x0 + share * (x1 - x0)).round() as usize;
            let y = (y0 + share * (y1 - y0)).round() as usize;
            if let Some(cell) = cells.get_mut(y / 4).and_then(|row| row.get_mut(x / 2)) {
                *cell |= DOTS[y % 4][x % 2];
            }
        }
    }
    let [top, bottom] = [high, low].map(table::number);
    let width = top.len().max(bottom.len());
    let mut lines = Vec::new();
    for (number, row) in cells.iter().enumerate() {
        let label = match number {
            0 => top.as_str(),
            n if n + 1 == HEIGHT => bottom.as_str(),
            _ => "",
        };
        let drawn: String =
            row.iter().filter_map(|dots| char::from_u32(0x2800 + u32::from(*dots))).collect();
        lines.push(format!("{label:>width$} |{drawn}"));
    }
    let ends = format!("epoch {first}");
    lines.push(format!(
        "{:width$}  {ends}{last:>rest$}",
        "",
        rest = WIDTH.saturating_sub(ends.len())
    ));
    Some(lines.join("\n"))
}

/// Bits of a character's dots, row by row (Unicode, block Braille Patterns).
const DOTS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_line_goes_from_the_upper_left_to_the_lower_right() {
        let text = plot(&[(1, 1.0), (2, 0.5), (3, 0.0)]).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), HEIGHT + 1);
        assert!(lines[0].starts_with("1.0000 |\u{2809}"), "{text}");
        assert!(lines[HEIGHT - 1].starts_with("0.0000 |\u{2800}"), "{text}");
        assert!(!lines[HEIGHT - 1].ends_with('\u{2800}'), "{text}");
        assert!(lines[HEIGHT].ends_with('3'), "{text}");
    }

    #[test]
    fn one_value_is_no_curve_and_a_flat_one_is_a_line() {
        assert_eq!(plot(&[(1, 1.0)]), None);
        assert!(plot(&[(1, 0.5), (9, 0.5)]).unwrap().lines().next().unwrap().contains('\u{2809}'));
    }
}
