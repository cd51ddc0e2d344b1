//! The nearest training image of each picture: a model that has learned pictures by heart shows
//! here. In pixels, so that the figure depends on no other network.

use image::RgbImage;
use pipe_engine::kind::{Failure, StageError};
use rayon::prelude::*;

use crate::data::Dataset;
use crate::sampling::ImageGrid;

/// Images of the data set that are held at once.
const BLOCK: usize = 1024;
/// Bytes whose squared differences are summed in 32 bits: 255² · 2¹⁶ is below 2³².
const PIECE: usize = 1 << 16;
/// Pictures on a sheet, at most.
const ON_SHEET: usize = 48;

/// The metric's name. It has no better side: very near is copied, far is poor.
pub const NEAREST: &str = "nearest";

/// The image of a data set that is nearest to a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// Position in the data set.
    pub index: usize,
    /// Root of the mean squared difference of all channel values, which are in 0..=1.
    pub distance: f64,
}

/// The nearest of `among`, positions in `dataset`, for each picture, `[size, size, 3]` as its images
/// are; of equally near ones the first. With `mirrored` the mirrored images count too. `after` is
/// told how many of how many blocks are done, and stops by answering `false`; the result is `None`
/// then. Exact: the sums are of integers.
///
/// # Errors
/// An image that cannot be read, and pictures of another size.
pub fn nearest(
    pictures: &[RgbImage],
    dataset: &Dataset,
    among: &[usize],
    mirrored: bool,
    mut after: impl FnMut(u64, u64) -> bool,
) -> Result<Option<Vec<Nearest>>, StageError> {
    let bytes = 3 * dataset.image_size() * dataset.image_size();
    if pictures.iter().any(|picture| picture.as_raw().len() != bytes) || among.is_empty() {
        let text =
            "pictures can be compared with images of their size alone, and with one at least";
        return Err(StageError::new(Failure::Bug, text));
    }
    let flipped: Vec<RgbImage> = if mirrored {
        pictures.iter().map(image::imageops::flip_horizontal).collect()
    } else {
        Vec::new()
    };
    let mut best = vec![(u64::MAX, 0); pictures.len()];
    let blocks = among.len().div_ceil(BLOCK) as u64;
    for (number, block) in among.chunks(BLOCK).enumerate() {
        let images: Result<Vec<_>, _> =
            block.par_iter().map(|index| dataset.image(*index)).collect();
        let images = images.map_err(|e| StageError::new(Failure::Input, e.to_string()))?;
        best.par_iter_mut().enumerate().for_each(|(at, best)| {
            let ways = pictures.get(at).into_iter().chain(flipped.get(at));
            for picture in ways {
                for (index, image) in block.iter().zip(&images) {
                    let found = squares(picture.as_raw(), image);
                    if found < best.0 {
                        *best = (found, *index);
                    }
                }
            }
        });
        if !after(number as u64 + 1, blocks) {
            return Ok(None);
        }
    }
    let distance = |sum: u64| (sum as f64 / bytes as f64).sqrt() / 255.0;
    Ok(Some(
        best.into_iter().map(|(sum, index)| Nearest { index, distance: distance(sum) }).collect(),
    ))
}

/// The sum of squared differences.
fn squares(a: &[u8], b: &[u8]) -> u64 {
    let piece = |(a, b): (&[u8], &[u8])| -> u64 {
        let square = |(a, b): (&u8, &u8)| u32::from(a.abs_diff(*b)).pow(2);
        a.iter().zip(b).map(square).sum::<u32>().into()
    };
    a.chunks(PIECE).zip(b.chunks(PIECE)).map(piece).sum()
}

/// An image of the data set.
///
/// # Errors
/// It cannot be read.
pub fn real_image(dataset: &Dataset, index: usize) -> Result<RgbImage, StageError> {
    let size = dataset.image_size() as u32;
    let bytes = dataset.image(index);
    let bytes = bytes.map_err(|e| StageError::new(Failure::Input, e.to_string()))?;
    let image = RgbImage::from_raw(size, size, bytes.into_owned());
    image.ok_or_else(|| StageError::new(Failure::Bug, "an image of another size"))
}

/// The pictures that are nearest to an image of the data set, each beside that image, the nearest
/// first.
///
/// # Errors
/// An image that cannot be read.
pub fn nearest_sheet(
    title: &str,
    pictures: &[RgbImage],
    found: &[Nearest],
    dataset: &Dataset,
) -> Result<ImageGrid, StageError> {
    let mut pairs: Vec<(&RgbImage, &Nearest)> = pictures.iter().zip(found).collect();
    pairs.sort_by(|(_, a), (_, b)| a.distance.total_cmp(&b.distance));
    let row = |(picture, nearest): (&RgbImage, &Nearest)| {
        let images = vec![picture.clone(), real_image(dataset, nearest.index)?];
        Ok((format!("{:.3}", nearest.distance), images))
    };
    let rows: Result<_, StageError> = pairs.into_iter().take(ON_SHEET).map(row).collect();
    Ok(ImageGrid { title: title.to_owned(), rows: rows?, ..ImageGrid::default() })
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::data::{DatasetSettings, Split};

    fn dataset(images: usize) -> Dataset {
        let settings =
            DatasetSettings { image_size: 8, num_images: images, ..DatasetSettings::default() };
        Dataset::open(&settings, &std::path::Path::new("/").into(), &()).unwrap()
    }

    fn picture(dataset: &Dataset, index: usize) -> RgbImage {
        RgbImage::from_raw(8, 8, dataset.image(index).unwrap().into_owned()).unwrap()
    }

    fn found(pictures: &[RgbImage], mirrored: bool) -> Vec<Nearest> {
        let dataset = dataset(1500);
        let among = dataset.indices(Split::Train).to_vec();
        nearest(pictures, &dataset, &among, mirrored, |_, _| true).unwrap().unwrap()
    }

    #[test]
    fn a_picture_learned_by_heart_is_found_mirrored_and_a_little_changed() {
        let dataset = dataset(1500);
        let mut changed = picture(&dataset, 1300);
        changed.put_pixel(3, 3, Rgb([1, 2, 3]));
        let mirrored = image::imageops::flip_horizontal(&picture(&dataset, 7));
        let pictures = [picture(&dataset, 20), changed, mirrored];
        let both = found(&pictures, true);
        assert_eq!([20, 1300, 7], [both[0].index, both[1].index, both[2].index]);
        assert_eq!([both[0].distance, both[2].distance], [0.0, 0.0]);
        assert!((0.0..0.2).contains(&both[1].distance) && both[1].distance > 0.0);
        assert!(found(&pictures, false)[2].distance > 0.0);
    }

    #[test]
    fn it_is_the_least_of_all_root_mean_squares() {
        let dataset = dataset(1500);
        let picture = RgbImage::from_fn(8, 8, |x, y| Rgb([40 * x as u8 % 251, 9 * y as u8, 77]));
        let distance = |index: &usize| {
            let image = dataset.image(*index).unwrap();
            let square = |(a, b): (&u8, &u8)| ((f64::from(*a) - f64::from(*b)) / 255.0).powi(2);
            (picture.as_raw().iter().zip(image.iter()).map(square).sum::<f64>() / 192.0).sqrt()
        };
        let least = dataset.indices(Split::Train).iter().map(distance).fold(f64::MAX, f64::min);
        let found = found(std::slice::from_ref(&picture), false)[0];
        assert!((found.distance - least).abs() < 1e-12);
        assert!((distance(&found.index) - least).abs() < 1e-12);
    }

    #[test]
    fn sums_do_not_overflow() {
        let (black, white) = (vec![0; 200_000], vec![255; 200_000]);
        assert_eq!(squares(&black, &white), 200_000 * 255 * 255);
    }

    #[test]
    fn a_sheet_begins_with_the_nearest() {
        let dataset = dataset(1500);
        let pictures = [RgbImage::new(8, 8), picture(&dataset, 3)];
        let found = found(&pictures, false);
        let sheet = nearest_sheet("t", &pictures, &found, &dataset).unwrap();
        assert_eq!(sheet.rows[0], ("0.000".to_owned(), vec![pictures[1].clone(); 2]));
        assert_eq!(sheet.rows[1].1[0], pictures[0]);
    }
}
