//! Digests of data sets as the first version gave them: a run is gone on with only on the data set
//! with its digest.

use std::fs;

use pipe_data::{ClassSelection, DatasetSettings};

use crate::made::{Project, settings};

/// Class folders with what may lie beside images. Files are not decoded to be digested, so their
/// content is free.
fn class_folders() -> (Project, DatasetSettings) {
    let project = Project::new();
    for (name, content) in [
        ("pets/dog/b.JPG", "one"),
        ("pets/dog/a.png", "two"),
        ("pets/dog/sub.folder/deep.png", "deeper"),
        ("pets/cat/c.webp", "three"),
        ("pets/cat/d.jpeg", "three"),
        ("pets/cat/notes.txt", "no image"),
        ("pets/cat/.hidden.png", "hidden"),
        ("pets/A\u{308}pfel & Bir_nen/1.png", "four"),
        ("pets/readme.md", "no class"),
        ("pets/beside.png", "beside"),
        ("pets/.cache/x.png", "hidden"),
    ] {
        project.put(name, content.as_bytes());
    }
    (
        project,
        DatasetSettings { root: "data/pets".into(), image_size: 16, ..settings("image_folder") },
    )
}

#[test]
fn class_folders_keep_the_digest_that_they_had() {
    let (project, base) = class_folders();
    let digest = |settings: &DatasetSettings| project.open(settings).unwrap().digest().to_owned();
    assert_eq!(digest(&base), "ec687bc97ddc6b8551ab0034e3d6ae16b6f7c9494313d3546195a3c9dfdc2e53");
    let classes = Some(ClassSelection::Names(vec!["dog".into(), "CAT".into()]));
    assert_eq!(
        digest(&DatasetSettings { classes, image_size: 32, ..base.clone() }),
        "d7dc4e4e04b0a6f8bfa0a363712a8824696c5b43e8a79ad26e44c2ff0e006b46"
    );
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("a.png", project.data("pets/dog/again.png")).unwrap();
        std::os::unix::fs::symlink("dog", project.data("pets/hound")).unwrap();
        assert_eq!(
            digest(&base),
            "aa21941795cc2e2ef6ceb69015640891b7eb214725904ff205de9115587244fd"
        );
    }
    fs::rename(project.data("pets"), project.data("animals")).unwrap();
    assert_eq!(
        digest(&DatasetSettings { root: "data/animals".into(), ..base }),
        "aa21941795cc2e2ef6ceb69015640891b7eb214725904ff205de9115587244fd"
    );
}

/// The settings of an `image_folder` go into the identity of a training as they did.
#[test]
fn settings_that_are_left_out_stand_in_no_identity() {
    let (_, base) = class_folders();
    let value = serde_json::to_value(&base).unwrap();
    let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "augmentation",
            "classes",
            "download",
            "image_size",
            "num_images",
            "root",
            "seed",
            "source",
            "url",
            "val_split"
        ]
    );
}
