//! Features of many images, computed once: in `.pipe/cache/features`, in chunks of images, by what
//! decides them. So a stage that was stopped goes on where it was, and the real images of several
//! stages are looked at once. Losing or damaging a chunk costs time and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;
use pipe_core::digest::hex;
use pipe_engine::kind::StageError;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::data::CacheFolder;

/// Images of one file of the cache.
const CHUNK: usize = 64;
const FOLDER: &str = "features";
const DIGEST_BYTES: usize = 32;

/// Where features are kept, and what decides those of an image.
pub struct FeatureCache {
    pub folder: CacheFolder,
    /// Which network with which weights, and how images become its input.
    pub network: String,
    /// Numbers of one image.
    pub dimensions: usize,
}

impl FeatureCache {
    /// Gives the features of images number 0 to `count`, in order, a chunk at a time, to `each`:
    /// `[images, dimensions]`. `compute` makes those that are not kept. `after` is told how many
    /// images of how many are done, and stops by answering `false`; the result is `None` then.
    ///
    /// # Errors
    /// Those of `image`, `compute` and `each`.
    pub fn for_each(
        &self,
        count: usize,
        image: impl Fn(usize) -> Result<RgbImage, StageError> + Sync,
        mut compute: impl FnMut(&[RgbImage]) -> Result<Vec<f32>, StageError>,
        mut each: impl FnMut(&[f32]) -> Result<(), StageError>,
        mut after: impl FnMut(u64, u64) -> bool,
    ) -> Result<Option<()>, StageError> {
        for first in (0..count).step_by(CHUNK) {
            let numbers = first..count.min(first + CHUNK);
            let images: Result<Vec<RgbImage>, StageError> =
                numbers.clone().into_par_iter().map(&image).collect();
            let images = images?;
            let name = self.name(&images);
            let features = match self.kept(&name, images.len()) {
                Some(features) => features,
                None => {
                    let features = compute(&images)?;
                    self.keep(&name, &features);
                    features
                }
            };
            each(&features)?;
            if !after(numbers.end as u64, count as u64) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// By the digest of all that decides the features of these images.
    fn name(&self, images: &[RgbImage]) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update((self.network.len() as u64).to_le_bytes());
        hash.update(&self.network);
        for image in images {
            hash.update(image.width().to_le_bytes());
            hash.update(image.height().to_le_bytes());
            hash.update(image.as_raw());
        }
        Path::new(FOLDER).join(&hex(&hash.finalize())[..32])
    }

    /// The features in a file, if it is whole.
    fn kept(&self, name: &Path, images: usize) -> Option<Vec<f32>> {
        let bytes = fs::read(self.folder.join(name)).ok()?;
        let (digest, values) = bytes.split_at_checked(DIGEST_BYTES)?;
        let is_whole = values.len() == images * self.dimensions * size_of::<f32>()
            && *digest == *Sha256::digest(values);
        let value = |bytes: &[u8]| bytes.try_into().map(f32::from_le_bytes).ok();
        is_whole.then(|| values.chunks_exact(size_of::<f32>()).filter_map(value).collect())
    }

    fn keep(&self, name: &Path, features: &[f32]) {
        let values: Vec<u8> = features.iter().flat_map(|value| value.to_le_bytes()).collect();
        let digest = Sha256::digest(&values);
        self.folder.keep(name, &[&digest[..], &values].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(number: usize) -> RgbImage {
        RgbImage::from_pixel(2, 2, image::Rgb([number as u8, (number >> 8) as u8, 3]))
    }

    /// The features of so many images, and how many of them were computed.
    fn features(place: &Path, network: &str, count: usize, most: u64) -> (Vec<f32>, usize) {
        let folder = CacheFolder::of(&place.into());
        let cache = FeatureCache { folder, network: network.to_owned(), dimensions: 2 };
        let (mut computed, mut found) = (0, Vec::new());
        let compute = |images: &[RgbImage]| {
            computed += images.len();
            let both = |i: &RgbImage| [f32::from(i.as_raw()[0]), f32::from(i.as_raw()[1]) + 0.5];
            Ok(images.iter().flat_map(both).collect())
        };
        let each = |features: &[f32]| {
            found.extend_from_slice(features);
            Ok(())
        };
        let after = |done, total| {
            assert!(done <= total && total == count as u64);
            done < most
        };
        cache.for_each(count, |n| Ok(image(n)), compute, each, after).unwrap();
        (found, computed)
    }

    #[test]
    fn features_are_computed_once_whoever_wants_them() {
        let place = tempfile::tempdir().unwrap();
        let (all, computed) = features(place.path(), "a", 600, u64::MAX);
        assert_eq!((all.len(), computed), (1200, 600));
        assert_eq!(all[2 * 257..][..2], [1.0, 1.5]);
        assert_eq!(features(place.path(), "a", 600, u64::MAX), (all.clone(), 0));
        assert_eq!(features(place.path(), "b", 600, u64::MAX).1, 600, "another network");
        let (more, computed) = features(place.path(), "a", 700, u64::MAX);
        assert_eq!(
            (&more[..1200], computed),
            (&all[..], 700 - 9 * CHUNK),
            "whole chunks are known"
        );
    }

    #[test]
    fn what_was_computed_before_a_stop_is_kept() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(features(place.path(), "a", 600, 1).1, CHUNK);
        assert_eq!(features(place.path(), "a", 600, u64::MAX).1, 600 - CHUNK);
    }

    #[test]
    fn a_damaged_file_is_made_again() {
        let place = tempfile::tempdir().unwrap();
        let (all, _) = features(place.path(), "a", 100, u64::MAX);
        let folder = place.path().join(".pipe/cache/features");
        let first = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&first).unwrap();
        for damaged in
            [&whole[..whole.len() - 4], &[0; 40], &[], &[whole.as_slice(), &[1; 4]].concat()]
        {
            fs::write(&first, damaged).unwrap();
            let (again, computed) = features(place.path(), "a", 100, u64::MAX);
            assert_eq!(again, all);
            assert!([100 - CHUNK, CHUNK].contains(&computed), "{computed}");
            assert!(fs::read(&first).unwrap() == whole);
        }
    }
}
