//! Where the images of a grid go: blocks of images, a name beside each, in a shape that suits a
//! screen. Arithmetic only.

/// Images smaller than this are enlarged, by a whole factor, to at least so many pixels.
const SIDE: u32 = 64;
/// Nothing is enlarged beyond this width or height of all.
const ENLARGED: u32 = 4096;
/// Above this images are shown smaller than they are.
const LARGEST: u32 = 8192;
/// Up to this width a row is not broken, nor a column up to this height.
const SMALL: u32 = 640;
pub(super) const GAP: u32 = 4;
/// Between blocks of several rows.
const BETWEEN: u32 = 8;
/// More images beside each other are not tried.
const COLUMNS: usize = 128;
const STACKS: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Pixels of an image's side as shown.
    pub side: u32,
    pub width: u32,
    pub height: u32,
    pub blocks: Vec<Block>,
    /// Images beside each other in a block.
    columns: usize,
    margins: Margins,
}

/// What images are laid out beside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Margins {
    /// Pixels for the names at the left of the blocks.
    pub label: u32,
    /// Pixels below each image.
    pub caption: u32,
    /// Rows are not broken, however long.
    pub unbroken: bool,
}

/// The upper left corner of a block, which begins with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub x: u32,
    pub y: u32,
}

impl Layout {
    /// For blocks of so many images, `image` pixels wide.
    pub fn new(counts: &[usize], image: u32, margins: Margins) -> Self {
        let image = image.max(1);
        let mut factor = SIDE.div_ceil(image);
        loop {
            let layout = Self::of_side(counts, image * factor, margins);
            if layout.largest() <= ENLARGED || factor == 1 {
                return layout.shrunk(counts, margins);
            }
            factor -= 1;
        }
    }

    fn shrunk(self, counts: &[usize], margins: Margins) -> Self {
        let mut layout = self;
        while layout.largest() > LARGEST && layout.side > 1 {
            let side = u64::from(layout.side) * u64::from(LARGEST) / u64::from(layout.largest());
            layout = Self::of_side(counts, (side as u32).clamp(1, layout.side - 1), margins);
        }
        layout
    }

    /// A row for each block if that has a shape to look at; otherwise broken into what is nearest
    /// to a square.
    fn of_side(counts: &[usize], side: u32, margins: Margins) -> Self {
        let longest = counts.iter().copied().max().unwrap_or(0);
        let rows = Self::arranged(counts, side, margins, longest.max(1), 1);
        let (wide, high) = (SMALL.max(2 * rows.height), SMALL.max(2 * rows.width));
        if margins.unbroken || (rows.width <= wide && rows.height <= high) {
            return rows;
        }
        let columns = 1..=longest.clamp(1, COLUMNS);
        let tried = columns.flat_map(|columns| {
            (1..=counts.len().clamp(1, STACKS))
                .map(move |stacks| Self::arranged(counts, side, margins, columns, stacks))
        });
        tried
            .min_by_key(|l| (l.largest(), u64::from(l.width) * u64::from(l.height)))
            .unwrap_or(rows)
    }

    /// With `columns` images beside each other in a block, and the blocks in at most `stacks`
    /// stacks beside each other.
    fn arranged(
        counts: &[usize],
        side: u32,
        margins: Margins,
        columns: usize,
        stacks: usize,
    ) -> Self {
        let cell = side + GAP;
        let Margins { label, caption, .. } = margins;
        let lines = |count: usize| count.div_ceil(columns).max(1) as u32;
        let between = if counts.iter().any(|count| *count > columns) { BETWEEN } else { 0 };
        let height = |count: &usize| lines(*count) * (cell + caption) + between;
        let all: u32 = counts.iter().map(height).sum();
        let highest = counts.iter().map(height).max().unwrap_or(0);
        let most = all.div_ceil(stacks as u32).max(highest);
        let stack_width = label + columns as u32 * cell;
        let (mut blocks, mut x, mut y, mut bottom) = (Vec::with_capacity(counts.len()), 0, 0, 0);
        for count in counts {
            if y > 0 && y + height(count) > most {
                (x, y) = (x + stack_width + 2 * BETWEEN, 0);
            }
            blocks.push(Block { x, y });
            y += height(count);
            bottom = bottom.max(y - between);
        }
        Self { side, width: x + stack_width, height: bottom, blocks, columns, margins }
    }

    /// Whether there is room below the images.
    pub fn has_captions(&self) -> bool {
        self.margins.caption > 0
    }

    fn largest(&self) -> u32 {
        self.width.max(self.height)
    }

    /// Where an image of a block goes.
    pub fn place(&self, block: Block, image: usize) -> (u32, u32) {
        let (column, row) = ((image % self.columns) as u32, (image / self.columns) as u32);
        let (cell, Margins { label, caption, .. }) = (self.side + GAP, self.margins);
        (block.x + label + column * cell, block.y + row * (cell + caption))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(label: u32) -> Margins {
        Margins { label, ..Margins::default() }
    }

    #[test]
    fn classes_have_a_row_each_where_that_is_easy_to_look_at() {
        let layout = Layout::new(&[8, 8, 8, 8], 16, label(50));
        assert_eq!((layout.side, layout.width, layout.height), (64, 50 + 8 * 68, 4 * 68));
        assert_eq!(layout.blocks[2], Block { x: 0, y: 2 * 68 });
        assert_eq!(layout.place(layout.blocks[2], 3), (50 + 3 * 68, 2 * 68));
    }

    #[test]
    fn many_images_of_one_class_make_a_square() {
        let layout = Layout::new(&[64], 32, label(56));
        assert_eq!((layout.width, layout.height), (56 + 8 * 68, 8 * 68));
    }

    #[test]
    fn many_classes_stand_in_several_stacks() {
        for (classes, each) in [(100, 1), (100, 4), (1000, 1), (32, 4), (2, 64), (3, 1), (64, 1)] {
            let layout = Layout::new(&vec![each; classes], 32, label(120));
            let (long, short) = (layout.largest(), layout.width.min(layout.height));
            assert!(long <= SMALL || long <= 2 * short, "{classes} x {each}: {long} x {short}");
        }
    }

    #[test]
    fn no_two_images_overlap_and_all_are_inside() {
        for counts in [vec![5, 0, 9, 1], vec![1; 77], vec![300, 1, 1, 40], vec![10_000], vec![]] {
            let layout = Layout::new(&counts, 24, label(30));
            let places = counts.iter().zip(&layout.blocks).flat_map(|(count, block)| {
                let layout = &layout;
                (0..*count).map(move |image| layout.place(*block, image))
            });
            let mut seen = std::collections::HashSet::new();
            let cell = layout.side + GAP;
            for (x, y) in places {
                assert!(
                    x + layout.side <= layout.width && y + layout.side <= layout.height,
                    "{counts:?}"
                );
                let column = (x / (cell + 1), y / (cell + 1));
                assert!(seen.insert((x, y)), "{counts:?} {column:?}");
            }
        }
    }

    #[test]
    fn huge_grids_are_bounded() {
        let small = Layout::new(&[10_000], 16, label(0));
        assert!(small.side < 64 && small.largest() <= ENLARGED, "{} {}", small.side, small.width);
        for (count, image) in [(10_000, 256), (10_000, 1024), (100, 1024)] {
            let layout = Layout::new(&[count], image, label(0));
            assert!(layout.largest() <= LARGEST && layout.side < image, "{}", layout.largest());
            assert!(
                layout.largest() > LARGEST * 3 / 4,
                "not smaller than need be: {}",
                layout.largest()
            );
        }
        assert_eq!(Layout::new(&[16], 1024, label(0)).side, 1024, "what fits is shown as it is");
    }

    #[test]
    fn captions_take_room_below_each_image() {
        let margins = Margins { label: 50, caption: 16, unbroken: false };
        let layout = Layout::new(&[8, 8, 8, 8], 16, margins);
        assert_eq!((layout.side, layout.width, layout.height), (64, 50 + 8 * 68, 4 * 84));
        assert_eq!(layout.place(layout.blocks[2], 3), (50 + 3 * 68, 2 * 84));
        let many = Layout::new(&[64], 32, margins);
        assert_eq!(
            many.place(many.blocks[0], many.columns),
            (50, 84),
            "also where rows are broken"
        );
    }

    #[test]
    fn a_row_is_not_broken_where_it_must_not_be() {
        let counts = [18; 2];
        let (broken, unbroken) = (label(0), Margins { unbroken: true, ..label(0) });
        assert!(Layout::new(&counts, 32, broken).columns < 18);
        let layout = Layout::new(&counts, 32, unbroken);
        assert_eq!((layout.columns, layout.height), (18, 2 * 68));
        assert!(Layout::new(&[200], 1024, unbroken).width <= LARGEST);
    }
}
