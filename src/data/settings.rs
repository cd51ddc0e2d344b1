//! The settings of a data set: what a `dataset` stage's keys mean, their defaults and accepted
//! ranges.
//!
//! Every field decides the images or their order (class `identity`), unless it carries `x-class:
//! runtime`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::class_name::ClassName;
use crate::classes::{ClassSelection, superclass};
use crate::error::DataError;
use crate::geometric::LABELS;
use crate::images::resize::{Colour, Fit, ResizeOptions};
use crate::source::SourceOptions;
use crate::sources::registry::RegisteredSource;
use crate::split::PublishedSplit;
use crate::wanted::WantedClasses;

/// A data set: its source, which classes of it, and how its images are prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DatasetSettings {
    /// Where the images come from.
    pub source: RegisteredSource,
    /// The folder that holds archives and unpacked data; for `image_folder`, the folder of class
    /// folders or images itself, a zip file of it, or parquet files. Relative to the project; `~/`
    /// is your home folder.
    #[schemars(extend("x-class" = "runtime"))]
    #[schemars(example = &"data/my_images")]
    #[schemars(extend("x-known-as" = ["path", "dir", "data_dir", "folder"]))]
    pub root: PathBuf,
    /// Which classes, in this order; all of them when left out.
    pub classes: Option<ClassSelection>,
    /// Classes that training sees as one: the classes, superclasses and class numbers of each
    /// group by its name, such as `{animals: [cat, dog], vehicles: [car, 12]}`. Only these
    /// classes are read, and labels are in the order of the groups' names, unless `classes` lists
    /// groups and single classes in another.
    #[serde(skip_serializing_if = "is_default")]
    pub groups: BTreeMap<String, Vec<ClassName>>,
    /// Side of the square images in pixels. Photos are made square as `fit` says, then resized.
    #[schemars(range(min = 8, max = 1024))]
    #[schemars(extend("x-known-as" = ["size", "resolution", "img_size"]))]
    pub image_size: usize,
    /// How photos become square: `crop` cuts out the central square, `pad` keeps all of the image
    /// between bars, `squash` stretches it.
    #[serde(skip_serializing_if = "is_default")]
    pub fit: Fit,
    /// The colour of the bars of `fit: pad`, and behind transparent images; white unless set.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(example = &"#808080")]
    pub background: Colour,
    /// Whether the folders below a class folder are read too. For `image_folder` only.
    #[serde(skip_serializing_if = "is_default")]
    pub recursive: bool,
    /// Which images: `train`, or `test`, which no stage trains on. For sources that publish test
    /// images, CIFAR and Imagenette; of an `image_folder`, `test` says that all of its images are
    /// to judge by.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(extend("x-known-as" = ["subset", "partition"]))]
    pub split: PublishedSplit,
    /// How many images to draw. Read by drawn sets only: the others have as many images as they
    /// have.
    #[schemars(range(min = 1, max = 1_000_000))]
    #[schemars(extend("x-known-as" = ["n_images", "max_images"]))]
    pub num_images: usize,
    /// Share of each class's training images kept aside for validation; 0 means no validation.
    #[schemars(range(min = 0.0, max = 0.9))]
    #[schemars(example = 0.1)]
    #[schemars(extend("x-known-as" = ["validation_split", "val_size"]))]
    pub val_split: f64,
    /// Random changes of the training images, drawn anew in each epoch.
    pub augmentation: Augmentation,
    /// Seed of the drawn images, and of which images go to validation.
    pub seed: u64,
    /// Whether missing data may be downloaded.
    #[schemars(extend("x-class" = "runtime"))]
    pub download: bool,
    /// Another address of the archive; its content must be the published one.
    #[schemars(extend("x-class" = "runtime"))]
    pub url: Option<String>,
}

impl Default for DatasetSettings {
    fn default() -> Self {
        Self {
            source: RegisteredSource::default(),
            root: PathBuf::from("data"),
            classes: None,
            groups: BTreeMap::new(),
            image_size: 32,
            fit: Fit::default(),
            background: Colour::default(),
            recursive: false,
            split: PublishedSplit::default(),
            num_images: 2048,
            val_split: 0.0,
            augmentation: Augmentation::default(),
            seed: 0,
            download: true,
            url: None,
        }
    }
}

/// Random changes of training images; validation images are never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Whether any of it happens.
    pub enabled: bool,
    /// Mirror left and right with probability 1/2.
    pub horizontal_flip: bool,
    /// Rotate by an angle drawn uniformly between minus and plus this many degrees; 0 means no
    /// rotation.
    #[schemars(range(min = 0.0, max = 180.0))]
    pub rotation_degrees: f64,
    /// EDM's augmentation in the place of `rotation_degrees`: flips up and down, zoom, rotation,
    /// stretch and shift, each with this probability. The network is told what was done to an image,
    /// so that none of it shows in samples (Karras et al. 2022, arXiv 2206.00364, appendix F.2).
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(range(min = 0.0, max = 1.0), example = 0.12)]
    #[schemars(extend("x-known-as" = ["augment", "augment_prob"]))]
    pub probability: Option<f64>,
}

impl Augmentation {
    /// Numbers that tell the network what was done to an image; 0 where it is told nothing.
    pub fn labels(&self) -> usize {
        if self.enabled && self.probability.is_some() { LABELS } else { 0 }
    }
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { enabled: false, horizontal_flip: true, rotation_degrees: 0.0, probability: None }
    }
}

/// A setting that came later than others stands in no record and no identity as long as it changes
/// nothing.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl DatasetSettings {
    /// The path of `root`: a relative one starts at `project`, and `~` is the user's home folder.
    pub fn root_in(&self, project: &Path) -> PathBuf {
        pipe_fs::path_in(project, &self.root)
    }

    /// How many classes there are, where the settings tell.
    pub fn class_count(&self) -> Option<usize> {
        let wanted = self.wanted_classes().count(self.source.superclasses());
        wanted.or_else(|| self.source.class_count())
    }

    /// The names of the classes, in the order of their labels, where the settings tell.
    pub fn class_names(&self) -> Option<Vec<String>> {
        let (wanted, superclasses) = (self.wanted_classes(), self.source.superclasses());
        if let Ok(Some(decided)) = self.source.fingerprint(&self.source_options()) {
            return Some(wanted.labels(&decided.class_names, superclasses).ok()?.names);
        }
        let Some(ClassSelection::Names(names)) = &self.classes else { return None };
        let single = |name: &ClassName| match name {
            ClassName::Name(called) if superclass(name, superclasses).is_none() => {
                Some(called.clone())
            }
            _ => None,
        };
        self.groups.is_empty().then(|| names.iter().map(single).collect()).flatten()
    }

    pub(crate) fn wanted_classes(&self) -> WantedClasses<'_> {
        WantedClasses { classes: self.classes.as_ref(), groups: &self.groups }
    }

    /// What the source may know of these settings.
    pub(crate) fn source_options(&self) -> SourceOptions<'_> {
        SourceOptions {
            classes: self.wanted_classes(),
            resize: self.resize_options(),
            recursive: self.recursive,
            split: self.split,
            num_images: self.num_images,
            seed: self.seed,
            download: self.download,
            url: self.url.as_deref(),
        }
    }

    pub(crate) fn resize_options(&self) -> ResizeOptions {
        ResizeOptions { size: self.image_size, fit: self.fit, background: self.background }
    }

    /// The settings as they decide the images: one that changes nothing, as the others are, has its
    /// default here.
    pub fn deciding(&self) -> Self {
        let (source, unset) = (self.source, Self::default());
        let mut settings = self.clone();
        if !source.is_synthetic() {
            settings.num_images = unset.num_images;
            // Only which images are kept aside is drawn.
            if self.val_split == 0.0 {
                settings.seed = unset.seed;
            }
        }
        if !source.has_photos() {
            (settings.fit, settings.background) = (unset.fit, unset.background);
        }
        if !source.has_user_folders() {
            settings.recursive = unset.recursive;
        }
        if !self.augmentation.enabled {
            settings.augmentation = unset.augmentation;
        }
        settings
    }

    /// Checks every value against its range. Errors name the key (relative to these settings) and
    /// what is accepted.
    pub fn validate(&self) -> Result<(), DataError> {
        if !(8..=1024).contains(&self.image_size) {
            let reason = format!("{} is not between 8 and 1024 pixels", self.image_size);
            return Err(DataError::setting("image_size", reason));
        }
        if !(1..=1_000_000).contains(&self.num_images) {
            let reason = format!("{} is not between 1 and 1000000 images", self.num_images);
            return Err(DataError::setting("num_images", reason));
        }
        self.source.validate(&self.source_options())?;
        if self.split == PublishedSplit::Test {
            if !self.source.has_test_images() {
                let reason = format!("{} has no test images of its own", self.source.name());
                return Err(DataError::setting("split", reason));
            }
            if self.val_split != 0.0 {
                let reason = "test images are all for validation: leave it out".to_owned();
                return Err(DataError::setting("val_split", reason));
            }
        }
        if !(0.0..=0.9).contains(&self.val_split) {
            let reason =
                format!("{} is not a share between 0 (no validation) and 0.9", self.val_split);
            return Err(DataError::setting("val_split", reason));
        }
        let degrees = self.augmentation.rotation_degrees;
        if !(0.0..=180.0).contains(&degrees) {
            let reason = format!("{degrees} is not between 0 (no rotation) and 180 degrees");
            return Err(DataError::setting("augmentation.rotation_degrees", reason));
        }
        if let Some(probability) = self.augmentation.probability {
            if !(0.0..=1.0).contains(&probability) {
                let reason = format!("{probability} is not a probability between 0 and 1");
                return Err(DataError::setting("augmentation.probability", reason));
            }
            if degrees > 0.0 {
                let reason = "`probability` rotates by any angle; leave it out, or that";
                return Err(DataError::setting("augmentation.rotation_degrees", reason));
            }
        }
        self.wanted_classes().validate(self.source.has_user_named_classes())?;
        // A class that the source does not have is found here where no image has to be read.
        if let Some(decided) = self.source.fingerprint(&self.source_options())? {
            self.wanted_classes().labels(&decided.class_names, self.source.superclasses())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
