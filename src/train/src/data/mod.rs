//! Data sets: where images come from, how they are checked, and how batches of them are made.
//!
//! Plain bytes and `Vec<f32>` only. Knows nothing of tensors, models, devices or pipeline files.

mod archives;
mod augment;
mod cifar;
mod cifar_names;
mod classes;
mod dataset;
mod decode;
mod decoded;
mod digest;
pub mod download;
mod error;
mod folder;
mod imagenette;
mod images;
mod index;
mod loader;
mod lock;
mod order;
mod outline;
mod progress;
mod settings;
mod shapes;
mod split;
mod trees;
pub mod unpack;

pub use classes::ClassSelection;
pub use dataset::{ClassCount, Dataset};
pub use error::DataError;
pub(crate) use loader::batches;
pub use loader::{Batch, Epoch, Loader, LoaderOptions};
pub use progress::Progress;
pub use settings::{Augmentation, DatasetSettings, Source};
pub use split::Split;
