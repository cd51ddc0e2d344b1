//! Layer norm over the last axis (Ba, Kiros and Hinton 2016, arXiv 1607.06450, equation 4).

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::definitions::NORM_EPSILON;
use super::autodiff_op::{Cost, Kernel, Waiting};
use super::columns::{self, sum_columns};
use super::launch::{cube_count, empty, lanes_sum, zeros};

/// Threads of a row.
const LANES: usize = 32;
/// Rows of a workgroup at a time.
const ROWS: usize = 8;
/// The most workgroups of the gradient: each adds up rows of its own for weight and bias.
const MOST_CUBES: usize = 256;
const EPSILON: f32 = NORM_EPSILON as f32;

/// Inputs: `x [.., channels]`, and weight and bias, `[channels]` each. What is kept is each row's
/// mean and the reciprocal of its deviation, `[rows, 2]`.
#[derive(Debug, Clone)]
pub(super) struct LayerNorm {
    pub shape: Shape,
    pub channels: usize,
    pub waiting: Option<Waiting>,
}

impl LayerNorm {
    /// The most channels: each thread holds numbers of a row.
    pub(super) const MOST_CHANNELS: usize = 1024;

    fn rows(&self) -> usize {
        self.shape.num_elements() / self.channels
    }

    /// Workgroups of the gradient, and rows of each.
    fn parts(&self) -> (usize, usize) {
        let each = self.rows().div_ceil(MOST_CUBES).next_multiple_of(ROWS);
        (self.rows().div_ceil(each), each)
    }
}

impl Kernel<3> for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn kept(&self) -> Vec<(Shape, DType)> {
        vec![([self.rows(), 2].into(), DType::F32)]
    }

    fn forward(&self, [x, weight, bias]: [CubeTensor; 3]) -> Vec<CubeTensor> {
        let result = empty(&x, self.shape(), x.dtype);
        let statistics = empty(&x, [self.rows(), 2].into(), DType::F32);
        let dtype = dtype_to_elem_type(x.dtype);
        forward::launch(
            &x.client.clone(),
            cube_count(self.rows().div_ceil(ROWS)),
            CubeDim::new_2d(LANES as u32, ROWS as u32),
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            bias.into_buffer_arg(),
            result.clone().into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            self.rows(),
            self.channels,
            dtype,
        );
        vec![result, statistics]
    }

    fn backward(
        &self,
        [x, weight, _]: [CubeTensor; 3],
        kept: &[CubeTensor],
        grad: CubeTensor,
        [wants_x, wants_weight, wants_bias]: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        let (parts, each) = self.parts();
        let of_x = empty(&x, self.shape(), x.dtype);
        let sums = empty(&x, [parts, 2 * self.channels].into(), DType::F32);
        let dtype = x.dtype;
        backward::launch(
            &x.client.clone(),
            cube_count(parts),
            CubeDim::new_2d(LANES as u32, ROWS as u32),
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            grad.into_buffer_arg(),
            kept[0].clone().into_buffer_arg(),
            kept.get(1).map(|plus| plus.clone().into_buffer_arg()).into(),
            of_x.clone().into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            self.rows(),
            each,
            self.channels,
            dtype_to_elem_type(dtype),
        );
        let of_x = wants_x.then_some(of_x);
        if !(wants_weight || wants_bias) {
            return [of_x, None, None];
        }
        let [of_weight, of_bias] = sum_columns(sums, [self.channels].into(), dtype);
        [of_x, wants_weight.then_some(of_weight), wants_bias.then_some(of_bias)]
    }

    fn waiting(&self) -> Option<&Waiting> {
        self.waiting.as_ref()
    }

    fn cost(&self, gradient: bool) -> Cost {
        let row = self.channels.div_ceil(LANES) as u64 + LANES.ilog2() as u64;
        if !gradient {
            return Cost { iterations: row, longest: row, ..Cost::default() };
        }
        let (parts, each) = self.parts();
        let rows = (each / ROWS) as u64;
        let columns = columns::iterations(parts);
        Cost {
            iterations: rows + columns,
            longest: rows.max(columns),
            inner_bytes: 2 * 4 * (parts * 2 * self.channels) as u64,
            ..Cost::default()
        }
    }
}

#[cube(launch)]
fn forward<F: Float>(
    x: &[F],
    weight: &[F],
    bias: &[F],
    result: &mut [F],
    statistics: &mut [f32],
    rows: usize,
    #[comptime] channels: usize,
    #[define(F)] _type: ElemType,
) {
    let lane = UNIT_POS as usize % LANES;
    let row = CUBE_POS * ROWS + UNIT_POS as usize / LANES;
    let each = comptime!(channels.div_ceil(LANES));
    let mut shared = Shared::<[f32]>::new_slice(comptime!(LANES * ROWS));
    let mut numbers = Array::<f32>::new(each);
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..each {
        let channel = lane + i * LANES;
        numbers[i] = 0.0f32;
        if row < rows && channel < channels {
            numbers[i] = f32::cast_from(x[row * channels + channel]);
        }
        sum += numbers[i];
    }
    let mean = lanes_sum(sum, &mut shared, LANES) / comptime!(channels as f32);
    let mut squares = 0.0f32;
    #[unroll]
    for i in 0..each {
        let centred = numbers[i] - mean;
        if lane + i * LANES < channels {
            squares += centred * centred;
        }
    }
    let variance = lanes_sum(squares, &mut shared, LANES) / comptime!(channels as f32);
    let scale = 1.0f32 / f32::sqrt(variance + EPSILON);
    if row < rows {
        #[unroll]
        for i in 0..each {
            let channel = lane + i * LANES;
            if channel < channels {
                let value = (numbers[i] - mean) * scale * f32::cast_from(weight[channel])
                    + f32::cast_from(bias[channel]);
                result[row * channels + channel] = F::cast_from(value);
            }
        }
        if lane == 0 {
            statistics[2 * row] = mean;
            statistics[2 * row + 1] = scale;
        }
    }
}

/// The gradient of x, `plus` what is added to it, and of each workgroup the sums for weight and
/// bias: those over its rows.
#[cube(launch)]
fn backward<F: Float>(
    x: &[F],
    weight: &[F],
    grad: &[F],
    statistics: &[f32],
    plus: ComptimeOption<&[F]>,
    of_x: &mut [F],
    sums: &mut [f32],
    rows: usize,
    rows_each: usize,
    #[comptime] channels: usize,
    #[define(F)] _type: ElemType,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % LANES;
    let each = comptime!(channels.div_ceil(LANES));
    let mut shared = Shared::<[f32]>::new_slice(comptime!(LANES * ROWS));
    let mut of_weight = zeros(each);
    let mut of_bias = zeros(each);
    let mut normed = Array::<f32>::new(each);
    let mut scaled = Array::<f32>::new(each);
    let first = CUBE_POS * rows_each;
    for start in range_stepped(0, rows_each, ROWS) {
        let row = first + start + unit / LANES;
        let mut mean = 0.0f32;
        let mut scale = 0.0f32;
        if row < rows {
            mean = statistics[2 * row];
            scale = statistics[2 * row + 1];
        }
        let mut sum = 0.0f32;
        let mut products = 0.0f32;
        #[unroll]
        for i in 0..each {
            let channel = lane + i * LANES;
            normed[i] = 0.0f32;
            scaled[i] = 0.0f32;
            if row < rows && channel < channels {
                let slope = f32::cast_from(grad[row * channels + channel]);
                normed[i] = (f32::cast_from(x[row * channels + channel]) - mean) * scale;
                scaled[i] = slope * f32::cast_from(weight[channel]);
                of_weight[i] += slope * normed[i];
                of_bias[i] += slope;
            }
            sum += scaled[i];
            products += scaled[i] * normed[i];
        }
        let mean_slope = lanes_sum(sum, &mut shared, LANES) / comptime!(channels as f32);
        let mean_product = lanes_sum(products, &mut shared, LANES) / comptime!(channels as f32);
        #[unroll]
        for i in 0..each {
            let channel = lane + i * LANES;
            if row < rows && channel < channels {
                let at = row * channels + channel;
                let mut value = scale * (scaled[i] - mean_slope - normed[i] * mean_product);
                if comptime!(plus.is_some()) {
                    value += f32::cast_from(plus.as_ref().unwrap()[at]);
                }
                of_x[at] = F::cast_from(value);
            }
        }
    }
    #[unroll]
    for i in 0..each {
        let channel = lane + i * LANES;
        let weight_sum = over_rows(of_weight[i], &mut shared);
        let bias_sum = over_rows(of_bias[i], &mut shared);
        if unit < LANES && channel < channels {
            sums[CUBE_POS * comptime!(2 * channels) + channel] = weight_sum;
            sums[CUBE_POS * comptime!(2 * channels) + comptime!(channels) + channel] = bias_sum;
        }
    }
}

/// The sum of a number of each thread of a lane, for the threads of the first row.
#[cube]
fn over_rows(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    let at = UNIT_POS as usize;
    shared[at] = value;
    sync_cube();
    let mut sum = 0.0f32;
    #[unroll]
    for row in 0..ROWS {
        sum += shared[at % LANES + row * LANES];
    }
    sync_cube();
    sum
}
