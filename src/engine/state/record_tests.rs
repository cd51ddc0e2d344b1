use super::*;

#[test]
fn a_record_comes_back_for_its_pipeline_alone() {
    let folder = tempfile::tempdir().unwrap();
    let stage = StageId::new("best").unwrap().member("seed=1");
    let made = Outputs {
        identity: "sha256:1".into(),
        manifest: BTreeMap::new(),
        written_at: Utc::now(),
        outputs: Vec::new(),
        inputs: Vec::new(),
        replaced: vec!["sha256:old".into()],
        follows_links: false,
        former: Vec::new(),
    };
    let root = &ProjectRoot::from(folder.path());
    let record = Record::begun("a b", &stage, "copy_best", "run".into(), String::new(), Some(made));
    record.save(root, &stage).unwrap();
    assert_eq!(Record::load(root, "a b", &stage), Some(record.clone()));
    assert_eq!(Record::load(root, "a/b", &stage), None, "another pipeline");
}

#[test]
fn a_record_is_found_where_earlier_versions_had_it() {
    let folder = tempfile::tempdir().unwrap();
    let (root, stage) = (&ProjectRoot::from(folder.path()), StageId::new("best").unwrap());
    let record = Record::begun("模型", &stage, "train", "run".into(), String::new(), None);
    let then = former_path(root, "模型", &stage);
    assert_eq!(then, root.join(".pipe/records/__/best.json"));
    atomic::create_folder(root.disk(), then.parent().unwrap()).unwrap();
    std::fs::write(&then, checksummed_json::to_text(&record)).unwrap();
    assert_eq!(Record::load(root, "模型", &stage), Some(record.clone()));
    assert_eq!(Record::load(root, "数据", &stage), None);
    let other = Record { pipeline: "数据".into(), ..record.clone() };
    other.save(root, &stage).unwrap();
    record.save(root, &stage).unwrap();
    assert_eq!(Record::load(root, "数据", &stage), Some(other), "each has a file of its own");
    assert_eq!(Record::load(root, "模型", &stage), Some(record.clone()));
    let later = Record { updated_at: Utc::now(), ..record };
    later.save(root, &stage).unwrap();
    let all = Record::all(root);
    assert_eq!(
        (all.len(), all.contains(&later)),
        (2, true),
        "the old one stands for nothing: {all:?}"
    );
}

#[test]
fn a_record_speaks_of_files_of_its_project_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (root, stage) = (&ProjectRoot::from(folder.path()), StageId::new("best").unwrap());
    let with = |output: &str, input: &str, before: &str, place: &str| {
        let made = Outputs {
            identity: "sha256:1".into(),
            manifest: BTreeMap::new(),
            written_at: Utc::now(),
            outputs: vec![Output::expected(output, "sha256:2", 1)],
            inputs: vec![Output::expected(input, "sha256:3", 1)],
            replaced: Vec::new(),
            follows_links: true,
            former: vec![Output::expected("g", "sha256:4", 1)],
        };
        let stamp = Stamp { bytes: 1, modified: 1, changed: 1, inode: 1 };
        let before =
            OutputBaseline { run: String::new(), files: [(before.to_owned(), stamp)].into() };
        let record = Record::begun("p", &stage, "command", "run".into(), String::new(), Some(made));
        let places = [place.to_owned()].into();
        let record = Record { before: Some(before), places, ..record };
        record.save(root, &stage).unwrap();
        let whole = Record::whole(&path(root, "p", &stage));
        assert_eq!(Record::load(root, "p", &stage).is_some(), whole.is_ok());
        whole.err()
    };
    assert_eq!(with("a", "./b/c", "d e", "f"), None);
    for out in ["/etc/passwd", "../a", "a/../../b", ""] {
        let all = [
            with(out, "b", "c", "d"),
            with("a", out, "c", "d"),
            with("a", "b", out, "d"),
            with("a", "b", "c", out),
        ];
        for error in all {
            assert!(error.unwrap().contains("outside of the project"), "{out}");
        }
    }
}

#[test]
fn a_stage_is_held_by_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (root, stage) = (&ProjectRoot::from(folder.path()), StageId::new("base").unwrap());
    assert_eq!(stage_holder(root, "p", &stage), None);
    let lock = lock_stage(root, "p", &stage).unwrap().unwrap();
    let holder = lock_stage(root, "p", &stage).unwrap().unwrap_err();
    assert!(holder.0.starts_with(&format!("pid {}", std::process::id())), "{holder:?}");
    assert_eq!(stage_holder(root, "p", &stage), Some(holder));
    lock_stage(root, "other", &stage).unwrap().unwrap();
    drop(lock);
    assert_eq!(stage_holder(root, "p", &stage), None);
    lock_stage(root, "p", &stage).unwrap().unwrap();
}
