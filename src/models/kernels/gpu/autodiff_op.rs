//! How kernels written in CubeCL become an autodiff operation, one with a gradient, on burn's
//! backend of GPUs.
//!
//! Knows the backend, its fusion of operations, its autodiff wrapper, and nothing of any kernel.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, BackendTensor, Cube, DispatchAutodiffContext, DispatchDevice,
    DispatchTensor, DispatchTensorKind,
};
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_fusion::custom::{
    CustomOpIr, HandleContainer, OperationFn, OperationIr, ScalarIr, StreamId, TensorIr,
};

use super::super::dispatch;
use super::product::gradients::OfWeight;

/// A function of `N` arrays with its gradient, as launches of kernels. Arrays are row-major; their
/// shapes are part of `self`.
///
/// Both directions must give the same bits each time on one device: what a thread computes is
/// decided by the shapes, never by a measurement, and no two threads add to one number.
pub(super) trait Kernel<const N: usize>:
    Clone + std::fmt::Debug + Send + Sync + 'static
{
    /// As `pipe bench --count` lists it.
    const NAME: &'static str;

    /// Shape of the result.
    fn shape(&self) -> Shape;

    /// Shapes and formats of what `backward` wants to see again besides the inputs.
    fn kept(&self) -> Vec<(Shape, DType)> {
        Vec::new()
    }

    /// Launches what computes the result, and behind it what is kept.
    fn forward(&self, inputs: [CubeTensor; N]) -> Vec<CubeTensor>;

    /// Launches what computes the gradient of each input that is `wanted`, from the gradient of the
    /// result.
    fn backward(
        &self,
        inputs: [CubeTensor; N],
        kept: &[CubeTensor],
        grad: CubeTensor,
        wanted: [bool; N],
    ) -> [Option<CubeTensor>; N];

    /// Where a gradient of the first input may wait that did not come through this operation. If
    /// there is one, it is the last of `kept` in `backward`, which adds it to what it computes.
    fn waiting(&self) -> Option<&Waiting> {
        None
    }

    /// Where the gradient of the result waits for the inputs that are added to it and nothing
    /// else. To autodiff these are constants.
    fn skips(&self) -> &[Waiting] {
        &[]
    }

    /// What the launches of `forward` cost; of `backward` if `gradient`.
    fn cost(&self, gradient: bool) -> Cost;
}

/// What launches cost, for `pipe bench --count`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Iterations of the longest loop of one thread that sums, added up over the launches. Loops of
    /// matrix products are not among them.
    pub iterations: u64,
    /// The longest of these loops.
    pub longest: u64,
    /// Bytes of arrays that are neither inputs nor results, read and written.
    pub inner_bytes: u64,
    /// Bytes of inputs that are only added to a result.
    pub added_bytes: u64,
}

impl std::ops::Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            iterations: self.iterations + other.iterations,
            longest: self.longest.max(other.longest),
            inner_bytes: self.inner_bytes + other.inner_bytes,
            added_bytes: self.added_bytes + other.added_bytes,
        }
    }
}

impl Cost {
    /// Of a weight's gradient in parts: they are written and read, and added up.
    pub(super) fn of_parts(of: &OfWeight) -> Self {
        let iterations = of.product.parts() as u64;
        let inner_bytes = 2 * 4 * of.part_numbers() as u64;
        Self { iterations, longest: iterations, inner_bytes, ..Self::default() }
    }
}

type Recorded = FloatTensor<Autodiff<Cube>>;
type Plain = FloatTensor<Cube>;

/// Whether kernels can work on a tensor: numbers of a GPU in a format they know.
pub(super) fn applies<const D: usize>(tensor: &Tensor<D>) -> bool {
    let device = tensor.device();
    matches!(dispatch::plain(&device), DispatchDevice::Cube(_))
        && matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16)
        && dispatch::keeps_inputs(&device)
}

/// The gradient of a sum on its way to an input of it, past the operations that lie between.
///
/// A residual connection goes from the input of a norm to a sum far behind it. The sum's gradient
/// is that of the input, but for what comes through the norm: the norm's kernel adds both, and no
/// launch of its own is needed. Autodiff comes to the norm later than to the sum, which depends on
/// it.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<Option<Plain>>>);

impl Waiting {
    fn put(&self, gradient: Plain) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(gradient);
    }

    fn take(&self) -> Option<Plain> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Runs `kernel` on tensors for which [`applies`] holds, recording its gradient where one is wanted.
pub(super) fn apply<const N: usize, const D: usize, K: Kernel<N>>(
    kernel: K,
    inputs: [DispatchTensor; N],
) -> Tensor<D> {
    let context =
        inputs.iter().map(|t| t.autodiff).fold(Default::default(), DispatchAutodiffContext::merge);
    let kind = match context {
        DispatchAutodiffContext::Disabled => {
            let (output, _) = forward(&kernel, inputs.map(plain));
            DispatchTensorKind::Cube(BackendTensor::Float(output))
        }
        DispatchAutodiffContext::Enabled(_) => {
            let output = record(kernel, inputs.map(tracked));
            DispatchTensorKind::Autodiff(Box::new(DispatchTensorKind::Cube(
                BackendTensor::Autodiff(output),
            )))
        }
    };
    Tensor::from_dispatch(DispatchTensor { kind, autodiff: context })
}

fn record<const N: usize, K: Kernel<N>>(kernel: K, inputs: [Recorded; N]) -> Recorded {
    let nodes = inputs.each_ref().map(|tensor| tensor.node());
    let inputs = inputs.map(|tensor| tensor.into_primitive());
    let step = Step(kernel.clone()).prepare::<NoCheckpointing>(nodes).compute_bound().stateful();
    let (output, kept) = forward(&kernel, inputs.clone());
    match step {
        OpsKind::Tracked(step) => step.finish((inputs, kept), output),
        OpsKind::UnTracked(step) => step.finish(output),
    }
}

#[derive(Debug)]
struct Step<K>(K);

impl<const N: usize, K: Kernel<N>> Backward<Cube, N> for Step<K> {
    type State = ([Plain; N], Vec<Plain>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (inputs, mut kept) = ops.state;
        let grad = grads.consume::<Cube>(&ops.node);
        self.0.skips().iter().for_each(|skip| skip.put(grad.clone()));
        kept.extend(self.0.waiting().and_then(Waiting::take));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = backward(&self.0, inputs, kept, grad, wanted);
        for (parent, gradient) in ops.parents.into_iter().flatten().zip(found) {
            grads.register::<Cube>(parent.id, gradient);
        }
    }
}

/// The result and what is kept, lazily.
fn forward<const N: usize, K: Kernel<N>>(kernel: &K, inputs: [Plain; N]) -> (Plain, Vec<Plain>) {
    let dtype = inputs[0].dtype;
    let mut outputs = vec![(kernel.shape(), dtype)];
    outputs.extend(kernel.kept());
    let kernel = kernel.clone();
    let cost = kernel.cost(false);
    let mut made =
        register(K::NAME, cost, inputs.into(), outputs, move |tensors| {
            match <[CubeTensor; N]>::try_from(tensors) {
                Ok(inputs) => kernel.forward(inputs),
                Err(_) => Vec::new(),
            }
        })
        .into_iter();
    #[allow(clippy::expect_used, reason = "a registration gives as many tensors as it was given")]
    let output = made.next().expect("the result is the first output");
    (output, made.collect())
}

/// The gradients of the inputs that are wanted, lazily.
fn backward<const N: usize, K: Kernel<N>>(
    kernel: &K,
    inputs: [Plain; N],
    kept: Vec<Plain>,
    grad: Plain,
    wanted: [bool; N],
) -> Vec<Plain> {
    let outputs = inputs
        .iter()
        .zip(wanted)
        .filter(|(_, wanted)| *wanted)
        .map(|(input, _)| (input.shape.clone(), input.dtype))
        .collect();
    let all = inputs.into_iter().chain(kept).chain([grad]).collect();
    let kernel = kernel.clone();
    let cost = kernel.cost(true);
    register(K::NAME, cost, all, outputs, move |mut tensors| {
        let grad = tensors.pop();
        let kept = tensors.split_off(N);
        match (<[CubeTensor; N]>::try_from(tensors), grad) {
            (Ok(inputs), Some(grad)) => {
                kernel.backward(inputs, &kept, grad, wanted).into_iter().flatten().collect()
            }
            _ => Vec::new(),
        }
    })
}

/// Launches something on plain tensors for which [`applies`] holds, lazily. `launch` makes the
/// `outputs`, of which shapes and formats are given.
pub(super) fn run_plain(
    name: &'static str,
    cost: Cost,
    inputs: Vec<Tensor<1>>,
    outputs: Vec<(Shape, DType)>,
    launch: impl Fn(Vec<CubeTensor>) -> Vec<CubeTensor> + Send + Sync + 'static,
) -> Vec<Tensor<1>> {
    let inputs = inputs.into_iter().map(|input| plain(input.into_dispatch())).collect();
    let tensor = |made| {
        let kind = DispatchTensorKind::Cube(BackendTensor::Float(made));
        let autodiff = DispatchAutodiffContext::Disabled;
        Tensor::from_dispatch(DispatchTensor { kind, autodiff })
    };
    register(name, cost, inputs, outputs, launch).into_iter().map(tensor).collect()
}

/// Puts an operation into the queue of those that wait for the device.
fn register(
    name: &'static str,
    cost: Cost,
    inputs: Vec<Plain>,
    outputs: Vec<(Shape, DType)>,
    launch: impl Fn(Vec<CubeTensor>) -> Vec<CubeTensor> + Send + Sync + 'static,
) -> Vec<Plain> {
    let client = inputs[0].client.clone();
    let inputs: Vec<TensorIr> = inputs.into_iter().map(Plain::into_ir).collect();
    let outputs: Vec<TensorIr> = outputs
        .into_iter()
        .map(|(shape, dtype)| TensorIr::uninit(client.create_empty_handle(), shape, dtype))
        .collect();
    let cost =
        [cost.iterations, cost.longest, cost.inner_bytes, cost.added_bytes].map(ScalarIr::UInt);
    let description = CustomOpIr::with_scalars(name, &inputs, &outputs, cost.into());
    let (inputs, outputs) = (Arc::new(inputs), Arc::new(outputs));
    let run = move |handles: &mut HandleContainer<_>| {
        let tensors = inputs
            .iter()
            .map(|input| into_contiguous(handles.get_float_tensor::<CubeBackend>(input)))
            .collect();
        let made = launch(tensors);
        for (output, tensor) in outputs.iter().zip(made) {
            handles.register_float_tensor::<CubeBackend>(&output.id, tensor);
        }
        Ok(())
    };
    client.register(StreamId::current(), OperationIr::Custom(description), OperationFn(run))
}

#[allow(clippy::unreachable, reason = "which kind it is was checked before; no input decides it")]
fn plain(tensor: DispatchTensor) -> Plain {
    match tensor.kind {
        DispatchTensorKind::Cube(BackendTensor::Float(tensor)) => tensor,
        kind => unreachable!("a kernel's input was checked to be floats of a GPU, found {kind:?}"),
    }
}

#[allow(clippy::unreachable, reason = "which kind it is was checked before; no input decides it")]
fn tracked(tensor: DispatchTensor) -> Recorded {
    match tensor.kind {
        DispatchTensorKind::Autodiff(inner) => match *inner {
            DispatchTensorKind::Cube(BackendTensor::Autodiff(tensor)) => tensor,
            kind => {
                unreachable!("a kernel's input was checked to be floats of a GPU, found {kind:?}")
            }
        },
        kind => Autodiff::<Cube>::from_inner(plain(DispatchTensor {
            kind,
            autodiff: Default::default(),
        })),
    }
}
