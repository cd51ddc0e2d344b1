use std::sync::Arc;

use pipe_data::{Augmentation, Batch, Dataset, DatasetSettings, Loader, LoaderOptions, Split};

use crate::made::{Project, settings};

const SIZE: usize = 8;

fn dataset(num_images: usize) -> Arc<Dataset> {
    let augmentation =
        Augmentation { enabled: true, rotation_degrees: 15.0, ..Augmentation::default() };
    let settings = DatasetSettings {
        num_images,
        image_size: SIZE,
        val_split: 0.25,
        augmentation,
        ..settings("shapes")
    };
    Arc::new(Project::new().open(&settings).unwrap())
}

fn loader(dataset: &Arc<Dataset>, split: Split, batch_size: usize, num_workers: usize) -> Loader {
    Loader::new(dataset.clone(), split, LoaderOptions { batch_size, num_workers, seed: 42 })
        .unwrap()
}

fn batches(loader: &Loader, epoch: u64, first: usize) -> Vec<Batch> {
    loader.epoch(epoch, first).map(Result::unwrap).collect()
}

#[test]
fn workers_and_the_starting_point_change_no_bit() {
    let dataset = dataset(200);
    let whole = batches(&loader(&dataset, Split::Train, 12, 0), 3, 0);
    assert_eq!(whole.len(), 12);
    assert!(whole.iter().all(|b| b.images.len() == 12 * 3 * SIZE * SIZE && b.labels.len() == 12));
    for workers in [0, 1, 3, 20] {
        let loader = loader(&dataset, Split::Train, 12, workers);
        for first in [0, 5, 11, 12, 99] {
            assert!(
                batches(&loader, 3, first) == whole[first.min(12)..],
                "{workers} workers from batch {first}"
            );
        }
    }
    assert!(
        batches(&loader(&dataset, Split::Train, 12, 2), 4, 0) != whole,
        "another epoch, another order"
    );
}

#[test]
fn an_epoch_visits_each_training_image_once_with_its_label() {
    let dataset = dataset(200);
    let epoch = batches(&loader(&dataset, Split::Train, 10, 2), 0, 0);
    let mut indices: Vec<usize> = epoch.iter().flat_map(|b| b.indices.clone()).collect();
    assert!(
        epoch.iter().all(|b| b
            .indices
            .iter()
            .zip(&b.labels)
            .all(|(i, l)| i64::from(dataset.label(*i)) == *l))
    );
    assert_ne!(indices, dataset.indices(Split::Train), "shuffled");
    indices.sort();
    assert_eq!(indices, dataset.indices(Split::Train));
}

#[test]
fn augmentation_changes_training_anew_each_epoch_and_validation_never() {
    let dataset = dataset(40);
    let image_of = |batch: &Batch, index: usize| {
        let at = batch.indices.iter().position(|i| *i == index).unwrap();
        batch.images[at * 3 * SIZE * SIZE..][..3 * SIZE * SIZE].to_vec()
    };
    let train = loader(&dataset, Split::Train, 30, 1);
    let (first, second) = (&batches(&train, 0, 0)[0], &batches(&train, 1, 0)[0]);
    assert!(
        dataset.indices(Split::Train).iter().all(|i| image_of(first, *i) != image_of(second, *i))
    );

    let validation = loader(&dataset, Split::Validation, 4, 1);
    let seen = batches(&validation, 0, 0);
    assert!(seen == batches(&validation, 7, 0));
    assert_eq!(
        seen.iter().flat_map(|b| b.indices.clone()).collect::<Vec<_>>(),
        dataset.indices(Split::Validation)
    );
    let rgb = dataset.image(seen[0].indices[0]).unwrap();
    for (i, pixel) in rgb.chunks(3).enumerate() {
        for (channel, value) in pixel.iter().enumerate() {
            let expected = f32::from(*value) / 127.5 - 1.0;
            assert_eq!(seen[0].images[channel * SIZE * SIZE + i], expected);
        }
    }
}

#[test]
fn an_incomplete_batch_validates_but_trains_only_when_it_is_the_only_one() {
    let dataset = dataset(40); // 30 train, 10 validate
    let sizes = |split, batch_size| {
        let loader = loader(&dataset, split, batch_size, 2);
        let sizes: Vec<usize> = batches(&loader, 0, 0).iter().map(|b| b.labels.len()).collect();
        assert_eq!(loader.batches_per_epoch(), sizes.len());
        sizes
    };
    assert_eq!(sizes(Split::Train, 8), [8, 8, 8]);
    assert_eq!(sizes(Split::Train, 30), [30]);
    assert_eq!(sizes(Split::Train, 64), [30]);
    assert_eq!(sizes(Split::Validation, 4), [4, 4, 2]);
    assert!(
        Loader::new(
            dataset.clone(),
            Split::Train,
            LoaderOptions { batch_size: 0, num_workers: 0, seed: 0 }
        )
        .is_err()
    );
}

#[test]
fn dropping_an_epoch_ends_its_threads() {
    let dataset = dataset(4000);
    let loader = loader(&dataset, Split::Train, 2, 4);
    for taken in [0, 1, 9] {
        let mut epoch = loader.epoch(0, 0);
        epoch.by_ref().take(taken).for_each(|b| assert!(b.is_ok()));
        assert!(Arc::strong_count(&dataset) > 2, "the threads share the data set");
        drop(epoch);
        assert_eq!(Arc::strong_count(&dataset), 2, "only the test and the loader have it now");
    }
}
