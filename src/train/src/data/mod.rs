//! Data sets: where images come from, how they are checked, and how batches of them are made.
//!
//! Plain bytes and `Vec<f32>` only. Knows nothing of tensors, models, devices or pipeline files.

mod archives;
mod augment;
mod check;
mod cifar;
mod cifar_names;
mod classes;
mod content;
mod dataset;
mod decode;
mod decoded;
mod digest;
pub mod download;
mod error;
mod folder;
mod framing;
mod imagenette;
mod images;
mod index;
mod layout;
mod loader;
mod lock;
mod long_names;
mod order;
mod outline;
mod passed_over;
mod progress;
mod seen;
mod settings;
mod shapes;
mod split;
mod trees;
pub mod unpack;
mod unzip;
mod verified;
mod walk;

pub use classes::ClassSelection;
pub(crate) use classes::known_count as known_class_count;
pub(crate) use classes::same as same_name;
pub(crate) use content::in_words;
pub use content::{Seen, look, paths, remember};
pub use dataset::{ClassCount, Dataset};
pub use error::{BadImage, DataError};
pub use framing::{Colour, Fit};
pub(crate) use loader::batches;
pub use loader::{Batch, Epoch, Loader, LoaderOptions};
pub use passed_over::{PassedKind, PassedOver};
pub use progress::Progress;
pub use settings::{Augmentation, DatasetSettings, Source};
pub use split::Split;
