//! How a product reads its matrices: rows, columns, and images as their patches.

use cubecl::prelude::*;

/// The image of a convolution as a matrix: a row for each position of the result, and in it the
/// numbers of its patch, tap by tap, the channels of each together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Patches {
    /// Height and width of the positions.
    pub grid: [usize; 2],
    /// Height and width of the image.
    pub image: [usize; 2],
    /// Channels of the image.
    pub channels: usize,
    /// Side of the kernel.
    pub kernel: usize,
    pub stride: usize,
    /// Each of the image's pixels stands for a square of four: positions are in those.
    pub doubled: bool,
    /// The gradient's way: positions are those of the convolution's input, and the image is the
    /// gradient of its result.
    pub backwards: bool,
}

/// Where the number at a row and a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// At `row * rows + column * columns`.
    Strided {
        rows: usize,
        columns: usize,
    },
    Patches(Patches),
    /// Weights `[outputs, inputs, taps]`: row `tap * inner + i` and column `j` are at
    /// `tap + i * step + j * columns`.
    Taps {
        inner: usize,
        step: usize,
        columns: usize,
    },
}

impl View {
    /// `[rows, columns]`, row by row.
    pub fn rows_of(columns: usize) -> Self {
        Self::Strided { rows: columns, columns: 1 }
    }

    /// The transpose of `[columns, rows]`, row by row.
    pub fn columns_of(rows: usize) -> Self {
        Self::Strided { rows: 1, columns: rows }
    }

    fn is_strided(&self) -> bool {
        matches!(self, Self::Strided { .. })
    }

    fn is_taps(&self) -> bool {
        matches!(self, Self::Taps { .. })
    }

    /// Steps of a row and of a column; of taps: numbers of a tap, steps of those and of a column.
    fn steps(&self) -> [usize; 3] {
        match *self {
            Self::Strided { rows, columns } => [rows, columns, 0],
            Self::Taps { inner, step, columns } => [inner, step, columns],
            Self::Patches(_) => [0; 3],
        }
    }

    fn patches(&self) -> Patches {
        match *self {
            Self::Patches(patches) => patches,
            _ => Patches {
                grid: [1; 2],
                image: [1; 2],
                channels: 1,
                kernel: 1,
                stride: 1,
                doubled: false,
                backwards: false,
            },
        }
    }

    /// Whether numbers of a row lie side by side, and not those of a column.
    pub fn along_rows(&self) -> bool {
        match *self {
            Self::Strided { rows, columns } => columns == 1 && rows != 1,
            Self::Patches(_) => true,
            Self::Taps { step, columns, .. } => columns < step,
        }
    }
}

/// The number of a view at a row and a column.
#[cube]
pub(super) fn number<F: Float>(
    from: &[F],
    row: usize,
    column: usize,
    #[comptime] view: View,
) -> f32 {
    let steps = comptime!(view.steps());
    if comptime!(view.is_strided()) {
        f32::cast_from(from[row * comptime!(steps[0]) + column * comptime!(steps[1])])
    } else if comptime!(view.is_taps()) {
        let inner = comptime!(steps[0]);
        let at = row / inner + (row % inner) * comptime!(steps[1]);
        f32::cast_from(from[at + column * comptime!(steps[2])])
    } else {
        patch_number::<F>(from, row, column, comptime!(view.patches()))
    }
}

/// The number of a position's patch at an index: zero beside the image.
#[cube]
fn patch_number<F: Float>(
    from: &[F],
    position: usize,
    index: usize,
    #[comptime] patches: Patches,
) -> f32 {
    let channels = comptime!(patches.channels);
    let kernel = comptime!(patches.kernel);
    let pad = comptime!(patches.kernel / 2);
    let stride = comptime!(patches.stride);
    let height = comptime!(patches.image[0]);
    let width = comptime!(patches.image[1]);
    let channel = index % channels;
    let tap = index / channels;
    let x = position % comptime!(patches.grid[1]);
    let row = position / comptime!(patches.grid[1]);
    let y = row % comptime!(patches.grid[0]);
    let image = row / comptime!(patches.grid[0]);

    let mut value = 0.0f32;
    if comptime!(patches.backwards) {
        // Position y of the input took part in the results (y + pad - tap) / stride.
        let below = y + pad;
        let beside = x + pad;
        let tap_y = tap / kernel;
        let tap_x = tap % kernel;
        if below >= tap_y && beside >= tap_x {
            let from_y = (below - tap_y) / stride;
            let from_x = (beside - tap_x) / stride;
            if from_y * stride + tap_y == below
                && from_x * stride + tap_x == beside
                && from_y < height
                && from_x < width
            {
                let at = ((image * height + from_y) * width + from_x) * channels + channel;
                value = f32::cast_from(from[at]);
            }
        }
    } else {
        let below = y * stride + tap / kernel;
        let beside = x * stride + tap % kernel;
        let each = comptime!(if patches.doubled { 2usize } else { 1usize });
        let inside = below < height * each + pad && beside < width * each + pad;
        if below >= pad && beside >= pad && inside {
            let from_y = (below - pad) / each;
            let from_x = (beside - pad) / each;
            let at = ((image * height + from_y) * width + from_x) * channels + channel;
            value = f32::cast_from(from[at]);
        }
    }
    value
}
