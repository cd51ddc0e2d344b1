//! Zip files of images, as people and EDM's dataset tool make them, and as nobody should.

use std::fs;
use std::io::{Cursor, Write};

use image::ImageFormat::Png;
use pipe_data::DatasetSettings;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::made::{Project, counted, picture, settings};

fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        let method = if name.ends_with("png") {
            CompressionMethod::Stored
        } else {
            CompressionMethod::Deflated
        };
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub fn png(shade: u8) -> Vec<u8> {
    picture(9, 9, [shade, 0, 0], Png)
}

pub fn at(root: &str) -> DatasetSettings {
    DatasetSettings { root: root.into(), image_size: 8, ..settings("image_folder") }
}

pub fn classes(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
    expected.iter().map(|(name, count)| (name.to_string(), *count)).collect()
}

#[test]
fn a_zip_file_is_the_same_data_set_as_its_folder() {
    let (a, b, c) = (png(1), png(2), png(3));
    let project = Project::new();
    let mut files: Vec<(&str, &[u8])> = vec![
        ("cat/1.png", &a),
        ("cat/2.png", &b),
        ("dog/1.png", &c),
        ("dog/notes.txt", b"no image"),
    ];
    for (name, content) in &files {
        project.put(&format!("pets/{name}"), content);
    }
    files.push(("__MACOSX/cat/._1.png", b"no image"));
    files.push((".DS_Store", b"no image"));
    let path = project.put("pets.zip", &zip(&files));
    let folder = project.open(&at("data/pets")).unwrap();
    let zipped = project.open(&at("data/pets.zip")).unwrap();
    zipped.check_images(&()).unwrap();
    assert_eq!(counted(&zipped), classes(&[("cat", 2), ("dog", 1)]));
    assert_eq!(zipped.digest(), folder.digest());
    assert_eq!(zipped.skipped().to_string(), "1 .txt");
    assert_eq!(project.listing(), ["pets", "pets.zip"], "nothing is unpacked beside it");

    // One folder around everything is no class; separators of Windows are separators.
    let around: Vec<(String, &[u8])> = files
        .iter()
        .map(|(name, content)| (format!("my pets\\{}", name.replace('/', "\\")), *content))
        .collect();
    let around: Vec<(&str, &[u8])> =
        around.iter().map(|(name, content)| (name.as_str(), *content)).collect();
    fs::write(&path, zip(&around)).unwrap();
    assert_eq!(project.open(&at("data/pets.zip")).unwrap().digest(), folder.digest());

    // Another content under the same name is another data set, and bad images are named by the zip
    // file.
    fs::write(&path, zip(&[("cat/1.png", &a), ("dog/1.png", b"no image")])).unwrap();
    let other = project.open(&at("data/pets.zip")).unwrap();
    assert_eq!(counted(&other), classes(&[("cat", 1), ("dog", 1)]));
    let message = other.check_images(&()).unwrap_err().to_string();
    assert!(message.contains("data/pets.zip/dog/1.png: it is neither"), "{message}");
}

#[test]
fn labels_are_those_of_dataset_json() {
    let (a, b, c) = (png(1), png(2), png(3));
    let open = |json: Option<&str>| {
        let project = Project::new();
        let mut files: Vec<(&str, &[u8])> = vec![
            ("00000/img00000000.png", &a),
            ("00000/img00000001.png", &b),
            ("00001/img00001000.png", &c),
        ];
        files.extend(json.map(|json| ("dataset.json", json.as_bytes())));
        project.put("edm.zip", &zip(&files));
        for (name, content) in files {
            project.put(&format!("edm/{name}"), content);
        }
        let open = |root: &str| project.open(&at(root)).map_err(|error| error.to_string());
        (open("data/edm.zip"), open("data/edm"), project)
    };
    let (zipped, folder, _project) = open(Some(
        r#"{"labels": [["00000/img00000000.png", 6], ["00001/img00001000.png", 10], ["00000/img00000001.png", 6]]}"#,
    ));
    let (zipped, folder) = (zipped.unwrap(), folder.unwrap());
    assert_eq!(counted(&zipped), classes(&[("6", 2), ("10", 1)]), "in the order of numbers");
    assert_eq!(zipped.digest(), folder.digest(), "unpacked by hand it is the same");
    zipped.check_images(&()).unwrap();

    let (part, _, _project) =
        open(Some(r#"{"labels": [["00000/img00000000.png", 0], ["00009/gone.png", 0]]}"#));
    let part = part.unwrap();
    assert_eq!(part.skipped().to_string(), "2 images without a label");
    let message = part.check_images(&()).unwrap_err().to_string();
    assert!(
        message.contains("00009/gone.png: dataset.json gives it a label, and it is not there"),
        "{message}"
    );

    for none in [Some(r#"{"labels": null}"#), None] {
        let zipped = open(none).0.unwrap();
        assert_eq!(counted(&zipped), classes(&[("images", 3)]), "{none:?}");
    }
    for wrong in
        [r#"{"labels": [["00000/img00000000.png", [0.5, 1]]]}"#, "[]", "{", r#"{"lables": null}"#]
    {
        let message = open(Some(wrong)).0.err().unwrap();
        assert!(message.contains("dataset.json: labels: expected {\"labels\": [["), "{message}");
    }
    // In a folder of one's own such a file may mean anything, and folders are classes.
    assert_eq!(counted(&open(Some("[]")).1.unwrap()), classes(&[("00000", 2), ("00001", 1)]));
}

/// As a data set of the Hugging Face hub is downloaded: folders of images, and a line for each.
#[test]
fn labels_are_those_of_metadata_jsonl() {
    let (a, b, c) = (png(1), png(2), png(3));
    let open = |lines: &str| {
        let project = Project::new();
        let files: Vec<(&str, &[u8])> = vec![
            ("train/1.png", &a),
            ("train/2.png", &b),
            ("3.png", &c),
            ("metadata.jsonl", lines.as_bytes()),
        ];
        project.put("hub.zip", &zip(&files));
        for (name, content) in files {
            project.put(&format!("hub/{name}"), content);
        }
        let open = |root: &str| project.open(&at(root)).map_err(|error| error.to_string());
        (open("data/hub.zip"), open("data/hub"), project)
    };
    let lines = r#"{"file_name": "train/1.png", "label": "dog", "text": "a dog"}

{"file_name": "3.png", "label": "cat"}
{"file_name": "train/2.png", "label": "dog"}"#;
    let (zipped, folder, _project) = open(lines);
    let (zipped, folder) = (zipped.unwrap(), folder.unwrap());
    assert_eq!(counted(&zipped), classes(&[("cat", 1), ("dog", 2)]), "in the order of names");
    assert_eq!(zipped.digest(), folder.digest());
    zipped.check_images(&()).unwrap();
    // The file itself is nothing that was passed over.
    assert_eq!(folder.skipped().to_string(), "");

    let numbers = r#"{"file_name": "train/1.png", "label": 10}
{"file_name": "train/2.png", "label": 2}"#;
    let numbered = open(numbers).1.unwrap();
    assert_eq!(counted(&numbered), classes(&[("2", 1), ("10", 1)]));
    assert_eq!(numbered.skipped().to_string(), "1 image without a label");

    let gone = open(r#"{"file_name": "gone.png", "label": 1}"#).1.unwrap();
    let message = gone.check_images(&()).unwrap_err().to_string();
    assert!(message.contains("gone.png: metadata.jsonl gives it a label"), "{message}");

    for (lines, told) in [
        (
            "{\"file_name\": \"3.png\", \"label\": 1}\n{\"file_name\": \"train/1.png\"}",
            "line 2: it has no `label`",
        ),
        ("{\"file_name\": \"3.png\", \"label\": 1}\nno json", "line 2: expected {\"file_name\""),
        (
            "{\"file_name\": \"3.png\", \"label\": 1}\n{\"file_name\": \"3.png\", \"label\": [1]}",
            "line 2: expected",
        ),
    ] {
        let message = open(lines).1.err().unwrap();
        assert!(message.contains("metadata.jsonl") && message.contains(told), "{message}");
    }
    // Without labels it says nothing of classes: captions, bounding boxes.
    let captions = open(r#"{"file_name": "3.png", "text": "a cat"}"#).1.unwrap();
    assert_eq!(counted(&captions), counted(&open("anything").1.unwrap()));
}

#[test]
fn a_hostile_zip_file_is_refused_and_leaves_nothing() {
    let good = png(1);
    let refused = |bytes: &[u8], told: &str| {
        let project = Project::new();
        project.put("pets.zip", bytes);
        let message = project.refusal(&at("data/pets.zip"));
        assert!(message.contains("pets.zip") && message.contains(told), "{message}");
        assert_eq!(project.listing(), ["pets.zip"]);
        let left = fs::read_dir(project.path().join(".pipe/cache/unpacked")).unwrap();
        let left: Vec<_> =
            left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(left.iter().all(|name| name.ends_with(".lock")), "{left:?}");
        assert!(!project.path().parent().unwrap().join("evil.png").exists());
    };
    for name in ["../evil.png", "cat/../../../../evil.png", "/evil.png", "..\\evil.png"] {
        refused(&zip(&[("cat/1.png", &good), (name, &good)]), "its path leaves the folder");
    }
    let mut link = ZipWriter::new(Cursor::new(Vec::new()));
    link.add_symlink("cat/1.png", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    refused(&link.finish().unwrap().into_inner(), "it is a link");

    let whole = zip(&[("cat/1.png", &good), ("dog/1.png", &good)]);
    refused(b"no zip file", "its list of files");
    refused(&whole[..whole.len() / 2], "its list of files");
    let mut damaged = whole.clone();
    damaged[60] ^= 1; // in the content of the first file
    refused(&damaged, "entry cat/1.png: ");
}

#[test]
fn damage_anywhere_in_a_zip_file_never_ends_the_program() {
    let whole =
        zip(&[("cat/1.png", &png(1)), ("dataset.json", br#"{"labels": [["cat/1.png", 3]]}"#)]);
    for at_byte in (0..whole.len()).step_by(4) {
        let project = Project::new();
        let mut damaged = whole.clone();
        damaged[at_byte] ^= 0x55;
        project.put("pets.zip", &damaged);
        if let Ok(dataset) = project.open(&at("data/pets.zip")) {
            let _ = dataset.check_images(&());
        }
    }
}
