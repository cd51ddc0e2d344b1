//! Arrays as parts of a long one: joined to it, and looked at in it.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::autodiff_op::{Cost, run_plain};
use super::launch::{UNITS, cube_count, empty, part};

/// Arrays that one launch joins at most: each number is looked for in all of them.
const MOST_JOINED: usize = 24;
/// Buffers of a launch besides the arrays that it joins: the long one, and numbers.
const OTHER_BUFFERS: usize = 2;

/// A row of numbers `[length]` of plain rows, each from its place in `starts` on, in ascending
/// order, and zeros between them.
pub(super) fn join(rows: Vec<Tensor<1>>, starts: &[usize], length: usize) -> Tensor<1> {
    let (dtype, starts) = (rows[0].dtype(), starts.to_vec());
    let launch = move |rows: Vec<CubeTensor>| {
        let long = empty(&rows[0], [length].into(), dtype);
        join_rows(rows, &starts, &long);
        vec![long]
    };
    let outputs = vec![([length].into(), dtype)];
    let mut made = run_plain("join", Cost::default(), rows, outputs, launch);
    made.swap_remove(0)
}

/// Parts of a long array, views of its memory where a buffer can begin there.
pub(super) fn parts(long: &Tensor<1>, places: &[(usize, usize)]) -> Vec<Tensor<1>> {
    let outputs = places.iter().map(|(_, count)| ([*count].into(), long.dtype())).collect();
    let places = places.to_vec();
    let launch = move |inputs: Vec<CubeTensor>| {
        places.iter().map(|(start, count)| part(&inputs[0], *start, [*count].into())).collect()
    };
    run_plain("parts", Cost::default(), vec![long.clone()], outputs, launch)
}

/// Rows that lie one behind the other, in memory as in the long array.
struct Run {
    row: CubeTensor,
    start: usize,
    count: usize,
}

impl Run {
    /// Takes over what lies behind, if it does.
    fn takes(&mut self, row: &CubeTensor, start: usize) -> bool {
        let count = row.meta.shape().num_elements();
        let (own, other) = (&self.row.handle, &row.handle);
        let bytes = (self.count * row.dtype.size()) as u64;
        let follows = own.clone().memory.binding().id() == other.clone().memory.binding().id()
            && own.offset_start.unwrap_or(0) + bytes == other.offset_start.unwrap_or(0)
            && self.start + self.count == start;
        if follows {
            self.row.handle.offset_end = other.offset_end;
            self.count += count;
        }
        follows
    }
}

/// Fills `long`: weights and their biases, made in one array, are one row.
fn join_rows(rows: Vec<CubeTensor>, starts: &[usize], long: &CubeTensor) {
    let mut runs: Vec<Run> = Vec::new();
    for (row, start) in rows.into_iter().zip(starts) {
        if !runs.last_mut().is_some_and(|run| run.takes(&row, *start)) {
            let count = row.meta.shape().num_elements();
            runs.push(Run { row, start: *start, count });
        }
    }
    let (client, dtype) = (&long.client, dtype_to_elem_type(long.dtype));
    let buffers = client.properties().hardware.max_bindings as usize;
    let each = buffers.saturating_sub(OTHER_BUFFERS).clamp(1, MOST_JOINED);
    let length = long.meta.shape().num_elements();
    for (at, few) in runs.chunks(each).enumerate() {
        // From the first row on, and with the zeros behind the last one.
        let first = if at == 0 { 0 } else { few[0].start };
        let end = runs.get((at + 1) * each).map_or(length, |next| next.start);
        let row = |run: &Run| {
            let (client, device) = (run.row.client.clone(), run.row.device.clone());
            let (shape, handle) = ([run.count].into(), run.row.handle.clone());
            CubeTensor::new_contiguous(client, device, shape, handle, run.row.dtype)
                .into_buffer_arg()
        };
        join_few::launch(
            client,
            cube_count((end - first).div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            few.iter().map(row).collect(),
            few.iter().map(|run| run.start).collect(),
            few.iter().map(|run| run.start + run.count).collect(),
            long.clone().into_buffer_arg(),
            first,
            end,
            dtype,
        );
    }
}

#[cube(launch)]
fn join_few<F: Float>(
    rows: Sequence<Box<[F]>>,
    starts: Sequence<usize>,
    ends: Sequence<usize>,
    long: &mut [F],
    first: usize,
    end: usize,
    #[define(F)] _type: ElemType,
) {
    let at = first + ABSOLUTE_POS;
    if at < end {
        let mut value = F::new(0.0f32);
        #[unroll]
        for i in 0..comptime![rows.len()] {
            if at >= starts[i] && at < ends[i] {
                value = rows[i][at - starts[i]];
            }
        }
        long[at] = value;
    }
}
