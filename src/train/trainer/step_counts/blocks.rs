//! The operations that the runtime carried out, block by block, and what each block costs.

use std::collections::{HashMap, HashSet};

use burn_ir::{
    BaseOperationIr, CustomOpIr, FloatOperationIr, ModuleOperationIr, NumericOperationIr,
    OperationIr, ScalarIr, TensorId, TensorIr,
};

/// What a block of operations costs: one fused kernel, or one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Iterations of the longest loop of one thread that sums or scatters, added up over the
    /// launches.
    pub iterations: u64,
    /// The longest of these loops.
    pub longest_loop: u64,
    /// Read and written.
    pub bytes: u64,
    /// The same of matrix products and convolutions, whether or not they are fused.
    pub product_bytes: u64,
}

/// Operations that ran together.
#[derive(Debug, Clone, Default)]
struct Block {
    iterations: u64,
    longest_loop: u64,
    /// The shape of what is added up there.
    shape: Vec<usize>,
    product_bytes: u64,
    inner_bytes: u64,
    reads: Vec<(TensorId, u64)>,
    writes: Vec<(TensorId, u64)>,
}

/// All blocks of a step, in the order in which they ran.
#[derive(Debug, Default)]
pub struct Blocks {
    all: Vec<Block>,
    /// Bytes of a tensor that is seen in another shape without a copy.
    viewed: HashMap<TensorId, u64>,
    /// Tensors that the host sent.
    pub uploads: u64,
}

impl Blocks {
    /// Takes note of a block that runs.
    pub fn push<'a>(&mut self, operations: impl ExactSizeIterator<Item = &'a OperationIr>) {
        let operations: Vec<&OperationIr> = operations.collect();
        if let [single] = &operations[..]
            && is_view(single)
        {
            for (input, output) in single.inputs().zip(single.outputs()) {
                let bytes = self.bytes_of(input);
                self.viewed.insert(output.id, bytes);
            }
            // It launches nothing, and what it looks at is needed.
            let reads = single.inputs().map(|input| (input.id, 0)).collect();
            self.all.push(Block { reads, ..Block::default() });
            return;
        }
        let made: HashSet<TensorId> =
            operations.iter().flat_map(|op| op.outputs()).map(|out| out.id).collect();
        let mut block = Block::default();
        let mut seen = HashSet::new();
        for operation in &operations {
            if let OperationIr::Drop(_) | OperationIr::Init(_) = operation {
                continue;
            }
            let (iterations, length) = loops(operation);
            block.iterations = block.iterations.max(iterations);
            block.inner_bytes += inner_bytes(operation);
            if length > block.longest_loop {
                block.longest_loop = length;
                block.shape = operation.inputs().next().map_or_else(Vec::new, |t| t.shape.to_vec());
            }
            if is_product(operation) {
                block.product_bytes += operation
                    .inputs()
                    .chain(operation.outputs())
                    .map(|t| self.bytes_of(t))
                    .sum::<u64>();
            }
            for input in operation.inputs() {
                if !made.contains(&input.id) && seen.insert(input.id) {
                    block.reads.push((input.id, self.bytes_of(input)));
                }
            }
            block.writes.extend(operation.outputs().map(|out| (out.id, size(out))));
        }
        self.all.push(block);
    }

    fn bytes_of(&self, tensor: &TensorIr) -> u64 {
        self.viewed.get(&tensor.id).copied().unwrap_or_else(|| size(tensor))
    }

    /// The longest loops, the longest first: iterations, the shape of what is added up, and how
    /// often.
    pub fn longest_loops(&self, most: usize) -> Vec<(u64, Vec<usize>, u64)> {
        let mut found: HashMap<(u64, &[usize]), u64> = HashMap::new();
        for block in self.all.iter().filter(|block| block.longest_loop > 0) {
            *found.entry((block.longest_loop, &block.shape)).or_default() += 1;
        }
        let mut found: Vec<_> =
            found.into_iter().map(|((length, shape), n)| (length, shape.to_vec(), n)).collect();
        found.sort_by(|a, b| (b.0 * b.2, &b.1).cmp(&(a.0 * a.2, &a.1)));
        found.truncate(most);
        found
    }

    /// What each block costs. A tensor that no later block reads was not written, unless it is what
    /// its block is for.
    pub fn costs(&self) -> Vec<Cost> {
        let mut read_later = HashSet::new();
        let mut costs: Vec<Cost> = Vec::with_capacity(self.all.len());
        for block in self.all.iter().rev() {
            let needed = |id: &TensorId| read_later.contains(id);
            let any = block.writes.iter().any(|(id, _)| needed(id));
            let written: u64 = match block.writes.last() {
                // The step's own results: weights, moments, averages.
                Some((_, bytes)) if !any => *bytes,
                _ => block.writes.iter().filter(|(id, _)| needed(id)).map(|(_, bytes)| bytes).sum(),
            };
            let read: u64 = block.reads.iter().map(|(_, bytes)| bytes).sum();
            costs.push(Cost {
                iterations: block.iterations,
                longest_loop: block.longest_loop,
                bytes: read + written + block.inner_bytes,
                product_bytes: block.product_bytes,
            });
            read_later.extend(block.reads.iter().map(|(id, _)| *id));
        }
        costs.reverse();
        costs
    }
}

fn elements(tensor: &TensorIr) -> u64 {
    tensor.shape.iter().map(|side| *side as u64).product()
}

fn size(tensor: &TensorIr) -> u64 {
    elements(tensor) * tensor.dtype.size() as u64
}

/// Whether an operation that runs by itself only looks at a tensor in another way.
fn is_view(operation: &OperationIr) -> bool {
    let (OperationIr::BaseFloat(base) | OperationIr::BaseInt(base) | OperationIr::BaseBool(base)) =
        operation
    else {
        return false;
    };
    matches!(
        base,
        BaseOperationIr::Reshape(_)
            | BaseOperationIr::SwapDims(_)
            | BaseOperationIr::Permute(_)
            | BaseOperationIr::Expand(_)
    )
}

/// Whether it is a matrix product or a convolution.
fn is_product(operation: &OperationIr) -> bool {
    use ModuleOperationIr as M;
    match operation {
        OperationIr::Float(_, FloatOperationIr::Matmul(_)) => true,
        OperationIr::Module(module) => matches!(
            module,
            M::Linear(_)
                | M::LinearXBackward(_)
                | M::LinearWeightBackward(_)
                | M::Conv2d(_)
                | M::Conv2dXBackward(_)
                | M::Conv2dWeightBackward(_)
                | M::ConvTranspose2d(_)
                | M::ConvTranspose2dWeightBackward(_)
        ),
        OperationIr::Custom(own) => PRODUCTS.contains(&own.id.as_str()),
        _ => false,
    }
}

/// Kernels of our own that are made of matrix products.
const PRODUCTS: [&str; 5] = ["attention", "conv2d", "linear", "mlp", "window_attention"];

/// Iterations of one thread's loops, and those of the longest one. Kernels of our own say it
/// themselves; an operation of the runtime has one loop.
fn loops(operation: &OperationIr) -> (u64, u64) {
    match operation {
        OperationIr::Custom(own) => (scalar(own, 0), scalar(own, 1)),
        operation => {
            let length = loop_length(operation);
            (length, length)
        }
    }
}

/// Bytes that a kernel of our own moves besides its inputs and results.
fn inner_bytes(operation: &OperationIr) -> u64 {
    match operation {
        OperationIr::Custom(own) => scalar(own, 2),
        _ => 0,
    }
}

fn scalar(own: &CustomOpIr, index: usize) -> u64 {
    match own.scalars.get(index) {
        Some(ScalarIr::UInt(value)) => *value,
        _ => 0,
    }
}

/// Iterations of one thread where it sums or scatters: the runtime gives each result of a reduction
/// one thread unless it measures.
fn loop_length(operation: &OperationIr) -> u64 {
    use BaseOperationIr::SelectAssign;
    match operation {
        OperationIr::BaseFloat(SelectAssign(op))
        | OperationIr::BaseInt(SelectAssign(op))
        | OperationIr::BaseBool(SelectAssign(op)) => elements(&op.indices),
        operation if is_reduction(operation) => {
            let all = operation.inputs().map(elements).max().unwrap_or_default();
            operation.outputs().next().map_or(0, |out| all / elements(out).max(1))
        }
        _ => 0,
    }
}

/// Whether each of its results is made of many numbers by one thread.
fn is_reduction(operation: &OperationIr) -> bool {
    use ModuleOperationIr as M;
    use NumericOperationIr as N;
    match operation {
        OperationIr::NumericFloat(_, op) | OperationIr::NumericInt(_, op) => matches!(
            op,
            N::Sum(_)
                | N::SumDim(_)
                | N::SumDims(_)
                | N::Mean(_)
                | N::MeanDim(_)
                | N::Prod(_)
                | N::ProdDim(_)
                | N::Max(_)
                | N::MaxDim(_)
                | N::MaxAbs(_)
                | N::MaxAbsDim(_)
                | N::Min(_)
                | N::MinDim(_)
                | N::ArgMax(_)
                | N::ArgMin(_)
        ),
        OperationIr::Module(op) => {
            matches!(op, M::LinearBiasBackward(_) | M::Conv2dBiasBackward(_))
        }
        _ => false,
    }
}
