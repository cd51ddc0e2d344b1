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

mod archive;
mod augment;
mod cache;
mod classes;
mod dataset;
mod digest;
mod distributions;
mod error;
mod folder;
mod foundation;
mod images;
mod loader;
mod progress;
pub mod rng;
mod settings;
mod source;
mod sources;
mod split;
mod summary;

pub use archive::{download, unpack};
pub use classes::{ClassSelection, same as same_name};
pub use dataset::{ClassCount, Dataset};
pub use error::{BadImage, DataError};
pub use folder::skipped::{PassedKind, PassedOver};
pub use images::resize::{Colour, Fit};
pub use loader::{Batch, Epoch, Loader, LoaderOptions, batches};
pub use progress::Progress;
pub use settings::{Augmentation, DatasetSettings};
pub use source::DataSource;
pub use sources::registry::Source;
pub use split::Split;
pub use summary::{Seen, in_words, look, paths, remember};
