//! All images are looked at before anything is trained, and what was looked at is remembered.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use image::ImageFormat::Png;
use pipe_data::{DataError, DatasetSettings, Progress, Split};

use crate::made::{Project, picture, settings};

/// `good` PNG files in each of two classes.
fn project(good: usize) -> (Project, DatasetSettings) {
    let project = Project::new();
    for (class, shade) in [("cat", 10), ("dog", 20)] {
        for i in 0..good {
            project
                .put(&format!("pets/{class}/{i:04}.png"), &picture(9, 9, [i as u8, shade, 0], Png));
        }
    }
    (
        project,
        DatasetSettings { root: "data/pets".into(), image_size: 8, ..settings("image_folder") },
    )
}

#[derive(Default)]
struct Counting {
    decoded: AtomicUsize,
    stop: AtomicBool,
}

impl Progress for Counting {
    fn decoded(&self, _: usize, _: usize) {
        self.decoded.fetch_add(1, Ordering::Relaxed);
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// How many images a check of the data set decodes.
fn decoded(project: &Project, settings: &DatasetSettings) -> usize {
    let counting = Counting::default();
    let _ = project.open(settings).unwrap().check_images(&counting);
    counting.decoded.into_inner()
}

#[test]
fn all_bad_images_are_told_at_once_wherever_they_would_be_used() {
    let (project, base) = project(20);
    let with_validation = DatasetSettings { val_split: 0.5, ..base };
    let dataset = project.open(&with_validation).unwrap();
    let file = |index: usize| {
        project.data(&format!("pets/{}/{:04}.png", ["cat", "dog"][index / 20], index % 20))
    };
    let bad = [dataset.indices(Split::Train)[3], dataset.indices(Split::Validation)[7]];
    fs::write(file(bad[0]), "").unwrap();
    fs::write(file(bad[1]), "<!DOCTYPE html>").unwrap();
    let dataset = project.open(&with_validation).unwrap();
    let message = dataset.check_images(&()).unwrap_err().to_string();
    let name = |index: usize| {
        file(index).strip_prefix(project.data("pets")).unwrap().display().to_string()
    };
    assert!(message.starts_with("failed to decode 2 of 40 images in "), "{message}");
    assert!(message.contains(&format!("\n  {}: it is empty", name(bad[0]))), "{message}");
    assert!(message.contains(&format!("\n  {}: it is a web page", name(bad[1]))), "{message}");
    let end = "\nreplace or remove these files; `pipe data` looks at all images and trains nothing";
    assert!(message.ends_with(end), "{message}");
    let mut found: Vec<_> =
        dataset.bad_images(&()).unwrap().into_iter().map(|bad| bad.file).collect();
    found.sort();
    let mut expected = bad.map(file).to_vec();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_file_larger_than_memory_is_a_bad_image() {
    let (project, settings) = project(2);
    let path = project.put("pets/cat/vast.jpg", b"");
    // A file of holes: digesting it takes seconds, so it is as small as it can be.
    fs::File::options().write(true).open(path).unwrap().set_len((1 << 30) + 1).unwrap();
    let message = project.open(&settings).unwrap().check_images(&()).unwrap_err().to_string();
    assert!(message.contains("vast.jpg: it has 1024 MB; up to 1024 MB are read"), "{message}");
}

#[test]
fn of_many_bad_images_some_are_told_and_a_file_names_all() {
    let (project, settings) = project(4);
    for i in 0..2000 {
        project.put(&format!("pets/cat/bad \u{1b}[2J{i:04}.jpg"), b"no image");
    }
    let error = project.open(&settings).unwrap().check_images(&()).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("failed to decode 2000 of 2008 images in "), "{message}");
    assert!(message.lines().count() == 13 && message.contains("\n  and 1990 more; "), "{message}");
    assert!(!message.contains('\u{1b}'), "a name moves no cursor");
    let DataError::Images { list: Some(list), .. } = error else { panic!("{error:?}") };
    assert!(message.contains(&list.display().to_string()));
    let listed = fs::read_to_string(list).unwrap();
    assert_eq!(listed.lines().count(), 2000);
    assert!(
        listed
            .lines()
            .all(|line| line.ends_with(".jpg: it is neither JPEG, PNG, WebP, GIF, BMP nor TIFF"))
    );
}

#[test]
fn what_was_checked_is_remembered_by_its_content() {
    let (project, settings) = project(10);
    assert_eq!(decoded(&project, &settings), 20);
    assert_eq!(decoded(&project, &settings), 0);
    let larger = DatasetSettings { image_size: 16, ..settings.clone() };
    assert_eq!(decoded(&project, &larger), 0, "the size is of no account");
    project.put("pets/dog/new.png", &picture(9, 9, [0, 99, 0], Png));
    fs::rename(project.data("pets/dog/0003.png"), project.data("pets/dog/renamed.png")).unwrap();
    assert_eq!(decoded(&project, &settings), 1);
    project.put("pets/dog/bad.png", b"no image");
    assert_eq!(decoded(&project, &settings), 1);
    assert_eq!(decoded(&project, &settings), 1, "what is bad is looked at again");
    fs::remove_dir_all(project.path().join(".pipe")).unwrap();
    assert_eq!(decoded(&project, &settings), 22);
}

#[test]
fn a_check_that_is_stopped_goes_on_where_it_was() {
    struct Stopping(Counting);
    impl Progress for Stopping {
        fn decoded(&self, done: usize, total: usize) {
            self.0.decoded(done, total);
        }
        fn stopped(&self) -> bool {
            self.0.stop.load(Ordering::Relaxed)
        }
    }
    let (project, settings) = project(4);
    let bytes = picture(9, 9, [1, 2, 3], Png);
    for i in 0..1500u32 {
        // Bytes after the end of a PNG are of no account, and make another content.
        project.put(&format!("pets/cat/more {i:04}.png"), &[&bytes[..], &i.to_le_bytes()].concat());
    }
    let stopping = Stopping(Counting::default());
    let error = project.open(&settings).unwrap().check_images(&stopping).unwrap_err();
    assert!(matches!(error, DataError::Stopped), "{error}");
    let first = stopping.0.decoded.into_inner();
    assert!(first < 1508, "it ended early: {first}");
    assert_eq!(first + decoded(&project, &settings), 1508);
}

#[test]
fn a_check_without_a_place_for_its_notes_still_checks() {
    let (project, settings) = project(3);
    fs::write(project.path().join(".pipe"), "in the way").unwrap();
    assert_eq!((decoded(&project, &settings), decoded(&project, &settings)), (6, 6));
    project.put("pets/cat/bad.png", b"no image");
    let message = project.open(&settings).unwrap().check_images(&()).unwrap_err().to_string();
    assert!(message.contains("cat/bad.png: it is neither"), "{message}");
}

#[test]
fn classes_that_validation_leaves_no_image_are_named() {
    let (project, settings) = project(9);
    project.put("pets/owl/1.png", &picture(9, 9, [1, 1, 1], Png));
    let none = |val_split: f64| {
        let settings = DatasetSettings { val_split, ..settings.clone() };
        project.open(&settings).unwrap().classes_without_training()
    };
    assert!(none(0.0).is_empty());
    let most = none(0.9);
    assert!(most.contains(&"owl".to_owned()), "{most:?}");
}
