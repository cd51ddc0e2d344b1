//! How good a model is: its loss on images that it was not trained on, and how its pictures compare
//! with real ones. Knows nothing of stages.

mod feature_cache;
mod level_losses;
mod nearest;

pub use feature_cache::FeatureCache;
pub use level_losses::{LevelLosses, LossRequest};
pub use nearest::{Nearest, nearest, nearest_sheet};
