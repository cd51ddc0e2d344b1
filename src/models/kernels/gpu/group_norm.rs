//! Group norm (Wu and He 2018, arXiv 1803.08494), with swish (x sigmoid x) behind it or without.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::definitions::NORM_EPSILON;
use super::autodiff_op::{Cost, Kernel, Waiting};
use super::columns::{self, sum_columns};
use super::launch::{UNITS, cube_count, cube_sum, empty};

const EPSILON: f32 = NORM_EPSILON as f32;

/// Inputs: `x [batch, h, w, channels]`, and weight and bias, `[channels]` each, or `[batch,
/// channels]` for each image its own. What is kept is each group's mean and the reciprocal of its
/// deviation, `[batch, groups, 2]`.
#[derive(Debug, Clone)]
pub(super) struct GroupNorm {
    pub shape: [usize; 4],
    /// Channels of a group.
    pub group: usize,
    /// Whether each image has a weight and bias of its own.
    pub own_rows: bool,
    pub silu: bool,
    pub waiting: Option<Waiting>,
}

/// What a kernel knows when it is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    pixels: usize,
    channels: usize,
    group: usize,
    own_rows: bool,
    silu: bool,
}

impl Plan {
    fn groups(&self) -> usize {
        self.channels / self.group
    }

    /// Pixels that the threads look at at once.
    fn stride(&self) -> usize {
        UNITS / self.group
    }

    fn numbers(&self) -> f32 {
        (self.pixels * self.group) as f32
    }
}

impl GroupNorm {
    /// The most channels of a group: each has a thread.
    pub(super) const MOST_GROUPED: usize = UNITS;

    fn plan(&self) -> Plan {
        let [_, h, w, channels] = self.shape;
        let Self { group, own_rows, silu, .. } = *self;
        Plan { pixels: h * w, channels, group, own_rows, silu }
    }

    fn statistics(&self) -> Shape {
        [self.shape[0], self.plan().groups(), 2].into()
    }
}

impl Kernel<3> for GroupNorm {
    const NAME: &'static str = "group_norm";

    fn shape(&self) -> Shape {
        self.shape.into()
    }

    fn kept(&self) -> Vec<(Shape, DType)> {
        vec![(self.statistics(), DType::F32)]
    }

    fn forward(&self, [x, weight, bias]: [CubeTensor; 3]) -> Vec<CubeTensor> {
        let result = empty(&x, self.shape(), x.dtype);
        let statistics = empty(&x, self.statistics(), DType::F32);
        let (plan, dtype, cubes) = (self.plan(), x.dtype, self.shape[0] * self.plan().groups());
        forward::launch(
            &x.client.clone(),
            cube_count(cubes),
            CubeDim::new_1d(UNITS as u32),
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            bias.into_buffer_arg(),
            result.clone().into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            cubes,
            plan,
            dtype_to_elem_type(dtype),
        );
        vec![result, statistics]
    }

    fn backward(
        &self,
        [x, weight, bias]: [CubeTensor; 3],
        kept: &[CubeTensor],
        grad: CubeTensor,
        [wants_x, wants_weight, wants_bias]: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        let (plan, dtype, batch) = (self.plan(), x.dtype, self.shape[0]);
        let of_x = empty(&x, self.shape(), dtype);
        let sums = empty(&x, [batch, 2 * plan.channels].into(), DType::F32);
        backward::launch(
            &x.client.clone(),
            cube_count(batch * plan.groups()),
            CubeDim::new_1d(UNITS as u32),
            x.into_buffer_arg(),
            weight.clone().into_buffer_arg(),
            bias.into_buffer_arg(),
            grad.into_buffer_arg(),
            kept[0].clone().into_buffer_arg(),
            kept.get(1).map(|plus| plus.clone().into_buffer_arg()).into(),
            of_x.clone().into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            batch * plan.groups(),
            plan,
            dtype_to_elem_type(dtype),
        );
        let of_x = wants_x.then_some(of_x);
        if !(wants_weight || wants_bias) {
            return [of_x, None, None];
        }
        let shape = weight.meta.shape().clone();
        let [of_weight, of_bias] = if self.own_rows {
            split_rows(&sums, plan.channels, shape, dtype)
        } else {
            sum_columns(sums, shape, dtype)
        };
        [of_x, wants_weight.then_some(of_weight), wants_bias.then_some(of_bias)]
    }

    fn waiting(&self) -> Option<&Waiting> {
        self.waiting.as_ref()
    }

    fn cost(&self, gradient: bool) -> Cost {
        let plan = self.plan();
        if !gradient {
            let numbers = (plan.pixels * plan.group).div_ceil(UNITS) as u64;
            return Cost { iterations: 2 * numbers, longest: numbers, ..Cost::default() };
        }
        let pixels = plan.pixels.div_ceil(plan.stride()) as u64;
        let columns = if self.own_rows { 0 } else { columns::iterations(self.shape[0]) };
        Cost {
            iterations: pixels + columns,
            longest: pixels.max(columns),
            inner_bytes: 2 * 4 * (self.shape[0] * 2 * plan.channels) as u64,
            ..Cost::default()
        }
    }
}

/// `[rows, 2 columns]` as two arrays of `shape`, `[rows, columns]`.
fn split_rows(sums: &CubeTensor, columns: usize, shape: Shape, dtype: DType) -> [CubeTensor; 2] {
    let numbers = shape.num_elements();
    let made = [(); 2].map(|()| empty(sums, shape.clone(), dtype));
    split::launch(
        &sums.client,
        cube_count(numbers.div_ceil(UNITS)),
        CubeDim::new_1d(UNITS as u32),
        sums.clone().into_buffer_arg(),
        made[0].clone().into_buffer_arg(),
        made[1].clone().into_buffer_arg(),
        numbers,
        columns,
        dtype_to_elem_type(dtype),
    );
    made
}

#[cube(launch)]
fn split<F: Float>(
    all: &[f32],
    first: &mut [F],
    second: &mut [F],
    numbers: usize,
    columns: usize,
    #[define(F)] _type: ElemType,
) {
    if ABSOLUTE_POS < numbers {
        let row = ABSOLUTE_POS / columns;
        first[ABSOLUTE_POS] = F::cast_from(all[ABSOLUTE_POS + row * columns]);
        second[ABSOLUTE_POS] = F::cast_from(all[ABSOLUTE_POS + (row + 1) * columns]);
    }
}

#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + f32::exp(-x))
}

#[cube(launch)]
fn forward<F: Float>(
    x: &[F],
    weight: &[F],
    bias: &[F],
    result: &mut [F],
    statistics: &mut [f32],
    cubes: usize,
    #[comptime] plan: Plan,
    #[define(F)] _type: ElemType,
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let group = comptime!(plan.group);
    let channels = comptime!(plan.channels);
    let numbers = comptime!(plan.pixels * plan.group);
    let image = CUBE_POS / comptime!(plan.groups());
    let first_channel = CUBE_POS % comptime!(plan.groups()) * group;
    let base = image * comptime!(plan.pixels * plan.channels) + first_channel;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);

    let mut sum = 0.0f32;
    for i in range_stepped(unit, numbers, UNITS) {
        sum += f32::cast_from(x[base + i / group * channels + i % group]);
    }
    let mean = cube_sum(sum, &mut shared) / comptime!(plan.numbers());
    let mut squares = 0.0f32;
    for i in range_stepped(unit, numbers, UNITS) {
        let centred = f32::cast_from(x[base + i / group * channels + i % group]) - mean;
        squares += centred * centred;
    }
    let variance = cube_sum(squares, &mut shared) / comptime!(plan.numbers());
    let scale = 1.0f32 / f32::sqrt(variance + EPSILON);
    let mut row = 0usize;
    if comptime!(plan.own_rows) {
        row = image * channels;
    }
    for i in range_stepped(unit, numbers, UNITS) {
        let at = base + i / group * channels + i % group;
        let channel = row + first_channel + i % group;
        let mut value = (f32::cast_from(x[at]) - mean) * scale * f32::cast_from(weight[channel])
            + f32::cast_from(bias[channel]);
        if comptime!(plan.silu) {
            value *= sigmoid(value);
        }
        result[at] = F::cast_from(value);
    }
    if unit == 0 {
        statistics[2 * CUBE_POS] = mean;
        statistics[2 * CUBE_POS + 1] = scale;
    }
}

/// The gradient of x, `plus` what is added to it, and of each image the sums over its pixels for
/// weight and bias.
#[cube(launch)]
fn backward<F: Float>(
    x: &[F],
    weight: &[F],
    bias: &[F],
    grad: &[F],
    statistics: &[f32],
    plus: ComptimeOption<&[F]>,
    of_x: &mut [F],
    sums: &mut [f32],
    cubes: usize,
    #[comptime] plan: Plan,
    #[define(F)] _type: ElemType,
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let group = comptime!(plan.group);
    let stride = comptime!(plan.stride());
    let channels = comptime!(plan.channels);
    let image = CUBE_POS / comptime!(plan.groups());
    let channel = CUBE_POS % comptime!(plan.groups()) * group + unit % group;
    let base = image * comptime!(plan.pixels * plan.channels) + channel;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mean = statistics[2 * CUBE_POS];
    let scale = statistics[2 * CUBE_POS + 1];
    let mut row = 0usize;
    if comptime!(plan.own_rows) {
        row = image * channels;
    }
    let factor = f32::cast_from(weight[row + channel]);
    let shift = f32::cast_from(bias[row + channel]);
    // Threads that are left over have no pixels.
    let mut end = 0usize;
    if unit < group * stride {
        end += comptime!(plan.pixels);
    }

    let mut of_bias = 0.0f32;
    let mut of_weight = 0.0f32;
    for pixel in range_stepped(unit / group, end, stride) {
        let at = base + pixel * channels;
        let normed = (f32::cast_from(x[at]) - mean) * scale;
        let slope = f32::cast_from(grad[at]) * slope_behind(normed * factor + shift, plan.silu);
        of_bias += slope;
        of_weight += slope * normed;
    }
    let mean_slope = cube_sum(of_bias * factor, &mut shared) / comptime!(plan.numbers());
    let mean_product = cube_sum(of_weight * factor, &mut shared) / comptime!(plan.numbers());
    for pixel in range_stepped(unit / group, end, stride) {
        let at = base + pixel * channels;
        let normed = (f32::cast_from(x[at]) - mean) * scale;
        let slope = f32::cast_from(grad[at]) * slope_behind(normed * factor + shift, plan.silu);
        let mut value = scale * (slope * factor - mean_slope - normed * mean_product);
        if comptime!(plus.is_some()) {
            value += f32::cast_from(plus.as_ref().unwrap()[at]);
        }
        of_x[at] = F::cast_from(value);
    }
    let weight_sum = over_pixels(of_weight, &mut shared, plan);
    let bias_sum = over_pixels(of_bias, &mut shared, plan);
    if unit < group {
        sums[image * 2 * channels + channel] = weight_sum;
        sums[(image * 2 + 1) * channels + channel] = bias_sum;
    }
}

/// The derivative of what stands behind the norm.
#[cube]
fn slope_behind(value: f32, #[comptime] silu: bool) -> f32 {
    let mut slope = 1.0f32;
    if comptime!(silu) {
        let share = sigmoid(value);
        slope = share * (1.0f32 + value * (1.0f32 - share));
    }
    slope
}

/// The sum of a number of each thread of a channel, for the first thread of each channel.
#[cube]
fn over_pixels(value: f32, shared: &mut Shared<[f32]>, #[comptime] plan: Plan) -> f32 {
    let at = UNIT_POS as usize;
    shared[at] = value;
    sync_cube();
    let mut sum = 0.0f32;
    if at < comptime!(plan.group) {
        for pixel in 0..comptime!(plan.stride()) {
            sum += shared[at + pixel * comptime!(plan.group)];
        }
    }
    sync_cube();
    sum
}
