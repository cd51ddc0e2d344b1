//! Noise level and class as one vector.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};

use super::layers::{Embedding, Linear, parameter};
use super::pass::Pass;

/// Turns the noise level, and a class if there are any, into the time token.
#[derive(Module, Debug)]
pub struct TimeEmbedding {
    pub fc1: Linear,
    pub fc2: Linear,
    /// One row for each class, and a last one for "no class".
    pub label: Option<Embedding>,
    /// `[labels, time_dim]`, for what the augmentation did to an image. It begins at 0.
    pub augment: Option<Param<Tensor<2>>>,
    dim: usize,
    num_classes: usize,
}

impl TimeEmbedding {
    pub fn new(
        dim: usize,
        time_dim: usize,
        num_classes: usize,
        augment: usize,
        device: &Device,
    ) -> Self {
        Self {
            fc1: Linear::new(dim, time_dim, device),
            fc2: Linear::new(time_dim, time_dim, device),
            label: (num_classes > 0).then(|| Embedding::new(num_classes + 1, time_dim, device)),
            augment: (augment > 0).then(|| parameter([augment, time_dim], device)),
            dim,
            num_classes,
        }
    }

    /// `c_noise [batch]`, `label [batch]` to the token `[batch, time_dim]`. Without a label every
    /// image is of no class; a network without classes ignores labels. So it is with what the pass
    /// says of the augmentation.
    pub fn forward(
        &self,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<2> {
        let [batch] = c_noise.dims();
        let device = c_noise.device();
        let half = self.dim / 2;
        let ln_period = 10_000f64.ln() as f32;
        let freqs: Vec<f32> =
            (0..half).map(|i| (-ln_period * i as f32 / half as f32).exp()).collect();
        let freqs = Tensor::<2>::from_data(TensorData::new(freqs, [1, half]), &device);
        let angle = within_one_turn(c_noise.reshape([batch, 1]) * 1000.0 * freqs); // [batch, dim / 2]
        let waves = Tensor::cat(vec![angle.clone().cos(), angle.sin()], 1); // [batch, dim]
        let waves = waves.cast(self.fc1.weight.val().dtype());
        let token = self.fc2.forward(activation::silu(self.fc1.forward(waves, pass)), pass); // [batch, time_dim]
        let token = match self.augment.as_ref().zip(pass.augment()) {
            None => token,
            Some((weight, done)) => {
                let dtype = token.dtype();
                token + done.clone().cast(dtype).matmul(weight.val())
            }
        };
        match &self.label {
            None => token,
            Some(table) => {
                let none = || Tensor::full([batch], self.num_classes as i64, &device);
                token + table.forward(label.unwrap_or_else(none))
            }
        }
    }
}

/// The same angle within ±π: some GPUs' sine and cosine are not accurate for angles of many turns.
fn within_one_turn(angle: Tensor<2>) -> Tensor<2> {
    // 2π in two parts (Cody and Waite): the first has so few bits that `turns` times it is exact.
    const TURN_HIGH: f64 = 6.28125;
    const TURN_LOW: f64 = std::f64::consts::TAU - TURN_HIGH;
    let turns = (angle.clone() * (1.0 / std::f64::consts::TAU)).round();
    angle - turns.clone() * TURN_HIGH - turns * TURN_LOW
}
