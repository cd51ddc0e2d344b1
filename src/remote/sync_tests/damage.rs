//! Objects that are not what they should be, indexes that lie, and a mirror whose store comes and
//! goes.

use std::time::{Duration, Instant};

use pipe_core::stop::Stop;
use pipe_fs::watch::FileEvent;

use super::faulty::{Fault, Faulty};
use super::*;
use crate::index::{Entry, Index};
use crate::{Mirror, MirrorEvent, RemoteErrorKind};

fn trained(store: &Arc<Faulty>) -> TestProject {
    let mut place = TestProject::new(store);
    let mut committer = place.start().unwrap();
    place.epoch(1, 1000);
    place.push(&mut committer).unwrap();
    place
}

#[test]
fn a_damaged_object_never_stands_under_its_name() {
    let store = Faulty::new();
    trained(&store);
    let key = store.keys().into_iter().find(|key| key.ends_with(".ckpt")).unwrap();
    for damage in [content(9, 1000), content(1, 999)] {
        store.write(&key, &damage);
        let other = TestProject::new(&store);
        let error = other.pull(None).err().unwrap();
        assert!(error.message.contains("epoch_001-"), "{error}");
        assert_eq!(other.files(), Files::new());
    }
    store.delete(&key);
    let error = TestProject::new(&store).pull(None).err().unwrap();
    assert_eq!(error.kind, RemoteErrorKind::Damaged);
    assert!(error.message.contains("it is not there"), "{error}");
}

#[test]
fn a_damaged_index_is_refused() {
    let store = Faulty::new();
    let place = trained(&store);
    let key = store.keys().into_iter().find(|key| key.contains("/index/")).unwrap();
    assert_eq!(key, "base/p/.pipe/index/0000000001.json");
    let good = String::from_utf8(store.read(&key).to_vec()).unwrap();
    store.write(&key, good.replace("\"bytes\": 1000", "\"bytes\": 1001").as_bytes());
    let error = place.pull(None).err().unwrap();
    assert!(error.message.contains("the index base/p/.pipe/index/0000000001.json"), "{error}");
    assert_eq!(error.kind, RemoteErrorKind::Damaged);
}

/// Puts an index that lists these files, each with an object of its content: what somebody could
/// who may write to the store.
fn list(place: &TestProject, before: &Index, files: &[(&str, &[u8])]) -> Index {
    let bucket = place.bucket();
    let entry = |(path, content): &(&str, &[u8])| {
        let (sha256, bytes) = (crate::digest::of_bytes(content), content.len() as u64);
        let object = format!("object-{}", &sha256[..16]);
        bucket.put_bytes(&object, content.to_vec()).unwrap();
        let object = Some(object);
        ((*path).to_owned(), Entry { sha256, bytes, modified: 7, nonce: String::new(), object })
    };
    let index = before.next(files.iter().map(entry).collect());
    bucket.create(&index).unwrap();
    index
}

#[test]
fn an_index_whose_paths_lead_out_is_refused() {
    for path in ["../outside", "/etc/outside", "a/../../x", "./a", "a//b"] {
        let place = TestProject::new(&Faulty::new());
        list(&place, &Index::empty(PIPELINE), &[(path, b"evil")]);
        let error = place.pull(None).err().unwrap();
        assert!(error.message.contains("no path of a file in a project"), "{path}: {error}");
    }
}

#[test]
fn an_index_can_write_overwrite_and_remove_files_of_the_state_alone() {
    let others = [
        "p.yaml",
        "tools/random.py",
        ".git/hooks/post-checkout",
        ".envrc",
        ".pipe/records/other/x.json",
        ".pipe/store/p.json",
        "runs/notes.txt",
        "runs/run_001/hooks/post-checkout",
        "out/other.ckpt",
    ];
    let place = TestProject::new(&Faulty::new());
    let root = place.root().to_owned();
    let state = ["runs/run_001/metadata.json", ".pipe/records/p/base.json", "out/best.ckpt"];
    let of_state = state.map(|path| (path, &b"state"[..]));
    // First as files that are not there.
    let evil: Vec<(&str, &[u8])> =
        others.iter().map(|path| (*path, &b"evil"[..])).chain(of_state).collect();
    let first = list(&place, &Index::empty(PIPELINE), &evil);
    place.pull(None).unwrap();
    let found: Vec<String> = place.files().into_keys().collect();
    assert_eq!(found, [".pipe/records/p/base.json", "out/best.ckpt", "runs/run_001/metadata.json"]);
    // Then as they are, so that they count as fetched, as other ones, and not any more.
    for path in others.iter().filter(|path| !path.starts_with(".pipe/store")) {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), "mine").unwrap();
    }
    let mine: Vec<(&str, &[u8])> =
        others.iter().map(|path| (*path, &b"mine"[..])).chain(of_state).collect();
    let second = list(&place, &first, &mine);
    place.pull(None).unwrap();
    let third = list(&place, &second, &evil);
    place.pull(None).unwrap();
    list(&place, &third, &[]);
    for resolution in [None, Some(ConflictResolution::Store)] {
        place.pull(resolution).unwrap();
        let files = place.files();
        for path in others.iter().filter(|path| !path.starts_with(".pipe/store")) {
            assert_eq!(files[*path], b"mine", "{path}");
        }
        assert_eq!(files.len(), others.len() - 1, "those of the state are gone: {files:?}");
    }
}

#[test]
fn what_an_index_lists_of_other_settings_stays_there() {
    let place = TestProject::new(&Faulty::new());
    let listed = [("old/run_001/metadata.json", &b"old"[..]), ("runs/run_001/config.yaml", b"x")];
    let first = list(&place, &Index::empty(PIPELINE), &listed);
    let WorkingCopy { bucket, project, base, .. } = place.pull(None).unwrap();
    assert_eq!(base.commit, first.commit);
    let mut place = place;
    place.write("out/best.ckpt", b"new");
    let mut committer = Committer::new(bucket, project, base);
    place.push(&mut committer).unwrap();
    let paths: Vec<String> = place.bucket().newest().unwrap().unwrap().files.into_keys().collect();
    assert_eq!(paths, ["old/run_001/metadata.json", "out/best.ckpt", "runs/run_001/config.yaml"]);
}

#[test]
#[cfg(unix)]
fn a_link_out_of_the_project_is_not_followed() {
    let place = TestProject::new(&Faulty::new());
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(place.root().join(RUN)).unwrap();
    std::os::unix::fs::symlink(outside.path(), place.root().join(RUN).join("checkpoints")).unwrap();
    list(&place, &Index::empty(PIPELINE), &[("runs/run_001/checkpoints/best.ckpt", b"evil")]);
    let error = place.pull(None).err().unwrap();
    assert!(error.message.contains("a link that leads out of the project"), "{error}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn pipelines_with_names_alike_do_not_share_a_folder_and_old_ones_are_found() {
    let store = Faulty::new();
    let bucket = |pipeline: &str| {
        let backend = Backend {
            store: store.clone(),
            prefix: "base".into(),
            hint: None,
            unsynced: None,
            requests: Default::default(),
        };
        Bucket::with_backend(backend, "memory://store".into(), pipeline).unwrap()
    };
    // As earlier versions put it.
    let old = Index::empty("模型").next([].into());
    store.write("base/__/.pipe/index/0000000001.json", old.to_text().as_bytes());
    assert_eq!(
        bucket("模型").newest().unwrap().map(|index| index.commit),
        Some(old.commit.clone())
    );
    let other = bucket("数据");
    assert_eq!(other.newest().unwrap(), None);
    other.create(&Index::empty("数据").next([].into())).unwrap();
    assert!(
        bucket("数据").newest().unwrap().is_some() && bucket("模型").newest().unwrap().is_some()
    );
    let next = old.next([].into());
    let again = bucket("模型");
    again.resolve_prefix().unwrap();
    again.create(&next).unwrap();
    assert_eq!(bucket("模型").newest().unwrap().map(|index| index.commit), Some(next.commit));
    assert!(
        store.keys().iter().any(|key| key == "base/__/.pipe/index/0000000002.json"),
        "{:?}",
        store.keys()
    );
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < end, "never {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_mirror_outlives_its_store_and_tells_once() {
    let store = Faulty::new();
    let mut place = TestProject::new(&store);
    let (events, heard) = std::sync::mpsc::channel();
    let mirror =
        Mirror::start(place.pull(None).unwrap(), move |event| events.send(event).unwrap()).unwrap();
    let save = |place: &mut TestProject, epoch: usize| {
        place.epoch(epoch, 200_000);
        let run = place.root().join(RUN);
        mirror.hear(FileEvent::Written(&run.join(format!("checkpoints/epoch_{epoch:03}.ckpt"))));
        mirror.hear(FileEvent::Written(&run.join("checkpoints/last.ckpt")));
        mirror.hear(FileEvent::Written(&run.join("metadata.json")));
        if epoch > 1 {
            mirror.hear(FileEvent::Removed(
                &run.join(format!("checkpoints/epoch_{:03}.ckpt", epoch - 1)),
            ));
        }
    };
    save(&mut place, 1);
    until("mirrored", || store.keys().iter().any(|key| key.contains("/index/")));
    store.set(Fault::DeadFrom(0));
    save(&mut place, 2);
    assert!(matches!(heard.recv_timeout(Duration::from_secs(10)), Ok(MirrorEvent::Failing(_))));
    save(&mut place, 3);
    store.set(Fault::Nothing);
    assert_eq!(heard.recv_timeout(Duration::from_secs(20)), Ok(MirrorEvent::Recovered));
    let stats = mirror.finish(&Stop::default(), &mut |_, _| {}).unwrap();
    assert!(stats.steps >= 2 && stats.blocked < Duration::from_secs(1), "{stats:?}");
    assert!(heard.try_recv().is_err(), "nothing else is told");
    let other = TestProject::new(&store);
    other.pull(None).unwrap();
    assert!(other.files() == place.files());
    let objects = store.keys();
    assert!(
        !objects.iter().any(|key| key.contains("epoch_002")),
        "what was given up is never put: {objects:?}"
    );
}

#[test]
fn a_store_that_is_gone_at_the_end_is_an_error_and_the_next_run_brings_the_rest() {
    let store = Faulty::new();
    let mut place = TestProject::new(&store);
    let mirror = Mirror::start(place.pull(None).unwrap(), |_| {}).unwrap();
    store.set(Fault::DeadFrom(0));
    place.epoch(1, 1000);
    let run = place.root().join(RUN);
    mirror.hear(FileEvent::Written(&run.join("metadata.json")));
    mirror.hear(FileEvent::Written(&run.join("checkpoints/epoch_001.ckpt")));
    let error = mirror.finish(&Stop::default(), &mut |_, _| {}).unwrap_err();
    assert!(error.message.contains("the same command brings the rest over"), "{error}");
    store.set(Fault::Nothing);
    let mut committer = place.start().unwrap();
    place.push(&mut committer).unwrap();
    let other = TestProject::new(&store);
    other.pull(None).unwrap();
    assert!(other.files() == place.files());
}

#[test]
fn a_log_is_as_long_as_it_was_and_grows_from_step_to_step() {
    let store = Faulty::new();
    let mut place = TestProject::new(&store);
    let mirror = Mirror::start(place.pull(None).unwrap(), |_| {}).unwrap();
    place.epoch(1, 100);
    let path = place.root().join(RUN).join("logs/metrics.jsonl");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let log = atomic::Log::create(place.root().disk(), &path).unwrap();
    mirror.hear(FileEvent::Grows(&path));
    for line in 0..3 {
        log.append(format!("{line}\n").as_bytes()).unwrap();
        mirror.hear(FileEvent::Written(&place.root().join(RUN).join("metadata.json")));
        let text: String = (0..=line).map(|line| format!("{line}\n")).collect();
        until("mirrored", || {
            let index = place.bucket().newest().unwrap();
            index.is_some_and(|index| {
                index
                    .files
                    .get(&format!("{RUN}/logs/metrics.jsonl"))
                    .is_some_and(|entry| entry.bytes == text.len() as u64)
            })
        });
        // Another metadata, so that there is something to do.
        place.write(&format!("{RUN}/metadata.json"), metadata(line + 2).as_bytes());
    }
    log.append(b"last\n").unwrap();
    mirror.finish(&Stop::default(), &mut |_, _| {}).unwrap();
    let other = TestProject::new(&store);
    other.pull(None).unwrap();
    assert_eq!(other.files()[&format!("{RUN}/logs/metrics.jsonl")], b"0\n1\n2\nlast\n");
}

#[test]
fn a_store_that_cannot_be_asked_is_no_reason_to_stop_where_it_is_known() {
    let store = Faulty::new();
    let mut place = trained(&store);
    store.set(Fault::DeadFrom(0));
    assert!(
        TestProject::new(&store).pull(None).is_err(),
        "a fresh folder cannot know what to go on from"
    );
    let working_copy = place.pull(None).unwrap();
    assert!(working_copy.offline.is_some() && working_copy.upload.is_empty());
    place.epoch(2, 1000);
    let working_copy = place.pull(None).unwrap();
    store.set(Fault::Nothing);
    let mirror = Mirror::start(working_copy, |_| {}).unwrap();
    mirror.finish(&Stop::default(), &mut |_, _| {}).unwrap();
    let other = TestProject::new(&store);
    other.pull(None).unwrap();
    assert!(other.files() == place.files());
}
