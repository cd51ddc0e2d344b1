//! What every data source has: a name, its settings' bounds, where its data lies, and opening it.
//!
//! Knows no source by name. A data set is opened in [`crate::Dataset::open`], which calls these
//! functions.

use std::path::{Path, PathBuf};

use crate::cache::CacheFolder;
use crate::classes::Superclass;
use crate::error::DataError;
use crate::images::Images;
use crate::images::resize::ResizeOptions;
use crate::progress::Progress;
use crate::split::PublishedSplit;
use crate::wanted::WantedClasses;

/// A place that images come from: one value for each name that the setting `source` takes.
///
/// A new source is a file in `src/data/sources` with a `static` of it, and a line in `registry.rs`
/// there.
pub trait DataSource: Sync {
    /// The name in settings and records: lower case, words joined by `_`. Part of the data set's
    /// digest, so that it can never change.
    fn name(&self) -> &'static str;

    /// A sentence for the schema and the reference pages.
    fn description(&self) -> &'static str;

    /// How many classes there are when `classes` is left out, if that is the same for everybody.
    fn class_count(&self) -> Option<usize> {
        None
    }

    /// Names that stand for several of the classes, in `classes`.
    fn superclasses(&self) -> &'static [Superclass] {
        &[]
    }

    /// Whether users name the classes, so that two names may differ in case or separators only.
    fn has_user_named_classes(&self) -> bool {
        false
    }

    /// Whether the program makes the images itself, from the settings alone.
    fn is_synthetic(&self) -> bool {
        false
    }

    /// Whether its images are photos of any shape, which are made square.
    fn has_photos(&self) -> bool {
        false
    }

    /// Whether it reads folders of the user's own, with what lies deeper in them if asked to.
    fn has_user_folders(&self) -> bool {
        false
    }

    /// Whether its images may be those to judge by, and not to learn from:
    /// [`SourceOptions::split`].
    fn has_test_images(&self) -> bool {
        false
    }

    /// Refuses what this source in particular cannot do with settings that are in their ranges.
    fn validate(&self, options: &SourceOptions<'_>) -> Result<(), DataError> {
        let _ = options;
        Ok(())
    }

    /// What the settings alone decide, without reading or making an image; `None` if they do not.
    fn fingerprint(&self, options: &SourceOptions<'_>) -> Result<Option<Fingerprint>, DataError> {
        let _ = options;
        Ok(None)
    }

    /// Paths and glob patterns that [`DataSource::open`] reads: the edges of a `dataset` stage.
    /// They begin with `root`, as it is spelled.
    fn input_paths(&self, options: &SourceOptions<'_>, root: &Path) -> Vec<PathBuf> {
        let _ = (options, root);
        Vec::new()
    }

    /// Files that decide all of the content, where they are few and read as a whole: as long as
    /// none of them changes, what was read of them stands. Empty for sources of many files.
    fn whole_files(&self, options: &SourceOptions<'_>, root: &Path) -> Vec<PathBuf> {
        let _ = (options, root);
        Vec::new()
    }

    /// Whether the data lies in the folder `root`.
    fn availability(&self, options: &SourceOptions<'_>, root: &Path) -> Availability {
        let _ = (options, root);
        Availability::Ready
    }

    /// Reads the data set. Downloads and unpacks what is missing, if the options allow it.
    ///
    /// # Errors
    /// Data that is missing, truncated or of another format, and a class that is not there.
    fn open(
        &self,
        options: &SourceOptions<'_>,
        location: &Location<'_>,
        progress: &dyn Progress,
    ) -> Result<SourceContent, DataError>;
}

/// The settings of a data set that its source may read.
pub struct SourceOptions<'a> {
    pub classes: WantedClasses<'a>,
    /// Side of the square images, and how photos become square.
    pub(crate) resize: ResizeOptions,
    pub recursive: bool,
    pub split: PublishedSplit,
    pub num_images: usize,
    pub seed: u64,
    pub download: bool,
    pub url: Option<&'a str>,
}

/// Where a source reads and keeps files.
#[derive(Clone, Copy)]
pub struct Location<'a> {
    /// The data set's folder, or a file in its place.
    pub root: &'a Path,
    /// The project's folder for what can be made again.
    pub cache: &'a CacheFolder,
}

/// Whether the data of a source can be opened now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// Nothing but opening it is left to do.
    Ready,
    /// An archive is there and has to be unpacked first.
    Packed,
    /// It would have to be downloaded.
    Missing,
}

/// What is known of a data set from its settings.
pub struct Fingerprint {
    pub class_names: Vec<String>,
    pub images: usize,
    /// [`SourceContent::digest`]
    pub digest: String,
}

/// What a source delivers: the wanted classes only, labels counted from 0 in the order of
/// `class_names`.
pub struct SourceContent {
    pub class_names: Vec<String>,
    /// `[images]`, positions in `class_names`.
    pub labels: Vec<u32>,
    pub(crate) images: Images,
    /// Digest of what the images were made from, as hexadecimal digits.
    pub digest: String,
}
