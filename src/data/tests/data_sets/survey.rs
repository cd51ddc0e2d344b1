//! A look at a folder by names and headers alone says the same as opening it.

use image::ImageFormat::{Jpeg, Png};
use pipe_data::{ClassSurvey, DatasetSettings, survey};

use crate::made::{Project, counted, picture, settings};

const RED: [u8; 3] = [200, 0, 0];

fn at(root: &str) -> DatasetSettings {
    DatasetSettings { root: root.into(), image_size: 8, ..settings("image_folder") }
}

fn classes(found: &[ClassSurvey]) -> Vec<(String, usize)> {
    found.iter().map(|class| (class.name.clone(), class.images)).collect()
}

#[test]
fn classes_and_headers_are_those_of_the_opened_data_set() {
    let project = Project::new();
    project.put("pets/cat/1.jpg", &picture(9, 7, RED, Jpeg));
    project.put("pets/cat/2.png", &picture(30, 12, RED, Png));
    project.put("pets/dog/1.jpg", &picture(9, 9, RED, Jpeg));
    project.put("pets/dog/notes.txt", b"no image");
    project.put("pets/dog/deeper/1.png", &picture(9, 9, RED, Png));
    for recursive in [false, true] {
        let settings = DatasetSettings { recursive, ..at("data/pets") };
        let found = survey(&settings, &project.path().into(), 100).unwrap();
        let opened = project.open(&settings).unwrap();
        assert_eq!(classes(&found.classes), counted(&opened));
        assert_eq!(found.skipped, opened.skipped());
        assert_eq!(found.headers.len(), 3 + usize::from(recursive));
        let first = found.headers[0];
        assert_eq!((first.width, first.height, first.is_jpeg), (9, 7, true));
    }
    assert_eq!(survey(&at("data/pets"), &project.path().into(), 2).unwrap().headers.len(), 2);
}

#[test]
fn what_cannot_be_read_has_no_header_and_an_empty_class_is_told() {
    let project = Project::new();
    project.put("pets/cat/1.jpg", &picture(9, 9, RED, Jpeg));
    project.put("pets/cat/2.jpg", b"no image");
    project.put("pets/none/readme.md", b"no image");
    let found = survey(&at("data/pets"), &project.path().into(), 100).unwrap();
    assert_eq!(classes(&found.classes), [("cat".to_owned(), 2), ("none".to_owned(), 0)]);
    assert_eq!(found.headers.len(), 1);
    assert!(survey(&at("data/gone"), &project.path().into(), 1).is_err());
}
