//! Objects that are not what they should be, indexes that lie, and a mirror whose store comes and goes.

use std::time::{Duration, Instant};

use pipe_engine::stop::Stop;
use pipe_engine::store::watch::News;

use super::faulty::{Fault, Faulty};
use super::*;
use crate::{Kind, Mirror, Notice};

fn trained(store: &Arc<Faulty>) -> Place {
    let mut place = Place::new(store);
    let mut committer = place.start().unwrap();
    place.epoch(1, 1000);
    place.bring(&mut committer).unwrap();
    place
}

#[test]
fn a_damaged_object_never_stands_under_its_name() {
    let store = Faulty::new();
    trained(&store);
    let key = store.keys().into_iter().find(|key| key.ends_with(".ckpt")).unwrap();
    for damage in [content(9, 1000), content(1, 999)] {
        store.write(&key, &damage);
        let other = Place::new(&store);
        let error = other.prepare(None).err().unwrap();
        assert!(error.message.contains("epoch_001-"), "{error}");
        assert_eq!(other.files(), Files::new());
    }
    store.delete(&key);
    let error = Place::new(&store).prepare(None).err().unwrap();
    assert_eq!(error.kind, Kind::Damaged);
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
    let error = place.prepare(None).err().unwrap();
    assert!(error.message.contains("the index base/p/.pipe/index/0000000001.json"), "{error}");
    assert_eq!(error.kind, Kind::Damaged);
}

#[test]
fn an_index_cannot_write_outside_the_state() {
    for path in
        ["../outside", "/etc/outside", ".pipe/records/other/x.json", ".pipe/store/p.json", "a/../../x"]
    {
        let store = Faulty::new();
        let place = Place::new(&store);
        let entry = crate::index::Entry {
            sha256: "0".repeat(64),
            bytes: 0,
            modified: 0,
            mark: String::new(),
            object: None,
        };
        let index = crate::index::Index::empty(PIPELINE).next([(path.to_owned(), entry)].into());
        place.bucket().create(&index).unwrap();
        let error = place.prepare(None).err().unwrap();
        assert!(error.message.contains("which is no file of a pipeline's state"), "{path}: {error}");
    }
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
    let mut place = Place::new(&store);
    let (notices, heard) = std::sync::mpsc::channel();
    let mirror =
        Mirror::start(place.prepare(None).unwrap(), move |notice| notices.send(notice).unwrap()).unwrap();
    let save = |place: &mut Place, epoch: usize| {
        place.epoch(epoch, 200_000);
        let run = place.root().join(RUN);
        mirror.hear(News::Written(&run.join(format!("checkpoints/epoch_{epoch:03}.ckpt"))));
        mirror.hear(News::Written(&run.join("checkpoints/last.ckpt")));
        mirror.hear(News::Written(&run.join("metadata.json")));
        if epoch > 1 {
            mirror.hear(News::Removed(&run.join(format!("checkpoints/epoch_{:03}.ckpt", epoch - 1))));
        }
    };
    save(&mut place, 1);
    until("mirrored", || store.keys().iter().any(|key| key.contains("/index/")));
    store.set(Fault::DeadFrom(0));
    save(&mut place, 2);
    assert!(matches!(heard.recv_timeout(Duration::from_secs(10)), Ok(Notice::Trouble(_))));
    save(&mut place, 3);
    store.set(Fault::Nothing);
    assert_eq!(heard.recv_timeout(Duration::from_secs(20)), Ok(Notice::Over));
    let report = mirror.finish(&Stop::default(), &mut |_, _| {}).unwrap();
    assert!(report.steps >= 2 && report.waited < Duration::from_secs(1), "{report:?}");
    assert!(heard.try_recv().is_err(), "nothing else is told");
    let other = Place::new(&store);
    other.prepare(None).unwrap();
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
    let mut place = Place::new(&store);
    let mirror = Mirror::start(place.prepare(None).unwrap(), |_| {}).unwrap();
    store.set(Fault::DeadFrom(0));
    place.epoch(1, 1000);
    let run = place.root().join(RUN);
    mirror.hear(News::Written(&run.join("metadata.json")));
    mirror.hear(News::Written(&run.join("checkpoints/epoch_001.ckpt")));
    let error = mirror.finish(&Stop::default(), &mut |_, _| {}).unwrap_err();
    assert!(error.message.contains("the same command brings the rest over"), "{error}");
    store.set(Fault::Nothing);
    let mut committer = place.start().unwrap();
    place.bring(&mut committer).unwrap();
    let other = Place::new(&store);
    other.prepare(None).unwrap();
    assert!(other.files() == place.files());
}

#[test]
fn a_log_is_as_long_as_it_was_and_grows_from_step_to_step() {
    let store = Faulty::new();
    let mut place = Place::new(&store);
    let mirror = Mirror::start(place.prepare(None).unwrap(), |_| {}).unwrap();
    place.epoch(1, 100);
    let path = place.root().join(RUN).join("logs.jsonl");
    let log = atomic::Log::create(&path).unwrap();
    mirror.hear(News::Grows(&path));
    for line in 0..3 {
        log.append(format!("{line}\n").as_bytes()).unwrap();
        mirror.hear(News::Written(&place.root().join(RUN).join("metadata.json")));
        let text: String = (0..=line).map(|line| format!("{line}\n")).collect();
        until("mirrored", || {
            let index = place.bucket().newest().unwrap();
            index.is_some_and(|index| {
                index
                    .files
                    .get(&format!("{RUN}/logs.jsonl"))
                    .is_some_and(|entry| entry.bytes == text.len() as u64)
            })
        });
        // Another metadata, so that there is something to do.
        place.write(&format!("{RUN}/metadata.json"), metadata(line + 2).as_bytes());
    }
    log.append(b"last\n").unwrap();
    mirror.finish(&Stop::default(), &mut |_, _| {}).unwrap();
    let other = Place::new(&store);
    other.prepare(None).unwrap();
    assert_eq!(other.files()[&format!("{RUN}/logs.jsonl")], b"0\n1\n2\nlast\n");
}

#[test]
fn a_store_that_cannot_be_asked_is_no_reason_to_stop_where_it_is_known() {
    let store = Faulty::new();
    let mut place = trained(&store);
    store.set(Fault::DeadFrom(0));
    assert!(Place::new(&store).prepare(None).is_err(), "a fresh folder cannot know what to go on from");
    let prepared = place.prepare(None).unwrap();
    assert!(prepared.offline.is_some() && prepared.put.is_empty());
    place.epoch(2, 1000);
    let prepared = place.prepare(None).unwrap();
    store.set(Fault::Nothing);
    let mirror = Mirror::start(prepared, |_| {}).unwrap();
    mirror.finish(&Stop::default(), &mut |_, _| {}).unwrap();
    let other = Place::new(&store);
    other.prepare(None).unwrap();
    assert!(other.files() == place.files());
}
