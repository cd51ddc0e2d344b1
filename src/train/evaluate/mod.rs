//! How good pictures are: what Inception-v3 says of them, and the distances between two sets.
//!
//! Knows nothing of stages, checkpoints or data sets: pixels and features come in, numbers come
//! out. Each number is the same in every process and on any number of threads of a CPU.
//!
//! | module | |
//! |---|---|
//! | [`network`] | from pixels to features |
//! | [`resize`] | pictures of any size as the network wants them |
//! | [`features`] | features of many pictures, and their files |
//! | [`statistics`] | their mean and covariance |
//! | [`frechet`] | FID: the Fréchet distance between two of those |
//! | [`kernel_distance`] | KID |
//! | [`precision_recall`] | precision, recall, and nearest neighbours |

pub mod features;
pub mod frechet;
pub mod kernel_distance;
mod matrix;
pub mod network;
mod npy;
pub mod precision_recall;
pub mod resize;
pub mod statistics;

pub use features::Features;
pub use frechet::{FrechetError, frechet_distance};
pub use kernel_distance::{KernelDistance, kernel_distance};
pub use network::{FeatureNetwork, WeightsError};
pub use npy::ArrayError;
pub use precision_recall::{Nearest, PrecisionRecall, nearest, precision_recall};
pub use resize::Resize;
pub use statistics::{Moments, Statistics};
