use std::collections::BTreeMap;
use std::path::Path;

use pipe_fs::Disk;

use super::*;
use crate::{Checkpoint, DatasetRecord, Runs, SCHEMA_VERSION, Status};
use serde_json::{Map, Value, json};

pub(super) fn header(epoch: u64, step_in_epoch: u64, loss: f64) -> Header {
    Header {
        epoch,
        global_step: 10 * epoch + step_in_epoch,
        step_in_epoch,
        metrics: BTreeMap::from([("train_loss".into(), loss)]),
        scheduler_state_dict: json!({}),
        loop_state: json!({}),
        saved_at: chrono::Utc::now(),
        identity: "sha256:1".into(),
        seed: 1,
        model_config: json!({}),
        extra: BTreeMap::new(),
    }
}

pub(super) fn tensors(value: f32) -> Vec<HostTensor> {
    vec![HostTensor::f32("state_dict.a", vec![2], &[value, 1.0])]
}

pub(super) fn metadata() -> Metadata {
    let now = chrono::Utc::now();
    Metadata {
        schema_version: SCHEMA_VERSION,
        run_number: 1,
        experiment_name: "x".into(),
        pipeline: "p".into(),
        stage: "base".into(),
        status: Status::Running,
        message: None,
        created_at: now,
        updated_at: now,
        version: "0".into(),
        git_commit: None,
        device: "cpu".into(),
        seed: 1,
        epochs: 5,
        identity: "sha256:1".into(),
        manifest: BTreeMap::new(),
        settings: Value::Null,
        dataset: DatasetRecord {
            source: "shapes".into(),
            digest: String::new(),
            classes: vec![],
            train_images: 1,
            validation_images: 0,
        },
        resumed_from: None,
        changes: Vec::new(),
        checkpoints: vec![],
        best_checkpoint: None,
        partial_checkpoint: None,
        history: vec![],
        other: Map::from_iter([("note".to_owned(), json!("kept"))]),
    }
}

pub(super) fn policy() -> CheckpointPolicy {
    CheckpointPolicy { keep_last_n: Some(2), ..Default::default() }
}

pub(super) fn begin(folder: &Path) -> CheckpointManager {
    let run = Runs::at(&Disk::default(), folder).create().unwrap();
    CheckpointManager::begin(run, policy(), metadata()).unwrap()
}

pub(super) fn files(run: &Run) -> Vec<String> {
    let entries = std::fs::read_dir(run.checkpoints()).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(super) fn save(keeper: &mut CheckpointManager, epoch: u64, loss: f64) -> Saved {
    let content = || Ok::<_, StoreError>(Content::Tensors(tensors(epoch as f32)));
    keeper.save_epoch(&header(epoch, 0, loss), false, content).unwrap().unwrap()
}

#[test]
fn the_best_and_the_newest_stay_and_share_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    let best: Vec<bool> = [0.5, 0.1, 0.4, 0.3]
        .iter()
        .zip(1..)
        .map(|(l, e)| save(&mut keeper, e, *l).is_best)
        .collect();
    assert_eq!(best, [true, true, false, false]);
    let expected = ["best.ckpt", "epoch_002.ckpt", "epoch_003.ckpt", "epoch_004.ckpt", "last.ckpt"];
    assert_eq!(files(keeper.run()), expected);
    let metadata = keeper.run().metadata().unwrap();
    assert_eq!(metadata.checkpoints.iter().map(|c| c.epoch).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(metadata.best_checkpoint.as_ref().unwrap().path.as_str(), "checkpoints/best.ckpt");
    assert_eq!(metadata.other["note"], "kept");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inode =
            |name: &str| std::fs::metadata(keeper.run().checkpoints().join(name)).unwrap().ino();
        assert_eq!(inode("best.ckpt"), inode("epoch_002.ckpt"));
        assert_eq!(inode("last.ckpt"), inode("epoch_004.ckpt"));
    }
}

#[test]
fn a_checkpoint_inside_an_epoch_goes_when_a_newer_one_stands() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    save(&mut keeper, 1, 0.5);
    keeper.save_partial(&header(1, 3, 0.0), &Content::Tensors(tensors(1.3))).unwrap();
    keeper.save_partial(&header(1, 6, 0.0), &Content::Tensors(tensors(1.6))).unwrap();
    assert_eq!(
        files(keeper.run()),
        ["best.ckpt", "epoch_001.ckpt", "last.ckpt", "step_00000016.ckpt"]
    );
    assert_eq!(keeper.newest_good().checkpoint.unwrap().header().global_step, 16);
    save(&mut keeper, 2, 0.4);
    assert_eq!(files(keeper.run()), ["best.ckpt", "epoch_001.ckpt", "epoch_002.ckpt", "last.ckpt"]);
}

#[test]
fn where_there_is_no_room_what_is_not_kept_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    [0.1, 0.5, 0.4].iter().zip(1..).for_each(|(loss, epoch)| drop(save(&mut keeper, epoch, *loss)));
    let epochs = |keeper: &CheckpointManager| -> Vec<u64> {
        keeper.run().metadata().unwrap().checkpoints.iter().map(|c| c.epoch).collect()
    };
    assert_eq!(epochs(&keeper), [1, 2, 3]);
    let actions = |keeper: &CheckpointManager, loss| {
        keeper.policy.after_epoch(&keeper.known(), 4, &header(4, 0, loss).metrics, false)
    };
    let planned = actions(&keeper, 0.3);
    assert!(planned.contains(&Action::Delete(2)));
    keeper.make_room(&planned, 4, 100, 100).unwrap();
    assert_eq!(epochs(&keeper), [1, 2, 3], "there is room");
    keeper.make_room(&planned, 4, 100, 99).unwrap();
    assert_eq!(epochs(&keeper), [1, 3]);
    // A new best makes the old one needless, but only once it stands.
    let planned = actions(&keeper, 0.01);
    assert!(planned.contains(&Action::LinkBest));
    keeper.make_room(&planned, 4, 100, 0).unwrap();
    assert_eq!(epochs(&keeper), [1, 3]);
    assert_eq!(files(keeper.run()), ["best.ckpt", "epoch_001.ckpt", "epoch_003.ckpt", "last.ckpt"]);
}

#[test]
fn a_checkpoint_that_a_crash_kept_out_of_the_metadata_is_taken_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    save(&mut keeper, 1, 0.5);
    let run = keeper.run().clone();
    let before = std::fs::read(run.metadata_path()).unwrap();
    save(&mut keeper, 2, 0.4);
    drop(keeper);
    // As if the process had ended between the rename of epoch 2 and everything after it.
    std::fs::write(run.metadata_path(), before).unwrap();
    atomic::link(run.disk(), &run.checkpoints().join("epoch_001.ckpt"), &run.last()).unwrap();
    atomic::link(run.disk(), &run.checkpoints().join("epoch_001.ckpt"), &run.best()).unwrap();
    std::fs::write(run.checkpoints().join(".epoch_003.ckpt.tmp-1-1"), "half").unwrap();
    let keeper = CheckpointManager::reopen(run.clone(), policy()).unwrap();
    assert_eq!(keeper.metadata().checkpoints.iter().map(|c| c.epoch).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(keeper.metadata().best_checkpoint.as_ref().unwrap().epoch, 2);
    assert_eq!(files(&run), ["best.ckpt", "epoch_001.ckpt", "epoch_002.ckpt", "last.ckpt"]);
    for link in [run.best(), run.last()] {
        assert_eq!(Checkpoint::open(&link).unwrap().header().epoch, 2);
    }
}

#[test]
fn a_file_that_a_crash_kept_from_being_removed_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    save(&mut keeper, 1, 0.5);
    let old = std::fs::read(keeper.run().checkpoints().join("epoch_001.ckpt")).unwrap();
    for epoch in 2..=3 {
        save(&mut keeper, epoch, 0.5 - 0.1 * epoch as f64);
    }
    let run = keeper.run().clone();
    drop(keeper);
    assert_eq!(files(&run), ["best.ckpt", "epoch_002.ckpt", "epoch_003.ckpt", "last.ckpt"]);
    std::fs::write(run.checkpoints().join("epoch_001.ckpt"), old).unwrap();
    CheckpointManager::reopen(run.clone(), policy()).unwrap();
    assert_eq!(files(&run), ["best.ckpt", "epoch_002.ckpt", "epoch_003.ckpt", "last.ckpt"]);
}

#[test]
fn a_checkpoint_that_is_taken_in_makes_the_same_ones_needless() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    save(&mut keeper, 1, 0.5);
    save(&mut keeper, 2, 0.4);
    keeper.save_partial(&header(2, 3, 0.0), &Content::Tensors(tensors(2.3))).unwrap();
    let run = keeper.run().clone();
    drop(keeper);
    // As if the process had ended right after the rename of epoch 3.
    checkpoint::write(
        run.disk(),
        &run.checkpoints().join("epoch_003.ckpt"),
        &header(3, 0, 0.3),
        &tensors(3.0),
    )
    .unwrap();
    let keeper = CheckpointManager::reopen(run.clone(), policy()).unwrap();
    let expected = ["best.ckpt", "epoch_002.ckpt", "epoch_003.ckpt", "last.ckpt"];
    assert_eq!(files(&run), expected);
    assert_eq!(keeper.metadata().checkpoints.iter().map(|c| c.epoch).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(keeper.metadata().partial_checkpoint, None);
}

#[test]
fn of_two_checkpoints_inside_an_epoch_the_newer_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    save(&mut keeper, 1, 0.5);
    keeper.save_partial(&header(1, 3, 0.0), &Content::Tensors(tensors(1.3))).unwrap();
    let run = keeper.run().clone();
    drop(keeper);
    // As if the process had ended right after the rename of the next one.
    let next = run.checkpoints().join("step_00000016.ckpt");
    checkpoint::write(run.disk(), &next, &header(1, 6, 0.0), &tensors(1.6)).unwrap();
    let keeper = CheckpointManager::reopen(run.clone(), policy()).unwrap();
    assert_eq!(files(&run), ["best.ckpt", "epoch_001.ckpt", "last.ckpt", "step_00000016.ckpt"]);
    assert_eq!(keeper.metadata().partial_checkpoint.as_ref().unwrap().global_step, 16);
}

#[test]
fn an_epoch_has_its_figures_before_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    keeper.record_epoch(EpochRecord {
        epoch: 1,
        global_step: 10,
        metrics: BTreeMap::from([("train_loss".into(), 0.5)]),
        learning_rate: 0.001,
        seconds: 1.0,
        images_per_second: 1.0,
        data_wait: 0.0,
        saved: None,
    });
    let run = keeper.run().clone();
    let refused = keeper.save_epoch(&header(1, 0, 0.5), false, || {
        assert_eq!(run.metadata()?.history.len(), 1);
        Err(StoreError::Held { run: run.number, holder: "the test".into() })
    });
    assert!(refused.is_err());
}

/// The losses of some epochs, the best in the middle.
const LOSSES: [f64; 4] = [0.5, 0.1, 0.4, 0.3];

#[test]
fn whatever_names_are_deleted_the_best_and_the_newest_stay_what_they_are() {
    let names =
        ["epoch_001.ckpt", "epoch_002.ckpt", "epoch_003.ckpt", "epoch_004.ckpt", "last.ckpt"];
    for deleted in 0..1u32 << names.len() {
        let folder = tempfile::tempdir().unwrap();
        let policy = CheckpointPolicy { keep_last_n: None, ..Default::default() };
        let run = Runs::at(&Disk::default(), folder.path()).create().unwrap();
        let mut keeper = CheckpointManager::begin(run.clone(), policy.clone(), metadata()).unwrap();
        LOSSES.iter().zip(1..).for_each(|(loss, epoch)| drop(save(&mut keeper, epoch, *loss)));
        drop(keeper);
        let gone = names.iter().enumerate().filter(|(bit, _)| deleted >> bit & 1 == 1);
        gone.for_each(|(_, name)| std::fs::remove_file(run.checkpoints().join(name)).unwrap());
        let left = run.epochs_on_disk(&run.metadata().unwrap());

        let mut keeper = CheckpointManager::reopen(run.clone(), policy).unwrap();
        let newest = keeper.newest_good().checkpoint.unwrap().header().epoch;
        let still_there = |epoch: u64| match epoch {
            2 => true,
            4 => deleted & 0b11000 != 0b11000,
            epoch => deleted >> (epoch - 1) & 1 == 0,
        };
        let expected = (1..=4).rev().find(|epoch| still_there(*epoch)).unwrap();
        assert_eq!((newest, left), (expected, expected), "{deleted:#b}");
        assert!(!save(&mut keeper, newest + 1, 0.2).is_best, "{deleted:#b}");
        assert_eq!(Checkpoint::open(&run.best()).unwrap().header().epoch, 2, "{deleted:#b}");
        assert_eq!(keeper.metadata().best_checkpoint.as_ref().unwrap().epoch, 2, "{deleted:#b}");
        assert_eq!(Checkpoint::open(&run.last()).unwrap().header().epoch, newest + 1);
    }
}

#[test]
fn a_damaged_file_comes_back_from_a_copy_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    save(&mut keeper, 1, 0.5);
    let run = keeper.run().clone();
    drop(keeper);
    let file = run.checkpoints().join("epoch_001.ckpt");
    let good = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, &good[..good.len() - 1]).unwrap();
    let keeper = CheckpointManager::reopen(run, policy()).unwrap();
    assert_eq!(keeper.newest_good().passed_over, [""; 0]);
    assert_eq!(std::fs::read(&file).unwrap(), good);
}

#[test]
fn a_checkpoint_of_another_run_is_neither_used_nor_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    save(&mut keeper, 1, 0.5);
    let foreign = keeper.run().checkpoints().join("epoch_002.ckpt");
    let other = Header { identity: "sha256:2".into(), ..header(2, 0, 0.1) };
    checkpoint::write(&Disk::default(), &foreign, &other, &tensors(9.0)).unwrap();
    let bytes = std::fs::read(&foreign).unwrap();
    let run = keeper.run().clone();
    drop(keeper);
    let mut keeper = CheckpointManager::reopen(run.clone(), policy()).unwrap();
    let found = keeper.newest_good();
    assert_eq!(found.checkpoint.unwrap().header().epoch, 1);
    assert_eq!(found.foreign, std::slice::from_ref(&foreign));
    save(&mut keeper, 2, 0.4);
    assert_eq!(Checkpoint::open(&foreign).unwrap().header().identity, "sha256:1");
    let aside = run.checkpoints().join("epoch_002.of_another_run_1.ckpt");
    assert_eq!(std::fs::read(aside).unwrap(), bytes);
    assert_eq!(keeper.metadata().best_checkpoint.as_ref().unwrap().epoch, 2);
}

#[test]
fn files_that_a_person_put_beside_the_checkpoints_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    save(&mut keeper, 1, 0.5);
    let run = keeper.run().clone();
    drop(keeper);
    let own = ["epoch_001_my_favourite.ckpt", "epoch_007.ckpt", "step_backup.ckpt"];
    for name in own {
        std::fs::copy(run.checkpoints().join("epoch_001.ckpt"), run.checkpoints().join(name))
            .unwrap();
    }
    let mut keeper = CheckpointManager::reopen(run.clone(), policy()).unwrap();
    assert_eq!(
        keeper.newest_good().checkpoint.unwrap().path(),
        run.checkpoints().join("epoch_001.ckpt")
    );
    save(&mut keeper, 2, 0.4);
    own.iter().for_each(|name| assert!(run.checkpoints().join(name).is_file(), "{name}"));
}

#[test]
fn a_run_whose_metadata_is_missing_has_the_one_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    save(&mut keeper, 1, 0.5);
    save(&mut keeper, 2, 0.4);
    let run = keeper.run().clone();
    drop(keeper);
    std::fs::remove_file(run.metadata_path()).unwrap();
    assert!(CheckpointManager::begin(run.clone(), policy(), metadata()).is_err(), "it was begun");
    let keeper = CheckpointManager::reopen(run, policy()).unwrap();
    assert_eq!(keeper.metadata().checkpoints.iter().map(|c| c.epoch).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_run_that_nobody_holds_is_not_running() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = begin(folder.path());
    let run = keeper.run().clone();
    assert_eq!(run.current_metadata().unwrap().status, Status::Running);
    drop(keeper);
    let found = run.current_metadata().unwrap();
    assert_eq!(
        (found.status, found.message.as_deref()),
        (Status::Interrupted, Some("ended without a word"))
    );
    CheckpointManager::record_failed_start(&run, "no room").unwrap();
    let found = run.current_metadata().unwrap();
    assert_eq!((found.status, found.message.as_deref()), (Status::Failed, Some("no room")));
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = begin(folder.path());
    save(&mut keeper, 1, 0.5);
    save(&mut keeper, 2, 0.4);
    let path = keeper.run().checkpoints().join("epoch_002.ckpt");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    // Through all its names.
    std::fs::write(&path, bytes).unwrap();
    let found = keeper.newest_good();
    assert_eq!(found.checkpoint.unwrap().header().epoch, 1);
    let [passed_over] = &found.passed_over[..] else { panic!("{:?}", found.passed_over) };
    assert!(passed_over.contains("epoch_002.ckpt"), "{passed_over}");
}
