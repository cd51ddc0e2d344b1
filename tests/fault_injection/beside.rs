//! Stages that look at each checkpoint of a training beside it: the process ends at every change of
//! the disk in turn and at random moments. Which epoch is the best is decided by one of them.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use crate::crash::Random;
use crate::project::Project;
use crate::results::{Options, Results, ensure};
use crate::state::{
    RUN, State, changes_of, goes_on, nothing_reported_is_missing, run_with, state, text,
};

const FOLLOWED: &str = "\
name: followed
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 16 }
  base:
    kind: train
    dataset: data
    epochs: 4
    batch_size: 4
    model: { dim: 16, mults: [1], depths: [1], heads: 2, window: 4 }
    device: cpu
    checkpoint: { keep_last_n: 1, monitor: quality.nearest }
  quality:
    kind: evaluate
    from: base
    each_checkpoint: true
    dataset: data
    to: quality
    metrics: [nearest]
    seeds: 0-2
    steps: 2
    device: cpu
  grids: { kind: sample, from: base, each_checkpoint: true, to: grids/base.png, n: 2, steps: 1, device: cpu }
  best: { kind: copy_best, from: base, to: best.ckpt }
";

fn followed() -> Project {
    let project = Project::new();
    project.write("p.yaml", FOLLOWED);
    project
}

fn undisturbed() -> State {
    let project = followed();
    project.pipe(&RUN).succeeds();
    let state = state(&project).unwrap();
    assert!(state.contains_key("quality/epoch_004/metrics.json"), "{:?}", state.keys());
    state
}

pub fn section(options: &Options, results: &mut Results) {
    let expected = undisturbed();
    // Stages run side by side, so that the number of changes is not always the same.
    let last = changes_of(&followed());
    results.each("killed beside a training at a change", &options.some_of(last), |at| {
        let project = followed();
        let output = run_with(&project, &format!("kill@{at}"));
        let is_killed = output.status.signal() == Some(9);
        ensure(is_killed || output.status.success() && *at > last * 3 / 4, || {
            format!(
                "it was to be killed, and ended with {}: {}",
                output.status,
                text(&output.stderr)
            )
        })?;
        nothing_reported_is_missing(&project, &output.stderr)?;
        goes_on(&project, &expected)
    });
    let rounds: Vec<usize> = (0..options.rounds / 8).collect();
    results.each("killed beside a training at random moments", &rounds, |round| {
        let project = followed();
        let mut random = Random(0x51_7cc1 + *round as u64);
        for _ in 0..3 {
            let mut child = project.start(&RUN);
            std::thread::sleep(Duration::from_millis(random.below(600)));
            let _ = child.kill();
            child.wait().map_err(|e| e.to_string())?;
        }
        goes_on(&project, &expected)
    });
}
