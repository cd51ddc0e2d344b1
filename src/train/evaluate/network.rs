//! From pixels to features: Inception-v3 with the weights of a file.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use pipe_engine::kind::StageError;
use pipe_models::inception::{FEATURES, Inception, InceptionError, SIDE};

use super::resize::Resize;
use crate::checkpoint::foreign;
use crate::device;

/// The longest safetensors file that is read: the weights take 87 MB.
const LONGEST: u64 = 1 << 30;

/// Pictures that are looked at together.
pub const BATCH: usize = 8;

/// Why a file does not hold the network's weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("failed to read the weights of Inception-v3 from {}: {message}", path.display())]
    Read { path: PathBuf, message: String },
    #[error("{}: {error}", path.display())]
    Content { path: PathBuf, error: InceptionError },
}

/// The network that judges pictures, on a device.
#[derive(Debug)]
pub struct FeatureNetwork {
    network: Inception,
    device: Device,
}

impl FeatureNetwork {
    /// How many numbers it says of a picture.
    pub const FEATURES: usize = FEATURES;

    /// Reads weights: a state dictionary of PyTorch's, such as pytorch-fid's
    /// `pt_inception-2015-12-05-6726825d.pth`, or the same tensors in a safetensors file. No code
    /// in a file is executed.
    ///
    /// # Errors
    /// The file cannot be read, or a tensor is missing, of another shape, or not of finite floats.
    pub fn load(path: &Path, device: &Device) -> Result<Self, WeightsError> {
        let read = |message: String| WeightsError::Read { path: path.to_owned(), message };
        let tensors = foreign::tensors(path, LONGEST).map_err(read)?;
        let mut tensor =
            |name: &str, _: &[usize]| tensors.get(name).map(|tensor| tensor.host(name)).transpose();
        let network = Inception::from_tensors(&mut tensor, device);
        let network =
            network.map_err(|error| WeightsError::Content { path: path.to_owned(), error })?;
        Ok(Self { network, device: device.clone() })
    }

    /// The features of pictures that [`Resize::apply`] made, one after another: [`FEATURES`]
    /// numbers for each. Those of a picture do not depend on the pictures beside it on a CPU.
    ///
    /// # Errors
    /// The device fails, or has not enough memory for so many at once.
    ///
    /// # Panics
    /// The last picture is not whole.
    pub fn features(&self, pictures: Vec<f32>) -> Result<Vec<f32>, StageError> {
        assert!(pictures.len().is_multiple_of(3 * SIDE * SIDE), "the last picture is not whole");
        let batch = pictures.len() / (3 * SIDE * SIDE);
        if batch == 0 {
            return Ok(Vec::new());
        }
        let pictures = TensorData::new(pictures, [batch, 3, SIDE, SIDE]);
        let features = self.network.features(Tensor::from_data(pictures, &self.device));
        Ok(device::read(features)?.iter::<f32>().collect())
    }

    /// The features of pictures of 8-bit RGB, [`BATCH`] at a time: pixels, width and height of
    /// each.
    ///
    /// # Errors
    /// The device fails.
    pub fn of_pictures<'a>(
        &self,
        resize: Resize,
        pictures: impl IntoIterator<Item = (&'a [u8], usize, usize)>,
    ) -> Result<Vec<f32>, StageError> {
        let mut features = Vec::new();
        let mut pictures = pictures.into_iter().peekable();
        while pictures.peek().is_some() {
            let batch = pictures.by_ref().take(BATCH);
            let batch = batch.flat_map(|(pixels, w, h)| resize.apply(pixels, w, h)).collect();
            features.extend(self.features(batch)?);
        }
        Ok(features)
    }
}
