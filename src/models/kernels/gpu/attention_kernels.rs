//! The kernels of attention. Three of them, which read and write windows where they are in the
//! image.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::attention_plan::{Part, Plan};

/// Below every score.
const LOWEST: f32 = -1.0e30;

/// What a thread works on.
#[derive(CubeType, Clone, Copy)]
struct Place {
    /// Of all windows of all images.
    window: usize,
    image: usize,
    head: usize,
    /// First row of the workgroup.
    first: usize,
    /// Row of the thread in its workgroup.
    row: usize,
    /// Slice of the thread.
    slice: usize,
}

#[cube]
impl Place {
    fn new(#[comptime] plan: Plan) -> Place {
        let group = CUBE_POS / comptime!(plan.blocks());
        let window = group / comptime!(plan.heads);
        let unit = UNIT_POS as usize;
        Place {
            window,
            image: window / comptime!(plan.windows()),
            head: group % comptime!(plan.heads),
            first: CUBE_POS % comptime!(plan.blocks()) * comptime!(plan.rows),
            row: unit % comptime!(plan.rows),
            slice: unit / comptime!(plan.rows),
        }
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
    fn scalar(&self, index: usize, #[comptime] plan: Plan) -> usize {
        (self.window * comptime!(plan.heads) + self.head) * comptime!(plan.n()) + index
    }
}

/// Row of the bias table for a query and a key.
#[cube]
fn distance(query: usize, key: usize, #[comptime] plan: Plan) -> usize {
    let side = comptime!(plan.window);
    let far = comptime!(plan.window - 1);
    let y = query / side + far - key / side;
    let x = query % side + far - key % side;
    y * comptime!(plan.offsets()) + x
}

/// The bias of a pair; a pixel behind the last one stands for the last one.
#[cube]
fn bias<F: Float>(
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

/// A number of a pixel, the time token's share included; zero behind the head's last one.
#[cube]
fn number<F: Float>(
    from: &[F],
    token: &ComptimeOption<&[F]>,
    place: &Place,
    index: usize,
    column: usize,
    #[comptime] part: Part,
    #[comptime] plan: Plan,
) -> f32 {
    let mut value = 0.0f32;
    if index < comptime!(plan.n()) && column < comptime!(plan.head()) {
        let channels = comptime!(plan.channels(part));
        let channel = comptime!(plan.start(part)) + place.head * comptime!(plan.head()) + column;
        value = f32::cast_from(from[place.pixel(index, plan) * channels + channel]);
        if comptime!(token.is_some() && part != Part::Mixed) {
            value += f32::cast_from(token.as_ref().unwrap()[place.image * channels + channel]);
        }
    }
    value
}

/// The thread's slice of its own row.
#[cube]
fn own_row<F: Float>(
    from: &[F],
    token: &ComptimeOption<&[F]>,
    place: &Place,
    #[comptime] part: Part,
    #[comptime] plan: Plan,
) -> Array<f32> {
    let slice = comptime!(plan.slice());
    let mut row = Array::<f32>::new(slice);
    #[unroll]
    for i in 0..slice {
        let column = place.slice * slice + i;
        row[i] = number::<F>(from, token, place, place.first + place.row, column, part, plan);
    }
    row
}

/// Writes the thread's slice of its own row, scaled.
#[cube]
fn write_row<F: Float>(
    row: &Array<f32>,
    to: &mut [F],
    place: &Place,
    scale: f32,
    #[comptime] part: Part,
    #[comptime] plan: Plan,
) {
    let slice = comptime!(plan.slice());
    let channels = comptime!(plan.channels(part));
    let index = place.first + place.row;
    if index < comptime!(plan.n()) {
        let head = comptime!(plan.start(part)) + place.head * comptime!(plan.head());
        let at = place.pixel(index, plan) * channels + head;
        #[unroll]
        for i in 0..slice {
            let column = place.slice * slice + i;
            if column < comptime!(plan.head()) {
                to[at + column] = F::cast_from(row[i] * scale);
            }
        }
    }
}

/// Rows from `first` on of the other side, scaled.
#[cube]
fn load_tile<F: Float>(
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
        let value = number::<F>(from, token, place, first + i / pitch, i % pitch, part, plan);
        tile[i] = value * scale;
    }
}

/// The thread's part of the product of its row and one of a tile.
#[cube]
fn dot(row: &Array<f32>, tile: &Shared<[f32]>, at: usize, #[comptime] plan: Plan) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..comptime!(plan.slice()) {
        sum += row[i] * tile[at + i];
    }
    sum
}

/// Adds a multiple of the thread's slice of a tile's row.
#[cube]
fn add_scaled(
    row: &mut Array<f32>,
    tile: &Shared<[f32]>,
    at: usize,
    scale: f32,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for i in 0..comptime!(plan.slice()) {
        row[i] += scale * tile[at + i];
    }
}

/// Each of the first values of a thread becomes the sum of those of its row's threads.
#[cube]
fn add_slices(
    values: &mut Array<f32>,
    exchange: &mut Shared<[f32]>,
    place: &Place,
    #[comptime] count: usize,
    #[comptime] plan: Plan,
) {
    if comptime!(plan.slices > 1) {
        let rows = comptime!(plan.rows);
        #[unroll]
        for i in 0..count {
            exchange[(place.slice * count + i) * rows + place.row] = values[i];
        }
        sync_cube();
        #[unroll]
        for i in 0..count {
            let mut sum = 0.0f32;
            #[unroll]
            for slice in 0..comptime!(plan.slices) {
                sum += exchange[(slice * count + i) * rows + place.row];
            }
            values[i] = sum;
        }
        sync_cube();
    }
}

/// Attention of a block of queries, and the logarithm of each one's sum of exponentials.
#[cube(launch)]
pub(super) fn forward<F: Float>(
    qkv: &[F],
    token: ComptimeOption<&[F]>,
    table: ComptimeOption<&[F]>,
    mixed: &mut [F],
    log_sums: &mut [f32],
    cubes: usize,
    scale: f32,
    #[comptime] plan: Plan,
    #[define(F)] _type: ElemType,
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let chunk = comptime!(plan.chunk);
    let pitch = comptime!(plan.pitch());
    let place = Place::new(plan);
    let query = place.first + place.row;
    let mut keys = Shared::<[f32]>::new_slice(comptime!(plan.tile * plan.pitch()));
    let mut values = Shared::<[f32]>::new_slice(comptime!(plan.tile * plan.pitch()));
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(plan.exchange_len()));
    let q = own_row::<F>(qkv, &token, &place, Part::Query, plan);
    let mut out = Array::<f32>::new(comptime!(plan.slice()));
    #[unroll]
    for i in 0..comptime!(plan.slice()) {
        out[i] = 0.0f32;
    }
    let mut scores = Array::<f32>::new(chunk);
    let mut top = f32::new(LOWEST);
    let mut sum = 0.0f32;

    for first in range_stepped(0, comptime!(plan.n()), comptime!(plan.tile)) {
        load_tile::<F>(qkv, &token, &mut keys, &place, first, scale, Part::Key, plan);
        load_tile::<F>(qkv, &token, &mut values, &place, first, 1.0f32, Part::Value, plan);
        sync_cube();
        for start in range_stepped(0, comptime!(plan.tile), chunk) {
            let at = start * pitch + place.slice * comptime!(plan.slice());
            #[unroll]
            for i in 0..chunk {
                scores[i] = dot(&q, &keys, at + i * pitch, plan);
            }
            add_slices(&mut scores, &mut exchange, &place, chunk, plan);
            let before = top;
            #[unroll]
            for i in 0..chunk {
                let key = first + start + i;
                let score = scores[i] + bias::<F>(&table, place.head, query, key, plan);
                scores[i] = select(key < comptime!(plan.n()), score, f32::new(LOWEST));
                top = f32::max(top, scores[i]);
            }
            let shrink = f32::exp(before - top);
            sum *= shrink;
            #[unroll]
            for i in 0..comptime!(plan.slice()) {
                out[i] *= shrink;
            }
            #[unroll]
            for i in 0..chunk {
                let share = f32::exp(scores[i] - top);
                sum += share;
                add_scaled(&mut out, &values, at + i * pitch, share, plan);
            }
        }
        sync_cube();
    }
    write_row::<F>(&out, mixed, &place, 1.0f32 / sum, Part::Mixed, plan);
    if place.slice == 0 && query < comptime!(plan.n()) {
        log_sums[place.scalar(query, plan)] = top + f32::ln(sum);
    }
}

/// The gradient of a block of queries. `inner` is given, for each query, the sum of the gradients
/// of its shares, each times its share; behind `tables`, the bias's gradient of each workgroup.
#[cube(launch)]
pub(super) fn of_queries<F: Float>(
    qkv: &[F],
    token: ComptimeOption<&[F]>,
    table: ComptimeOption<&[F]>,
    mixed: &[F],
    grad: &[F],
    log_sums: &[f32],
    of_qkv: &mut [F],
    inner: &mut [f32],
    cubes: usize,
    tables: usize,
    scale: f32,
    #[comptime] plan: Plan,
    #[define(F)] _type: ElemType,
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let chunk = comptime!(plan.chunk);
    let pitch = comptime!(plan.pitch());
    let last = comptime!(plan.n() - 1);
    let place = Place::new(plan);
    let query = place.first + place.row;
    let mut keys = Shared::<[f32]>::new_slice(comptime!(plan.tile * plan.pitch()));
    let mut values = Shared::<[f32]>::new_slice(comptime!(plan.tile * plan.pitch()));
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(plan.exchange_len()));
    let mut sums = Shared::<[f32]>::new_slice(comptime!(plan.table_memory()));
    for i in
        range_stepped(UNIT_POS as usize, comptime!(plan.table_memory()), comptime!(plan.units()))
    {
        sums[i] = 0.0f32;
    }
    let q = own_row::<F>(qkv, &token, &place, Part::Query, plan);
    let of_out = own_row::<F>(grad, &token, &place, Part::Mixed, plan);
    let out = own_row::<F>(mixed, &token, &place, Part::Mixed, plan);
    let mut of_q = Array::<f32>::new(comptime!(plan.slice()));
    let mut products = Array::<f32>::new(comptime!(2 * plan.chunk));
    products[0] = 0.0f32;
    #[unroll]
    for i in 0..comptime!(plan.slice()) {
        of_q[i] = 0.0f32;
        products[0] += of_out[i] * out[i];
    }
    add_slices(&mut products, &mut exchange, &place, 1usize, plan);
    let along = products[0];
    let log_sum = log_sums[place.scalar(usize::min(query, last), plan)];

    for first in range_stepped(0, comptime!(plan.n()), comptime!(plan.tile)) {
        load_tile::<F>(qkv, &token, &mut keys, &place, first, scale, Part::Key, plan);
        load_tile::<F>(qkv, &token, &mut values, &place, first, 1.0f32, Part::Value, plan);
        sync_cube();
        for start in range_stepped(0, comptime!(plan.tile), chunk) {
            let at = start * pitch + place.slice * comptime!(plan.slice());
            #[unroll]
            for i in 0..chunk {
                products[i] = dot(&q, &keys, at + i * pitch, plan);
                products[chunk + i] = dot(&of_out, &values, at + i * pitch, plan);
            }
            add_slices(&mut products, &mut exchange, &place, comptime!(2 * chunk), plan);
            #[unroll]
            for i in 0..chunk {
                let key = first + start + i;
                let score = products[i] + bias::<F>(&table, place.head, query, key, plan);
                let of_score = f32::exp(score - log_sum) * (products[chunk + i] - along);
                let of_score = select(key < comptime!(plan.n()), of_score, 0.0f32);
                add_scaled(&mut of_q, &keys, at + i * pitch, of_score, plan);
                if comptime!(plan.table_gradient) {
                    add_to_table(&mut sums, &place, key, of_score, i, plan);
                }
            }
            if comptime!(plan.table_gradient && plan.copies > 1) {
                sync_cube();
            }
        }
        sync_cube();
    }
    write_row::<F>(&of_q, of_qkv, &place, 1.0f32, Part::Query, plan);
    if place.slice == 0 && query <= last {
        inner[place.scalar(query, plan)] = along;
    }
    if comptime!(plan.table_gradient) {
        write_table(&sums, inner, tables, plan);
    }
}

/// Adds the gradient of a pair's score to that of its bias. At one key no two queries have the same
/// distance from it, so no two threads add to one number between two barriers.
#[cube]
fn add_to_table(
    sums: &mut Shared<[f32]>,
    place: &Place,
    key: usize,
    value: f32,
    #[comptime] copy: usize,
    #[comptime] plan: Plan,
) {
    let query = place.first + place.row;
    let n = comptime!(plan.n());
    if place.slice == 0 && query < n && key < n {
        let skipped = place.first / comptime!(plan.window) * comptime!(plan.offsets());
        let start = comptime!(copy % plan.copies * plan.table_len());
        sums[start + distance(query, key, plan) - skipped] += value;
    }
    if comptime!(plan.copies == 1) {
        sync_cube();
    }
}

#[cube]
fn write_table(sums: &Shared<[f32]>, to: &mut [f32], tables: usize, #[comptime] plan: Plan) {
    let length = comptime!(plan.table_len());
    for i in range_stepped(UNIT_POS as usize, length, comptime!(plan.units())) {
        let mut sum = 0.0f32;
        #[unroll]
        for copy in 0..comptime!(plan.copies) {
            sum += sums[copy * length + i];
        }
        to[tables + CUBE_POS * length + i] = sum;
    }
}

/// The gradients of a block of keys and of their values. `along` is what [`of_queries`] gives for
/// each query.
#[cube(launch)]
pub(super) fn of_keys<F: Float>(
    qkv: &[F],
    token: ComptimeOption<&[F]>,
    table: ComptimeOption<&[F]>,
    grad: &[F],
    log_sums: &[f32],
    along: &[f32],
    of_qkv: &mut [F],
    cubes: usize,
    scale: f32,
    #[comptime] plan: Plan,
    #[define(F)] _type: ElemType,
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let chunk = comptime!(plan.chunk);
    let pitch = comptime!(plan.pitch());
    let last = comptime!(plan.n() - 1);
    let place = Place::new(plan);
    let key = place.first + place.row;
    let mut queries = Shared::<[f32]>::new_slice(comptime!(plan.tile * plan.pitch()));
    let mut grads = Shared::<[f32]>::new_slice(comptime!(plan.tile * plan.pitch()));
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(plan.exchange_len()));
    let k = own_row::<F>(qkv, &token, &place, Part::Key, plan);
    let v = own_row::<F>(qkv, &token, &place, Part::Value, plan);
    let mut of_k = Array::<f32>::new(comptime!(plan.slice()));
    let mut of_v = Array::<f32>::new(comptime!(plan.slice()));
    #[unroll]
    for i in 0..comptime!(plan.slice()) {
        of_k[i] = 0.0f32;
        of_v[i] = 0.0f32;
    }
    let mut products = Array::<f32>::new(comptime!(2 * plan.chunk));

    for first in range_stepped(0, comptime!(plan.n()), comptime!(plan.tile)) {
        load_tile::<F>(qkv, &token, &mut queries, &place, first, scale, Part::Query, plan);
        load_tile::<F>(grad, &token, &mut grads, &place, first, 1.0f32, Part::Mixed, plan);
        sync_cube();
        for start in range_stepped(0, comptime!(plan.tile), chunk) {
            let at = start * pitch + place.slice * comptime!(plan.slice());
            #[unroll]
            for i in 0..chunk {
                products[i] = dot(&k, &queries, at + i * pitch, plan);
                products[chunk + i] = dot(&v, &grads, at + i * pitch, plan);
            }
            add_slices(&mut products, &mut exchange, &place, comptime!(2 * chunk), plan);
            #[unroll]
            for i in 0..chunk {
                let query = first + start + i;
                let scalar = place.scalar(usize::min(query, last), plan);
                let score = products[i] + bias::<F>(&table, place.head, query, key, plan);
                let share = f32::exp(score - log_sums[scalar]);
                let share = select(query <= last, share, 0.0f32);
                let of_score = share * (products[chunk + i] - along[scalar]);
                add_scaled(&mut of_v, &grads, at + i * pitch, share, plan);
                add_scaled(&mut of_k, &queries, at + i * pitch, of_score, plan);
            }
        }
        sync_cube();
    }
    write_row::<F>(&of_k, of_qkv, &place, 1.0f32, Part::Key, plan);
    write_row::<F>(&of_v, of_qkv, &place, 1.0f32, Part::Value, plan);
}
