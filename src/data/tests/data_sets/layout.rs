//! Folders as people have them: flat, deep, linked, with what systems and cameras leave behind.

use std::fs;

use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
use pipe_data::{ClassSelection, Colour, DatasetSettings, Fit, SkipReason, Split};

use crate::made::{Project, counted, picture, settings};

const RED: [u8; 3] = [200, 0, 0];

fn at(root: &str) -> DatasetSettings {
    DatasetSettings { root: root.into(), image_size: 8, ..settings("image_folder") }
}

fn one(name: &str, count: usize) -> Vec<(String, usize)> {
    vec![(name.to_owned(), count)]
}

#[test]
fn a_flat_folder_is_one_class_wherever_it_lies() {
    let project = Project::new();
    project.put("photos/b.jpg", &picture(9, 9, RED, Jpeg));
    project.put("photos/a.png", &picture(9, 9, RED, Png));
    project.put("photos/list.csv", b"no image");
    let dataset = project.open(&at("data/photos")).unwrap();
    dataset.check_images(&()).unwrap();
    assert_eq!(counted(&dataset), one("images", 2));
    assert_eq!(dataset.skipped().to_string(), "1 .csv");
    fs::rename(project.data("photos"), project.data("moved")).unwrap();
    assert_eq!(project.open(&at("data/moved")).unwrap().digest(), dataset.digest());
    // A folder without images makes no class.
    project.put("moved/notes/1.txt", b"no image");
    let again = project.open(&at("data/moved")).unwrap();
    assert_eq!((counted(&again), again.digest()), (one("images", 2), dataset.digest()));
    assert_eq!(again.skipped().to_string(), "1 .csv, 1 deeper folder");
}

#[test]
fn what_lies_beside_and_below_class_folders_is_counted() {
    let project = Project::new();
    for name in
        ["cat/1.jpg", "cat/sub/2.jpg", "cat/sub/er/3.jpg", "dog/1.jpg", "beside.jpg", "also.png"]
    {
        project.put(&format!("pets/{name}"), &picture(9, 9, RED, Jpeg));
    }
    for name in [
        "cat/x.heic",
        "dog/y.HEIC",
        "dog/README",
        "__MACOSX/cat/._1.jpg",
        ".git/x.jpg",
        "Thumbs.db",
    ] {
        project.put(&format!("pets/{name}"), b"no image");
    }
    for name in ["cat/.DS_Store", "dog/@eaDir/1.jpg", "dog/desktop.ini"] {
        project.put(&format!("pets/{name}"), b"no image");
    }
    let flat = project.open(&at("data/pets")).unwrap();
    assert_eq!(counted(&flat), [one("cat", 1), one("dog", 1)].concat());
    let passed = flat.skipped();
    assert_eq!(
        passed.to_string(),
        "2 .heic, 2 images beside the class folders, 1 other file, 1 deeper folder"
    );
    assert_eq!(passed.total(), 12, "with 6 hidden ones: {passed:?}");
    let advice: Vec<_> = passed.iter().filter_map(|(kind, _)| kind.advice()).collect();
    assert_eq!(advice.len(), 3, "{advice:?}");

    let deep = project.open(&DatasetSettings { recursive: true, ..at("data/pets") }).unwrap();
    assert_eq!(counted(&deep), [one("cat", 3), one("dog", 1)].concat());
    assert!(!deep.skipped().iter().any(|(kind, _)| *kind == SkipReason::DeeperFolder));
    assert_ne!(deep.digest(), flat.digest());
}

#[test]
fn every_format_is_read_by_its_content_under_any_of_its_names() {
    let project = Project::new();
    let formats =
        [("gif", Gif), ("BMP", Bmp), ("tif", Tiff), ("TIFF", Tiff), ("jfif", Jpeg), ("webp", WebP)];
    for (extension, format) in formats {
        project.put(&format!("photos/{extension}.{extension}"), &picture(9, 9, RED, format));
    }
    project.put("photos/a lie.png", &picture(9, 9, RED, Jpeg));
    let dataset = project.open(&at("data/photos")).unwrap();
    dataset.check_images(&()).unwrap();
    assert_eq!(counted(&dataset), one("images", 7));
    for index in dataset.indices(Split::Train) {
        let image = dataset.image(*index).unwrap();
        assert!(image[0].abs_diff(200) < 4 && image[1] < 4, "image {index}: {:?}", &image[..3]);
    }
}

#[test]
fn class_names_of_any_script_are_found_however_they_are_written() {
    let project = Project::new();
    for class in ["A\u{308} b", "野菜", "Ελλάδα", "שלום", "🌲"] {
        project.put(&format!("pets/{class}/1.png"), &picture(9, 9, RED, Png));
    }
    let names = ["\u{c4} b", "野菜", "ελλάδα", "שלום", "🌲"].map(String::from).to_vec();
    let chosen = DatasetSettings {
        classes: Some(ClassSelection::Names(names.iter().map(|n| n.as_str().into()).collect())),
        ..at("data/pets")
    };
    let dataset = project.open(&chosen).unwrap();
    // The folder's own spelling stays: records of earlier runs have it.
    assert_eq!(dataset.class_names(), ["A\u{308} b", "野菜", "Ελλάδα", "שלום", "🌲"]);
}

#[test]
fn classes_that_differ_by_case_only_can_both_be_chosen() {
    let project = Project::new();
    for class in ["A", "a"] {
        project.put(&format!("letters/{class}/1.png"), &picture(9, 9, RED, Png));
    }
    if fs::read_dir(project.data("letters")).unwrap().count() == 1 {
        return; // a file system that tells no case apart
    }
    let names =
        |list: &[&str]| Some(ClassSelection::Names(list.iter().map(|n| (*n).into()).collect()));
    let chosen = |list: &[&str]| DatasetSettings { classes: names(list), ..at("data/letters") };
    assert_eq!(project.open(&chosen(&["a", "A"])).unwrap().class_names(), ["a", "A"]);
    assert!(project.refusal(&chosen(&["a", "a"])).contains("a stands twice"));
}

#[test]
fn an_image_is_cut_padded_or_squashed_over_its_background() {
    let project = Project::new();
    let mut wide = image::RgbaImage::from_pixel(30, 10, image::Rgba([0, 0, 255, 255]));
    for (x, y, pixel) in wide.enumerate_pixels_mut() {
        if (10..20).contains(&x) {
            *pixel = image::Rgba(if y < 5 { [255, 0, 0, 255] } else { [0, 0, 0, 0] });
        }
    }
    fs::create_dir(project.data("photos")).unwrap();
    wide.save(project.data("photos/1.png")).unwrap();
    let base = DatasetSettings { image_size: 30, ..at("data/photos") };
    let with = |fit: Fit, background: [u8; 3]| {
        let background = Colour(background);
        let dataset = project.open(&DatasetSettings { fit, background, ..base.clone() }).unwrap();
        let image = dataset.image(0).unwrap().into_owned();
        let pixel = move |x: usize, y: usize| -> [u8; 3] {
            image[3 * (30 * y + x)..][..3].try_into().unwrap()
        };
        (dataset.digest().to_owned(), pixel)
    };
    let (cropped, pixel) = with(Fit::Crop, [255; 3]);
    assert_eq!((pixel(0, 0), pixel(15, 28)), ([255, 0, 0], [255; 3]));
    assert_eq!(cropped, project.open(&base).unwrap().digest(), "as without the settings");
    let (padded, pixel) = with(Fit::Pad, [9, 8, 7]);
    assert_eq!((pixel(0, 0), pixel(0, 10), pixel(15, 18)), ([9, 8, 7], [0, 0, 255], [9, 8, 7]));
    let (squashed, pixel) = with(Fit::Squash, [255; 3]);
    assert_eq!((pixel(2, 2), pixel(15, 2), pixel(15, 28)), ([0, 0, 255], [255, 0, 0], [255; 3]));
    assert!(cropped != padded && padded != squashed && squashed != cropped);
}

#[cfg(unix)]
mod links {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_to_class_folders_and_images_are_followed_anywhere() {
        let project = Project::new();
        project.put("elsewhere/cats/1.png", &picture(9, 9, RED, Png));
        project.put("elsewhere/2.png", &picture(9, 9, RED, Png));
        project.put("pets/dog/1.png", &picture(9, 9, RED, Png));
        symlink(project.data("elsewhere/cats"), project.data("pets/cat")).unwrap();
        symlink(project.data("elsewhere/2.png"), project.data("pets/dog/2.png")).unwrap();
        symlink(project.data("pets"), project.data("linked")).unwrap();
        for root in ["data/pets", "data/linked"] {
            let dataset = project.open(&at(root)).unwrap();
            dataset.check_images(&()).unwrap();
            assert_eq!(counted(&dataset), [one("cat", 1), one("dog", 2)].concat());
        }
    }

    #[test]
    fn links_in_a_circle_end_and_are_counted() {
        let project = Project::new();
        project.put("pets/cat/1.png", &picture(9, 9, RED, Png));
        project.put("pets/dog/deep/1.png", &picture(9, 9, RED, Png));
        symlink(".", project.data("pets/all")).unwrap();
        symlink("../..", project.data("pets/cat/up")).unwrap();
        symlink("..", project.data("pets/dog/deep/again")).unwrap();
        symlink("deep", project.data("pets/dog/deep2")).unwrap();
        let dataset =
            project.open(&DatasetSettings { recursive: true, ..at("data/pets/cat/..") }).unwrap();
        let all = one("cat", 1).into_iter().chain(one("dog", 1));
        // `cat/up` leads to the folder above the root, and all of it but the root is read.
        assert_eq!(counted(&dataset), all.collect::<Vec<_>>());
        assert_eq!(dataset.skipped().to_string(), "4 links to what is read already");
    }

    #[test]
    fn links_that_lead_nowhere_are_bad_images_and_pipes_are_passed_over() {
        let project = Project::new();
        project.put("pets/cat/1.png", &picture(9, 9, RED, Png));
        symlink("gone.png", project.data("pets/cat/2.png")).unwrap();
        symlink("/nowhere", project.data("pets/dog")).unwrap();
        symlink("gone.txt", project.data("pets/cat/notes.txt")).unwrap();
        let fifo = std::process::Command::new("mkfifo")
            .arg(project.data("pets/cat/3.png"))
            .status()
            .unwrap();
        assert!(fifo.success());
        let dataset = project.open(&at("data/pets")).unwrap();
        assert_eq!(dataset.skipped().to_string(), "1 .txt, 1 device or pipe");
        let message = dataset.check_images(&()).unwrap_err().to_string();
        assert!(
            message.contains("failed to decode 2 of 3 images in ")
                && message.contains("\n  dog: the link to /nowhere leads nowhere: ")
                && message.contains("\n  cat/2.png: the link to gone.png leads nowhere: "),
            "{message}"
        );
    }
}
