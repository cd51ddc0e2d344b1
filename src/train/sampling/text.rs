//! A line of text in any script on an image grid: composed, Arabic letters joined, right-to-left
//! parts turned, marks upon their letters.

use image::{Rgb, RgbImage};
use unicode_bidi::{BidiInfo, Level};
use unicode_normalization::UnicodeNormalization;

use super::arabic;
use super::font::{Glyph, HEIGHT, Place, glyph};

const MORE: char = '…';

/// Which letters stand where, and how wide it is, in pixels.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    glyphs: Vec<(u32, Glyph)>,
    pub width: u32,
}

/// A letter with the marks upon it.
#[derive(Clone)]
struct Letter {
    text: String,
    base: Glyph,
    marks: Vec<Glyph>,
}

impl Line {
    #[cfg(test)]
    fn new(text: &str) -> Self {
        Self::lay_out(&letters(text))
    }

    /// A line of text within so many pixels: what does not fit is left out, and an ellipsis says so.
    pub fn within(text: &str, most: u32) -> Self {
        let mut letters = letters(text);
        if width(&letters) > most {
            let more = Letter::new(MORE);
            while !letters.is_empty() && width(&letters) + more.base.width > most {
                letters.pop();
            }
            letters.push(more);
        }
        Self::lay_out(&letters)
    }

    /// Lines of at most so many pixels, broken at spaces where there are any.
    pub fn wrapped(text: &str, most: u32) -> Vec<Self> {
        let (mut lines, mut rest) = (Vec::new(), letters(text));
        while width(&rest) > most && rest.len() > 1 {
            let mut end = 0;
            while end + 1 < rest.len() && width(&rest[..=end]) <= most {
                end += 1;
            }
            let end = rest[..end]
                .iter()
                .rposition(|l| l.text == " ")
                .map_or(end.max(1), |space| space + 1);
            let tail = rest.split_off(end);
            lines.push(Self::lay_out(&rest));
            rest = tail;
        }
        lines.push(Self::lay_out(&rest));
        lines
    }

    fn lay_out(letters: &[Letter]) -> Self {
        let (mut glyphs, mut x) = (Vec::new(), 0);
        for (letter, mirrored) in in_visual_order(letters) {
            glyphs.push((x, mirrored.unwrap_or(letter.base)));
            let end = x + letter.base.width;
            for mark in &letter.marks {
                let at = match mark.place {
                    Place::Back(columns) => end.saturating_sub(columns),
                    _ => (x + letter.base.width / 2).saturating_sub(mark.width / 2),
                };
                glyphs.push((at, *mark));
            }
            x = end;
        }
        Self { glyphs, width: x }
    }

    /// Renders it in black with its upper left corner at a place. What lies outside of the image is
    /// left out.
    pub fn render(&self, image: &mut RgbImage, left: u32, top: u32) {
        for (x, glyph) in &self.glyphs {
            for (row, bits) in (0..HEIGHT).zip(glyph.rows) {
                for column in (0..glyph.width).filter(|column| bits << column & 0x8000 != 0) {
                    if let Some(pixel) = image.get_pixel_mut_checked(left + x + column, top + row) {
                        *pixel = Rgb([0; 3]);
                    }
                }
            }
        }
    }
}

impl Letter {
    fn new(c: char) -> Self {
        Self {
            text: c.to_string(),
            base: Glyph { place: Place::Alone, ..glyph(c) },
            marks: Vec::new(),
        }
    }
}

fn width(letters: &[Letter]) -> u32 {
    letters.iter().map(|letter| letter.base.width).sum()
}

/// In the order in which they are read.
fn letters(text: &str) -> Vec<Letter> {
    let composed: String = text.nfc().filter(|c| !is_invisible(*c)).map(visible).collect();
    let mut letters: Vec<Letter> = Vec::new();
    for c in arabic::join(&composed).chars() {
        match letters.last_mut() {
            Some(letter) if glyph(c).is_mark() => {
                letter.marks.push(glyph(c));
                letter.text.push(c);
            }
            _ => letters.push(Letter::new(c)),
        }
    }
    letters
}

/// From left to right, with the mirrored glyph of brackets in parts that are read from right to
/// left.
fn in_visual_order(letters: &[Letter]) -> Vec<(&Letter, Option<Glyph>)> {
    let text: String = letters.iter().map(|letter| letter.text.as_str()).collect();
    let bidi = BidiInfo::new(&text, None);
    let mut levels: Vec<Level> = Vec::with_capacity(letters.len());
    let mut at = 0;
    for letter in letters {
        levels.push(bidi.levels.get(at).copied().unwrap_or_else(Level::ltr));
        at += letter.text.len();
    }
    let order = BidiInfo::reorder_visual(&levels);
    let turned = |at: usize| {
        let mirrored = levels[at].is_rtl().then(|| mirrored(&letters[at].text));
        (&letters[at], mirrored.flatten().map(glyph))
    };
    order.into_iter().map(turned).collect()
}

fn mirrored(text: &str) -> Option<char> {
    const PAIRS: &str = "()[]{}<>«»‹›";
    let mut characters = PAIRS.chars();
    let at = characters.position(|c| text.starts_with(c))?;
    PAIRS.chars().nth(at ^ 1)
}

/// Characters that only say how others are shown: joiners, directions, variants.
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c),
        0xAD | 0x34F | 0x61C | 0x180B..=0x180F | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F
        | 0xFE00..=0xFE0F | 0xFEFF | 0xE0000..=0xE0FFF)
}

/// A picture of a control character, which would end the line.
fn visible(c: char) -> char {
    match u32::from(c) {
        code @ 0..0x20 => char::from_u32(0x2400 + code).unwrap_or(c),
        0x7F => '\u{2421}',
        0x80..0xA0 | 0x2028 | 0x2029 => '\u{FFFD}',
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where each glyph of these characters stands.
    #[track_caller]
    fn places(text: &str, of: &str) -> Vec<u32> {
        let line = Line::new(text);
        let find = |c: char| {
            let wanted = glyph(c).rows;
            line.glyphs.iter().find(|(_, g)| g.rows == wanted).unwrap_or_else(|| panic!("no {c}")).0
        };
        of.chars().map(find).collect()
    }

    #[test]
    fn no_letter_of_a_class_name_becomes_another_one() {
        for name in
            ["Früchte", "野菜", "груша", "μήλο", "تفاح", "तरबूज", "사과", "りんご", "apple 🍎 ♥"]
        {
            let letters = letters(name);
            let boxes =
                letters.iter().filter(|l| l.base.rows[0] == 0xFFFF && l.base.rows[15] == 0xFFFF);
            assert_eq!(boxes.count(), 0, "{name}");
            assert!(letters.iter().all(|l| !l.text.contains('?')), "{name}");
            assert!(Line::new(name).width >= 8 * 3, "{name}");
        }
    }

    #[test]
    fn both_spellings_of_a_name_look_the_same() {
        assert_eq!(Line::new("Fru\u{308}chte"), Line::new("Früchte"));
        let taken_apart = "\u{1109}\u{1161}\u{1100}\u{116a}"; // as macOS writes a Korean folder's name
        assert_eq!(Line::new(taken_apart), Line::new("사과"));
    }

    #[test]
    fn right_to_left_parts_are_turned_and_the_rest_is_not() {
        assert_eq!(places("אבג", "אבג"), [16, 8, 0]);
        assert_eq!(places("ab אבג", "abאבג"), [0, 8, 40, 32, 24]);
        assert_eq!(places("אב 12", "אב12"), [32, 24, 0, 8], "numbers are read from left to right");
        assert_eq!(places("(אב)", "()"), [0, 24], "brackets open towards what they enclose");
        let beh = places("بب", "\u{fe91}\u{fe90}");
        assert!(beh[0] > beh[1], "the form that begins stands at the right: {beh:?}");
    }

    #[test]
    fn marks_stand_upon_their_letter_and_take_no_room() {
        assert_eq!(Line::new("x\u{302}y").width, 16);
        assert_eq!(places("x\u{302}y", "x\u{302}y"), [0, 0, 8]);
        assert_eq!(places("क\u{93f}त", "क\u{93f}त"), [0, 0, 16]);
        assert_eq!(places("ש\u{5b8}ל", "ש\u{5b8}ל"), [8, 8, 0], "in Hebrew too");
        assert_eq!(Line::new("\u{301}").width, 8, "a mark alone");
    }

    #[test]
    fn what_only_steers_others_is_not_drawn_and_controls_are_seen() {
        assert_eq!(Line::new("\u{2764}\u{fe0f}"), Line::new("\u{2764}"));
        assert_eq!(Line::new("a\u{202e}b"), Line::new("ab"));
        assert_eq!(Line::new("a\nb"), Line::new("a␊b"));
        assert_eq!(Line::new("").width, 0);
    }

    #[test]
    fn long_names_are_cut_with_an_ellipsis_and_long_titles_are_wrapped() {
        let line = Line::within(&"x".repeat(100), 80);
        assert!(line.width <= 80 && line.glyphs.last().unwrap().1.rows == glyph(MORE).rows);
        assert_eq!(Line::within("short", 80), Line::new("short"));
        assert!(Line::within("野菜野菜", 40).width <= 40);
        let lines = Line::wrapped("one two three", 64);
        assert_eq!(lines, [Line::new("one two "), Line::new("three")]);
        assert_eq!(Line::wrapped(&"x".repeat(20), 80).len(), 2);
        assert_eq!(
            Line::wrapped("野", 8).len(),
            1,
            "a letter that is too wide is drawn all the same"
        );
        assert_eq!(Line::wrapped("", 80).len(), 1);
    }
}
