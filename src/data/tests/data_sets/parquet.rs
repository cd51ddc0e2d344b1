//! Parquet files of images, in the form of Hugging Face's `datasets`, and in forms of others.

use std::fs;
use std::sync::Arc;

use image::ImageFormat::Jpeg;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use pipe_data::survey;

use crate::made::{Project, counted, picture};
use crate::zipped::{at, classes, png};

/// The columns of `datasets`.
const USUAL: &str = "message m {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional int64 label; }";
/// What `datasets` writes about them.
const NAMES: &str = r#"{"info": {"features": {
    "image": {"_type": "Image"}, "label": {"names": ["cat", "a/b"], "_type": "ClassLabel"}}}}"#;

/// The values of a column, all of whose fields are optional, and how deep it lies.
enum Column {
    Bytes(i16, Vec<Option<Vec<u8>>>),
    Numbers(Vec<Option<i64>>),
}

use Column::{Bytes, Numbers};

fn file(schema: &str, about: Option<&str>, columns: Vec<Column>) -> Vec<u8> {
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let compression = if about.is_some() { Compression::SNAPPY } else { zstd };
    let about = about.map(|text| vec![KeyValue::new("huggingface".into(), text.to_owned())]);
    let properties = WriterProperties::builder().set_compression(compression);
    let properties = Arc::new(properties.set_key_value_metadata(about).build());
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in columns {
        let mut to = group.next_column().unwrap().unwrap();
        match column {
            Bytes(depth, values) => {
                let level = |value: &Option<_>| depth - i16::from(value.is_none());
                let levels: Vec<i16> = values.iter().map(level).collect();
                let values: Vec<ByteArray> =
                    values.into_iter().flatten().map(ByteArray::from).collect();
                to.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            }
            Numbers(values) => {
                let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
                let values: Vec<i64> = values.into_iter().flatten().collect();
                to.typed::<Int64Type>().write_batch(&values, Some(&levels), None).unwrap();
            }
        }
        to.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

/// A file with the columns of `datasets`.
fn usual(about: Option<&str>, rows: &[(&[u8], i64)]) -> Vec<u8> {
    let images = rows.iter().map(|(image, _)| Some(image.to_vec())).collect();
    let labels = rows.iter().map(|(_, label)| Some(*label)).collect();
    let paths = vec![None; rows.len()];
    file(USUAL, about, vec![Bytes(2, images), Bytes(2, paths), Numbers(labels)])
}

#[test]
fn rows_are_images_and_labels_have_their_names() {
    let project = Project::new();
    let (a, b, c) = (png(1), picture(12, 9, [9, 9, 9], Jpeg), png(3));
    let rows: [(&[u8], i64); 3] = [(&a, 1), (&b, 0), (&c, 1)];
    project.put("pets.parquet", &usual(Some(NAMES), &rows));
    let data = project.open(&at("data/pets.parquet")).unwrap();
    data.check_images(&()).unwrap();
    // In the order of their names.
    assert_eq!(counted(&data), classes(&[("a/b", 2), ("cat", 1)]));
    assert_eq!(project.listing(), ["pets.parquet"], "nothing is unpacked beside it");
    let found = survey(&at("data/pets.parquet"), &project.path().into(), 10).unwrap();
    assert_eq!((found.classes.len(), found.headers.len()), (2, 3));
    assert_eq!(found.headers.iter().filter(|header| header.is_jpeg).count(), 1);

    // The same images with their labels in a folder are the same data set.
    for (name, image) in [("00000001.png", &a), ("00000002.jpg", &b), ("00000003.png", &c)] {
        project.put(&format!("folder/{name}"), image);
    }
    let line = |name: &str, label: &str| {
        format!("{{\"file_name\": \"{name}\", \"label\": \"{label}\"}}\n")
    };
    let lines = [("00000001.png", "a/b"), ("00000002.jpg", "cat"), ("00000003.png", "a/b")];
    let lines: String = lines.iter().map(|(name, label)| line(name, label)).collect();
    project.put("folder/metadata.jsonl", lines.as_bytes());
    assert_eq!(project.open(&at("data/folder")).unwrap().digest(), data.digest());

    // Without names the classes are the numbers, in their order.
    project.put("plain.parquet", &usual(None, &[(&a, 10), (&b, 9)]));
    let plain = project.open(&at("data/plain.parquet")).unwrap();
    assert_eq!(counted(&plain), classes(&[("9", 1), ("10", 1)]));

    // Another content under the same name is another data set.
    project.put("pets.parquet", &usual(Some(NAMES), &[(&a, 1), (&b, 0)]));
    let other = project.open(&at("data/pets.parquet")).unwrap();
    assert_eq!(counted(&other), classes(&[("a/b", 1), ("cat", 1)]));
}

#[test]
fn columns_of_other_programs_are_found_by_their_types_and_names() {
    let project = Project::new();
    let open = |schema: &str, about: Option<&str>, columns: Vec<Column>| {
        project.put("a.parquet", &file(schema, about, columns));
        project.open(&at("data/a.parquet")).map(|data| counted(&data)).map_err(|e| e.to_string())
    };
    let images = || Bytes(1, vec![Some(png(1)), Some(png(2))]);
    let text = || Bytes(1, vec![Some(b"x".to_vec()), Some(b"y".to_vec())]);
    let one = classes(&[("images", 2)]);
    let names = classes(&[("x", 1), ("y", 1)]);
    let found = open("message m { optional binary photo; }", None, vec![images()]);
    assert_eq!(found.unwrap(), one);
    let schema = "message m { optional binary label (UTF8); optional binary img; }";
    assert_eq!(open(schema, None, vec![text(), images()]).unwrap(), names);
    let schema = "message m { optional binary img; optional binary image; }";
    assert_eq!(open(schema, None, vec![images(), images()]).unwrap(), one);

    let schema = "message m { optional binary left; optional binary right; }";
    let refused = open(schema, None, vec![images(), images()]).unwrap_err();
    assert!(refused.contains("(left, right), and none is named `image`"), "{refused}");
    let refused = open("message m { optional binary t (UTF8); }", None, vec![text()]).unwrap_err();
    assert!(refused.contains("none of its columns (t) holds the bytes of images"), "{refused}");

    // Of a coarse and a fine division, as CIFAR-100 has them, the fine one counts.
    let about = r#"{"info": {"features": {"img": {"_type": "Image"},
        "coarse": {"names": ["x"], "_type": "ClassLabel"},
        "fine": {"names": ["u", "v"], "_type": "ClassLabel"}}}}"#;
    let schema = "message m { optional binary img; optional int64 fine; optional int64 coarse; }";
    let numbers = |a, b| Numbers(vec![Some(a), Some(b)]);
    let found = open(schema, Some(about), vec![images(), numbers(1, 0), numbers(0, 0)]);
    assert_eq!(found.unwrap(), classes(&[("u", 1), ("v", 1)]));
}

#[test]
fn a_row_that_lacks_something_is_named() {
    let project = Project::new();
    let refused = |bytes: &[u8]| {
        project.put("a.parquet", bytes);
        project.open(&at("data/a.parquet")).err().unwrap().to_string()
    };
    let lacking = |image: Option<Vec<u8>>, label: Option<i64>| {
        let images = vec![Some(png(1)), image];
        let columns =
            vec![Bytes(2, images), Bytes(2, vec![None; 2]), Numbers(vec![Some(0), label])];
        refused(&file(USUAL, Some(NAMES), columns))
    };
    let message = lacking(None, Some(0));
    assert!(message.contains("row 1: its column `image` holds no bytes"), "{message}");
    let message = lacking(Some(png(2)), None);
    assert!(message.contains("row 1: its column `label` is empty"), "{message}");
    let message = lacking(Some(png(2)), Some(-1));
    assert!(message.contains("row 1: its column `label` is -1, which is no class"), "{message}");
    let message = lacking(Some(png(2)), Some(2));
    assert!(message.contains("row 1: its column `label` is 2, which is no class"), "{message}");
    let message = refused(b"no parquet at all");
    assert!(message.contains("a.parquet"), "{message}");

    // What is no image is named when images are checked, as in a folder.
    project.put("a.parquet", &usual(Some(NAMES), &[(&png(1), 0), (b"no image", 1)]));
    let data = project.open(&at("data/a.parquet")).unwrap();
    let message = data.check_images(&()).err().unwrap().to_string();
    assert!(message.contains("00000002.png"), "{message}");
}

#[test]
fn a_folder_of_shards_is_one_data_set_and_its_training_images_are_read() {
    let project = Project::new();
    let shard = |shade: u8, label: i64| usual(Some(NAMES), &[(&png(shade), label)]);
    project.put("hub/data/train-00000-of-00002.parquet", &shard(1, 0));
    project.put("hub/data/train-00001-of-00002.parquet", &shard(2, 1));
    project.put("hub/data/test-00000-of-00001.parquet", &shard(3, 1));
    project.put("hub/README.md", b"a data set");
    for root in ["data/hub", "data/hub/data"] {
        let data = project.open(&at(root)).unwrap();
        assert_eq!(counted(&data), classes(&[("a/b", 1), ("cat", 1)]), "{root}");
    }
    fs::remove_file(project.path().join("data/hub/data/train-00001-of-00002.parquet")).unwrap();
    assert_eq!(counted(&project.open(&at("data/hub")).unwrap()), classes(&[("cat", 1)]));
    fs::remove_file(project.path().join("data/hub/data/train-00000-of-00002.parquet")).unwrap();
    project.put("hub/data/validation.parquet", &shard(1, 0));
    let message = project.open(&at("data/hub")).err().unwrap().to_string();
    assert!(message.contains("several splits (test, validation)"), "{message}");

    // Files of other names are one data set too; those beside images are left alone, as before.
    project.put("parts/a.parquet", &shard(1, 0));
    project.put("parts/b.parquet", &shard(2, 0));
    assert_eq!(counted(&project.open(&at("data/parts")).unwrap()), classes(&[("cat", 2)]));
    project.put("parts/1.png", &png(9));
    let beside = project.open(&at("data/parts")).unwrap();
    assert_eq!(counted(&beside), classes(&[("images", 1)]));
    assert_eq!(beside.skipped().to_string(), "2 .parquet");
    project.put("mixed/a.parquet", &shard(1, 0));
    let plain =
        file("message m { optional binary image; }", None, vec![Bytes(1, vec![Some(png(2))])]);
    project.put("mixed/b.parquet", &plain);
    let message = project.open(&at("data/mixed")).err().unwrap().to_string();
    assert!(message.contains("b.parquet") && message.contains("others have none"), "{message}");
}

#[test]
fn a_damaged_file_is_refused_or_read_and_ends_nothing() {
    let project = Project::new();
    let (a, b) = (png(1), png(2));
    let whole = usual(Some(NAMES), &[(&a, 0), (&b, 1)]);
    let mut random = 0x9e37_79b9_u64;
    let mut next = |below: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut refused = 0;
    for round in 0..600 {
        let mut bytes = whole.clone();
        if round % 4 == 0 {
            bytes.truncate(next(bytes.len()));
        } else {
            for _ in 0..=next(4) {
                let place = next(bytes.len());
                bytes[place] = next(256) as u8;
            }
        }
        project.put("a.parquet", &bytes);
        refused += usize::from(project.open(&at("data/a.parquet")).is_err());
    }
    assert!(refused > 300, "{refused}");
}
