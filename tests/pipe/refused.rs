//! What can never work is said before anything is trained.

use crate::chain::{CHAIN, chain};
use crate::project::{Project, TINY};

/// Checks the tiny pipeline with more stages, and with a change.
fn refused(from: &str, to: &str, more: &str, pieces: &[&str]) {
    assert!(TINY.contains(from));
    let project = Project::new();
    project.write("p.yaml", TINY.replacen(from, to, 1) + more);
    let ended = project.pipe(&["check", "p.yaml"]).exits(2);
    pieces.iter().fold(ended, |ended, piece| ended.says(piece));
    project.pipe(&["run", "p.yaml"]).exits(2);
    assert!(project.list("checkpoints").is_empty(), "nothing was begun");
}

#[test]
fn a_choice_by_a_figure_that_no_training_has() {
    let sweep = "matrix: { learning_rate: [0.001, 0.0001] }\n    epochs:";
    let choice = "  best: { kind: select_best, over: base, monitor: val_loss }\n";
    let said = "stages.best.monitor: is val_loss, and no training of `base` has validation images";
    refused("epochs: ${", &format!("{sweep} ${{"), choice, &[said, "val_split"]);
    // Of a matrix over data sets some may have it.
    let project = Project::new();
    let data = "  other: { kind: dataset, source: shapes, image_size: 8, val_split: 0.5 }\n";
    let sweep = TINY.replace("    dataset: data\n", "    matrix: { dataset: [data, other] }\n");
    project.write("p.yaml", format!("{sweep}{data}{choice}"));
    project.pipe(&["check", "p.yaml"]).succeeds().says("`base@dataset=data` cannot be chosen");
    let good = TINY.replace("image_size: 8", "image_size: 8\n    val_split: 0.5");
    project.write("p.yaml", good + choice);
    assert!(!project.pipe(&["check", "p.yaml"]).succeeds().stderr().contains("warning"));
}

#[test]
fn a_checkpoint_that_is_never_saved() {
    let off = "batch_size: 16\n    checkpoint: { enabled: false }";
    for stage in
        ["{ kind: copy_best, from: base, to: a.ckpt }", "{ kind: sample, from: base, to: a.png }"]
    {
        let said = "stages.x.from: `base` keeps no checkpoint that could be taken";
        refused("batch_size: 16", off, &format!("  x: {stage}\n"), &[said]);
    }
    let copy = |epoch: u64| {
        format!(
            "  x: {{ kind: copy_best, from: base, select: {{ epoch: {epoch} }}, to: a.ckpt }}\n"
        )
    };
    refused("epochs: 2", "epochs: 5", &copy(6), &["there is no epoch 6: `base` has epochs 1 to 5"]);
    let every = "batch_size: 16\n    checkpoint: { save_every_n_epochs: 2 }";
    refused("batch_size: 16", every, &copy(1), &["`base` saves every 2 epochs, and not epoch 1"]);
}

#[test]
fn a_checkpoint_that_will_be_deleted_is_told_before_the_training() {
    let project = Project::new();
    let said = |every: u64, epoch: u64| {
        let policy = format!("batch_size: 16\n    checkpoint: {{ save_every_n_epochs: {every} }}");
        let text = TINY.replace("epochs: 2", "epochs: 10").replace("batch_size: 16", &policy);
        let copy = format!(
            "  x: {{ kind: copy_best, from: base, select: {{ epoch: {epoch} }}, to: a.ckpt }}\n"
        );
        project.write("p.yaml", text + &copy);
        project.pipe(&["check", "p.yaml"]).succeeds().stderr().contains("keeps the 3 newest")
    };
    // Of every epoch 8, 9 and 10 stay; of every third one 6, 9 and the last.
    for (every, kept) in [(1, vec![8, 9, 10]), (3, vec![6, 9, 10]), (5, vec![5, 10])] {
        let saved = (1..=10).filter(|epoch| epoch % every == 0 || *epoch == 10);
        for epoch in saved {
            assert_eq!(said(every, epoch), !kept.contains(&epoch), "{epoch} of each {every}");
        }
    }
}

#[test]
fn the_word_for_all_projections_needs_no_list() {
    let project = chain();
    let with = |targets: &str| project.write("p.yaml", CHAIN.replace("[qkv, proj, fc1]", targets));
    with("[all-linear]");
    project.pipe(&["run", "p.yaml"]).succeeds();
    with("all-linear");
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    project
        .pipe(&["plan", "p.yaml", "--set", "lora.lora.target_modules=all-linear"])
        .succeeds()
        .says("up to date");
    with("qkv");
    let said = "expected a list of names such as [qkv, proj], or all-linear, found text \"qkv\"";
    project.pipe(&["check", "p.yaml"]).exits(2).says("lora.target_modules").says(said);
}

#[test]
fn a_slip_in_a_parameter_is_not_taken_for_a_key_further_down() {
    let project = Project::new();
    let picture = "  picture: { kind: sample, from: base, to: a.png, device: cpu }\n";
    project.write("p.yaml", TINY.to_owned() + picture);
    let said = project.pipe(&["check", "p.yaml", "--set", "epoch=3"]).exits(2);
    said.says("called `epoch`\n  = did you mean `epochs`?");
    let said = project.pipe(&["check", "p.yaml", "--set", "warmup_steps=3"]).exits(2);
    said.says("did you mean `schedule.warmup_steps`?");
}
