//! How good a model is: its loss on images that it was not trained on, and how its pictures compare
//! with real ones.
//!
//! Knows nothing of stages. Each number is the same in every process and on any number of threads
//! of a CPU.
//!
//! | module | |
//! |---|---|
//! | [`level_losses`] | the loss of images by noise level and class |
//! | [`mod@nearest`] | the nearest image of each picture, in pixels |
//! | [`network`] | from pixels to features: Inception-v3 |
//! | [`weights`] | the file of its weights |
//! | [`resize`] | pictures of any size as the network wants them |
//! | [`feature_cache`] | features of many pictures, computed once |
//! | [`features`] | rows of features |
//! | [`statistics`] | their mean and covariance |
//! | [`frechet`] | FID: the Fréchet distance between two of those |
//! | [`mod@kernel_distance`] | KID |
//! | [`mod@precision_recall`] | precision and recall |

pub mod feature_cache;
pub mod features;
pub mod frechet;
pub mod kernel_distance;
pub mod level_losses;
mod matrix;
pub mod nearest;
pub mod network;
pub mod precision_recall;
pub mod resize;
pub mod statistics;
pub mod weights;

pub use crate::npy::ArrayError;
pub use feature_cache::FeatureCache;
pub use features::Features;
pub use frechet::{FrechetError, frechet_distance};
pub use kernel_distance::{KernelDistance, kernel_distance};
pub use level_losses::{LevelLosses, LossRequest};
pub use nearest::{NEAREST, Nearest, nearest, nearest_sheet, real_image};
pub use network::{FeatureNetwork, WeightsError};
pub use precision_recall::{NEIGHBOURS, PrecisionRecall, precision_recall};
pub use resize::Resize;
pub use statistics::{Moments, Statistics};
