//! How attention is cut into workgroups, threads and tiles. Sizes decide it, and nothing else.

/// Numbers of a workgroup's shared memory: 16 KiB, what every adapter has.
const MEMORY: usize = 4096;
/// Numbers of the two tiles in it: less memory lets more workgroups run side by side.
const TILES: usize = 2048;
/// Numbers of a row that one thread holds in registers, of each array.
const SLICE: usize = 16;
/// The most queries, or keys, of a workgroup.
const MOST_ROWS: usize = 64;
/// The most slices of rows of a workgroup.
const MOST_SLICES: usize = 128;
/// Numbers of the bias's gradient that a workgroup may spend on copies of it.
const COPIES: usize = 1024;

/// The numbers of a head in an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Query,
    Key,
    Value,
    /// Of the result, or its gradient.
    Mixed,
}

/// Sizes that a kernel is compiled for. A workgroup serves a block of rows (queries or keys) of one
/// head in one window. A thread serves a slice of `each` of these. The rows of the other side come
/// by in tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    pub height: usize,
    pub width: usize,
    pub dim: usize,
    pub heads: usize,
    pub window: usize,
    /// Slices of a row.
    pub slices: usize,
    /// Rows of a workgroup.
    pub rows: usize,
    /// Rows of a thread: what it reads of a tile serves all of them.
    pub each: usize,
    /// Rows of a tile.
    pub tile: usize,
    /// Rows of a tile that are worked on together.
    pub chunk: usize,
    /// Products with each of them, to which all threads of a row add.
    pub dots: usize,
    /// Copies of the bias's gradient in shared memory: one for each row of a chunk if there is
    /// room, so that there is one barrier for all of these.
    pub copies: usize,
    /// Whether the bias's gradient is wanted.
    pub table_gradient: bool,
}

impl Plan {
    /// For a kernel with so many products of each pair. None if the sizes do not divide one another,
    /// a window is a single pixel, or a workgroup's memory is too small.
    pub(super) fn new(
        [height, width]: [usize; 2],
        dim: usize,
        heads: usize,
        window: usize,
        dots: usize,
    ) -> Option<Self> {
        let divides = |part: usize, whole: usize| whole > 0 && whole.is_multiple_of(part);
        let fits = divides(window, height) && divides(window, width) && divides(heads, dim);
        if !fits || window == 1 {
            return None;
        }
        let n = window * window;
        let slices = (dim / heads).div_ceil(SLICE);
        let most = MOST_ROWS.min(MOST_SLICES / slices);
        if most == 0 {
            return None;
        }
        // Threads of different slices wait for each other: more at once, then.
        let chunk = if slices == 1 { 4 / dots } else { 8 / dots };
        let rows = n.div_ceil(n.div_ceil(most));
        let (each, tile, copies, table_gradient) = (1, 1, 1, false);
        let plan = Self {
            height,
            width,
            dim,
            heads,
            window,
            slices,
            rows,
            each,
            tile,
            chunk,
            dots,
            copies,
            table_gradient,
        };
        plan.with_tile(0)
    }

    /// With two rows for a thread, where that leaves threads enough.
    pub(super) fn in_pairs(self) -> Option<Self> {
        if self.n() < MOST_ROWS {
            return Some(self);
        }
        Self { each: 2, rows: self.rows.next_multiple_of(2), ..self }.with_tile(0)
    }

    /// With room for the gradient of the bias.
    pub(super) fn with_table(self) -> Option<Self> {
        let fits = self.chunk * self.table_len() <= COPIES;
        let copies = if fits { self.chunk } else { 1 };
        Self { copies, ..self }.with_tile(copies * self.table_len())
    }

    /// With as large a tile as has room beside so many numbers.
    fn with_tile(self, numbers: usize) -> Option<Self> {
        let room = MEMORY.checked_sub(numbers + self.exchange_len())?.min(TILES);
        let most = room / (2 * self.pitch()) / self.chunk * self.chunk;
        let tiles = self.n().div_ceil(most.max(1));
        let tile = self.n().div_ceil(tiles).next_multiple_of(self.chunk);
        (most > 0).then_some(Self { tile, ..self })
    }

    /// Pixels of a window.
    pub(super) fn n(&self) -> usize {
        self.window * self.window
    }

    /// Numbers of a head.
    pub(super) fn head(&self) -> usize {
        self.dim / self.heads
    }

    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.head() as f32).sqrt()
    }

    /// Numbers of a slice.
    pub(super) fn slice(&self) -> usize {
        self.head().div_ceil(self.slices)
    }

    /// Numbers of a row in a tile, zeros behind the head's.
    pub(super) fn pitch(&self) -> usize {
        self.slices * self.slice()
    }

    /// Threads of a workgroup.
    pub(super) fn units(&self) -> usize {
        self.slices * self.lanes()
    }

    /// Threads of a workgroup that serve the same slice.
    pub(super) fn lanes(&self) -> usize {
        self.rows / self.each
    }

    /// Products of a thread's rows with a chunk.
    pub(super) fn products(&self) -> usize {
        self.dots * self.each * self.chunk
    }

    /// Numbers of an array that a thread holds.
    pub(super) fn held(&self) -> usize {
        self.each * self.slice()
    }

    /// Workgroups of a head in a window.
    pub(super) fn blocks(&self) -> usize {
        self.n().div_ceil(self.rows)
    }

    /// Windows beside each other.
    pub(super) fn columns(&self) -> usize {
        self.width / self.window
    }

    /// Windows of an image.
    pub(super) fn windows(&self) -> usize {
        self.height / self.window * self.columns()
    }

    /// Shared memory in which threads of a row add up their products; at least one number.
    pub(super) fn exchange_len(&self) -> usize {
        if self.slices == 1 { 1 } else { self.units() * self.products() }
    }

    /// Distances between two pixels in one direction.
    pub(super) fn offsets(&self) -> usize {
        2 * self.window - 1
    }

    /// Vertical distances of a workgroup's queries from keys.
    pub(super) fn table_rows(&self) -> usize {
        let line = |row: usize| row / self.window;
        let lines = (0..self.blocks()).map(|block| {
            let end = ((block + 1) * self.rows).min(self.n());
            line(end - 1) - line(block * self.rows) + 1
        });
        lines.max().unwrap_or(0) + self.window - 1
    }

    /// The bias's gradient as far as a workgroup's queries take part in it.
    pub(super) fn table_len(&self) -> usize {
        self.table_rows() * self.offsets()
    }

    /// Shared memory for that; at least one number.
    pub(super) fn table_memory(&self) -> usize {
        if self.table_gradient { self.copies * self.table_len() } else { 1 }
    }

    /// Numbers of shared memory.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        2 * self.tile * self.pitch() + self.exchange_len() + self.table_memory()
    }

    /// Numbers of a pixel in the array of a part.
    pub(super) fn channels(&self, part: Part) -> usize {
        if part == Part::Mixed { self.dim } else { 3 * self.dim }
    }

    /// Where the first head's numbers of a part begin in a pixel.
    pub(super) fn start(&self, part: Part) -> usize {
        match part {
            Part::Query | Part::Mixed => 0,
            Part::Key => self.dim,
            Part::Value => 2 * self.dim,
        }
    }
}
