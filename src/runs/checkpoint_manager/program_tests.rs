//! Checkpoints that a program wrote in a form of its own: files and folders under the same policy.

use std::fs;
use std::path::{Path, PathBuf};

use super::tests::{begin, files, header, policy};
use super::*;
use crate::{Checkpoint, Corruption};

/// What a program writes, in a scratch folder of the run.
fn write(run: &Run, folder: bool, text: &str) -> PathBuf {
    let scratch = run.folder.join("scratch");
    fs::create_dir_all(&scratch).unwrap();
    let path = scratch.join("state");
    if folder {
        fs::create_dir_all(path.join("inner")).unwrap();
        fs::write(path.join("inner/weights"), text).unwrap();
        fs::write(path.join("state.json"), "{}").unwrap();
    } else {
        fs::write(&path, text).unwrap();
    }
    path
}

fn save(manager: &mut CheckpointManager, folder: bool, epoch: u64, loss: f64) -> Saved {
    let written = write(manager.run(), folder, &format!("epoch {epoch}"));
    let content = || Ok::<_, StoreError>(Content::Program(written));
    manager.save_epoch(&header(epoch, 0, loss), false, content).unwrap().unwrap()
}

fn text(path: &Path) -> String {
    let file = if path.is_dir() { path.join("inner/weights") } else { path.to_owned() };
    fs::read_to_string(file).unwrap()
}

#[test]
fn files_and_folders_are_kept_as_the_policy_says() {
    for folder in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let mut manager = begin(place.path());
        for (epoch, loss) in (1..).zip([0.5, 0.1, 0.4, 0.3]) {
            save(&mut manager, folder, epoch, loss);
        }
        let run = manager.run().clone();
        let names = ["best", "epoch_002", "epoch_003", "epoch_004", "last"];
        let both = names.iter().flat_map(|n| [format!("{n}.ckpt"), format!("{n}.ckpt.json")]);
        assert_eq!(files(&run), both.collect::<Vec<_>>());
        assert_eq!([text(&run.best()), text(&run.last())], ["epoch 2", "epoch 4"]);
        assert_eq!(fs::read_dir(run.folder.join("scratch")).unwrap().count(), 0, "moved");
        let best = Checkpoint::open(&run.best()).unwrap();
        best.verify().unwrap();
        assert!(best.is_of_program());
        assert_eq!((best.header().epoch, best.header().metrics["train_loss"]), (2, 0.1));
        let record = &manager.metadata().checkpoints[0];
        assert_eq!((record.digest.as_str(), record.bytes), (best.head_digest(), best.bytes()));
        assert_eq!(manager.metadata().best_checkpoint.as_ref().unwrap().epoch, 2);
        drop(manager);
        let found = CheckpointManager::reopen(run, policy()).unwrap().newest_good();
        assert_eq!(found.checkpoint.unwrap().header().epoch, 4);
    }
}

#[test]
fn what_was_altered_is_passed_over() {
    for folder in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let mut manager = begin(place.path());
        save(&mut manager, folder, 1, 0.5);
        save(&mut manager, folder, 2, 0.4);
        let run = manager.run().clone();
        let newest = run.checkpoints().join("epoch_002.ckpt");
        let inner = if folder { newest.join("inner/weights") } else { newest.clone() };
        fs::write(inner, "epoch X").unwrap();
        let found = manager.newest_good();
        assert_eq!(found.checkpoint.unwrap().header().epoch, 1, "folder: {folder}");
        assert_eq!(found.passed_over.len(), 1, "{:?}", found.passed_over);
        let error = Checkpoint::open(&newest).unwrap().verify().unwrap_err();
        assert_eq!(error.fault, Corruption::Altered, "{error}");
    }
}

#[test]
fn a_crash_between_two_steps_leaves_no_half_checkpoint() {
    for folder in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let mut manager = begin(place.path());
        save(&mut manager, folder, 1, 0.5);
        let run = manager.run().clone();
        drop(manager);
        // Its header stands, and the checkpoint was not moved yet.
        let header = |epoch: u32| run.checkpoints().join(format!("epoch_00{epoch}.ckpt.json"));
        fs::copy(header(1), header(2)).unwrap();
        // A folder that was about to be removed.
        let hidden = run.checkpoints().join(".epoch_000.ckpt.tmp-1-1");
        fs::create_dir(&hidden).unwrap();
        fs::write(hidden.join("file"), "").unwrap();
        let manager = CheckpointManager::reopen(run.clone(), policy()).unwrap();
        assert!(!header(2).exists() && !hidden.exists() && header(1).exists());
        assert_eq!(manager.metadata().checkpoints.len(), 1);
        // It was moved, and the metadata was not written.
        drop(manager);
        let mut metadata = run.metadata().unwrap();
        metadata.checkpoints.clear();
        metadata.best_checkpoint = None;
        metadata.save(run.disk(), &run.metadata_path()).unwrap();
        let manager = CheckpointManager::reopen(run.clone(), policy()).unwrap();
        assert_eq!(manager.metadata().checkpoints.len(), 1);
        assert!(manager.metadata().best_checkpoint.is_some());
    }
}

#[test]
fn a_state_inside_an_epoch_goes_when_a_newer_one_stands() {
    for folder in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let mut manager = begin(place.path());
        for step in [3, 5] {
            let written = write(manager.run(), folder, &format!("step {step}"));
            manager.save_partial(&header(0, step, 0.5), &Content::Program(written)).unwrap();
        }
        let run = manager.run().clone();
        let expected = ["last.ckpt", "last.ckpt.json", "step_00000005.ckpt"];
        assert_eq!(files(&run)[..3], expected);
        assert_eq!(text(&run.last()), "step 5");
        save(&mut manager, folder, 1, 0.5);
        assert!(!files(&run).iter().any(|name| name.starts_with("step_")));
    }
}

#[cfg(unix)]
#[test]
fn links_and_empty_folders_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let mut manager = begin(place.path());
    save(&mut manager, false, 1, 0.5);
    let run = manager.run().clone();
    let refuse = |manager: &mut CheckpointManager, path: PathBuf| {
        let content = || Ok::<_, StoreError>(Content::Program(path));
        manager.save_epoch(&header(2, 0, 0.1), false, content).unwrap_err().to_string()
    };
    let empty = run.folder.join("scratch/empty");
    fs::create_dir(&empty).unwrap();
    assert!(refuse(&mut manager, empty).contains("holds no file"));
    let link = run.folder.join("scratch/link");
    std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
    assert!(refuse(&mut manager, link).contains("a link"));
    let folder = write(&run, true, "x");
    std::os::unix::fs::symlink("/etc/hostname", folder.join("inner/link")).unwrap();
    assert!(refuse(&mut manager, folder).contains("inner/link is a link"));
    assert_eq!(manager.metadata().checkpoints.len(), 1);
}
