//! Image data sets: where images come from, how they are checked, and how batches of them are made.
//!
//! Plain bytes and `Vec<f32>` only. Knows nothing of tensors, models, devices or pipeline files.
//!
//! ```
//! use std::sync::Arc;
//!
//! use pipe_data::{Dataset, DatasetSettings, Loader, LoaderOptions, Split};
//!
//! let settings = DatasetSettings {
//!     source: "shapes".parse()?,
//!     num_images: 64,
//!     image_size: 16,
//!     val_split: 0.25,
//!     ..DatasetSettings::default()
//! };
//! let project = std::env::temp_dir(); // a relative `root` starts here
//! let dataset = Arc::new(Dataset::open(&settings, &project.as_path().into(), &())?);
//! assert_eq!(dataset.class_names()[..2], ["circle", "square"]);
//! assert_eq!(dataset.indices(Split::Validation).len(), 16);
//!
//! let options = LoaderOptions { batch_size: 8, num_workers: 2, seed: 42 };
//! let loader = Loader::new(dataset, Split::Train, options)?;
//! for batch in loader.epoch(0, 0) {
//!     let batch = batch?;
//!     assert_eq!(batch.images.len(), 8 * 3 * 16 * 16); // [batch, 3, size, size] in -1..=1
//!     assert_eq!(batch.labels.len(), 8);
//! }
//! # Ok::<(), pipe_data::DataError>(())
//! ```
//!
//! # Where things are
//!
//! | module | |
//! |---|---|
//! | `settings`, `classes`, `wanted` | the keys of a `dataset` stage, their defaults and ranges |
//! | `source`, `sources` | the trait [`DataSource`]; one file for each source, and the registry |
//! | `dataset`, `split` | an opened data set, its digest, its two sides |
//! | `summary` | digest and counts for a plan, without decoding an image |
//! | `loader`, `augment` | batches made ahead by threads; random flips and rotations |
//! | `skipped` | what lies in a folder and is no image of the data set, counted by kind |
//! | `images` | pixels: decoding, resizing, checking all of them |
//! | `folder` | which files of a folder are images, and of which class |
//! | `archive` | downloads, checksums, unpacking of what may come from anyone |
//! | `cache` | `.pipe/cache`: file digests, decoded images, checked images, lists of files |
//! | `distributions` | random numbers out of the streams of [`pipe_core::rng`] |
//!
//! # Random numbers
//!
//! A batch is a pure function of the data set, the seed, the epoch and its number. How many threads
//! make it changes no bit of it: see [`pipe_core::rng`].

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
mod class_name;
mod classes;
mod dataset;
mod digest;
mod distributions;
mod error;
mod folder;
mod geometric;
mod images;
mod loader;
mod progress;
mod settings;
mod skipped;
mod source;
mod sources;
mod split;
mod summary;
mod wanted;

pub use archive::packed::is_packed;
pub use archive::{download, unpack};
pub use cache::CacheFolder;
pub use class_name::ClassName;
pub use classes::{ClassSelection, find as find_class, same as same_class_name};
pub use dataset::{ClassCount, Dataset};
pub use error::{BadImage, DataError};
pub use folder::nearest::nearest_place;
pub use folder::scan::is_image;
pub use folder::survey::{ClassSurvey, FolderSurvey, survey};
pub use images::decode::ImageHeader;
pub use images::resize::{Colour, Fit};
pub use loader::{Batch, EpochBatches, Loader, LoaderOptions, batches_per_epoch};
pub use progress::Progress;
pub use settings::{Augmentation, DatasetSettings};
pub use skipped::{SkipReason, SkippedEntries};
pub use source::{Availability, DataSource, Fingerprint, Location, SourceContent, SourceOptions};
pub use sources::registry::RegisteredSource;
pub use split::{PublishedSplit, Split};
pub use summary::{DatasetSummary, describe_change, input_paths, save_summary, summarize};
pub use wanted::{ClassGroups, WantedClasses};
