//! The operations that the runtime carried out, block by block, and what each block costs.

use std::collections::{HashMap, HashSet};

use burn_ir::{
    BaseOperationIr, CustomOpIr, FloatOperationIr, ModuleOperationIr, NumericOperationIr,
    OperationIr, ScalarIr, SliceOpIr, TensorId, TensorIr,
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
    /// Of a tensor that looks at another one without a copy: the other, and the bytes that it sees.
    views: HashMap<TensorId, (TensorId, u64)>,
    /// Bytes of all tensors.
    sizes: HashMap<TensorId, u64>,
    /// Tensors that the host sent.
    pub uploads: u64,
}

impl Blocks {
    /// Takes note of a block that runs.
    pub fn push<'a>(&mut self, operations: impl ExactSizeIterator<Item = &'a OperationIr>) {
        let operations: Vec<&OperationIr> = operations.collect();
        for operation in &operations {
            let tensors = operation.inputs().chain(operation.outputs());
            self.sizes.extend(tensors.map(|tensor| (tensor.id, size(tensor))));
        }
        if let [single] = &operations[..]
            && is_view(single)
        {
            let input = single.inputs().next();
            for (input, output) in input
                .into_iter()
                .flat_map(|input| single.outputs().map(move |output| (input, output)))
            {
                let bytes = self.bytes_of(input).min(size(output));
                self.views.insert(output.id, (self.root(input.id), bytes));
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
                    .sum::<u64>()
                    .saturating_sub(added_bytes(operation));
            }
            for input in operation.inputs() {
                if !made.contains(&input.id) && seen.insert(input.id) {
                    let bytes = self.bytes_of(input);
                    let part = slice(operation).map_or(bytes, |op| bytes.min(size(&op.out)));
                    block.reads.push((input.id, part));
                }
            }
            block.writes.extend(operation.outputs().map(|out| (out.id, size(out))));
        }
        self.all.push(block);
    }

    fn bytes_of(&self, tensor: &TensorIr) -> u64 {
        self.views.get(&tensor.id).map_or_else(|| size(tensor), |(_, bytes)| *bytes)
    }

    /// The tensor whose memory another one is in.
    fn root(&self, id: TensorId) -> TensorId {
        self.views.get(&id).map_or(id, |(root, _)| *root)
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

    /// What each block costs.
    pub fn costs(&self) -> Vec<Cost> {
        let cost = |(block, written): (&Block, Vec<TensorId>)| {
            let bytes = |id: &TensorId| block.writes.iter().find(|w| w.0 == *id).map_or(0, |w| w.1);
            let read: u64 = block.reads.iter().map(|(_, bytes)| bytes).sum();
            Cost {
                iterations: block.iterations,
                longest_loop: block.longest_loop,
                bytes: read + written.iter().map(bytes).sum::<u64>() + block.inner_bytes,
                product_bytes: block.product_bytes,
            }
        };
        self.all.iter().zip(self.written()).map(cost).collect()
    }

    /// What each block writes. A tensor that no later block reads was not written, unless it is
    /// what its block is for.
    fn written(&self) -> Vec<Vec<TensorId>> {
        let mut read_later = HashSet::new();
        let mut all: Vec<Vec<TensorId>> = Vec::with_capacity(self.all.len());
        for block in self.all.iter().rev() {
            let ids = || block.writes.iter().map(|(id, _)| *id);
            let needed: Vec<TensorId> = ids().filter(|id| read_later.contains(id)).collect();
            // The step's own results: weights, moments, averages.
            all.push(if needed.is_empty() {
                ids().next_back().into_iter().collect()
            } else {
                needed
            });
            read_later.extend(block.reads.iter().map(|(id, _)| *id));
        }
        all.reverse();
        all
    }

    /// The most bytes of tensors at a time that are still to be read, or are results.
    pub fn live_bytes(&self) -> u64 {
        let mut lives: HashMap<TensorId, (usize, usize)> = HashMap::new();
        for (at, (block, written)) in self.all.iter().zip(self.written()).enumerate() {
            for id in written {
                lives.insert(id, (at, self.all.len()));
            }
            for (id, _) in &block.reads {
                lives.entry(self.root(*id)).or_default().1 = at + 1;
            }
        }
        let mut changes = vec![0i64; self.all.len() + 1];
        for (id, (first, end)) in lives {
            let bytes = self.sizes.get(&id).map_or(0, |bytes| *bytes as i64);
            changes[first] += bytes;
            changes[end] -= bytes;
        }
        let mut live = 0;
        let sums = changes.into_iter().map(|change| {
            live += change;
            live
        });
        sums.max().unwrap_or_default() as u64
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
    if let OperationIr::Custom(own) = operation {
        return own.id == PARTS;
    }
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
    ) || slice(operation).is_some_and(begins_like_a_view)
}

fn slice(operation: &OperationIr) -> Option<&SliceOpIr> {
    match operation {
        OperationIr::BaseFloat(BaseOperationIr::Slice(op))
        | OperationIr::BaseInt(BaseOperationIr::Slice(op))
        | OperationIr::BaseBool(BaseOperationIr::Slice(op)) => Some(op),
        _ => None,
    }
}

/// Whether a part of a row of numbers begins and ends where a buffer can.
fn begins_like_a_view(op: &SliceOpIr) -> bool {
    const ALIGNMENT: usize = 256;
    let ([length], [range]) = (&op.tensor.shape[..], &op.ranges[..]) else { return false };
    let (start, bytes) = (range.start.max(0) as usize, op.tensor.dtype.size());
    let rest = length.saturating_sub(start + op.out.shape[0]);
    (start * bytes).is_multiple_of(ALIGNMENT) && (rest * bytes).is_multiple_of(ALIGNMENT)
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

/// What looks at parts of a long array, each as an array.
const PARTS: &str = "parts";

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

/// Bytes of inputs that a kernel of our own only adds to its result.
fn added_bytes(operation: &OperationIr) -> u64 {
    match operation {
        OperationIr::Custom(own) => scalar(own, 3),
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
