use std::fs;

use image::ImageFormat::Jpeg;
use pipe_data::{DatasetSettings, PublishedSplit, Split};

use crate::made::{Project, TarGz, picture, settings};

const ARCHIVE: &str = "imagenette2-160.tgz";

fn archive() -> Vec<u8> {
    let picture = |colour| picture(24, 16, colour, Jpeg);
    TarGz::new()
        .file("imagenette2-160/train/n03888257/1.JPEG", &picture([1, 2, 3]))
        .file("imagenette2-160/train/n01440764/2.JPEG", &picture([9, 9, 200]))
        .file("imagenette2-160/val/n01440764/3.JPEG", &picture([5, 5, 5]))
        .bytes()
}

#[test]
fn it_is_unpacked_once_and_its_classes_have_readable_names() {
    let project = Project::new();
    project.put(ARCHIVE, &archive());
    let dataset = project.open(&settings("imagenette")).unwrap();
    assert_eq!(dataset.class_names(), ["tench", "parachute"]);
    assert_eq!(dataset.indices(Split::Train).len(), 2);
    assert!(dataset.image(0).unwrap()[2].abs_diff(200) < 6);

    let test = DatasetSettings { split: PublishedSplit::Test, ..settings("imagenette") };
    let test = project.open(&test).unwrap();
    assert_eq!((test.indices(Split::Train).len(), test.indices(Split::Validation).len()), (0, 1));

    // A power cut can bring back where it was unpacked.
    fs::create_dir_all(project.data("imagenette2-160.part/imagenette2-160")).unwrap();
    fs::remove_file(project.data(ARCHIVE)).unwrap();
    assert_eq!(project.open(&settings("imagenette")).unwrap().digest(), dataset.digest());
    assert!(!project.data("imagenette2-160.part").exists());
}

#[test]
fn a_truncated_archive_leaves_nothing_behind() {
    let project = Project::new();
    let whole = archive();
    project.put(ARCHIVE, &whole[..whole.len() / 2]);
    let message = project.refusal(&settings("imagenette"));
    assert!(message.contains(ARCHIVE), "{message}");
    assert_eq!(project.listing(), [".imagenette2-160.lock", ARCHIVE]);

    project.put(ARCHIVE, &whole);
    project.open(&settings("imagenette")).unwrap();
}
