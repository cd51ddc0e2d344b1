//! Which settings of a data set are taken, and which of them count.

use super::*;

#[track_caller]
fn refused(settings: DatasetSettings) -> String {
    settings.validate().unwrap_err().to_string()
}

#[test]
fn the_defaults_are_valid() {
    DatasetSettings::default().validate().unwrap();
}

#[test]
fn a_value_out_of_range_is_refused_with_its_key_and_the_range() {
    let base = DatasetSettings::default;
    assert_eq!(
        refused(DatasetSettings { image_size: 4, ..base() }),
        "failed to accept `image_size`: 4 is not between 8 and 1024 pixels"
    );
    assert_eq!(
        refused(DatasetSettings { val_split: f64::NAN, ..base() }),
        "failed to accept `val_split`: NaN is not a share between 0 (no validation) and 0.9"
    );
    assert!(refused(DatasetSettings { num_images: 0, ..base() }).contains("`num_images`"));
    let split = PublishedSplit::Test;
    assert_eq!(
        refused(DatasetSettings { split, ..base() }),
        "failed to accept `split`: shapes has no test images of its own"
    );
    let source = "cifar10".parse().unwrap();
    assert!(
        refused(DatasetSettings { split, source, val_split: 0.1, ..base() })
            .contains("`val_split`: test images are all for validation")
    );
    let big = DatasetSettings { num_images: 100_000, image_size: 512, ..base() };
    assert!(refused(big).contains("at most 5461"));
    let augmentation = Augmentation { rotation_degrees: -1.0, ..Augmentation::default() };
    assert!(
        refused(DatasetSettings { augmentation, ..base() })
            .contains("`augmentation.rotation_degrees`: -1")
    );
    let classes = Some(ClassSelection::Names(vec!["star".into(), "star".into()]));
    assert!(
        refused(DatasetSettings { classes, ..base() }).contains("`classes`: star stands twice")
    );
}

#[test]
fn labels_of_an_augmentation_are_those_of_one_that_happens() {
    let of = |text: &str| serde_json::from_str::<Augmentation>(text).unwrap();
    assert_eq!(of(r#"{"enabled": true}"#).labels(), 0);
    assert_eq!(of(r#"{"probability": 0.12}"#).labels(), 0);
    let edm = of(r#"{"enabled": true, "probability": 0.12}"#);
    assert_eq!(edm.labels(), 9);
    let with = |augmentation| DatasetSettings { augmentation, ..DatasetSettings::default() };
    with(edm.clone()).validate().unwrap();
    let both = Augmentation { rotation_degrees: 5.0, ..edm.clone() };
    assert!(refused(with(both)).contains("`augmentation.rotation_degrees`: `probability`"));
    let much = Augmentation { probability: Some(1.5), ..edm };
    assert!(refused(with(much)).contains("`augmentation.probability`: 1.5"));
}

#[test]
fn what_decides_no_image_counts_as_its_default() {
    let decides = |text: &str| {
        let settings: DatasetSettings = serde_json::from_str(text).unwrap();
        let source = DatasetSettings { source: settings.source, ..DatasetSettings::default() };
        assert_eq!(settings.deciding().deciding(), settings.deciding(), "{text}");
        settings.deciding() != source
    };
    for source in RegisteredSource::all() {
        let with = |rest: &str| decides(&format!(r#"{{"source": "{}", {rest}}}"#, source.name()));
        let drawn = source.is_synthetic();
        assert_eq!(with(r#""num_images": 64"#), drawn, "{source:?}");
        assert_eq!(with(r#""seed": 5"#), drawn, "{source:?}");
        assert!(with(r#""seed": 5, "val_split": 0.1"#));
        let photos = ["image_folder", "imagenette"].contains(&source.name());
        assert_eq!(with(r#""fit": "pad""#), photos, "{source:?}");
        assert_eq!(with(r#""background": "black""#), photos, "{source:?}");
        assert_eq!(with(r#""recursive": true"#), source.name() == "image_folder");
        assert!(with(r#""image_size": 16"#));
        assert!(!with(r#""augmentation": {"rotation_degrees": 5, "horizontal_flip": false}"#));
        assert!(!with(r#""augmentation": {"probability": 0.1}"#));
        assert!(with(r#""augmentation": {"enabled": true}"#));
        assert!(with(r#""augmentation": {"enabled": true, "probability": 0.1}"#));
    }
}

#[test]
fn the_schema_marks_what_changes_no_result_and_describes_every_key() {
    let schema = serde_json::to_value(schemars::schema_for!(DatasetSettings)).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let runtime: Vec<_> = properties
        .iter()
        .filter(|(_, v)| v["x-class"] == "runtime")
        .map(|(k, _)| k.as_str())
        .collect();
    assert_eq!(runtime, ["download", "root", "url"]);
    for (key, property) in properties {
        assert!(property["description"].is_string(), "{key} has no description");
    }
}

#[test]
fn what_changes_nothing_stands_in_no_record() {
    let plain = serde_json::to_value(DatasetSettings::default()).unwrap();
    let parse = |text: &str| serde_json::from_str::<DatasetSettings>(text).unwrap();
    let same = parse(r##"{"fit": "crop", "background": "#FFF", "recursive": false}"##);
    assert_eq!(serde_json::to_value(same).unwrap(), plain);
    let other = parse(r#"{"fit": "pad", "background": "black", "recursive": true}"#);
    let value = serde_json::to_value(&other).unwrap();
    assert_eq!((&value["fit"], &value["background"]), (&"pad".into(), &"#000000".into()));
    assert_eq!(serde_json::from_value::<DatasetSettings>(value).unwrap(), other);
}

#[test]
fn a_tilde_is_the_home_folder_where_it_stands_alone() {
    let root = |root: &str| {
        DatasetSettings { root: root.into(), ..DatasetSettings::default() }
            .root_in(Path::new("/project"))
    };
    let home = std::env::home_dir().unwrap();
    assert_eq!((root("~/pictures"), root("~")), (home.join("pictures"), home));
    assert_eq!(root("~pictures"), Path::new("/project/~pictures"));
    assert_eq!(root("a/~"), Path::new("/project/a/~"));
    assert_eq!(root("/elsewhere"), Path::new("/elsewhere"));
}

#[test]
fn an_unknown_key_is_refused() {
    let error = serde_json::from_str::<DatasetSettings>(r#"{"imge_size": 32}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `imge_size`"));
}
