//! Data sets: where images come from, how they are checked, and how batches of them are made.
//!
//! Plain bytes and `Vec<f32>` only. Knows nothing of tensors, models, devices or pipeline files.

// What comes from outside must not be able to end the program.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

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
mod foundation;
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
pub mod rng;
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
pub use classes::known_count as known_class_count;
pub use classes::same as same_name;
pub use content::{Seen, in_words, look, paths, remember};
pub use dataset::{ClassCount, Dataset};
pub use error::{BadImage, DataError};
pub use framing::{Colour, Fit};
pub use loader::{Batch, Epoch, Loader, LoaderOptions, batches};
pub use passed_over::{PassedKind, PassedOver};
pub use progress::Progress;
pub use settings::{Augmentation, DatasetSettings, Source};
pub use split::Split;
