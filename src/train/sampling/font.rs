//! The letters of image grids: GNU Unifont, 8 or 16 columns of 16 rows for a character of any
//! script, and a box with the number of any other. Unpacked when a letter is first needed. Knows
//! nothing of text.

use std::io::Read;
use std::sync::OnceLock;

use flate2::read::ZlibDecoder;

/// Rows of a glyph.
pub(super) const HEIGHT: u32 = 16;

/// A character as dots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Glyph {
    /// 8 or 16 columns.
    pub width: u32,
    /// From above; the highest bit is the leftmost column.
    pub rows: [u16; HEIGHT as usize],
    pub place: Place,
}

/// Where a glyph goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind what stands before it.
    Alone,
    /// Upon the letter before it, so many columns left of that one's end.
    Back(u32),
    /// Upon the letter before it, in its middle.
    Centred,
}

impl Glyph {
    pub fn is_mark(&self) -> bool {
        self.place != Place::Alone
    }
}

/// The glyph of a character.
pub(super) fn glyph(c: char) -> Glyph {
    static NARROW: OnceLock<Glyphs> = OnceLock::new();
    static WIDE: OnceLock<Glyphs> = OnceLock::new();
    let narrow = NARROW.get_or_init(|| Glyphs::unpack(include_bytes!("font/narrow.z"), 8));
    let wide = || WIDE.get_or_init(|| Glyphs::unpack(include_bytes!("font/wide.z"), 16));
    narrow.get(c).or_else(|| wide().get(c)).unwrap_or_else(|| number(c))
}

/// One unpacked file: `font/pack.py` says what is in it.
struct Glyphs {
    width: u32,
    ranges: Vec<Range>,
    bits: Vec<u8>,
}

/// Characters that follow each other.
struct Range {
    first: u32,
    count: u32,
    /// Columns to go back; `CENTRED` is none.
    back: u16,
    /// The number of its first glyph.
    offset: usize,
}

const CENTRED: u16 = 255;

impl Glyphs {
    /// A file that is not whole has no glyphs: letters are boxes then.
    fn unpack(packed: &[u8], width: u32) -> Self {
        let mut bytes = Vec::new();
        let mut ranges = Vec::new();
        if ZlibDecoder::new(packed).read_to_end(&mut bytes).is_ok()
            && let Some((count, entries)) = bytes.split_first_chunk()
        {
            let mut offset = 0;
            for entry in entries.chunks_exact(8).take(u32::from_le_bytes(*count) as usize) {
                let [a, b, c, d, n, m, s, t] = *entry else { continue };
                let (first, count) = (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([n, m]));
                ranges.push(Range {
                    first,
                    count: count.into(),
                    back: u16::from_le_bytes([s, t]),
                    offset,
                });
                offset += usize::from(count);
            }
        }
        let head = (4 + 8 * ranges.len()).min(bytes.len());
        Self { width, ranges, bits: bytes.split_off(head) }
    }

    fn get(&self, c: char) -> Option<Glyph> {
        let code = u32::from(c);
        let after = self.ranges.partition_point(|range| range.first <= code);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        let within = code - range.first;
        if within >= range.count {
            return None;
        }
        let size = (2 * self.width) as usize;
        let bits = self.bits.get((range.offset + within as usize) * size..)?.get(..size)?;
        let half = |row: usize, half: usize| bits.get(16 * half + row).copied().unwrap_or(0);
        let place = match range.back {
            0 => Place::Alone,
            CENTRED => Place::Centred,
            back => Place::Back(back.into()),
        };
        let rows = std::array::from_fn(|row| u16::from_be_bytes([half(row, 0), half(row, 1)]));
        Some(Glyph { width: self.width, rows, place })
    }
}

/// A box with the character's number in it, in hexadecimal.
fn number(c: char) -> Glyph {
    /// Each 3 columns of 5 rows, a row in three bits.
    const DIGITS: [u16; 16] = [
        0o75557, 0o26227, 0o71747, 0o71717, 0o55711, 0o74717, 0o74757, 0o71111, 0o75757, 0o75717,
        0o75755, 0o65656, 0o74447, 0o65556, 0o74747, 0o74744,
    ];
    let digits: Vec<char> = format!("{:04X}", u32::from(c)).chars().collect();
    let mut rows = [0x8001; HEIGHT as usize];
    (rows[0], rows[15]) = (0xFFFF, 0xFFFF);
    let lines = digits.chunks(digits.len().div_ceil(2));
    for (line, top) in lines.zip([2, 9]) {
        for (place, digit) in line.iter().enumerate() {
            let shape = DIGITS[digit.to_digit(16).unwrap_or(0) as usize];
            for row in 0..5 {
                let three = shape >> (3 * (4 - row)) & 7;
                rows[top + row] |= three << (11 - 4 * place - 2 * (3 - line.len()).min(1));
            }
        }
    }
    Glyph { width: 16, rows, place: Place::Alone }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(c: char) -> Vec<String> {
        let glyph = glyph(c);
        let dot = |row: u16, column: u32| if row << column & 0x8000 == 0 { ' ' } else { '#' };
        let line = |row: &u16| (0..glyph.width).map(|column| dot(*row, column)).collect::<String>();
        glyph.rows.iter().map(|row| line(row).trim_end().to_owned()).collect()
    }

    #[test]
    fn letters_of_every_script_have_dots_and_no_two_the_same() {
        let letters: Vec<char> = "aZ0ü?жΩאبगक世가あア野ไ😀🌲🇩♥ﷺ\u{2424}".chars().collect();
        let mut seen = std::collections::HashSet::new();
        for c in letters {
            let own = glyph(c);
            assert!(own.rows.iter().any(|row| *row != 0), "{c}");
            assert_ne!(own, number(c), "{c} is a box with its number");
            assert!(seen.insert(own.rows), "{c} looks like another");
        }
        assert_eq!([glyph('a').width, glyph('野').width], [8, 16]);
    }

    #[test]
    fn a_narrow_letter_has_its_dots_in_the_left_half() {
        assert_eq!(shown('T')[4..8], [" #######", "    #", "    #", "    #"]);
        assert!(glyph('T').rows.iter().all(|row| row & 0xFF == 0));
    }

    #[test]
    fn marks_go_upon_the_letter_before_them() {
        assert_eq!(glyph('\u{301}').place, Place::Back(8));
        assert_eq!(glyph('\u{93f}').place, Place::Back(16));
        assert_eq!(glyph('\u{5b8}').place, Place::Centred);
        assert!(!glyph('é').is_mark());
    }

    #[test]
    fn a_character_without_a_glyph_is_a_box_with_its_number() {
        let four = shown('\u{E123}');
        assert_eq!(four[0], "#".repeat(16));
        assert_eq!(
            four[2..7],
            [
                "#   ###  #     #",
                "#   #   ##     #",
                "#   ###  #     #",
                "#   #    #     #",
                "#   ### ###    #"
            ]
        );
        let six = shown('\u{10FFFD}');
        assert_eq!(six[9], "# ### ### ##   #");
        assert_ne!(glyph('\u{E123}'), glyph('\u{E124}'));
    }

    #[test]
    fn damaged_files_have_no_glyphs_and_are_no_panic() {
        let whole = include_bytes!("font/narrow.z");
        for cut in [0, 1, 100, whole.len() / 2] {
            assert_eq!(Glyphs::unpack(&whole[..cut], 8).get('a'), None, "{cut}");
        }
    }
}
