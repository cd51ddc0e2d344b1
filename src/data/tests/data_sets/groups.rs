//! Groups of classes: the images are those of the classes, and only labels and names differ.

use std::collections::BTreeMap;

use image::ImageFormat::Png;
use pipe_core::rng::ChaCha8Rng;
use pipe_data::{
    ClassName, ClassSelection, Dataset, DatasetSettings, DatasetSummary, Split, summarize,
};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::made::{NAMES10, Project, batch10, picture, record, settings};

/// A project with data for every kind of source, and settings for each with the classes it has. A
/// class is a name, a number or a superclass, with the count of classes that it means.
struct Case {
    settings: DatasetSettings,
    classes: Vec<(ClassName, usize)>,
}

fn project() -> (Project, Vec<Case>) {
    let project = Project::new();
    let each: Vec<u8> = (0..60).map(|i| i % 10).collect();
    project.put("cifar-10-batches-bin/data_batch_1.bin", &batch10(&each, 0));
    project.put("cifar-10-batches-bin/batches.meta.txt", NAMES10.as_bytes());
    let hundred: Vec<u8> = (0..200u8).flat_map(|i| record(&[0, i % 100], i)).collect();
    project.put("cifar-100-binary/train.bin", &hundred);
    for (class, shade) in [("cat", 1), ("dog", 2), ("3", 3), ("Ä b", 4), ("eel", 5)] {
        for i in 0..6 {
            let content = picture(9, 9, [40 * i, shade, 7], Png);
            project.put(&format!("pets/{class}/{i}.png"), &content);
        }
    }
    let named = |names: &[&str]| names.iter().map(|name| ((*name).into(), 1)).collect();
    let mut cifar100 = vec![("trees".into(), 5), ("Fish".into(), 5), (ClassName::Number(0), 1)];
    cifar100.extend(["lamp", "wolf", "worm"].map(|name| (name.into(), 1)));
    let folder =
        DatasetSettings { root: "data/pets".into(), image_size: 9, ..settings("image_folder") };
    let drawn = |source| DatasetSettings { num_images: 50, image_size: 8, ..settings(source) };
    let cases = vec![
        Case { settings: settings("cifar10"), classes: named(&["cat", "Dog", "ship", "truck"]) },
        Case { settings: settings("cifar100"), classes: cifar100 },
        Case { settings: folder, classes: named(&["cat", "dog", "3", "a\u{308}_B", "eel"]) },
        Case { settings: drawn("shapes"), classes: named(&["star", "cross", "ring", "heart"]) },
        Case { settings: drawn("trees"), classes: named(&["oak", "pine", "palm", "willow"]) },
    ];
    (project, cases)
}

/// Some of the classes, shared out among up to four groups; or each by itself, in `alone`.
struct Partition {
    groups: BTreeMap<String, Vec<ClassName>>,
    /// The classes and how many each means, in the order of the labels.
    flat: Vec<(ClassName, usize, usize)>,
    names: usize,
}

fn partition(rng: &mut ChaCha8Rng, classes: &[(ClassName, usize)]) -> Partition {
    let mut classes = classes.to_vec();
    classes.shuffle(rng);
    classes.truncate(rng.random_range(2..=classes.len()));
    let count = rng.random_range(1..=classes.len().min(4));
    let mut shares = vec![Vec::new(); count];
    for (i, class) in classes.into_iter().enumerate() {
        let share = if i < count { i } else { rng.random_range(0..count) };
        shares[share].push(class);
    }
    let (mut groups, mut flat) = (BTreeMap::new(), Vec::new());
    for (label, share) in shares.into_iter().enumerate() {
        groups.insert(format!("g{label}"), share.iter().map(|(name, _)| name.clone()).collect());
        flat.extend(share.into_iter().map(|(name, n)| (name, n, label)));
    }
    Partition { groups, flat, names: count }
}

fn all(dataset: &Dataset) -> Vec<usize> {
    let mut all = [Split::Train, Split::Validation].map(|s| dataset.indices(s)).concat();
    all.sort();
    all
}

#[test]
fn a_grouped_set_is_the_selected_classes_with_labels_mapped_by_hand() {
    let (project, cases) = project();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for round in 0..40 {
        for case in &cases {
            let drawn = partition(&mut rng, &case.classes);
            let val_split = *[0.0, 0.3].get(round % 2).unwrap();
            let base = DatasetSettings { val_split, ..case.settings.clone() };
            let grouped = DatasetSettings { groups: drawn.groups.clone(), ..base.clone() };
            let names = drawn.flat.iter().map(|(name, _, _)| name.clone()).collect();
            let by_hand =
                DatasetSettings { classes: Some(ClassSelection::Names(names)), ..base.clone() };
            let (a, b) = (project.open(&grouped).unwrap(), project.open(&by_hand).unwrap());
            let about =
                format!("round {round}, {}: {:?}", case.settings.source.name(), drawn.groups);
            let label_of: Vec<u32> = drawn
                .flat
                .iter()
                .flat_map(|(_, n, label)| std::iter::repeat_n(*label as u32, *n))
                .collect();
            assert_eq!(all(&a), all(&b), "{about}");
            for split in [Split::Train, Split::Validation] {
                assert_eq!(a.indices(split), b.indices(split), "{about}");
            }
            for i in all(&a) {
                assert_eq!(a.image(i).unwrap(), b.image(i).unwrap(), "{about}");
                assert_eq!(a.label(i), label_of[b.label(i) as usize], "{about}");
            }
            let names: Vec<String> = (0..drawn.names).map(|i| format!("g{i}")).collect();
            assert_eq!(a.class_names(), names, "{about}");
            assert_eq!(grouped.class_count(), Some(drawn.names), "{about}");
            assert_ne!(a.digest(), b.digest(), "{about}");
            // A plan knows the same before anything is opened.
            let seen = summarize(&grouped, &project.path().into(), false, &()).unwrap();
            assert_eq!(seen, Some(DatasetSummary::of(&a)), "{about}");
        }
    }
}

#[test]
fn the_same_groups_are_one_data_set_and_others_are_another() {
    let (project, cases) = project();
    let digest = |groups: &str, classes: Option<&str>| {
        let classes = classes.map(|text| serde_json::from_str(text).unwrap());
        let groups = serde_json::from_str(groups).unwrap();
        let settings = DatasetSettings { groups, classes, ..cases[0].settings.clone() };
        project.open(&settings).unwrap().digest().to_owned()
    };
    let one = digest(r#"{"a": ["cat", "dog"], "b": ["ship"]}"#, None);
    assert_eq!(digest(r#"{"b": [8], "a": [3, "DOG"]}"#, Some(r#"["a", "b"]"#)), one);
    for other in [
        r#"{"a": ["cat"], "b": ["dog", "ship"]}"#,
        r#"{"a": ["cat", "dog"], "c": ["ship"]}"#,
        r#"{"a": ["cat", "dog", "ship"]}"#,
    ] {
        assert_ne!(digest(other, None), one, "{other}");
    }
    assert_ne!(digest(r#"{"a": ["cat", "dog"], "b": ["ship"]}"#, Some(r#"["b", "a"]"#)), one);
}

#[test]
fn a_class_of_a_group_that_has_no_image_is_told() {
    let (project, cases) = project();
    project.put("cifar-10-batches-bin/data_batch_1.bin", &batch10(&[3, 5], 0));
    let groups = serde_json::from_str(r#"{"pets": ["cat", "dog"], "cars": ["truck"]}"#).unwrap();
    let message = project.refusal(&DatasetSettings { groups, ..cases[0].settings.clone() });
    assert!(message.contains("`groups`") && message.ends_with("no image of class `truck`"));
    let plain = serde_json::to_string(&cases[0].settings).unwrap();
    assert!(!plain.contains("groups"), "what is not set stands in no record: {plain}");
}
