//! Data sets that the program draws from a seed: nothing to download, and any size.

use image::RgbImage;
use rayon::prelude::*;

use crate::digest::FieldDigest;
use crate::error::DataError;
use crate::images::Images;
use crate::progress::Progress;
use crate::source::{DataSource, Fingerprint, Location, SourceContent, SourceOptions};

/// Images drawn in memory may take this many bytes: `num_images * image_size^2 * 3`.
const MAX_BYTES: usize = 4 << 30;

/// Renders image `index` of `seed` in a class, `size` pixels square: `(seed, index, class, size)`.
pub(super) type Render = fn(u64, usize, usize, usize) -> RgbImage;

/// A data set whose images are a pure function of the seed and their number.
pub(super) struct Synthetic {
    pub name: &'static str,
    pub description: &'static str,
    /// Separates its digests from those of others.
    pub purpose: &'static str,
    /// Raised whenever the same seed gives other images, so that records of older ones become
    /// stale.
    pub version: u32,
    /// The classes, in the order of their labels.
    pub classes: &'static [&'static str],
    pub render: Render,
}

impl Synthetic {
    /// Names and numbers of the classes that are wanted.
    fn selected(
        &self,
        options: &SourceOptions<'_>,
    ) -> Result<(Vec<String>, Vec<usize>), DataError> {
        let available: Vec<String> = self.classes.iter().map(|name| name.to_string()).collect();
        let selected = options.classes.select(&available, &[])?;
        Ok((selected.iter().map(|class| available[*class].clone()).collect(), selected))
    }

    fn digest(&self, options: &SourceOptions<'_>) -> String {
        let mut digest = FieldDigest::new(self.purpose);
        digest.field(self.version.to_le_bytes());
        digest.field(options.seed.to_le_bytes());
        digest.field((options.num_images as u64).to_le_bytes());
        digest.finish()
    }

    /// `count` images in parallel; image `i` is of class `classes[i % classes.len()]`.
    pub fn render_all(
        &self,
        seed: u64,
        count: usize,
        classes: &[usize],
        size: usize,
    ) -> Vec<RgbImage> {
        let render = |i: usize| (self.render)(seed, i, classes[i % classes.len()], size);
        (0..count).into_par_iter().map(render).collect()
    }
}

impl DataSource for Synthetic {
    fn name(&self) -> &'static str {
        self.name
    }

    fn description(&self) -> &'static str {
        self.description
    }

    fn class_count(&self) -> Option<usize> {
        Some(self.classes.len())
    }

    fn is_synthetic(&self) -> bool {
        true
    }

    fn validate(&self, options: &SourceOptions<'_>) -> Result<(), DataError> {
        let (count, size) = (options.num_images, options.resize.size);
        let image_bytes = 3 * size * size;
        if count * image_bytes <= MAX_BYTES {
            return Ok(());
        }
        let most = MAX_BYTES / image_bytes;
        let reason = format!(
            "{count} images of {size} pixels take more than 4 GiB of memory; at this size, draw at most {most}"
        );
        Err(DataError::setting("num_images", reason))
    }

    fn fingerprint(&self, options: &SourceOptions<'_>) -> Result<Option<Fingerprint>, DataError> {
        let (class_names, _) = self.selected(options)?;
        let digest = self.digest(options);
        Ok(Some(Fingerprint { class_names, images: options.num_images, digest }))
    }

    fn open(
        &self,
        options: &SourceOptions<'_>,
        _: &Location<'_>,
        progress: &dyn Progress,
    ) -> Result<SourceContent, DataError> {
        let (class_names, selected) = self.selected(options)?;
        let count = options.num_images;
        let images = self.render_all(options.seed, count, &selected, options.resize.size);
        progress.decoded(count, count);
        Ok(SourceContent {
            labels: (0..count).map(|i| (i % selected.len()) as u32).collect(),
            class_names,
            images: Images::Memory(images),
            digest: self.digest(options),
        })
    }
}
