//! Residual connections: an array on its way past functions to a sum with what they give.

#[cfg(feature = "wgpu")]
use burn::backend::DispatchTensor;
use burn::tensor::Tensor;

#[cfg(feature = "wgpu")]
use super::gpu::Waiting;

/// The input `[batch, h, w, channels]` of a norm, on its way past what follows the norm to a sum
/// with it.
#[derive(Debug)]
pub struct Skip {
    x: Tensor<4>,
    /// Where the sum may leave its gradient for the norm.
    #[cfg(feature = "wgpu")]
    waiting: Option<Waiting>,
}

impl Skip {
    /// `x` past a function of it that knows nothing of this.
    pub(super) fn new(x: Tensor<4>) -> Self {
        Self {
            x,
            #[cfg(feature = "wgpu")]
            waiting: None,
        }
    }

    /// `x` past a norm, if there is a kernel for it that adds the gradients of both ways.
    #[cfg(feature = "wgpu")]
    pub(super) fn beside(
        x: &Tensor<4>,
        norm: impl FnOnce(&Waiting) -> Option<Tensor<4>>,
    ) -> Option<(Tensor<4>, Self)> {
        let waiting = Waiting::default();
        let normal = norm(&waiting)?;
        Some((normal, Self { x: x.clone(), waiting: Some(waiting) }))
    }

    /// The sum of what was brought here and `y`.
    pub fn added_to(self, y: Tensor<4>) -> Tensor<4> {
        self.x + y
    }

    /// What is brought, as numbers to which no gradient goes, and where that of the sum waits; none
    /// if nobody takes it there.
    #[cfg(feature = "wgpu")]
    pub(super) fn past_autodiff(&self) -> Option<(DispatchTensor, Waiting)> {
        let (waiting, x) = (self.waiting.clone()?, self.x.clone());
        let x = if x.device().is_autodiff() { x.inner() } else { x };
        Some((x.into_dispatch(), waiting))
    }
}
