use std::fs;

use pipe_data::{ClassSelection, Dataset, DatasetSettings, PublishedSplit, Split};

use crate::made::{NAMES10, Project, TarGz, batch10, record, settings};

const ARCHIVE: &str = "cifar-10-binary.tar.gz";

fn labels(dataset: &Dataset) -> Vec<u32> {
    dataset.indices(Split::Train).iter().map(|i| dataset.label(*i)).collect()
}

#[test]
fn an_archive_of_other_size_and_checksum_loads_as_its_unpacked_folder_does() {
    let (first, second) = (batch10(&[3, 9, 0], 0), batch10(&[3, 5], 3));
    let packed = Project::new();
    let archive = TarGz::new()
        .file("cifar-10-batches-bin/data_batch_2.bin", &second)
        .file("cifar-10-batches-bin/batches.meta.txt", NAMES10.as_bytes())
        .file("cifar-10-batches-bin/data_batch_1.bin", &first)
        .file("cifar-10-batches-bin/test_batch.bin", &batch10(&[1; 4], 0))
        .bytes();
    packed.put(ARCHIVE, &archive);
    let unpacked = Project::new();
    unpacked.put("cifar-10-batches-bin/data_batch_1.bin", &first);
    unpacked.put("cifar-10-batches-bin/data_batch_2.bin", &second);
    unpacked.put("cifar-10-batches-bin/batches.meta.txt", NAMES10.as_bytes());

    let classes =
        |list: &[&str]| Some(ClassSelection::Names(list.iter().map(|n| (*n).into()).collect()));
    let chosen = DatasetSettings {
        classes: classes(&["cat", "truck", "airplane", "dog"]),
        ..settings("cifar10")
    };
    let (a, b) = (packed.open(&chosen).unwrap(), unpacked.open(&chosen).unwrap());
    assert_eq!(a.class_names(), ["cat", "truck", "airplane", "dog"]);
    assert_eq!(labels(&a), [0, 1, 2, 0, 3]);
    assert_eq!(labels(&a), labels(&b));
    assert_eq!(a.digest(), b.digest());
    let image = a.image(4).unwrap();
    assert_eq!(image, b.image(4).unwrap());
    assert_eq!(image[..3], [4, 89, 174], "the first pixel of record 4, from its three planes");
    assert_eq!(image[3 * 32..][..3], [5, 90, 175], "the first pixel of its second row");

    let other = DatasetSettings { classes: classes(&["cat", "truck"]), ..chosen };
    assert_ne!(packed.open(&other).unwrap().digest(), a.digest());
}

#[test]
fn a_class_without_an_image_is_refused_only_when_it_was_asked_for() {
    let project = Project::new();
    project.put("cifar-10-batches-bin/data_batch_1.bin", &batch10(&[3, 9], 0));
    project.put("cifar-10-batches-bin/batches.meta.txt", NAMES10.as_bytes());
    assert_eq!(labels(&project.open(&settings("cifar10")).unwrap()), [3, 9]);
    let classes = Some(ClassSelection::Names(vec!["cat".into(), "ship".into()]));
    let message = project.refusal(&DatasetSettings { classes, ..settings("cifar10") });
    assert!(
        message.contains("`classes`") && message.ends_with("has no image of class `ship`"),
        "{message}"
    );
}

#[test]
fn the_trees_of_cifar100_are_found_by_their_fine_labels() {
    let names: String = (0..100)
        .map(|i| match i {
            47 => "maple_tree\n".to_owned(),
            52 => "oak_tree\n".to_owned(),
            56 => "palm_tree\n".to_owned(),
            59 => "pine_tree\n".to_owned(),
            96 => "willow_tree\n".to_owned(),
            i => format!("class{i}\n"),
        })
        .collect();
    let records: Vec<u8> = (0..100).rev().flat_map(|fine| record(&[17, fine], fine)).collect();
    let project = Project::new();
    let archive = TarGz::new()
        .file("cifar-100-binary/train.bin", &records)
        .file("cifar-100-binary/fine_label_names.txt", names.as_bytes());
    project.put("cifar-100-binary.tar.gz", &archive.bytes());

    let all = project.open(&settings("cifar100")).unwrap();
    assert_eq!((all.class_names().len(), all.indices(Split::Train).len()), (100, 100));
    let trees = DatasetSettings { classes: Some(ClassSelection::Trees), ..settings("cifar100") };
    let trees = project.open(&trees).unwrap();
    assert_eq!(
        trees.class_names(),
        ["maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"]
    );
    assert_eq!(labels(&trees), [4, 3, 2, 1, 0]);
    assert_eq!(trees.image(4).unwrap()[0], 47, "the image of maple_tree");
}

#[test]
fn superclasses_and_numbers_of_cifar100_are_classes_in_the_order_written() {
    let records: Vec<u8> = (0..100).flat_map(|fine| record(&[17, fine], fine)).collect();
    let project = Project::new();
    let archive = TarGz::new().file("cifar-100-binary/train.bin", &records);
    project.put("cifar-100-binary.tar.gz", &archive.bytes());
    let chosen = |text: &str| {
        let classes = Some(serde_json::from_str(text).unwrap());
        DatasetSettings { classes, ..settings("cifar100") }
    };
    let some = chosen(r#"["aquatic_mammals", 47, "Vehicles 1"]"#);
    assert_eq!(some.class_count(), Some(11));
    let dataset = project.open(&some).unwrap();
    assert_eq!(
        dataset.class_names(),
        [
            "beaver",
            "dolphin",
            "otter",
            "seal",
            "whale",
            "maple_tree",
            "bicycle",
            "bus",
            "motorcycle",
            "pickup_truck",
            "train"
        ]
    );
    assert_eq!(dataset.indices(Split::Train).len(), 11);
    // The word and the superclass of that name are one data set.
    let [word, superclass] = [r#""trees""#, r#"["trees"]"#].map(|text| project.open(&chosen(text)));
    assert_eq!(word.unwrap().digest(), superclass.unwrap().digest());
    let message = project.refusal(&chosen(r#"["aquatic_mamals"]"#));
    assert!(message.contains("nearest: aquatic_mammals"), "{message}");
    // All twenty are the hundred classes.
    let all = "aquatic_mammals fish flowers food_containers fruit_and_vegetables \
               household_electrical_devices household_furniture insects large_carnivores \
               large_man-made_outdoor_things large_natural_outdoor_scenes \
               large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people \
               reptiles small_mammals trees vehicles_1 vehicles_2";
    let all: Vec<&str> = all.split(' ').collect();
    let dataset = project.open(&chosen(&serde_json::to_string(&all).unwrap())).unwrap();
    let mut names = dataset.class_names().to_vec();
    names.sort();
    assert_eq!(names, project.open(&settings("cifar100")).unwrap().class_names());
}

#[test]
fn an_archive_without_names_takes_the_usual_ones() {
    let project = Project::new();
    let all: Vec<u8> = (0..10).collect();
    project.put(ARCHIVE, &TarGz::new().file("data_batch_1.bin", &batch10(&all, 0)).bytes());
    let dataset = project.open(&settings("cifar10")).unwrap();
    assert_eq!(dataset.class_names()[8], "ship");
}

#[test]
fn images_are_resized_to_the_size_asked_for() {
    let project = Project::new();
    let all: Vec<u8> = (0..10).collect();
    project.put(ARCHIVE, &TarGz::new().file("data_batch_1.bin", &batch10(&all, 100)).bytes());
    for image_size in [16, 64] {
        let dataset = project.open(&DatasetSettings { image_size, ..settings("cifar10") }).unwrap();
        let image = dataset.image(0).unwrap();
        assert_eq!(image.len(), 3 * image_size * image_size);
        let middle = image[3 * (image_size * image_size / 2 + image_size / 2)];
        assert!((113..=118).contains(&middle), "red in the middle is {middle}, of rows 100 to 131");
    }
}

#[test]
fn broken_archives_are_refused_with_the_place() {
    let good = batch10(&[1, 2, 3], 0);
    let refusal = |bytes: &[u8]| {
        let project = Project::new();
        project.put(ARCHIVE, bytes);
        let message = project.refusal(&settings("cifar10"));
        assert!(message.contains(ARCHIVE), "{message}");
        assert_eq!(project.listing(), [ARCHIVE], "nothing else may be left");
        message
    };
    let names = |tar: TarGz| tar.file("c/batches.meta.txt", NAMES10.as_bytes());

    let cut = refusal(&TarGz::new().file("c/data_batch_1.bin", &good[..5000]).bytes());
    assert!(
        cut.contains("data_batch_1.bin, byte 3073: 1927 bytes are no whole record of 3073"),
        "{cut}"
    );

    let mut label = good.clone();
    label[2 * 3073] = 10;
    let label = refusal(&names(TarGz::new()).file("c/data_batch_1.bin", &label).bytes());
    assert!(
        label.contains(
            "data_batch_1.bin, byte 6146: label 10 in record 2, but there are 10 classes"
        ),
        "{label}"
    );

    // Enough data, hardly compressible, that half of it ends within the batch.
    let noise: Vec<u8> =
        (0..200u64).flat_map(|i| record(&[1], (i.wrapping_mul(2654435761) >> 7) as u8)).collect();
    let whole = TarGz::new().file("c/data_batch_1.bin", &noise).bytes();
    let truncated = refusal(&whole[..whole.len() / 2]);
    assert!(
        truncated.contains("entry c/data_batch_1.bin, at byte 0 of the unpacked data"),
        "{truncated}"
    );

    let mut bits = whole.clone();
    let checksum = bits.len() - 6; // in gzip's trailer
    bits[checksum] ^= 0x10;
    assert!(refusal(&bits).contains("after entry c/data_batch_1.bin"));

    assert!(refusal(b"<html>404 not found</html>").contains("at the start"));
    assert!(refusal(&[]).contains(ARCHIVE));
    let python = TarGz::new().file("cifar-10-batches-py/data_batch_1", &good).bytes();
    assert!(
        refusal(&python).contains("it holds no file data_batch*.bin; is it the binary version?")
    );

    let link = names(TarGz::new())
        .link("c/data_batch_1.bin", tar::EntryType::Symlink, "/etc/passwd")
        .bytes();
    assert!(refusal(&link).contains("entry c/data_batch_1.bin"));
    let twice =
        TarGz::new().file("a/data_batch_1.bin", &good).file("b/data_batch_1.bin", &good).bytes();
    assert!(refusal(&twice).contains("a file of this name stood before"));
    let names = TarGz::new()
        .file("c/data_batch_1.bin", &good)
        .file("c/batches.meta.txt", b"cat\ndog\ncat\n")
        .bytes();
    assert!(refusal(&names).contains("batches.meta.txt: the class name `cat` stands twice"));
}

#[test]
fn missing_data_is_named_with_its_address_and_place() {
    let project = Project::new();
    let path = project.data(ARCHIVE);
    assert_eq!(
        project.refusal(&settings("cifar10")),
        format!(
            "failed to find {}: set `download: true`, or get \
             https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz and put it at that path",
            path.display()
        )
    );
    assert!(fs::read_dir(project.path().join("data")).unwrap().next().is_none());
}

#[test]
fn test_images_are_a_data_set_of_their_own_that_nothing_trains_on() {
    let of = |split| DatasetSettings { split, ..settings("cifar10") };
    let records = |images: u8| (0..images).flat_map(|i| record(&[i % 10], i)).collect::<Vec<u8>>();
    let archive = TarGz::new()
        .file("cifar-10-batches-bin/data_batch_1.bin", &records(20))
        .file("cifar-10-batches-bin/test_batch.bin", &records(10));
    let packed = Project::new();
    packed.put("cifar-10-binary.tar.gz", &archive.bytes());
    let unpacked = Project::new();
    unpacked.put("cifar-10-batches-bin/data_batch_1.bin", &records(20));
    unpacked.put("cifar-10-batches-bin/test_batch.bin", &records(10));
    for project in [&packed, &unpacked] {
        let train = project.open(&of(PublishedSplit::Train)).unwrap();
        let test = project.open(&of(PublishedSplit::Test)).unwrap();
        assert_eq!(train.indices(Split::Train).len(), 20);
        assert_eq!(test.indices(Split::Train).len(), 0);
        assert_eq!(test.indices(Split::Validation).len(), 10);
        assert_eq!(test.class_names(), train.class_names());
        assert_eq!(test.classes_without_training(), [""; 0]);
        assert_ne!(test.digest(), train.digest());
    }
    assert_eq!(
        packed.open(&of(PublishedSplit::Test)).unwrap().digest(),
        unpacked.open(&of(PublishedSplit::Test)).unwrap().digest()
    );
    let alone = Project::new();
    alone.put("cifar-10-batches-bin/data_batch_1.bin", &records(20));
    let message = alone.refusal(&of(PublishedSplit::Test));
    assert!(message.contains("test_batch*.bin"), "{message}");
}
