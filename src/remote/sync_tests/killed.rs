//! Whatever is killed at whatever request: the newest index describes a state in which the folder
//! once was, and all of it is there.

use super::faulty::{Fault, Faulty};
use super::*;
use crate::digest;

/// What each object that the newest index lists must be.
#[track_caller]
fn all_is_there(store: &Arc<Faulty>) {
    let place = TestProject::new(store);
    let Some(index) = place.bucket().newest().unwrap() else { return };
    for (path, entry) in &index.files {
        let bytes = store.read(&format!("base/p/{}", entry.key(path)));
        assert_eq!(digest::of_bytes(&bytes), entry.sha256, "{path}");
    }
}

/// The files that another machine has from the store alone.
#[track_caller]
fn elsewhere(store: &Arc<Faulty>) -> Files {
    let place = TestProject::new(store);
    place.pull(None).unwrap();
    place.files()
}

/// Three epochs, each brought over, with the states that the folder was in. Stops where something
/// fails.
fn train(place: &mut TestProject, states: &mut Vec<Files>, size: usize) -> Result<(), RemoteError> {
    states.push(place.files());
    let mut committer = place.start()?;
    for epoch in 1..=3 {
        place.epoch(epoch, size);
        if epoch == 2 {
            place.link(&format!("{RUN}/checkpoints/last.ckpt"), "out/best.ckpt");
        }
        states.push(place.files());
        place.push(&mut committer)?;
    }
    Ok(())
}

#[test]
fn killed_at_any_request_another_machine_finds_a_whole_state() {
    let undisturbed = Faulty::new();
    undisturbed.set(Fault::Nothing);
    train(&mut TestProject::new(&undisturbed), &mut Vec::new(), LARGE).unwrap();
    let requests = undisturbed.requests();
    assert!(requests > 20, "{requests}");
    for fault in (1..=requests).flat_map(|n| [Fault::DeadFrom(n), Fault::LoseAnswerOf(n)]) {
        let store = Faulty::new();
        let (mut place, mut states) = (TestProject::new(&store), Vec::new());
        store.set(fault);
        let _ = train(&mut place, &mut states, LARGE);
        store.set(Fault::Nothing);
        all_is_there(&store);
        let found = elsewhere(&store);
        assert!(states.contains(&found), "{fault:?}: {:?}", found.keys());
        // The same machine starts again, and brings the rest over.
        let mut committer = place.start().unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        place.push(&mut committer).unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        all_is_there(&store);
        assert!(elsewhere(&store) == place.files(), "{fault:?}");
    }
}

#[test]
fn a_request_that_fails_for_once_costs_a_step_and_nothing_else() {
    let undisturbed = Faulty::new();
    train(&mut TestProject::new(&undisturbed), &mut Vec::new(), 100).unwrap();
    for n in 1..=undisturbed.requests() {
        let store = Faulty::new();
        let mut place = TestProject::new(&store);
        store.set(Fault::FailOnly(n));
        let mut committer = loop {
            match place.start() {
                Ok(committer) => break committer,
                Err(error) => {
                    assert_eq!(error.kind, crate::RemoteErrorKind::Transient, "{n}: {error}")
                }
            }
        };
        for epoch in 1..=3 {
            place.epoch(epoch, 100);
            let _ = place.push(&mut committer);
        }
        place.push(&mut committer).unwrap_or_else(|e| panic!("{n}: {e}"));
        all_is_there(&store);
        assert!(elsewhere(&store) == place.files(), "{n}");
    }
}

#[test]
fn a_fetch_that_is_killed_is_gone_on_with_even_if_the_store_goes_on() {
    let store = Faulty::new();
    let (mut first, mut second) = (TestProject::new(&store), TestProject::new(&store));
    train(&mut first, &mut Vec::new(), 100).unwrap();
    second.pull(None).unwrap();
    // A newer state is fetched over an older one, and cut off at each request.
    let mut committer = first.start().unwrap();
    for epoch in 4..=30 {
        first.epoch(epoch, 100);
        first.push(&mut committer).unwrap();
        store.set(Fault::DeadFrom(epoch as u64 - 2));
        let _ = second.pull(None);
        store.set(Fault::Nothing);
    }
    // What such a process leaves of a file that it was writing goes too.
    let last = second.root().join(RUN).join("checkpoints/epoch_030.ckpt");
    std::fs::remove_file(&last).unwrap_or_default();
    std::fs::write(last.with_file_name(".epoch_030.ckpt.tmp-1-1"), "half").unwrap();
    second.pull(None).unwrap();
    assert!(second.files() == first.files());
    assert!(second.start().is_ok());
}

#[test]
fn other_names_of_a_file_are_not_put_again() {
    let store = Faulty::new();
    let mut place = TestProject::new(&store);
    let mut committer = place.start().unwrap();
    place.epoch(1, 1000);
    // Names before and after those of the run, as the order of names goes.
    for name in ["out/best.ckpt", "z/best.ckpt"] {
        place.link(&format!("{RUN}/checkpoints/last.ckpt"), name);
    }
    place.push(&mut committer).unwrap();
    let checkpoints: Vec<String> =
        store.keys().into_iter().filter(|key| key.ends_with(".ckpt")).collect();
    assert_eq!(checkpoints.len(), 1, "{checkpoints:?}");
    assert!(
        checkpoints[0].starts_with("base/p/runs/run_001/checkpoints/epoch_001-"),
        "{checkpoints:?}"
    );
    let other = TestProject::new(&store);
    other.pull(None).unwrap();
    assert!(other.files() == place.files());
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let file = |path: &str| std::fs::metadata(other.root().join(path)).unwrap().ino();
        let [own, last] =
            ["epoch_001", "last"].map(|name| file(&format!("{RUN}/checkpoints/{name}.ckpt")));
        assert_eq!(own, last);
        // Who writes to one of these changes no run, and not the other.
        let others = ["out/best.ckpt", "z/best.ckpt"].map(file);
        assert!(!others.contains(&own) && others[0] != others[1]);
    }
    // What it is known by is gone; the content stays as long as another name has it.
    place.remove(&format!("{RUN}/checkpoints/epoch_001.ckpt"));
    place.push(&mut committer).unwrap();
    all_is_there(&store);
    place.remove(&format!("{RUN}/checkpoints/last.ckpt"));
    place.remove("out/best.ckpt");
    place.remove("z/best.ckpt");
    place.push(&mut committer).unwrap();
    assert!(!store.keys().iter().any(|key| key.ends_with(".ckpt")), "{:?}", store.keys());
}

#[test]
fn a_step_takes_few_requests() {
    let store = Faulty::new();
    let mut place = TestProject::new(&store);
    let mut committer = place.start().unwrap();
    place.epoch(1, 1000);
    place.push(&mut committer).unwrap();
    place.epoch(2, 1000);
    store.set(Fault::Nothing);
    place.push(&mut committer).unwrap();
    // Checkpoint, metadata, index, the list that says that it is the newest, the removal of all
    // that is old.
    assert_eq!(store.requests(), 5);
    place.write(&format!("{RUN}/metadata.json"), metadata(2).as_bytes());
    store.set(Fault::Nothing);
    place.push(&mut committer).unwrap();
    assert!(store.requests() <= 3, "the same content again: {}", store.requests());
}
