//! Trainings whose checkpoints are looked at by a stage beside them, in drawn orders.

use std::collections::BTreeMap;

use pipe_core::ids::StageId;
use pipe_fs::Disk;

use super::tests::{files, header, metadata, save, tensors};
use super::*;
use crate::{Checkpoint, CheckpointResults, Runs};

const MONITOR: &str = "quality.fid";
const PIPELINE: &str = "p";

fn policy(keep_last_n: u64, keep_top_k: u64, followed_by: &[StageId]) -> CheckpointPolicy {
    CheckpointPolicy {
        keep_last_n: Some(keep_last_n),
        keep_top_k: Some(keep_top_k),
        monitor: MONITOR.into(),
        followed_by: followed_by.to_vec(),
        ..Default::default()
    }
}

fn begin(folder: &Path, policy: CheckpointPolicy) -> CheckpointManager {
    let run = Runs::at(&Disk::default(), folder).create().unwrap();
    let metadata = Metadata {
        pipeline: PIPELINE.into(),
        settings: serde_json::json!({ "checkpoint": policy }),
        ..metadata()
    };
    CheckpointManager::begin(run, policy, metadata).unwrap()
}

/// The stage looks at the oldest checkpoint that it has not seen. `false` if there is none.
fn look(run: &Run, stage: &StageId, fid: &[f64]) -> bool {
    let all = run.metadata().unwrap().checkpoints;
    let mut results = CheckpointResults::load(run, PIPELINE, stage)
        .unwrap_or_else(|| CheckpointResults::new(PIPELINE, stage, "quality", "sha256:q"));
    let Some(next) = all.iter().find(|c| results.of(c).is_none()) else { return false };
    let fid = fid[next.epoch as usize - 1];
    let metrics = BTreeMap::from([("fid".to_owned(), fid), ("fid/detail".to_owned(), 1.0)]);
    results.push(next, metrics, None);
    results.save(run).unwrap();
    true
}

fn standing(run: &Run) -> Vec<u64> {
    run.metadata().unwrap().checkpoints.iter().map(|c| c.epoch).collect()
}

#[test]
fn however_late_a_stage_looks_the_same_stays_and_the_same_is_the_best() {
    let quality = StageId::new("quality").unwrap();
    for seed in 0..40u64 {
        let mut state = seed;
        let mut draw = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        let folder = tempfile::tempdir().unwrap();
        let policy = policy(1 + draw(3), 1 + draw(2), std::slice::from_ref(&quality));
        let mut keeper = begin(folder.path(), policy.clone());
        let run = keeper.run().clone();
        let fid: Vec<f64> = (0..8).map(|_| draw(6) as f64).collect();
        for epoch in 1..=8 {
            let seen = CheckpointResults::load(&run, PIPELINE, &quality);
            let before = standing(&run);
            save(&mut keeper, epoch, 0.5);
            let lost: Vec<u64> =
                before.into_iter().filter(|e| !standing(&run).contains(e)).collect();
            let is_seen = |e: &u64| {
                seen.as_ref().is_some_and(|r| r.checkpoints.iter().any(|c| c.epoch == *e))
            };
            assert!(lost.iter().all(is_seen), "seed {seed}: {lost:?} went before it was looked at");
            for _ in 0..draw(3) {
                look(&run, &quality, &fid);
            }
            if draw(4) == 0 {
                drop(keeper);
                keeper = CheckpointManager::reopen(run.clone(), policy.clone()).unwrap();
            }
        }
        drop(keeper);
        while look(&run, &quality, &fid) {}
        CheckpointManager::settle_ended(&run, &policy.followed_by).unwrap().unwrap();

        let mut ranked: Vec<u64> = (1..=8).collect();
        ranked.sort_by(|a, b| fid[*a as usize - 1].total_cmp(&fid[*b as usize - 1]));
        let top = &ranked[..policy.keep_top_k.unwrap() as usize];
        let newest = 8 - policy.keep_last_n.unwrap();
        let kept: Vec<u64> = (1..=8).filter(|e| *e > newest || top.contains(e)).collect();
        assert_eq!(standing(&run), kept, "seed {seed}: {fid:?}");
        let metadata = run.metadata().unwrap();
        let best = metadata.best_checkpoint.clone().unwrap();
        assert_eq!(best.epoch, ranked[0], "seed {seed}: {fid:?}");
        assert_eq!(best.metrics[MONITOR], fid[ranked[0] as usize - 1]);
        let linked = Checkpoint::open(&run.best()).unwrap().header().epoch;
        assert_eq!(linked, ranked[0]);
        assert!(metadata.checkpoints.iter().all(|c| c.metrics.contains_key(MONITOR)));
        assert!(!best.metrics.contains_key("quality.fid/detail"), "details stay in their file");
    }
}

#[test]
fn metadata_on_disk_hold_what_the_training_said_alone() {
    let folder = tempfile::tempdir().unwrap();
    let quality = StageId::new("quality").unwrap();
    let mut keeper = begin(folder.path(), policy(2, 1, std::slice::from_ref(&quality)));
    let run = keeper.run().clone();
    save(&mut keeper, 1, 0.5);
    assert!(look(&run, &quality, &[3.0]));
    save(&mut keeper, 2, 0.4);
    let alone = Metadata::load(&run.metadata_path()).unwrap();
    assert!(alone.checkpoints.iter().all(|c| !c.metrics.contains_key(MONITOR)));
    assert_eq!(alone.best_checkpoint.unwrap().epoch, 1);
    assert_eq!(run.metadata().unwrap().checkpoints[0].metrics[MONITOR], 3.0);
}

#[test]
fn an_epoch_that_was_trained_again_is_looked_at_again() {
    let folder = tempfile::tempdir().unwrap();
    let quality = StageId::new("quality").unwrap();
    let mut keeper = begin(folder.path(), policy(1, 1, std::slice::from_ref(&quality)));
    let run = keeper.run().clone();
    save(&mut keeper, 1, 0.5);
    assert!(look(&run, &quality, &[3.0]));
    assert!(!look(&run, &quality, &[3.0]));
    let content = || Ok::<_, StoreError>(Content::Tensors(tensors(9.0)));
    keeper.save_epoch(&header(1, 0, 0.4), false, content).unwrap().unwrap();
    assert!(!run.metadata().unwrap().checkpoints[0].metrics.contains_key(MONITOR));
    assert!(look(&run, &quality, &[2.0]));
    assert_eq!(run.metadata().unwrap().checkpoints[0].metrics[MONITOR], 2.0);
}

#[test]
fn results_that_are_damaged_or_of_another_stage_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let stages = ["quality", "grids", "Quality", "grids@n=1"].map(|name| {
        let (name, values) = name.split_once('@').unwrap_or((name, ""));
        let stage = StageId::new(name).unwrap();
        if values.is_empty() { stage } else { stage.member(values) }
    });
    let mut keeper = begin(folder.path(), policy(1, 1, &stages));
    let run = keeper.run().clone();
    (1..=3).for_each(|epoch| drop(save(&mut keeper, epoch, 0.5)));
    for stage in &stages[1..] {
        while look(&run, stage, &[1.0, 2.0, 3.0]) {}
    }
    assert_eq!(CheckpointResults::all(&run).len(), 3);
    keeper.settle().unwrap();
    assert_eq!(standing(&run), [1, 2, 3], "one of four has not looked");
    while look(&run, &stages[0], &[1.0, 2.0, 3.0]) {}
    let own = run.folder.join("each_checkpoint/p.quality.json");
    let whole = std::fs::read(&own).unwrap();
    std::fs::write(&own, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(CheckpointResults::load(&run, PIPELINE, &stages[0]), None);
    std::fs::copy(run.folder.join("each_checkpoint/p.grids.json"), &own).unwrap();
    assert_eq!(CheckpointResults::load(&run, PIPELINE, &stages[0]), None);
    keeper.settle().unwrap();
    assert_eq!(standing(&run), [1, 2, 3]);
    std::fs::write(&own, whole).unwrap();
    keeper.settle().unwrap();
    assert_eq!(standing(&run), [1, 3], "the best and the newest");
    assert_eq!(files(&run), ["best.ckpt", "epoch_001.ckpt", "epoch_003.ckpt", "last.ckpt"]);
}

#[test]
fn a_stage_of_another_pipeline_decides_nothing_here() {
    let folder = tempfile::tempdir().unwrap();
    let quality = StageId::new("quality").unwrap();
    let mut keeper = begin(folder.path(), policy(1, 1, std::slice::from_ref(&quality)));
    let run = keeper.run().clone();
    save(&mut keeper, 1, 0.5);
    let mut theirs = CheckpointResults::new("other", &quality, "quality", "sha256:q");
    let metrics = BTreeMap::from([("fid".to_owned(), 0.1)]);
    theirs.push(&run.metadata().unwrap().checkpoints[0], metrics, None);
    theirs.save(&run).unwrap();
    assert!(!run.metadata().unwrap().checkpoints[0].metrics.contains_key(MONITOR));
    save(&mut keeper, 2, 0.5);
    assert_eq!(standing(&run), [1, 2], "its own stage has yet to look");
}

#[test]
fn a_stage_that_has_yet_to_begin_is_waited_for_too() {
    let folder = tempfile::tempdir().unwrap();
    let [quality, grids] = ["quality", "grids"].map(|name| StageId::new(name).unwrap());
    let both = [quality.clone(), grids];
    let mut keeper = begin(folder.path(), policy(1, 1, &both));
    let run = keeper.run().clone();
    (1..=3).for_each(|epoch| drop(save(&mut keeper, epoch, 0.5)));
    drop(keeper);
    while look(&run, &quality, &[2.0, 1.0, 3.0]) {}
    CheckpointManager::settle_ended(&run, &both).unwrap().unwrap();
    assert_eq!(standing(&run), [1, 2, 3], "`grids` has written nothing yet");
    assert_eq!(run.metadata().unwrap().best_checkpoint.unwrap().epoch, 2);
    CheckpointManager::settle_ended(&run, &[quality]).unwrap().unwrap();
    assert_eq!(standing(&run), [2, 3], "without it nobody waits for it");
}
