//! The three kernels of attention: of queries, and for the gradient again of queries and of keys.

use cubecl::prelude::*;

use super::super::launch::zeros;
use super::plan::{Part, Plan};
use super::rows::{
    Place, add_multiples, add_slices, bias, distance, load_tile, multiply, own_rows, write_rows,
};

/// Below every score.
const LOWEST: f32 = -1.0e30;

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
    let (chunk, each) = comptime!((plan.chunk, plan.each));
    let place = Place::new(plan);
    let mut keys = Shared::<[f32]>::new_slice(comptime!(plan.tile * plan.pitch()));
    let mut values = Shared::<[f32]>::new_slice(comptime!(plan.tile * plan.pitch()));
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(plan.exchange_len()));
    let q = own_rows::<F>(qkv, &token, &place, Part::Query, plan);
    let mut out = zeros(comptime!(plan.held()));
    let mut scores = Array::<f32>::new(comptime!(plan.products()));
    let mut tops = Array::<f32>::new(each);
    let mut sums = zeros(each);
    #[unroll]
    for row in 0..each {
        tops[row] = f32::new(LOWEST);
    }

    for first in range_stepped(0, comptime!(plan.n()), comptime!(plan.tile)) {
        load_tile::<F>(qkv, &token, &mut keys, &place, first, scale, Part::Key, plan);
        load_tile::<F>(qkv, &token, &mut values, &place, first, 1.0f32, Part::Value, plan);
        sync_cube();
        for start in range_stepped(0, comptime!(plan.tile), chunk) {
            let at = start * comptime!(plan.pitch()) + place.slice * comptime!(plan.slice());
            #[unroll]
            for i in 0..chunk {
                multiply(&q, &keys, at + i * comptime!(plan.pitch()), &mut scores, i, plan);
            }
            add_slices(&mut scores, &mut exchange, &place, comptime!(plan.products()), plan);
            #[unroll]
            for row in 0..each {
                let query = place.row(row, plan);
                #[unroll]
                for i in 0..chunk {
                    let key = first + start + i;
                    let score = scores[row * chunk + i];
                    let score = score + bias::<F>(&table, place.head, query, key, plan);
                    let score = select(key < comptime!(plan.n()), score, f32::new(LOWEST));
                    scores[row * chunk + i] = score;
                }
                weigh(&mut scores, &mut tops, &mut sums, &mut out, row, plan);
            }
            #[unroll]
            for i in 0..chunk {
                let at = at + i * comptime!(plan.pitch());
                add_multiples(&mut out, &values, at, &scores, i, plan);
            }
        }
        sync_cube();
    }
    #[unroll]
    for row in 0..each {
        #[unroll]
        for i in 0..comptime!(plan.slice()) {
            out[row * comptime!(plan.slice()) + i] /= sums[row];
        }
        let query = place.row(row, plan);
        if place.slice == 0 && query < comptime!(plan.n()) {
            log_sums[place.scalar(query, plan)] = tops[row] + f32::ln(sums[row]);
        }
    }
    write_rows::<F>(&out, mixed, &place, Part::Mixed, plan);
}

/// Turns a row's scores at a chunk of keys into shares. What came before is scaled to the largest
/// score so far (Milakov and Gimelshein 2018, arXiv 1805.02867, algorithm 3).
#[cube]
fn weigh(
    scores: &mut Array<f32>,
    tops: &mut Array<f32>,
    sums: &mut Array<f32>,
    out: &mut Array<f32>,
    #[comptime] row: usize,
    #[comptime] plan: Plan,
) {
    let (chunk, slice) = comptime!((plan.chunk, plan.slice()));
    let before = tops[row];
    #[unroll]
    for i in 0..chunk {
        tops[row] = f32::max(tops[row], scores[row * chunk + i]);
    }
    let shrink = f32::exp(before - tops[row]);
    sums[row] *= shrink;
    #[unroll]
    for i in 0..slice {
        out[row * slice + i] *= shrink;
    }
    #[unroll]
    for i in 0..chunk {
        let share = f32::exp(scores[row * chunk + i] - tops[row]);
        scores[row * chunk + i] = share;
        sums[row] += share;
    }
}

/// The gradient of a block of queries. `inner` is given, for each query, the sum of the gradients
/// of its shares, each times its share; from `tables` on, the bias's gradient of each workgroup.
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
    let (chunk, each) = comptime!((plan.chunk, plan.each));
    let place = Place::new(plan);
    let mut keys = Shared::<[f32]>::new_slice(comptime!(plan.tile * plan.pitch()));
    let mut values = Shared::<[f32]>::new_slice(comptime!(plan.tile * plan.pitch()));
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(plan.exchange_len()));
    let mut sums = Shared::<[f32]>::new_slice(comptime!(plan.table_memory()));
    clear_table(&mut sums, plan);
    let q = own_rows::<F>(qkv, &token, &place, Part::Query, plan);
    let of_out = own_rows::<F>(grad, &token, &place, Part::Mixed, plan);
    let mut of_q = zeros(comptime!(plan.held()));
    let mut products = Array::<f32>::new(comptime!(plan.products()));
    let along = along_of::<F>(mixed, &token, &of_out, &mut exchange, inner, &place, plan);
    let known = known_rows(log_sums, &place, plan);

    for first in range_stepped(0, comptime!(plan.n()), comptime!(plan.tile)) {
        load_tile::<F>(qkv, &token, &mut keys, &place, first, scale, Part::Key, plan);
        load_tile::<F>(qkv, &token, &mut values, &place, first, 1.0f32, Part::Value, plan);
        sync_cube();
        for start in range_stepped(0, comptime!(plan.tile), chunk) {
            let at = start * comptime!(plan.pitch()) + place.slice * comptime!(plan.slice());
            #[unroll]
            for i in 0..chunk {
                let at = at + i * comptime!(plan.pitch());
                multiply(&q, &keys, at, &mut products, i, plan);
                let second = comptime!(plan.each * plan.chunk + i);
                multiply(&of_out, &values, at, &mut products, second, plan);
            }
            add_slices(&mut products, &mut exchange, &place, comptime!(plan.products()), plan);
            #[unroll]
            for i in 0..chunk {
                let key = first + start + i;
                #[unroll]
                for row in 0..each {
                    let query = place.row(row, plan);
                    let score = products[row * chunk + i];
                    let score = score + bias::<F>(&table, place.head, query, key, plan);
                    let of_share = products[(each + row) * chunk + i] - along[row];
                    let of_score = f32::exp(score - known[row]) * of_share;
                    let of_score = select(key < comptime!(plan.n()), of_score, 0.0f32);
                    products[row * chunk + i] = of_score;
                    add_to_table(&mut sums, &place, query, key, of_score, i, plan);
                }
                let at = at + i * comptime!(plan.pitch());
                add_multiples(&mut of_q, &keys, at, &products, i, plan);
                if comptime!(plan.table_gradient && plan.copies == 1) {
                    sync_cube();
                }
            }
            if comptime!(plan.table_gradient && plan.copies > 1) {
                sync_cube();
            }
        }
        sync_cube();
    }
    write_rows::<F>(&of_q, of_qkv, &place, Part::Query, plan);
    write_table(&sums, inner, tables, plan);
}

/// For each row of a thread the sum of the gradients of its shares, each times its share: that is
/// the product of the result and its gradient.
#[cube]
fn along_of<F: Float>(
    mixed: &[F],
    token: &ComptimeOption<&[F]>,
    of_out: &Array<f32>,
    exchange: &mut Shared<[f32]>,
    inner: &mut [f32],
    place: &Place,
    #[comptime] plan: Plan,
) -> Array<f32> {
    let slice = comptime!(plan.slice());
    let out = own_rows::<F>(mixed, token, place, Part::Mixed, plan);
    let mut along = zeros(comptime!(plan.each));
    #[unroll]
    for row in 0..comptime!(plan.each) {
        #[unroll]
        for i in 0..slice {
            along[row] += of_out[row * slice + i] * out[row * slice + i];
        }
    }
    add_slices(&mut along, exchange, place, comptime!(plan.each), plan);
    #[unroll]
    for row in 0..comptime!(plan.each) {
        let query = place.row(row, plan);
        if place.slice == 0 && query < comptime!(plan.n()) {
            inner[place.scalar(query, plan)] = along[row];
        }
    }
    along
}

/// The numbers of an array that has one for each window, head and pixel, of a thread's rows.
#[cube]
fn known_rows(from: &[f32], place: &Place, #[comptime] plan: Plan) -> Array<f32> {
    let mut known = Array::<f32>::new(comptime!(plan.each));
    #[unroll]
    for row in 0..comptime!(plan.each) {
        let index = usize::min(place.row(row, plan), comptime!(plan.n() - 1));
        known[row] = from[place.scalar(index, plan)];
    }
    known
}

#[cube]
fn clear_table(sums: &mut Shared<[f32]>, #[comptime] plan: Plan) {
    let length = comptime!(plan.table_memory());
    for i in range_stepped(UNIT_POS as usize, length, comptime!(plan.units())) {
        sums[i] = 0.0f32;
    }
}

/// Adds the gradient of a pair's score to that of its bias. At one key no two queries have the same
/// distance from it, so no two threads add to one number between two barriers.
#[cube]
fn add_to_table(
    sums: &mut Shared<[f32]>,
    place: &Place,
    query: usize,
    key: usize,
    value: f32,
    #[comptime] copy: usize,
    #[comptime] plan: Plan,
) {
    if comptime!(plan.table_gradient) {
        let n = comptime!(plan.n());
        if place.slice == 0 && query < n && key < n {
            let skipped = place.first / comptime!(plan.window) * comptime!(plan.offsets());
            let start = comptime!(copy % plan.copies * plan.table_len());
            sums[start + distance(query, key, plan) - skipped] += value;
        }
    }
}

#[cube]
fn write_table(sums: &Shared<[f32]>, to: &mut [f32], tables: usize, #[comptime] plan: Plan) {
    if comptime!(plan.table_gradient) {
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
    let (chunk, each) = comptime!((plan.chunk, plan.each));
    let place = Place::new(plan);
    let mut queries = Shared::<[f32]>::new_slice(comptime!(plan.tile * plan.pitch()));
    let mut grads = Shared::<[f32]>::new_slice(comptime!(plan.tile * plan.pitch()));
    let mut exchange = Shared::<[f32]>::new_slice(comptime!(plan.exchange_len()));
    let k = own_rows::<F>(qkv, &token, &place, Part::Key, plan);
    let v = own_rows::<F>(qkv, &token, &place, Part::Value, plan);
    let mut of_k = zeros(comptime!(plan.held()));
    let mut of_v = zeros(comptime!(plan.held()));
    let mut products = Array::<f32>::new(comptime!(plan.products()));

    for first in range_stepped(0, comptime!(plan.n()), comptime!(plan.tile)) {
        load_tile::<F>(qkv, &token, &mut queries, &place, first, scale, Part::Query, plan);
        load_tile::<F>(grad, &token, &mut grads, &place, first, 1.0f32, Part::Mixed, plan);
        sync_cube();
        for start in range_stepped(0, comptime!(plan.tile), chunk) {
            let at = start * comptime!(plan.pitch()) + place.slice * comptime!(plan.slice());
            #[unroll]
            for i in 0..chunk {
                let at = at + i * comptime!(plan.pitch());
                multiply(&k, &queries, at, &mut products, i, plan);
                let second = comptime!(plan.each * plan.chunk + i);
                multiply(&v, &grads, at, &mut products, second, plan);
            }
            add_slices(&mut products, &mut exchange, &place, comptime!(plan.products()), plan);
            #[unroll]
            for i in 0..chunk {
                let query = first + start + i;
                let scalar = place.scalar(usize::min(query, comptime!(plan.n() - 1)), plan);
                let (log_sum, along) = (log_sums[scalar], along[scalar]);
                #[unroll]
                for row in 0..each {
                    let key = place.row(row, plan);
                    let score = products[row * chunk + i];
                    let score = score + bias::<F>(&table, place.head, query, key, plan);
                    let share = f32::exp(score - log_sum);
                    let share = select(query < comptime!(plan.n()), share, 0.0f32);
                    products[row * chunk + i] = share;
                    products[(each + row) * chunk + i] =
                        share * (products[(each + row) * chunk + i] - along);
                }
                let at = at + i * comptime!(plan.pitch());
                add_multiples(&mut of_v, &grads, at, &products, i, plan);
                let second = comptime!(plan.each * plan.chunk + i);
                add_multiples(&mut of_k, &queries, at, &products, second, plan);
            }
        }
        sync_cube();
    }
    write_rows::<F>(&of_k, of_qkv, &place, Part::Key, plan);
    write_rows::<F>(&of_v, of_qkv, &place, Part::Value, plan);
}
