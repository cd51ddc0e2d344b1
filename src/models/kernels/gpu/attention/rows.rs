//! What the kernels of attention do with rows: the numbers of a head in a pixel. Windows are read
//! and written where they are in the image.

use cubecl::prelude::*;

use super::plan::{Part, Plan};

/// What a thread works on.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Place {
    /// Of all windows of all images.
    pub window: usize,
    pub image: usize,
    pub head: usize,
    /// First row of the workgroup.
    pub first: usize,
    /// First row of the thread in its workgroup.
    pub lane: usize,
    /// Slice of the thread.
    pub slice: usize,
}

#[cube]
impl Place {
    pub(super) fn new(#[comptime] plan: Plan) -> Place {
        let group = CUBE_POS / comptime!(plan.blocks());
        let window = group / comptime!(plan.heads);
        let unit = UNIT_POS as usize;
        Place {
            window,
            image: window / comptime!(plan.windows()),
            head: group % comptime!(plan.heads),
            first: CUBE_POS % comptime!(plan.blocks()) * comptime!(plan.rows),
            lane: unit % comptime!(plan.lanes()),
            slice: unit / comptime!(plan.lanes()),
        }
    }

    /// A row of the thread.
    pub(super) fn row(&self, row: usize, #[comptime] plan: Plan) -> usize {
        self.first + self.lane + row * comptime!(plan.lanes())
    }

    /// Where a pixel of the window is among those of all images.
    fn pixel(&self, index: usize, #[comptime] plan: Plan) -> usize {
        let side = comptime!(plan.window);
        let columns = comptime!(plan.columns());
        let line = self.window % comptime!(plan.windows()) / columns;
        let y = line * side + index / side;
        let x = self.window % columns * side + index % side;
        (self.image * comptime!(plan.height) + y) * comptime!(plan.width) + x
    }

    /// Where numbers of a row are that exist once for each window, head and pixel.
    pub(super) fn scalar(&self, index: usize, #[comptime] plan: Plan) -> usize {
        (self.window * comptime!(plan.heads) + self.head) * comptime!(plan.n()) + index
    }
}

/// Row of the bias table for a query and a key.
#[cube]
pub(super) fn distance(query: usize, key: usize, #[comptime] plan: Plan) -> usize {
    let side = comptime!(plan.window);
    let far = comptime!(plan.window - 1);
    let y = query / side + far - key / side;
    let x = query % side + far - key % side;
    y * comptime!(plan.offsets()) + x
}

/// The bias of a pair; a pixel behind the last one stands for the last one.
#[cube]
pub(super) fn bias<F: Float>(
    table: &ComptimeOption<&[F]>,
    head: usize,
    query: usize,
    key: usize,
    #[comptime] plan: Plan,
) -> f32 {
    let mut value = 0.0f32;
    if comptime!(table.is_some()) {
        let last = comptime!(plan.n() - 1);
        let row = distance(usize::min(query, last), usize::min(key, last), plan);
        value = f32::cast_from(table.as_ref().unwrap()[row * comptime!(plan.heads) + head]);
    }
    value
}

/// Where the head's numbers of a pixel begin.
#[cube]
fn begin(place: &Place, index: usize, #[comptime] part: Part, #[comptime] plan: Plan) -> usize {
    let start = comptime!(plan.start(part)) + place.head * comptime!(plan.head());
    place.pixel(index, plan) * comptime!(plan.channels(part)) + start
}

/// The time token's share of one of the head's numbers.
#[cube]
fn token_number<F: Float>(
    token: &ComptimeOption<&[F]>,
    place: &Place,
    column: usize,
    #[comptime] part: Part,
    #[comptime] plan: Plan,
) -> f32 {
    let mut value = 0.0f32;
    if comptime!(token.is_some() && part != Part::Mixed) {
        let start = comptime!(plan.start(part)) + place.head * comptime!(plan.head());
        let image = place.image * comptime!(plan.channels(part));
        value = f32::cast_from(token.as_ref().unwrap()[image + start + column]);
    }
    value
}

/// The thread's slices of its own rows: zeros behind the head's last number, and the window's last
/// pixel for those behind it.
#[cube]
pub(super) fn own_rows<F: Float>(
    from: &[F],
    token: &ComptimeOption<&[F]>,
    place: &Place,
    #[comptime] part: Part,
    #[comptime] plan: Plan,
) -> Array<f32> {
    let slice = comptime!(plan.slice());
    let mut rows = Array::<f32>::new(comptime!(plan.held()));
    #[unroll]
    for row in 0..comptime!(plan.each) {
        let index = usize::min(place.row(row, plan), comptime!(plan.n() - 1));
        let at = begin(place, index, part, plan);
        #[unroll]
        for i in 0..slice {
            let column = place.slice * slice + i;
            let mut value = 0.0f32;
            if column < comptime!(plan.head()) {
                value = f32::cast_from(from[at + column]);
                value += token_number::<F>(token, place, column, part, plan);
            }
            rows[row * slice + i] = value;
        }
    }
    rows
}

/// Writes the thread's slices of its own rows.
#[cube]
pub(super) fn write_rows<F: Float>(
    rows: &Array<f32>,
    to: &mut [F],
    place: &Place,
    #[comptime] part: Part,
    #[comptime] plan: Plan,
) {
    let slice = comptime!(plan.slice());
    #[unroll]
    for row in 0..comptime!(plan.each) {
        let index = place.row(row, plan);
        if index < comptime!(plan.n()) {
            let at = begin(place, index, part, plan);
            #[unroll]
            for i in 0..slice {
                let column = place.slice * slice + i;
                if column < comptime!(plan.head()) {
                    to[at + column] = F::cast_from(rows[row * slice + i]);
                }
            }
        }
    }
}

/// Rows from `first` on of the other side, scaled, and zeros behind them.
#[cube]
pub(super) fn load_tile<F: Float>(
    from: &[F],
    token: &ComptimeOption<&[F]>,
    tile: &mut Shared<[f32]>,
    place: &Place,
    first: usize,
    scale: f32,
    #[comptime] part: Part,
    #[comptime] plan: Plan,
) {
    let pitch = comptime!(plan.pitch());
    let numbers = comptime!(plan.tile * plan.pitch());
    for i in range_stepped(UNIT_POS as usize, numbers, comptime!(plan.units())) {
        let index = first + i / pitch;
        let column = i % pitch;
        let mut value = 0.0f32;
        if index < comptime!(plan.n()) && column < comptime!(plan.head()) {
            value = f32::cast_from(from[begin(place, index, part, plan) + column]);
            value += token_number::<F>(token, place, column, part, plan);
        }
        tile[i] = value * scale;
    }
}

/// The thread's part of the products of its rows and one of a tile.
#[cube]
pub(super) fn multiply(
    rows: &Array<f32>,
    tile: &Shared<[f32]>,
    at: usize,
    products: &mut Array<f32>,
    #[comptime] first: usize,
    #[comptime] plan: Plan,
) {
    let slice = comptime!(plan.slice());
    #[unroll]
    for row in 0..comptime!(plan.each) {
        products[comptime!(first + row * plan.chunk)] = 0.0f32;
    }
    #[unroll]
    for i in 0..slice {
        let value = tile[at + i];
        #[unroll]
        for row in 0..comptime!(plan.each) {
            products[comptime!(first + row * plan.chunk)] += rows[row * slice + i] * value;
        }
    }
}

/// Adds multiples of the thread's slice of a tile's row to its own rows.
#[cube]
pub(super) fn add_multiples(
    rows: &mut Array<f32>,
    tile: &Shared<[f32]>,
    at: usize,
    factors: &Array<f32>,
    #[comptime] first: usize,
    #[comptime] plan: Plan,
) {
    let slice = comptime!(plan.slice());
    #[unroll]
    for i in 0..slice {
        let value = tile[at + i];
        #[unroll]
        for row in 0..comptime!(plan.each) {
            rows[row * slice + i] += factors[comptime!(first + row * plan.chunk)] * value;
        }
    }
}

/// Each of the first values of a thread becomes the sum of those of its rows' threads.
#[cube]
pub(super) fn add_slices(
    values: &mut Array<f32>,
    exchange: &mut Shared<[f32]>,
    place: &Place,
    #[comptime] count: usize,
    #[comptime] plan: Plan,
) {
    if comptime!(plan.slices > 1) {
        let lanes = comptime!(plan.lanes());
        #[unroll]
        for i in 0..count {
            exchange[(place.slice * count + i) * lanes + place.lane] = values[i];
        }
        sync_cube();
        #[unroll]
        for i in 0..count {
            let mut sum = 0.0f32;
            #[unroll]
            for slice in 0..comptime!(plan.slices) {
                sum += exchange[(slice * count + i) * lanes + place.lane];
            }
            values[i] = sum;
        }
        sync_cube();
    }
}
