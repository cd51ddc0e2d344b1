//! How a kernel on slices becomes an autodiff operation, one with a gradient, on burn's CPU
//! backend.
//!
//! Knows the backend, its autodiff wrapper and nothing of any kernel.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, BackendTensor, DispatchAutodiffContext, DispatchDevice,
    DispatchTensor, DispatchTensorKind, Flex, TensorMetadata,
};
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};

use super::super::dispatch;

/// A function of `N` arrays with its gradient. Arrays are row-major; their shapes are part of
/// `self`.
///
/// Both directions must give the same bits on any number of threads: work is cut into parts that
/// only the shapes decide, each number is computed by one thread, and parts are added in order.
pub(super) trait Kernel<const N: usize>: Clone + std::fmt::Debug + Send + 'static {
    /// Whether `backward` looks at the inputs. Where it does not, it is given empty ones, and the
    /// inputs' memory is free as soon as nobody else holds it.
    const KEEPS_INPUTS: bool = true;

    /// Shape of the result.
    fn shape(&self) -> Shape;

    /// The result, and what `backward` will want to see again besides the inputs; nothing of the
    /// latter if not `keep`.
    fn forward(&self, inputs: [&[f32]; N], keep: bool) -> (Vec<f32>, Vec<f32>);

    /// The gradient of each input that is `wanted`, from the gradient of the result.
    fn backward(
        &self,
        inputs: [&[f32]; N],
        kept: &[f32],
        grad: &[f32],
        wanted: [bool; N],
    ) -> [Option<Vec<f32>>; N];
}

/// Whether it is burn's CPU backend, with or without autodiff.
pub(super) fn on_cpu(device: &Device) -> bool {
    matches!(dispatch::plain(device), DispatchDevice::Flex(_))
}

/// Whether a tensor's numbers are `f32` in host memory, where kernels can work on them.
pub(super) fn applies<const D: usize>(tensor: &Tensor<D>) -> bool {
    let device = tensor.device();
    tensor.dtype() == DType::F32 && on_cpu(&device) && dispatch::keeps_inputs(&device)
}

/// Runs `kernel` on tensors for which [`applies`] holds, recording its gradient where one is asked
/// for.
pub(super) fn apply<const N: usize, const D: usize, K: Kernel<N>>(
    kernel: K,
    inputs: [DispatchTensor; N],
) -> Tensor<D> {
    let context =
        inputs.iter().map(|t| t.autodiff).fold(Default::default(), DispatchAutodiffContext::merge);
    let kind = match context {
        DispatchAutodiffContext::Disabled => {
            let inputs = inputs.map(|tensor| contiguous(plain(tensor)));
            let (output, _) = kernel.forward(slices(&inputs), false);
            DispatchTensorKind::Flex(BackendTensor::Float(flex(output, kernel.shape())))
        }
        DispatchAutodiffContext::Enabled(_) => {
            let output = record(kernel, inputs.map(tracked));
            DispatchTensorKind::Autodiff(Box::new(DispatchTensorKind::Flex(
                BackendTensor::Autodiff(output),
            )))
        }
    };
    Tensor::from_dispatch(DispatchTensor { kind, autodiff: context })
}

/// The numbers of a tensor for which [`applies`] holds, taken out of it: copied only where others
/// hold it too.
pub(super) fn numbers(tensor: Tensor<1>) -> Vec<f32> {
    let data = contiguous(plain(tensor.into_dispatch())).into_data();
    data.try_into_vec::<f32>().unwrap_or_default()
}

/// Looks at the numbers of a tensor for which [`applies`] holds.
pub(super) fn with_numbers<R>(tensor: &Tensor<1>, look: impl FnOnce(&[f32]) -> R) -> R {
    look(slice(&contiguous(plain(tensor.clone().into_dispatch()))))
}

/// A tensor of these numbers, without a gradient.
pub(super) fn from_numbers(values: Vec<f32>) -> Tensor<1> {
    let shape = [values.len()].into();
    let kind = DispatchTensorKind::Flex(BackendTensor::Float(flex(values, shape)));
    Tensor::from_dispatch(DispatchTensor { kind, autodiff: DispatchAutodiffContext::Disabled })
}

fn record<const N: usize, K: Kernel<N>>(
    kernel: K,
    inputs: [FloatTensor<Autodiff<Flex>>; N],
) -> FloatTensor<Autodiff<Flex>> {
    let nodes = inputs.each_ref().map(|tensor| tensor.node());
    let inputs = inputs.map(|tensor| contiguous(tensor.into_primitive()));
    let step = Step(kernel.clone()).prepare::<NoCheckpointing>(nodes).compute_bound().stateful();
    let (output, kept) = kernel.forward(slices(&inputs), matches!(step, OpsKind::Tracked(_)));
    let output = flex(output, kernel.shape());
    match step {
        OpsKind::Tracked(step) => {
            let shapes = inputs.each_ref().map(|input| input.shape());
            let inputs = K::KEEPS_INPUTS.then_some(inputs);
            step.finish((inputs, shapes, std::sync::Arc::new(kept)), output)
        }
        OpsKind::UnTracked(step) => step.finish(output),
    }
}

#[derive(Debug)]
struct Step<K>(K);

impl<const N: usize, K: Kernel<N>> Backward<Flex, N> for Step<K> {
    type State = (Option<[FlexTensor; N]>, [Shape; N], std::sync::Arc<Vec<f32>>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (inputs, shapes, kept) = ops.state;
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let inputs = inputs.as_ref().map_or([&[][..]; N], slices);
        let found = self.0.backward(inputs, &kept, slice(&grad), wanted);
        for ((parent, values), shape) in ops.parents.into_iter().zip(found).zip(shapes) {
            if let (Some(parent), Some(values)) = (parent, values) {
                grads.register::<Flex>(parent.id, flex(values, shape));
            }
        }
    }
}

#[allow(clippy::unreachable, reason = "which kind it is was checked before; no input decides it")]
fn plain(tensor: DispatchTensor) -> FlexTensor {
    match tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => tensor,
        kind => {
            unreachable!("a kernel's input was checked to be floats in host memory, found {kind:?}")
        }
    }
}

#[allow(clippy::unreachable, reason = "which kind it is was checked before; no input decides it")]
fn tracked(tensor: DispatchTensor) -> FloatTensor<Autodiff<Flex>> {
    match tensor.kind {
        DispatchTensorKind::Autodiff(inner) => match *inner {
            DispatchTensorKind::Flex(BackendTensor::Autodiff(tensor)) => tensor,
            kind => unreachable!(
                "a kernel's input was checked to be floats in host memory, found {kind:?}"
            ),
        },
        kind => Autodiff::<Flex>::from_inner(plain(DispatchTensor {
            kind,
            autodiff: Default::default(),
        })),
    }
}

/// A tensor whose elements stand in order.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.as_slice::<f32>() {
        Some(_) => tensor,
        None => tensor.to_contiguous(),
    }
}

fn slice(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().unwrap_or_default()
}

fn slices<const N: usize>(tensors: &[FlexTensor; N]) -> [&[f32]; N] {
    tensors.each_ref().map(slice)
}

fn flex(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}
