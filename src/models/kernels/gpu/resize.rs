//! Images of half and of twice the size, and two images side by side in their channels.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::autodiff_op::{Cost, Kernel};
use super::launch::{UNITS, cube_count, empty};

/// Input `[batch, height, width, channels]`.
#[derive(Debug, Clone)]
pub(super) enum Resize {
    /// Every square of four pixels as its mean: both sides are even.
    Halved([usize; 4]),
    /// Every pixel as a square of four.
    Doubled([usize; 4]),
}

/// The four pixels of each square of an image `[batch, height, width, channels]`, added up.
pub(super) fn add_squares(
    x: CubeTensor,
    [batch, h, w, channels]: [usize; 4],
    factor: f32,
) -> CubeTensor {
    let result = empty(&x, [batch, h / 2, w / 2, channels].into(), x.dtype);
    let (numbers, dtype) = (batch * (h / 2) * (w / 2) * channels, dtype_to_elem_type(x.dtype));
    squares::launch(
        &x.client.clone(),
        cube_count(numbers.div_ceil(UNITS)),
        CubeDim::new_1d(UNITS as u32),
        x.into_buffer_arg(),
        result.clone().into_buffer_arg(),
        numbers,
        factor,
        w / 2,
        channels,
        dtype,
    );
    result
}

/// Each pixel of an image `[batch, height, width, channels]` four times.
fn repeat_pixels(x: CubeTensor, [batch, h, w, channels]: [usize; 4], factor: f32) -> CubeTensor {
    let result = empty(&x, [batch, 2 * h, 2 * w, channels].into(), x.dtype);
    let (numbers, dtype) = (4 * batch * h * w * channels, dtype_to_elem_type(x.dtype));
    pixels::launch(
        &x.client.clone(),
        cube_count(numbers.div_ceil(UNITS)),
        CubeDim::new_1d(UNITS as u32),
        x.into_buffer_arg(),
        result.clone().into_buffer_arg(),
        numbers,
        factor,
        2 * w,
        channels,
        dtype,
    );
    result
}

impl Kernel<1> for Resize {
    const NAME: &'static str = "resize";

    fn shape(&self) -> Shape {
        match *self {
            Self::Halved([batch, h, w, channels]) => [batch, h / 2, w / 2, channels].into(),
            Self::Doubled([batch, h, w, channels]) => [batch, 2 * h, 2 * w, channels].into(),
        }
    }

    fn forward(&self, [x]: [CubeTensor; 1]) -> Vec<CubeTensor> {
        vec![match *self {
            Self::Halved(shape) => add_squares(x, shape, 0.25),
            Self::Doubled(shape) => repeat_pixels(x, shape, 1.0),
        }]
    }

    fn backward(
        &self,
        _: [CubeTensor; 1],
        _: &[CubeTensor],
        grad: CubeTensor,
        _: [bool; 1],
    ) -> [Option<CubeTensor>; 1] {
        [Some(match *self {
            Self::Halved([batch, h, w, channels]) => {
                repeat_pixels(grad, [batch, h / 2, w / 2, channels], 0.25)
            }
            Self::Doubled([batch, h, w, channels]) => {
                add_squares(grad, [batch, 2 * h, 2 * w, channels], 1.0)
            }
        })]
    }

    fn cost(&self, _: bool) -> Cost {
        Cost::default()
    }
}

#[cube(launch)]
fn squares<F: Float>(
    x: &[F],
    result: &mut [F],
    numbers: usize,
    factor: f32,
    #[comptime] width: usize,
    #[comptime] channels: usize,
    #[define(F)] _type: ElemType,
) {
    if ABSOLUTE_POS < numbers {
        let channel = ABSOLUTE_POS % channels;
        let column = ABSOLUTE_POS / channels % width;
        let row = ABSOLUTE_POS / comptime!(channels * width);
        // Rows of all images lie one behind the other: row r is made of 2 r and 2 r + 1.
        let at = (row * comptime!(4 * width) + 2 * column) * channels + channel;
        let below = at + comptime!(2 * width * channels);
        let upper = f32::cast_from(x[at]) + f32::cast_from(x[at + channels]);
        let lower = f32::cast_from(x[below]) + f32::cast_from(x[below + channels]);
        result[ABSOLUTE_POS] = F::cast_from((upper + lower) * factor);
    }
}

#[cube(launch)]
fn pixels<F: Float>(
    x: &[F],
    result: &mut [F],
    numbers: usize,
    factor: f32,
    #[comptime] width: usize,
    #[comptime] channels: usize,
    #[define(F)] _type: ElemType,
) {
    if ABSOLUTE_POS < numbers {
        let channel = ABSOLUTE_POS % channels;
        let column = ABSOLUTE_POS / channels % width;
        let row = ABSOLUTE_POS / comptime!(channels * width);
        let at = (row / 2 * comptime!(width / 2) + column / 2) * channels + channel;
        result[ABSOLUTE_POS] = F::cast_from(f32::cast_from(x[at]) * factor);
    }
}

/// Inputs `[.., left]` and `[.., right]` to `[.., left + right]`.
#[derive(Debug, Clone)]
pub(super) struct Concat {
    pub shape: Shape,
    pub left: usize,
    pub right: usize,
}

impl Kernel<2> for Concat {
    const NAME: &'static str = "concat";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [a, b]: [CubeTensor; 2]) -> Vec<CubeTensor> {
        let result = empty(&a, self.shape(), a.dtype);
        self.copy([a, b], result.clone(), true);
        vec![result]
    }

    fn backward(
        &self,
        inputs: [CubeTensor; 2],
        _: &[CubeTensor],
        grad: CubeTensor,
        [wants_a, wants_b]: [bool; 2],
    ) -> [Option<CubeTensor>; 2] {
        let made = inputs.map(|x| empty(&x, x.meta.shape().clone(), x.dtype));
        self.copy(made.clone(), grad, false);
        let [a, b] = made;
        [wants_a.then_some(a), wants_b.then_some(b)]
    }

    fn cost(&self, _: bool) -> Cost {
        Cost::default()
    }
}

impl Concat {
    fn copy(&self, [a, b]: [CubeTensor; 2], both: CubeTensor, joins: bool) {
        let numbers = self.shape.num_elements();
        let dtype = dtype_to_elem_type(a.dtype);
        join_or_part::launch(
            &both.client.clone(),
            cube_count(numbers.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            a.into_buffer_arg(),
            b.into_buffer_arg(),
            both.into_buffer_arg(),
            numbers,
            self.left,
            self.right,
            joins,
            dtype,
        );
    }
}

/// Two arrays into one that has both, or out of it.
#[cube(launch)]
fn join_or_part<F: Float>(
    a: &mut [F],
    b: &mut [F],
    both: &mut [F],
    numbers: usize,
    #[comptime] left: usize,
    #[comptime] right: usize,
    #[comptime] joins: bool,
    #[define(F)] _type: ElemType,
) {
    if ABSOLUTE_POS < numbers {
        let column = ABSOLUTE_POS % comptime!(left + right);
        let row = ABSOLUTE_POS / comptime!(left + right);
        if column < left {
            let at = row * left + column;
            if comptime!(joins) {
                both[ABSOLUTE_POS] = a[at];
            } else {
                a[at] = both[ABSOLUTE_POS];
            }
        } else {
            let at = row * right + column - left;
            if comptime!(joins) {
                both[ABSOLUTE_POS] = b[at];
            } else {
                b[at] = both[ABSOLUTE_POS];
            }
        }
    }
}
