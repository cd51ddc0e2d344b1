//! `pipe` with an architecture of one's own: two convolutions.
//!
//! `cargo run --release --example custom_architecture -- run p.yaml`, with a `train` stage in
//! `p.yaml` that has `model: { arch: two_convs, width: 32 }`. Everything else is `pipe`: its
//! checkpoints are resumed, sampled and fine-tuned with LoRA, as those of any architecture.

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, activation};
use burn_pipe::pipe_models::architecture::{
    Architecture, Architectures, ConfigError, Denoiser, ImageShape, Shapes,
};
use burn_pipe::pipe_models::nn::{Conv2d, Linear, Pass, TimeEmbedding};
use burn_pipe::pipe_models::{burn, schemars};
use serde::{Deserialize, Serialize};

/// The network. The names of its fields are those of its parameters in checkpoints.
#[derive(Module, Debug)]
struct TwoConvs {
    time: TimeEmbedding,
    noise: Linear,
    first: Conv2d,
    last: Conv2d,
}

impl Denoiser for TwoConvs {
    fn forward(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<4> {
        let shift = self.noise.forward(self.time.forward(c_noise, label, pass), pass);
        let [batch, width] = shift.dims();
        let x = x.permute([0, 2, 3, 1]).cast(shift.dtype()); // [batch, size, size, channels]
        let h = self.first.forward(x, pass) + shift.reshape([batch, 1, 1, width]);
        self.last.forward(activation::silu(h), pass).permute([0, 3, 1, 2]).cast(DType::F32)
    }
}

/// What decides its parameters; in the header of every checkpoint.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct TwoConvsConfig {
    width: usize,
    image: ImageShape,
}

/// Its keys of `model:`. The comments are the descriptions in the schema: `pipe schema train`.
#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "burn_pipe::pipe_models::schemars")]
struct TwoConvsSettings {
    /// Channels between the two convolutions.
    width: Option<usize>,
}

impl Architecture for TwoConvsConfig {
    type Network = TwoConvs;
    type Settings = TwoConvsSettings;

    const NAME: &'static str = "two_convs";
    const ABOUT: &'static str = "Two convolutions.";
    const PRESETS: &'static [(&'static str, &'static str)] =
        &[("two_convs_16", "16 channels."), ("two_convs_64", "64 channels.")];
    const MARK: &'static str = "last.weight";
    const KEYS: &'static [&'static str] = &["width"];

    fn new(preset: &str, settings: TwoConvsSettings, image: ImageShape) -> Self {
        let width = if preset == "two_convs_64" { 64 } else { 16 };
        Self { width: settings.width.unwrap_or(width), image }
    }

    fn smallest() -> Self {
        Self { width: 2, image: ImageShape { size: 2, channels: 3, classes: 0 } }
    }

    fn infer(shapes: &Shapes, size: usize) -> Self {
        let channels = shapes.size(Self::MARK, 0);
        let image = ImageShape { size, channels, classes: shapes.num_classes() };
        Self { width: shapes.size(Self::MARK, 1), image }
    }

    fn image(&self) -> ImageShape {
        self.image
    }

    fn with_classes(mut self, classes: usize) -> Self {
        self.image.classes = classes;
        self
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if self.width.is_multiple_of(2) && self.width > 0 {
            return Ok(());
        }
        Err(ConfigError::Other { key: "width", message: "`width` must be even".to_owned() })
    }

    fn skeleton(&self, device: &Device) -> Result<TwoConvs, ConfigError> {
        self.validate()?;
        let (width, channels) = (self.width, self.image.channels);
        Ok(TwoConvs {
            time: TimeEmbedding::new(width, 4 * width, self.image.classes, 0, device),
            noise: Linear::new(4 * width, width, device),
            first: Conv2d::new(channels, width, 3, 1, device),
            last: Conv2d::new(width, channels, 3, 1, device),
        })
    }
}

fn main() {
    let architectures = Architectures::builtin().with::<TwoConvsConfig>();
    burn_pipe::main_with(burn_pipe::kinds(&architectures), architectures);
}
