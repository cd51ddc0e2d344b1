//! An opened data set: its classes, its images, which of them train and which validate, and a
//! digest of it all.

use std::borrow::Cow;
use std::path::PathBuf;

use pipe_fs::ProjectRoot;

use crate::augment::Change;
use crate::cache::CacheFolder;
use crate::cache::file_lists::ListedFile;
use crate::digest::FieldDigest;
use crate::error::{BadImage, DataError};
use crate::images::resize::ResizeOptions;
use crate::images::{Images, verify};
use crate::progress::Progress;
use crate::settings::{Augmentation, DatasetSettings};
use crate::skipped::SkippedEntries;
use crate::source::Location;
use crate::sources::registry::RegisteredSource;
use crate::split::{PublishedSplit, Split, split};
use crate::wanted::Labels;
use pipe_core::rng::{Purpose, stream};

/// A data set, ready to be read. Cheap to share between threads in an `Arc`.
pub struct Dataset {
    source: RegisteredSource,
    class_names: Vec<String>,
    /// Those that the source has: more of them where some are one group.
    source_classes: Vec<String>,
    resize: ResizeOptions,
    augmentation: Augmentation,
    labels: Vec<u32>,
    images: Images,
    train: Vec<usize>,
    validation: Vec<usize>,
    digest: String,
}

/// How many images a class has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassCount {
    pub name: String,
    pub train: usize,
    pub validation: usize,
}

impl Dataset {
    /// Opens the data set that `settings` describe; a relative `root` starts at `project`.
    /// Downloads and unpacks what is missing, if `settings.download` allows it.
    ///
    /// Fails on a setting out of range, on data that is missing, and on archives that are truncated
    /// or foreign. A folder's images are decoded when first used: [`Dataset::check_images`] does so
    /// for all of them. What was read and decoded once is kept in the project's `.pipe/cache`.
    pub fn open(
        settings: &DatasetSettings,
        project: &ProjectRoot,
        progress: &dyn Progress,
    ) -> Result<Self, DataError> {
        settings.validate()?;
        let root = settings.root_in(project);
        let cache = CacheFolder::of(project);
        let location = Location { root: &root, cache: &cache };
        let content = settings.source.open(&settings.source_options(), &location, progress)?;
        let class_count = content.class_names.len();
        let (train, validation) = match settings.split {
            PublishedSplit::Train => {
                split(&content.labels, class_count, settings.val_split, settings.seed)
            }
            PublishedSplit::Test => (Vec::new(), (0..content.labels.len()).collect()),
        };
        let wanted = settings.wanted_classes();
        let of_source = wanted.labels(&content.class_names, settings.source.superclasses())?;
        let digest = digest_of(settings, &content.class_names, &of_source, &content.digest);
        let label = |class: &u32| of_source.of_class[*class as usize];
        let labels = content.labels.iter().map(label).collect();
        Ok(Self {
            source: settings.source,
            class_names: of_source.names,
            source_classes: content.class_names,
            resize: settings.resize_options(),
            augmentation: settings.augmentation.clone(),
            labels,
            images: content.images,
            train,
            validation,
            digest,
        })
    }

    pub fn source(&self) -> RegisteredSource {
        self.source
    }

    /// The classes in the order of their labels.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Side of every image in pixels.
    pub fn image_size(&self) -> usize {
        self.resize.size
    }

    pub fn augmentation(&self) -> &Augmentation {
        &self.augmentation
    }

    /// SHA-256, in hexadecimal, over what decides the images: the content of the files read, or the
    /// drawing's version and parameters; and the classes and the image size. The same data in an
    /// archive and unpacked, here and on another machine, has the same digest.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Class, file and digest of each image that is a file, if there are at most `most`.
    pub(crate) fn listing(&self, most: usize) -> Option<Vec<ListedFile>> {
        match &self.images {
            Images::Files(files) if files.len() <= most => {
                Some(files.listing(&self.source_classes))
            }
            _ => None,
        }
    }

    /// The images of one side, ascending: positions for [`Dataset::image`] and [`Dataset::label`].
    pub fn indices(&self, split: Split) -> &[usize] {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
        }
    }

    /// The class of image `index`, as a position in [`Dataset::class_names`].
    pub fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    /// The file of image `index`; `None` where images are no files of their own.
    pub fn file(&self, index: usize) -> Option<PathBuf> {
        match &self.images {
            Images::Files(files) => Some(files.path(index)),
            Images::Memory(_) => None,
        }
    }

    /// Image `index` as RGB bytes `[image_size, image_size, 3]`. Fails when its file cannot be read
    /// or decoded.
    pub fn image(&self, index: usize) -> Result<Cow<'_, [u8]>, DataError> {
        self.images.get(index, &self.resize)
    }

    /// Image `index` as a training batch has it: `[3, size, size]` in -1..=1. `augmented` chooses
    /// one of the changes that the data set's augmentation makes, by any number; `None` leaves the
    /// image as it is.
    pub fn model_input(&self, index: usize, augmented: Option<u64>) -> Result<Vec<f32>, DataError> {
        let size = self.image_size();
        let rgb = self.image(index)?;
        let change = augmented.map_or(Change::NONE, |number| {
            Change::sample(
                self.augmentation(),
                &mut stream(number, Purpose::Augment, 0, index as u64),
            )
        });
        let mut values = vec![0.0; 3 * size * size];
        change.write(&rgb, size, &mut values);
        Ok(values)
    }

    /// How many images each class has, in the order of the labels.
    pub fn counts(&self) -> Vec<ClassCount> {
        let named = |name: &String| ClassCount { name: name.clone(), train: 0, validation: 0 };
        let mut counts: Vec<_> = self.class_names.iter().map(named).collect();
        self.train.iter().for_each(|i| counts[self.labels[*i] as usize].train += 1);
        self.validation.iter().for_each(|i| counts[self.labels[*i] as usize].validation += 1);
        counts
    }

    /// Classes that `val_split` left without a training image; the ones without any image are among
    /// them. None of a data set of test images.
    pub fn classes_without_training(&self) -> Vec<String> {
        if self.train.is_empty() && !self.validation.is_empty() {
            return Vec::new();
        }
        self.counts().into_iter().filter(|class| class.train == 0).map(|class| class.name).collect()
    }

    /// What lies in the folder and is no image of the data set; nothing for sources that hold their
    /// images in memory.
    pub fn skipped(&self) -> SkippedEntries {
        match &self.images {
            Images::Files(files) => files.root.skipped.clone(),
            Images::Memory(_) => SkippedEntries::default(),
        }
    }

    /// The images that cannot be read, each with its reason. Decodes on all processors every file
    /// that was not decoded without a fault before; nothing to do for sources that hold their
    /// images in memory.
    ///
    /// # Errors
    /// A file that changed since the data set was opened, and [`DataError::Stopped`].
    pub fn bad_images(&self, progress: &dyn Progress) -> Result<Vec<BadImage>, DataError> {
        match &self.images {
            Images::Files(files) => verify::bad_images(files, &self.resize, progress),
            Images::Memory(_) => Ok(Vec::new()),
        }
    }

    /// Fails as [`Self::check_images`] does where something is known to be wrong without decoding an
    /// image: a file that a list names and that is not there, or that cannot be read.
    pub(crate) fn check_files(&self, progress: &dyn Progress) -> Result<(), DataError> {
        match &self.images {
            Images::Files(files) if !files.root.unreadable.is_empty() => {
                self.check_images(progress)
            }
            _ => Ok(()),
        }
    }

    /// Fails if any image cannot be read, with one error for all of them: [`Dataset::bad_images`].
    pub fn check_images(&self, progress: &dyn Progress) -> Result<(), DataError> {
        match &self.images {
            Images::Files(files) => verify::refuse(files, self.bad_images(progress)?),
            Images::Memory(_) => Ok(()),
        }
    }
}

/// [`Dataset::digest`]. `class_names` are the source's, `labels` theirs; `content` is what the
/// source says of its images.
pub(crate) fn digest_of(
    settings: &DatasetSettings,
    class_names: &[String],
    labels: &Labels,
    content: &str,
) -> String {
    let mut digest = FieldDigest::new("data set");
    digest.field(settings.source.name());
    digest.field((settings.image_size as u64).to_le_bytes());
    class_names.iter().for_each(|name| digest.field(name));
    if labels.names != class_names {
        digest.field("groups");
        let label = |class: &u32| labels.names[*class as usize].as_str();
        labels.of_class.iter().map(label).for_each(|name| digest.field(name));
    }
    digest.field(content);
    digest.finish()
}
