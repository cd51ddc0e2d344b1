//! Inception-v3 (Szegedy et al. 2015, arXiv 1512.00567) as the Fréchet inception distance has it
//! (Heusel et al. 2017, arXiv 1706.08500): its last average pool is the features of a picture.
//!
//! The weights of 2015-12-05 were trained in TensorFlow, where average pools do not count what
//! pads a picture, and where the last block takes a maximum instead of a mean. pytorch-fid's
//! `fid_inception_v3` has the same; torchvision's `inception_v3` has neither. The network is never
//! trained here: each batch norm is part of the convolution before it.

mod load;
mod unit;

use burn::tensor::module::{avg_pool2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor};

use load::Source;
pub use load::{InceptionError, TensorSource};
use unit::Unit;

/// Side of the pictures that the network looks at, in pixels.
pub const SIDE: usize = 299;
/// Numbers that it says of each.
pub const FEATURES: usize = 2048;

/// How a block looks at the surroundings of a pixel.
#[derive(Debug, Clone, Copy)]
enum Pool {
    /// The mean of 3 by 3 pixels, those inside the picture.
    Average,
    /// The largest of 3 by 3 pixels.
    Max,
    /// The largest of 3 by 3 pixels, at every other one, and none at the border.
    Halving,
}

impl Pool {
    fn forward(self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Average => {
                let options = AvgPoolOptions {
                    kernel_size: [3, 3],
                    stride: [1, 1],
                    padding: [(1, 1), (1, 1)],
                    count_include_pad: false,
                    ceil_mode: false,
                };
                avg_pool2d(x, options)
            }
            Self::Max => max_pool2d(x, max_pool(1, 1)),
            Self::Halving => max_pool2d(x, max_pool(2, 0)),
        }
    }
}

fn max_pool(stride: usize, padding: usize) -> MaxPoolOptions<2> {
    MaxPoolOptions {
        kernel_size: [3, 3],
        stride: [stride; 2],
        padding: [(padding, padding); 2],
        dilation: [1, 1],
        ceil_mode: false,
    }
}

/// One way through a block: a pool if there is one, convolutions one after another, and at the end
/// perhaps several beside each other.
#[derive(Debug)]
struct Branch {
    pool: Option<Pool>,
    units: Vec<Unit>,
    beside: Vec<Unit>,
}

impl Branch {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match self.pool {
            Some(pool) => pool.forward(x),
            None => x,
        };
        let x = self.units.iter().fold(x, |x, unit| unit.forward(x));
        if self.beside.is_empty() {
            x
        } else {
            Tensor::cat(self.beside.iter().map(|unit| unit.forward(x.clone())).collect(), 1)
        }
    }
}

/// Branches whose channels stand one after another.
#[derive(Debug)]
struct Mixed(Vec<Branch>);

impl Mixed {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        Tensor::cat(self.0.iter().map(|branch| branch.forward(x.clone())).collect(), 1)
    }
}

/// The network up to its last average pool.
#[derive(Debug)]
pub struct Inception {
    /// Convolutions in front of the first pool, and of the second.
    stem: [Vec<Unit>; 2],
    mixed: Vec<Mixed>,
}

impl Inception {
    /// The network with the weights that `tensor` gives by name and shape, in PyTorch's layout: those
    /// of torchvision's `inception_v3`, as `pt_inception-2015-12-05-6726825d.pth` has them. What else
    /// a file has is not asked for.
    ///
    /// # Errors
    /// A tensor is missing, of another shape, or not finite; the error names it.
    pub fn from_tensors<'a>(
        tensor: &'a mut TensorSource<'a>,
        device: &'a Device,
    ) -> Result<Self, InceptionError> {
        let from = &mut Source { tensor, device };
        let stem = [
            vec![
                from.unit("Conv2d_1a_3x3", [3, 32], [3, 3], 2, false)?,
                from.unit("Conv2d_2a_3x3", [32, 32], [3, 3], 1, false)?,
                from.unit("Conv2d_2b_3x3", [32, 64], [3, 3], 1, true)?,
            ],
            vec![
                from.unit("Conv2d_3b_1x1", [64, 80], [1, 1], 1, false)?,
                from.unit("Conv2d_4a_3x3", [80, 192], [3, 3], 1, false)?,
            ],
        ];
        let mixed = vec![
            block_a(from, "Mixed_5b", 192, 32)?,
            block_a(from, "Mixed_5c", 256, 64)?,
            block_a(from, "Mixed_5d", 288, 64)?,
            block_b(from, "Mixed_6a")?,
            block_c(from, "Mixed_6b", 128)?,
            block_c(from, "Mixed_6c", 160)?,
            block_c(from, "Mixed_6d", 160)?,
            block_c(from, "Mixed_6e", 192)?,
            block_d(from, "Mixed_7a")?,
            block_e(from, "Mixed_7b", 1280, Pool::Average)?,
            block_e(from, "Mixed_7c", 2048, Pool::Max)?,
        ];
        Ok(Self { stem, mixed })
    }

    /// What the network says of pictures `[batch, 3, 299, 299]` in [-1, 1]: `[batch, 2048]`.
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.stem.iter().fold(images, |x, units| {
            Pool::Halving.forward(units.iter().fold(x, |x, unit| unit.forward(x)))
        });
        let x = self.mixed.iter().fold(x, |x, mixed| mixed.forward(x));
        let [batch, channels, height, width] = x.dims();
        x.reshape([batch, channels, height * width]).mean_dim(2).reshape([batch, channels])
    }
}

type Built = Result<Mixed, InceptionError>;

/// One branch: convolutions one after another, each with its name, its outputs and its kernel. All
/// keep the picture's size.
fn chain(
    from: &mut Source,
    block: &str,
    mut inputs: usize,
    units: &[(&str, usize, [usize; 2])],
) -> Result<Branch, InceptionError> {
    let mut built = Vec::new();
    for (name, outputs, kernel) in units {
        let name = format!("{block}.{name}");
        built.push(from.unit(&name, [inputs, *outputs], *kernel, 1, true)?);
        inputs = *outputs;
    }
    Ok(Branch { pool: None, units: built, beside: Vec::new() })
}

/// A pool, and a convolution of single pixels after it.
fn pooled(
    from: &mut Source,
    block: &str,
    [inputs, outputs]: [usize; 2],
    pool: Pool,
) -> Result<Branch, InceptionError> {
    let branch = chain(from, block, inputs, &[("branch_pool", outputs, [1, 1])])?;
    Ok(Branch { pool: Some(pool), ..branch })
}

/// The pool alone, at every other pixel.
fn halving() -> Branch {
    Branch { pool: Some(Pool::Halving), units: Vec::new(), beside: Vec::new() }
}

fn block_a(from: &mut Source, name: &str, inputs: usize, pool: usize) -> Built {
    let three: &[_] = &[
        ("branch3x3dbl_1", 64, [1, 1]),
        ("branch3x3dbl_2", 96, [3, 3]),
        ("branch3x3dbl_3", 96, [3, 3]),
    ];
    Ok(Mixed(vec![
        chain(from, name, inputs, &[("branch1x1", 64, [1, 1])])?,
        chain(from, name, inputs, &[("branch5x5_1", 48, [1, 1]), ("branch5x5_2", 64, [5, 5])])?,
        chain(from, name, inputs, three)?,
        pooled(from, name, [inputs, pool], Pool::Average)?,
    ]))
}

fn block_b(from: &mut Source, name: &str) -> Built {
    let unit = from.unit(&format!("{name}.branch3x3"), [288, 384], [3, 3], 2, false)?;
    let one = Branch { pool: None, units: vec![unit], beside: Vec::new() };
    let units: &[_] = &[("branch3x3dbl_1", 64, [1, 1]), ("branch3x3dbl_2", 96, [3, 3])];
    let mut two = chain(from, name, 288, units)?;
    two.units.push(from.unit(&format!("{name}.branch3x3dbl_3"), [96, 96], [3, 3], 2, false)?);
    Ok(Mixed(vec![one, two, halving()]))
}

fn block_c(from: &mut Source, name: &str, inner: usize) -> Built {
    let seven: &[_] = &[
        ("branch7x7_1", inner, [1, 1]),
        ("branch7x7_2", inner, [1, 7]),
        ("branch7x7_3", 192, [7, 1]),
    ];
    let double: &[_] = &[
        ("branch7x7dbl_1", inner, [1, 1]),
        ("branch7x7dbl_2", inner, [7, 1]),
        ("branch7x7dbl_3", inner, [1, 7]),
        ("branch7x7dbl_4", inner, [7, 1]),
        ("branch7x7dbl_5", 192, [1, 7]),
    ];
    Ok(Mixed(vec![
        chain(from, name, 768, &[("branch1x1", 192, [1, 1])])?,
        chain(from, name, 768, seven)?,
        chain(from, name, 768, double)?,
        pooled(from, name, [768, 192], Pool::Average)?,
    ]))
}

fn block_d(from: &mut Source, name: &str) -> Built {
    let seven: &[_] = &[
        ("branch7x7x3_1", 192, [1, 1]),
        ("branch7x7x3_2", 192, [1, 7]),
        ("branch7x7x3_3", 192, [7, 1]),
    ];
    let mut one = chain(from, name, 768, &[("branch3x3_1", 192, [1, 1])])?;
    one.units.push(from.unit(&format!("{name}.branch3x3_2"), [192, 320], [3, 3], 2, false)?);
    let mut two = chain(from, name, 768, seven)?;
    two.units.push(from.unit(&format!("{name}.branch7x7x3_4"), [192, 192], [3, 3], 2, false)?);
    Ok(Mixed(vec![one, two, halving()]))
}

fn block_e(from: &mut Source, name: &str, inputs: usize, pool: Pool) -> Built {
    let units: &[_] = &[("branch3x3dbl_1", 448, [1, 1]), ("branch3x3dbl_2", 384, [3, 3])];
    let mut three = chain(from, name, inputs, &[("branch3x3_1", 384, [1, 1])])?;
    let mut double = chain(from, name, inputs, units)?;
    for (branch, last) in [(&mut three, "branch3x3_2"), (&mut double, "branch3x3dbl_3")] {
        for (part, kernel) in [("a", [1, 3]), ("b", [3, 1])] {
            let name = format!("{name}.{last}{part}");
            branch.beside.push(from.unit(&name, [384, 384], kernel, 1, true)?);
        }
    }
    Ok(Mixed(vec![
        chain(from, name, inputs, &[("branch1x1", 320, [1, 1])])?,
        three,
        double,
        pooled(from, name, [inputs, 192], pool)?,
    ]))
}
