//! What every network that can be trained here is: F of EDM's equation 7.

use burn::module::Module;
use burn::tensor::{Int, Tensor};

use crate::diffit::{Diffit, Pass};
use crate::unet::Unet;

/// A network that EDM's preconditioning makes a denoiser of. The names of its fields are the names
/// of its parameters in checkpoints.
pub trait Denoiser: Module {
    /// `x [batch, channels, size, size]`, `c_noise [batch]`, `label [batch]` (a class, or the
    /// number of classes for "no class", as `None` does) to `[batch, channels, size, size]`.
    /// Computes in the weights' number format; input and output are `f32`.
    fn forward(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<4>;
}

impl Denoiser for Diffit {
    fn forward(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<4> {
        self.forward(x, c_noise, label, pass)
    }
}

impl Denoiser for Unet {
    fn forward(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<4> {
        self.forward(x, c_noise, label, pass)
    }
}
