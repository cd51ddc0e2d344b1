//! A contact sheet of a data set: what a model will see, some images of each class.

use super::generate::to_rgb;
use super::grid_request::class_subset_words;
use super::image_grid::ImageGrid;
use crate::data::{Dataset, Split};

/// Classes on a sheet, at most.
const CLASSES: usize = 128;
/// Pixels of all images of a sheet, at most; the rendered sheet is bounded too.
const PIXELS: usize = 64 << 20;

/// What to show of a data set.
#[derive(Debug, Clone, Copy)]
pub struct ContactSheet {
    /// Images of each class, at most.
    pub each: usize,
    /// As a training epoch changes them.
    pub augmented: bool,
}

impl ContactSheet {
    /// The sheet of `dataset`: its training images, or those of a set of test images, after cutting and resizing. A row for each
    /// class, also for one without images; of very many classes a choice, spread evenly, which the
    /// title tells. Images that cannot be read are left out.
    pub fn of(self, title: &str, dataset: &Dataset) -> ImageGrid {
        let size = dataset.image_size();
        let room = (PIXELS / (size * size)).max(1);
        let all = dataset.class_names().len();
        let shown = all.min(CLASSES).min(room);
        let each = self.each.min(room / shown.max(1)).max(1);
        let mut of_class: Vec<Vec<usize>> = vec![Vec::new(); all];
        let train = dataset.indices(Split::Train);
        let shown_split = if train.is_empty() { Split::Validation } else { Split::Train };
        for index in dataset.indices(shown_split) {
            if let Some(list) = of_class.get_mut(dataset.label(*index) as usize) {
                list.push(*index);
            }
        }
        let image = |index: usize| {
            let values = dataset.model_input(index, self.augmented.then_some(0)).ok()?;
            Some(to_rgb(&values, size))
        };
        let rows = spread(all, shown).filter_map(|class| {
            let (name, list) = (dataset.class_names().get(class)?, of_class.get(class)?);
            let chosen = spread(list.len(), each).filter_map(|at| image(*list.get(at)?));
            Some((name.clone(), chosen.collect()))
        });
        let rows = rows.collect();
        let part = (shown < all).then(|| format!(", {}", class_subset_words(shown, all)));
        let title = format!("{title}{}", part.unwrap_or_default());
        ImageGrid { title, rows, ..ImageGrid::default() }
    }
}

/// At most `wanted` of the positions below `all`, evenly.
fn spread(all: usize, wanted: usize) -> impl Iterator<Item = usize> {
    let count = all.min(wanted);
    (0..count).map(move |i| i * all / count)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::{Augmentation, DatasetSettings};

    fn dataset(settings: DatasetSettings) -> Dataset {
        Dataset::open(&DatasetSettings { image_size: 8, ..settings }, &Path::new("/").into(), &())
            .unwrap()
    }

    fn shapes(augmentation: Augmentation) -> Dataset {
        dataset(DatasetSettings { num_images: 80, augmentation, ..DatasetSettings::default() })
    }

    #[test]
    fn each_class_has_its_own_images_as_they_are_trained() {
        let dataset = shapes(Augmentation::default());
        let grid = ContactSheet { each: 4, augmented: false }.of("title", &dataset);
        assert_eq!(grid.title, "title");
        assert_eq!(grid.rows.len(), 8);
        for (class, (name, images)) in grid.rows.iter().enumerate() {
            assert_eq!((name, images.len()), (&dataset.class_names()[class], 4));
            let own =
                dataset.indices(Split::Train).iter().filter(|i| dataset.label(**i) == class as u32);
            let own: Vec<Vec<u8>> = own.map(|i| dataset.image(*i).unwrap().into_owned()).collect();
            assert!(images.iter().all(|image| own.contains(image.as_raw())), "{name}");
        }
    }

    #[test]
    fn augmentation_is_seen_where_it_is_asked_for_and_enabled() {
        let turned =
            Augmentation { enabled: true, rotation_degrees: 90.0, ..Augmentation::default() };
        let rows = |augmentation: &Augmentation, augmented| {
            ContactSheet { each: 8, augmented }.of("", &shapes(augmentation.clone())).rows
        };
        let plain = rows(&turned, false);
        assert_ne!(rows(&turned, true), plain);
        assert_eq!(rows(&Augmentation { enabled: false, ..turned }, true), plain);
    }

    #[test]
    fn what_is_spread_is_even_and_no_more_than_there_is() {
        let of = |all, wanted| spread(all, wanted).collect::<Vec<_>>();
        assert_eq!(of(10, 4), [0, 2, 5, 7]);
        assert_eq!(of(3, 8), [0, 1, 2]);
        assert_eq!(of(0, 8), [0; 0]);
    }
}
