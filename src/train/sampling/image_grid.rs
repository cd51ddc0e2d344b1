//! The image grid that people look at: blocks of images, a name beside each, a title above.

use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};

use super::font::HEIGHT;
use super::layout::{Block, GAP, Layout, Margins};
use super::text::Line;

/// Images in rows, each with a name.
#[derive(Debug, Default)]
pub struct ImageGrid {
    pub title: String,
    /// A row is broken into several where it would be long.
    pub rows: Vec<(String, Vec<RgbImage>)>,
    pub captions: Captions,
}

/// What stands beside the images of a grid.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Captions {
    #[default]
    None,
    /// Below each image its number, from 0 through all rows, where images are wide enough.
    Numbers,
    /// Above each column a text; rows are not broken.
    Columns(Vec<String>),
}

const MARGIN: u32 = 8;
/// Names are cut at this many pixels.
const NAME: u32 = 240;
/// Titles are broken at the grid's width, or at this where it is smaller.
const TITLE: u32 = 480;

impl ImageGrid {
    /// The grid as one image: white ground, black text in any script.
    pub fn render(&self) -> RgbImage {
        let names: Vec<Line> = self.rows.iter().map(|(name, _)| Line::within(name, NAME)).collect();
        let longest = names.iter().map(|name| name.width).max().unwrap_or(0);
        let label = if longest > 0 { longest + 2 * GAP } else { 0 };
        let image =
            self.rows.iter().flat_map(|(_, images)| images).map(RgbImage::width).max().unwrap_or(1);
        let layout = self.layout(image, label);
        let title = self.title(image, &layout);
        let below = title.len() as u32 * HEIGHT + if title.is_empty() { 0 } else { 2 * GAP };
        let columns = if let Captions::Columns(texts) = &self.captions { &texts[..] } else { &[] };
        let top = below + if columns.is_empty() { 0 } else { HEIGHT + GAP };
        let inside = title.iter().map(|line| line.width).max().unwrap_or(0).max(layout.width);
        let (width, height) = (inside + 2 * MARGIN, top + layout.height + 2 * MARGIN);
        let mut canvas = RgbImage::from_pixel(width, height, Rgb([255; 3]));
        for (number, line) in title.iter().enumerate() {
            line.render(&mut canvas, MARGIN, MARGIN + number as u32 * HEIGHT);
        }
        for (number, text) in columns.iter().enumerate() {
            let (x, _) = layout.place(Block { x: 0, y: 0 }, number);
            let text = Line::within(text, layout.side);
            text.render(&mut canvas, MARGIN + x, MARGIN + below);
        }
        let mut numbers = 0..;
        for (((_, images), name), block) in self.rows.iter().zip(&names).zip(&layout.blocks) {
            let centred = layout.side.saturating_sub(HEIGHT) / 2;
            name.render(&mut canvas, MARGIN + block.x, MARGIN + top + block.y + centred);
            for ((number, image), of_all) in images.iter().enumerate().zip(numbers.by_ref()) {
                let (x, y) = layout.place(*block, number);
                let shown = scaled(image, layout.side);
                replace(&mut canvas, &shown, (MARGIN + x).into(), (MARGIN + top + y).into());
                if layout.has_captions() {
                    let text = Line::within(&of_all.to_string(), layout.side);
                    text.render(&mut canvas, MARGIN + x, MARGIN + top + y + layout.side);
                }
            }
        }
        canvas
    }

    /// With room for numbers only where the highest one fits below its image.
    fn layout(&self, image: u32, label: u32) -> Layout {
        let counts: Vec<usize> = self.rows.iter().map(|(_, images)| images.len()).collect();
        let unbroken = matches!(self.captions, Captions::Columns(_));
        let plain = Margins { label, caption: 0, unbroken };
        if self.captions == Captions::Numbers {
            let layout = Layout::new(&counts, image, Margins { caption: HEIGHT, ..plain });
            let highest = counts.iter().sum::<usize>().saturating_sub(1).to_string();
            if Line::within(&highest, u32::MAX).width <= layout.side {
                return layout;
            }
        }
        Layout::new(&counts, image, plain)
    }

    /// Says so if images of `image` pixels are shown smaller than they are.
    fn title(&self, image: u32, layout: &Layout) -> Vec<Line> {
        let smaller = if layout.side < image {
            format!(" ({image} x {image} pixels, shown as {side} x {side})", side = layout.side)
        } else {
            String::new()
        };
        match format!("{}{smaller}", self.title) {
            none if none.is_empty() => Vec::new(),
            title => Line::wrapped(&title, layout.width.max(TITLE)),
        }
    }
}

/// Several grids below each other.
pub fn stack(grids: &[ImageGrid]) -> RgbImage {
    let images: Vec<RgbImage> = grids.iter().map(ImageGrid::render).collect();
    let width = images.iter().map(RgbImage::width).max().unwrap_or(1);
    let height = images.iter().map(RgbImage::height).sum::<u32>().max(1);
    let mut all = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    let mut top = 0;
    for image in &images {
        replace(&mut all, image, 0, top);
        top += i64::from(image.height());
    }
    all
}

fn scaled(image: &RgbImage, side: u32) -> RgbImage {
    let filter = if side < image.width() { FilterType::Triangle } else { FilterType::Nearest };
    let height = u64::from(image.height()) * u64::from(side) / u64::from(image.width().max(1));
    resize(image, side, height as u32, filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::Format;

    fn flat(colour: [u8; 3]) -> RgbImage {
        RgbImage::from_pixel(16, 16, Rgb(colour))
    }

    fn grid(rows: Vec<(String, Vec<RgbImage>)>) -> ImageGrid {
        ImageGrid { rows, ..ImageGrid::default() }
    }

    fn black(image: &RgbImage, x: std::ops::Range<u32>, y: std::ops::Range<u32>) -> usize {
        let dots = y.flat_map(|y| x.clone().map(move |x| (x, y)));
        dots.filter(|(x, y)| image.get_pixel(*x, *y).0 == [0; 3]).count()
    }

    #[test]
    fn images_stand_in_their_rows_with_names_beside_them() {
        let (red, blue) = ([200, 0, 0], [0, 0, 200]);
        let rows = vec![
            ("oak".to_owned(), vec![flat(red), flat(blue)]),
            ("pine".to_owned(), vec![flat(blue)]),
        ];
        let image = ImageGrid { title: "a title".into(), rows, ..ImageGrid::default() }.render();
        let left = MARGIN + 4 * 8 + 2 * GAP;
        let top = MARGIN + HEIGHT + 2 * GAP;
        assert_eq!(image.dimensions(), (left + 2 * 68 + MARGIN, top + 2 * 68 + MARGIN));
        let middle =
            |row: u32, column: u32| image.get_pixel(left + column * 68 + 32, top + row * 68 + 32).0;
        assert_eq!([middle(0, 0), middle(0, 1), middle(1, 0)], [red, blue, blue]);
        assert_eq!(middle(1, 1), [255; 3], "an empty place stays white");
        assert!(black(&image, MARGIN..left, top..top + 64) > 20, "the first row's name");
        assert!(black(&image, MARGIN..80, MARGIN..MARGIN + HEIGHT) > 30, "the title");
    }

    #[test]
    fn names_in_every_script_are_told_apart_on_the_grid() {
        let names = ["Früchte", "Fruchte", "野菜", "груша", "μήλο", "تفاح", "तरबूज", "사과", "🍎"];
        let grids = names.map(|name| {
            let image = grid(vec![(name.into(), vec![flat([9; 3])])]).render();
            let name = image::imageops::crop_imm(&image, 0, 0, image.width() - 76, image.height())
                .to_image();
            assert!(black(&name, 0..name.width(), 0..name.height()) > 20, "{name:?}");
            name.into_raw()
        });
        for (i, one) in grids.iter().enumerate() {
            assert!(!grids[..i].contains(one), "{} looks like another", names[i]);
        }
    }

    #[test]
    fn long_names_and_titles_do_not_widen_the_grid_without_end() {
        let rows = vec![("n".repeat(500), vec![flat([9; 3])])];
        let image = ImageGrid { title: "a word ".repeat(100), ..grid(rows) }.render();
        assert!(image.width() <= TITLE + 2 * MARGIN, "{}", image.width());
        assert!(image.height() > 10 * HEIGHT, "the title is there, in lines");
    }

    #[test]
    fn images_that_are_shown_smaller_say_so() {
        let title = |count: usize| {
            ImageGrid::default().title(1024, &Layout::new(&[count], 1024, Margins::default()))
        };
        assert!(title(4).is_empty());
        let line = &title(100)[0];
        assert!(line.width > 8 * "1024 x 1024 pixels, shown as ".len() as u32, "{}", line.width);
    }

    #[test]
    fn a_picture_of_nothing_is_small_and_no_error() {
        assert!(
            Format::Png.encode(&ImageGrid::default().render()).unwrap().starts_with(b"\x89PNG")
        );
        assert!(Format::Png.encode(&stack(&[])).is_ok());
    }

    #[test]
    fn each_image_has_its_number_where_that_can_be_read() {
        let rows = |each: usize| {
            ["oak", "fir"].map(|name| (name.to_owned(), vec![flat([9; 3]); each])).to_vec()
        };
        let numbered = |each| ImageGrid { captions: Captions::Numbers, ..grid(rows(each)) };
        let (left, below) = (MARGIN + 3 * 8 + 2 * GAP, MARGIN + 64);
        let image = numbered(2).render();
        assert_eq!(image.height(), grid(rows(2)).render().height() + 2 * HEIGHT);
        for (row, column) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (x, y) = (left + column * 68, below + row * (68 + HEIGHT));
            assert!(black(&image, x..x + 64, y..y + HEIGHT) > 5, "{row} {column}");
        }
        let (many, plain) = (numbered(20_000).render(), grid(rows(20_000)).render());
        assert_eq!(many.dimensions(), plain.dimensions(), "no margins for what cannot be read");
    }

    #[test]
    fn columns_have_a_text_above_them() {
        let rows = vec![("oak".to_owned(), vec![flat([9; 3]); 18]); 2];
        let captions = Captions::Columns((0..18).map(|i| format!("σ {i}")).collect());
        let image = ImageGrid { captions, ..grid(rows) }.render();
        let left = MARGIN + 3 * 8 + 2 * GAP;
        assert_eq!(image.width(), left + 18 * 68 + MARGIN);
        for column in 0..18 {
            let x = left + column * 68;
            assert!(black(&image, x..x + 64, MARGIN..MARGIN + HEIGHT) > 5, "{column}");
        }
    }
}
