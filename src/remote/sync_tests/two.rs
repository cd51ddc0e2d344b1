//! Two who use one store: told apart where they must be, and brought together where they can be.

use super::faulty::Faulty;
use super::*;
use crate::bucket::IndexPut;
use crate::index::Index;
use crate::{RemoteErrorKind, sync_state};

#[test]
fn who_goes_on_elsewhere_ends_the_first_ones_mirror() {
    let store = Faulty::new();
    let (mut first, mut second) = (TestProject::new(&store), TestProject::new(&store));
    let mut one = first.start().unwrap();
    first.epoch(1, 100);
    first.push(&mut one).unwrap();
    let mut two = second.start().unwrap();
    assert!(second.files() == first.files(), "all is fetched");
    second.epoch(2, 100);
    second.push(&mut two).unwrap();
    first.epoch(2, 101);
    let before = first.files();
    let error = first.push(&mut one).unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::TakenOver);
    let host = pipe_fs::host();
    assert!(
        error.message.contains(&format!("continued by pid {} on {host} at 20", std::process::id())),
        "{error}"
    );
    assert!(first.files() == before, "nothing is lost here");
    second.epoch(3, 100);
    second.push(&mut two).unwrap();

    // The first one starts again, and somebody has to choose.
    let error = first.pull(None).err().unwrap();
    assert_eq!(error.kind, RemoteErrorKind::Diverged);
    assert!(
        error.message.contains("--take store") && error.message.contains("epoch_002.ckpt"),
        "{error}"
    );
    assert!(first.files() == before);
}

/// Two folders that both went on after one epoch.
fn diverged(store: &Arc<Faulty>) -> (TestProject, TestProject) {
    let (mut first, mut second) = (TestProject::new(store), TestProject::new(store));
    let mut one = first.start().unwrap();
    first.epoch(1, 100);
    first.push(&mut one).unwrap();
    let mut two = second.start().unwrap();
    second.epoch(2, 100);
    second.push(&mut two).unwrap();
    first.epoch(2, 101);
    (first, second)
}

#[test]
fn the_stores_state_is_taken_and_the_folders_own_moved_aside() {
    let store = Faulty::new();
    let (mut first, second) = diverged(&store);
    let own =
        std::fs::read(first.root().join(format!("{RUN}/checkpoints/epoch_002.ckpt"))).unwrap();
    first.start_resolving(Some(ConflictResolution::Store)).unwrap();
    assert!(first.files() == second.files());
    let aside = std::fs::read_dir(first.root().join(".pipe/aside"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert_eq!(std::fs::read(aside.join(RUN).join("checkpoints/epoch_002.ckpt")).unwrap(), own);
    first.pull(None).unwrap();
}

#[test]
fn the_folders_state_is_taken_and_the_stores_given_up() {
    let store = Faulty::new();
    let (mut first, mut second) = diverged(&store);
    let mut one = first.start_resolving(Some(ConflictResolution::Folder)).unwrap();
    first.push(&mut one).unwrap();
    let other = TestProject::new(&store);
    other.pull(None).unwrap();
    assert!(other.files() == first.files());
    // The second one has nothing of its own, so it just follows.
    second.start().unwrap();
    assert!(second.files() == first.files());
}

#[test]
fn processes_of_one_folder_work_together() {
    let store = Faulty::new();
    let mut place = TestProject::new(&store);
    let (mut one, mut two) = (place.start().unwrap(), place.start().unwrap());
    place.write(".pipe/records/p/a.json", b"a");
    place.push(&mut one).unwrap();
    place.write(".pipe/records/p/b.json", b"b");
    place.push(&mut two).unwrap();
    place.write(".pipe/records/p/a.json", b"aa");
    place.push(&mut one).unwrap();
    let other = TestProject::new(&store);
    other.pull(None).unwrap();
    assert!(other.files() == place.files());
    assert_eq!(other.files().len(), 2);
}

#[test]
fn two_who_begin_at_the_same_time_do_not_both_win() {
    let store = Faulty::new();
    let (mut first, mut second) = (TestProject::new(&store), TestProject::new(&store));
    let (mut one, mut two) = (first.start().unwrap(), second.start().unwrap());
    first.epoch(1, 100);
    second.epoch(1, 101);
    first.push(&mut one).unwrap();
    assert_eq!(second.push(&mut two).unwrap_err().kind, RemoteErrorKind::TakenOver);
    // Not even if the index has its number only because all older ones are gone.
    first.epoch(2, 100);
    first.push(&mut one).unwrap();
    assert_eq!(second.push(&mut two).unwrap_err().kind, RemoteErrorKind::TakenOver);
    let other = TestProject::new(&store);
    other.pull(None).unwrap();
    assert!(other.files() == first.files());
}

#[test]
fn what_is_removed_here_on_purpose_goes_and_what_is_lost_comes_back() {
    let store = Faulty::new();
    let mut place = TestProject::new(&store);
    let mut committer = place.start().unwrap();
    place.epoch(1, 100);
    place.write(".pipe/records/p/a.json", b"a");
    place.push(&mut committer).unwrap();
    let whole = place.files();
    std::fs::remove_dir_all(place.root().join("runs")).unwrap();
    place.start().unwrap();
    assert!(place.files() == whole, "it was lost");
    std::fs::remove_dir_all(place.root().join("runs")).unwrap();
    sync_state::record_removal(place.root(), &place.root().join(RUN)).unwrap();
    let mut committer = place.start().unwrap();
    place.push(&mut committer).unwrap();
    assert_eq!(place.files().len(), 1);
    let other = TestProject::new(&store);
    other.pull(None).unwrap();
    assert!(other.files() == place.files());
}

#[test]
fn two_pipelines_with_one_prefix_do_not_meet() {
    let store = Faulty::new();
    let mut place = TestProject::new(&store);
    let mut committer = place.start().unwrap();
    place.epoch(1, 100);
    place.push(&mut committer).unwrap();
    let backend = Backend {
        store: store.clone(),
        prefix: "base".into(),
        hint: None,
        unsynced: None,
        requests: Default::default(),
    };
    let other = Bucket::with_backend(backend, "memory://store".into(), "q").unwrap();
    assert_eq!(other.newest().unwrap(), None);
    // Names that are alike have folders of their own.
    let bucket = |name| {
        let backend = Backend {
            store: store.clone(),
            prefix: "base".into(),
            hint: None,
            unsynced: None,
            requests: Default::default(),
        };
        Bucket::with_backend(backend, "u".into(), name).unwrap()
    };
    bucket("a b").create(&Index::empty("a b").next(Default::default())).unwrap();
    let project = Project::new(place.root(), "a/b", ["runs".into()], []);
    let working_copy = pull_from(bucket("a/b"), project, None, &|_, _| {}).unwrap();
    assert_eq!(working_copy.base.generation, 0);
    // An index that was moved to another pipeline's folder is not taken for its own.
    store.write(
        "base/q/.pipe/index/0000000001.json",
        Index::empty("r").next(Default::default()).to_text().as_bytes(),
    );
    let error = other.newest().unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Setting);
    assert!(error.message.contains("has the state of pipeline \"r\""), "{error}");
}

#[test]
fn an_index_whose_putting_was_not_answered_is_known_as_ones_own() {
    let store = Faulty::new();
    let bucket = TestProject::new(&store).bucket();
    let one = Index::empty(PIPELINE).next(Default::default());
    assert!(matches!(bucket.create(&one).unwrap(), IndexPut::Stored(_)));
    assert!(matches!(bucket.create(&one).unwrap(), IndexPut::Stored(_)), "it was tried again");
    let other = Index::empty(PIPELINE).next(Default::default());
    assert!(matches!(bucket.create(&other).unwrap(), IndexPut::Conflict));
}
