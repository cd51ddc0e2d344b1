use pipe_data::{Augmentation, ClassSelection, DatasetSettings, Split};

use crate::made::{Project, settings};

#[test]
fn shapes_need_nothing_and_are_the_same_each_time() {
    let project = Project::new();
    let base = DatasetSettings { num_images: 80, val_split: 0.1, ..settings("shapes") };
    let dataset = project.open(&base).unwrap();
    assert_eq!(dataset.class_names()[..4], ["circle", "square", "triangle", "star"]);
    assert!(dataset.counts().iter().all(|c| (c.train, c.validation) == (9, 1)));
    assert!(project.listing().is_empty());

    let again = project.open(&base).unwrap();
    assert_eq!(again.digest(), dataset.digest());
    assert_eq!(again.indices(Split::Validation), dataset.indices(Split::Validation));
    assert!((0..80).all(|i| again.image(i).unwrap() == dataset.image(i).unwrap()));
}

#[test]
fn the_digest_follows_what_decides_the_images_and_nothing_else() {
    let project = Project::new();
    let base = DatasetSettings { num_images: 16, ..settings("shapes") };
    let digest = |settings: DatasetSettings| project.open(&settings).unwrap().digest().to_owned();
    let classes = Some(ClassSelection::Names(vec!["star".into(), "circle".into()]));
    let augmentation = Augmentation { enabled: true, ..Augmentation::default() };
    let same = digest(base.clone());
    assert_eq!(digest(DatasetSettings { root: "elsewhere".into(), ..base.clone() }), same);
    assert_eq!(digest(DatasetSettings { augmentation, val_split: 0.5, ..base.clone() }), same);
    for other in [
        DatasetSettings { seed: 1, ..base.clone() },
        DatasetSettings { num_images: 17, ..base.clone() },
        DatasetSettings { image_size: 16, ..base.clone() },
        DatasetSettings { classes, ..base.clone() },
    ] {
        assert_ne!(digest(other.clone()), same, "{other:?}");
    }
}
