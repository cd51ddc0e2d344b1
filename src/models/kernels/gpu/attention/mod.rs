//! Self-attention in windows of an image, and over a whole image as one window.
//!
//! Scores stay in registers and are never written to memory: softmax is computed online, and the
//! gradient makes the scores again from the logarithm of each query's sum of exponentials (Dao et
//! al. 2022, arXiv 2205.14135, algorithms 1 and 4).

mod kernels;
mod plan;
mod rows;
mod sums;
#[cfg(test)]
mod tests;

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use self::kernels::{forward, of_keys, of_queries};
use self::plan::Plan;
use self::sums::{Stages, add_up, fold_table};
use super::autodiff_op::{Cost, Kernel};
use super::launch::{UNITS, cube_count, empty};

/// Inputs: `qkv [batch, height, width, 3 dim]`, and if there are three, the time token's share
/// `[batch, 3 dim]` and the bias table `[(2 window - 1)², heads]`.
#[derive(Debug, Clone)]
pub(super) struct Attention {
    batch: usize,
    dtype: DType,
    forward: Plan,
    queries: Plan,
    keys: Plan,
}

impl Attention {
    /// Of `qkv [batch, height, width, 3 dim]`. None where the sizes do not divide one another, or a
    /// workgroup's memory is too small.
    pub(super) fn new(
        [batch, height, width, channels]: [usize; 4],
        dtype: DType,
        heads: usize,
        window: usize,
        biased: bool,
    ) -> Option<Self> {
        let plan = |dots| Plan::new([height, width], channels / 3, heads, window, dots);
        let queries = plan(2)?.in_pairs()?;
        let queries = if biased { queries.with_table()? } else { queries };
        let (forward, keys) = (plan(1)?.in_pairs()?, plan(2)?);
        Some(Self { batch, dtype, forward, queries, keys })
    }

    /// Those of the three kernels; the second one's gradient of the bias table included.
    #[cfg(test)]
    fn plans(&self) -> [Plan; 3] {
        [self.forward, Plan { table_gradient: true, ..self.queries }, self.keys]
    }

    fn windows(&self) -> usize {
        let plan = self.forward;
        self.batch * (plan.height / plan.window) * (plan.width / plan.window)
    }

    /// One number for each window, head and query.
    fn rows(&self) -> usize {
        self.windows() * self.forward.heads * self.forward.n()
    }

    fn image(&self) -> Shape {
        let plan = self.forward;
        [self.batch, plan.height, plan.width, plan.dim].into()
    }

    fn cubes(&self, plan: Plan) -> usize {
        self.windows() * plan.heads * plan.blocks()
    }

    /// Numbers of the bias's gradient in one window.
    fn window_table(&self) -> usize {
        self.queries.heads * self.queries.blocks() * self.queries.table_len()
    }

    fn token_stages(&self) -> Stages {
        Stages::new(self.forward.height * self.forward.width, 1)
    }

    /// One thread adds up what all blocks of queries found in the windows that are left.
    fn table_stages(&self) -> Stages {
        Stages::new(self.windows(), (256 / self.queries.blocks()).max(1))
    }

    /// The result, the logarithms of the sums, and the result once more, which is the same memory.
    fn launch_forward(&self, qkv: &CubeTensor, extra: Option<[&CubeTensor; 2]>) -> Vec<CubeTensor> {
        let plan = self.forward;
        let mixed = empty(qkv, self.image(), qkv.dtype);
        let log_sums = empty(qkv, [self.rows()].into(), DType::F32);
        let cubes = self.cubes(plan);
        forward::launch(
            &qkv.client,
            cube_count(cubes),
            CubeDim::new_1d(plan.units() as u32),
            qkv.clone().into_buffer_arg(),
            extra.map(|[token, _]| token.clone().into_buffer_arg()).into(),
            extra.map(|[_, table]| table.clone().into_buffer_arg()).into(),
            mixed.clone().into_buffer_arg(),
            log_sums.clone().into_buffer_arg(),
            cubes,
            plan.scale(),
            plan,
            dtype_to_elem_type(qkv.dtype),
        );
        vec![mixed.clone(), log_sums, mixed]
    }

    /// Gradients of `qkv`, the time token's share and the bias table.
    fn launch_backward(
        &self,
        qkv: &CubeTensor,
        extra: Option<[&CubeTensor; 2]>,
        kept: &[CubeTensor],
        grad: &CubeTensor,
        [wants_token, wants_table]: [bool; 2],
    ) -> [Option<CubeTensor>; 3] {
        let [log_sums, mixed] = [&kept[0], &kept[1]];
        let of_qkv = empty(qkv, qkv.meta.shape().clone(), qkv.dtype);
        // For each query the sum of its scores' gradients, each times its share; behind them the
        // bias's gradient in each window.
        let tables = if wants_table { self.windows() * self.window_table() } else { 0 };
        let inner = empty(qkv, [self.rows() + tables].into(), DType::F32);
        let token = || extra.map(|[token, _]| token.clone().into_buffer_arg());
        let table = || extra.map(|[_, table]| table.clone().into_buffer_arg());
        let plan = Plan { table_gradient: wants_table, ..self.queries };
        let cubes = self.cubes(plan);
        of_queries::launch(
            &qkv.client,
            cube_count(cubes),
            CubeDim::new_1d(plan.units() as u32),
            qkv.clone().into_buffer_arg(),
            token().into(),
            table().into(),
            mixed.clone().into_buffer_arg(),
            grad.clone().into_buffer_arg(),
            log_sums.clone().into_buffer_arg(),
            of_qkv.clone().into_buffer_arg(),
            inner.clone().into_buffer_arg(),
            cubes,
            self.rows(),
            plan.scale(),
            plan,
            dtype_to_elem_type(qkv.dtype),
        );
        let plan = self.keys;
        let cubes = self.cubes(plan);
        of_keys::launch(
            &qkv.client,
            cube_count(cubes),
            CubeDim::new_1d(plan.units() as u32),
            qkv.clone().into_buffer_arg(),
            token().into(),
            table().into(),
            grad.clone().into_buffer_arg(),
            log_sums.clone().into_buffer_arg(),
            inner.clone().into_buffer_arg(),
            of_qkv.clone().into_buffer_arg(),
            cubes,
            plan.scale(),
            plan,
            dtype_to_elem_type(qkv.dtype),
        );
        let of_token = wants_token.then(|| self.token_gradient(&of_qkv));
        let of_table = wants_table.then(|| self.table_gradient(&inner, qkv.dtype));
        [Some(of_qkv), of_token, of_table]
    }

    fn token_gradient(&self, of_qkv: &CubeTensor) -> CubeTensor {
        let columns = 3 * self.forward.dim;
        let shape = [self.batch, columns].into();
        add_up(of_qkv, 0, [self.batch, columns], &self.token_stages(), shape, of_qkv.dtype)
    }

    fn table_gradient(&self, inner: &CubeTensor, dtype: DType) -> CubeTensor {
        let stages = self.table_stages();
        let (skip, columns) = (self.rows(), self.window_table());
        let (sums, skip) = if stages.is_empty() {
            (inner.clone(), skip)
        } else {
            let shape = [stages.left(), columns].into();
            (add_up(inner, skip, [1, columns], &stages, shape, DType::F32), 0)
        };
        let plan = self.queries;
        let table = empty(inner, [plan.offsets() * plan.offsets(), plan.heads].into(), dtype);
        fold_table::launch(
            &inner.client,
            cube_count((plan.offsets() * plan.offsets() * plan.heads).div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            sums.into_buffer_arg(),
            table.clone().into_buffer_arg(),
            skip,
            stages.left(),
            plan,
            dtype_to_elem_type(dtype),
        );
        table
    }

    fn costs(&self, gradient: bool, biased: bool) -> Cost {
        if !gradient {
            return Cost::default();
        }
        let inner = Cost { inner_bytes: 2 * 4 * self.rows() as u64, ..Cost::default() };
        if !biased {
            return inner;
        }
        // The gradient of `qkv` is read once more, for that of the time token's share.
        let of_qkv = (3 * self.image().num_elements() * self.dtype.size()) as u64;
        let table = self.window_table();
        let last = (self.table_stages().left() * self.queries.blocks()) as u64;
        let fold = Cost {
            iterations: last,
            longest: last,
            inner_bytes: of_qkv + 2 * 4 * (self.windows() * table) as u64,
            ..Cost::default()
        };
        inner
            + fold
            + self.token_stages().cost(self.batch * 3 * self.forward.dim, false)
            + self.table_stages().cost(table, true)
    }
}

impl Kernel<3> for Attention {
    const NAME: &'static str = "window_attention";

    fn shape(&self) -> Shape {
        self.image()
    }

    fn kept(&self) -> Vec<(Shape, DType)> {
        <Self as Kernel<1>>::kept(self)
    }

    fn forward(&self, [qkv, token, table]: [CubeTensor; 3]) -> Vec<CubeTensor> {
        self.launch_forward(&qkv, Some([&token, &table]))
    }

    fn backward(
        &self,
        [qkv, token, table]: [CubeTensor; 3],
        kept: &[CubeTensor],
        grad: CubeTensor,
        [wants_qkv, wants_token, wants_table]: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        let extra = Some([&token, &table]);
        let [of_qkv, of_token, of_table] =
            self.launch_backward(&qkv, extra, kept, &grad, [wants_token, wants_table]);
        [of_qkv.filter(|_| wants_qkv), of_token, of_table]
    }

    fn cost(&self, gradient: bool) -> Cost {
        self.costs(gradient, true)
    }
}

impl Kernel<1> for Attention {
    const NAME: &'static str = "attention";

    fn shape(&self) -> Shape {
        self.image()
    }

    fn kept(&self) -> Vec<(Shape, DType)> {
        vec![([self.rows()].into(), DType::F32), (self.image(), self.dtype)]
    }

    fn forward(&self, [qkv]: [CubeTensor; 1]) -> Vec<CubeTensor> {
        self.launch_forward(&qkv, None)
    }

    fn backward(
        &self,
        [qkv]: [CubeTensor; 1],
        kept: &[CubeTensor],
        grad: CubeTensor,
        _: [bool; 1],
    ) -> [Option<CubeTensor>; 1] {
        let [of_qkv, ..] = self.launch_backward(&qkv, None, kept, &grad, [false; 2]);
        [of_qkv]
    }

    fn cost(&self, gradient: bool) -> Cost {
        self.costs(gradient, false)
    }
}
