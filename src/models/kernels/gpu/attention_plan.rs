//! How attention is cut into workgroups, threads and tiles. Sizes decide it, and nothing else.

/// Numbers of a workgroup's shared memory: 16 KiB, what every adapter has.
const MEMORY: usize = 4096;
/// Numbers of its own rows that a thread holds in registers.
const REGISTERS: usize = 64;
/// The most queries, or keys, of a workgroup.
const MOST_ROWS: usize = 64;
/// The most threads of a workgroup.
const MOST_UNITS: usize = 128;
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
/// head in one window. Each row belongs to `slices` threads, and each of these to a slice of the
/// head's numbers. The rows of the other side come by in tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    pub height: usize,
    pub width: usize,
    pub dim: usize,
    pub heads: usize,
    pub window: usize,
    /// Threads of a row.
    pub slices: usize,
    /// Rows of a workgroup.
    pub rows: usize,
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
    /// None if the sizes do not divide one another, or a window is a single pixel.
    pub(super) fn new(
        [height, width]: [usize; 2],
        dim: usize,
        heads: usize,
        window: usize,
    ) -> Option<Self> {
        let divides = |part: usize, whole: usize| part > 0 && whole > 0 && whole % part == 0;
        let fits =
            window > 1 && divides(window, height) && divides(window, width) && divides(heads, dim);
        fits.then_some(Self {
            height,
            width,
            dim,
            heads,
            window,
            slices: 1,
            rows: 1,
            tile: 1,
            chunk: 1,
            dots: 1,
            copies: 1,
            table_gradient: false,
        })
    }

    /// With so many threads for a row that each can hold its slice of so many arrays.
    pub(super) fn for_arrays(self, arrays: usize) -> Option<Self> {
        let slices = self.head().div_ceil((REGISTERS / arrays).next_multiple_of(16));
        let most = MOST_ROWS.min(MOST_UNITS.checked_div(slices)?);
        if most == 0 {
            return None;
        }
        let blocks = self.n().div_ceil(most);
        Some(Self { slices, rows: self.n().div_ceil(blocks), ..self })
    }

    /// With as large a tile as has room.
    pub(super) fn with_chunk(self, chunk: usize, dots: usize, biased: bool) -> Option<Self> {
        let plan = Self { chunk, dots, ..self };
        let copies = if biased && chunk * plan.table_len() <= COPIES { chunk } else { 1 };
        let table = if biased { copies * plan.table_len() } else { 0 };
        let room = MEMORY.checked_sub(table + plan.exchange_len())? / (2 * plan.pitch());
        let tile = room.min(self.n().next_multiple_of(chunk)).min(MOST_ROWS) / chunk * chunk;
        (tile > 0).then_some(Self { tile, copies, ..plan })
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

    pub(super) fn units(&self) -> usize {
        self.slices * self.rows
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
        if self.slices == 1 { 1 } else { self.units() * self.chunk * self.dots }
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
