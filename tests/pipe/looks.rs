//! Validation and pictures inside an epoch: they are written where they are due, once, and change
//! no bit of the training.

use serde_json::Value;

use crate::project::{Project, TINY, all_tensors};
use crate::resume::{delays, in_pieces};

const RUN: &str = "checkpoints/base_training/run_001";
/// Three steps an epoch.
const LOOKS: &str = "    validate_every_n_steps: 2\n    sample_every_n_steps: 2\n    \
                     checkpoint: { keep_last_n: null, save_every_n_steps: 1 }\n";

fn project(keys: &str) -> Project {
    let project = Project::new();
    let validated = TINY.replace("num_images: 64\n", "num_images: 64\n    val_split: 0.25\n");
    project.write("p.yaml", format!("{validated}{keys}"));
    project
}

/// Step and loss of each validation, and whether it is one of an epoch's end.
fn validations(project: &Project) -> Vec<(u64, f64, bool)> {
    let text = project.read(&format!("{RUN}/logs/metrics.jsonl"));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let seen = |line: Value| {
        let is_end = line["epoch_seconds"].is_number();
        Some((line["step"].as_u64()?, line["val_loss"].as_f64()?, is_end))
    };
    lines.filter_map(seen).collect()
}

fn pictures(project: &Project) -> Vec<(String, Vec<u8>)> {
    let names = project.list(&format!("{RUN}/samples"));
    let bytes = |name: &String| std::fs::read(project.path(&format!("{RUN}/samples/{name}")));
    names.iter().map(|name| (name.clone(), bytes(name).unwrap())).collect()
}

fn names(project: &Project) -> Vec<String> {
    project.list(&format!("{RUN}/samples"))
}

#[test]
fn validation_and_pictures_inside_epochs_change_no_bit() {
    let (plain, looked) = (project("    checkpoint: { keep_last_n: null }\n"), project(LOOKS));
    for project in [&plain, &looked] {
        project.pipe(&["run", "p.yaml", "--epochs=3"]).succeeds();
    }
    for epoch in 1..=3 {
        let tensors = |project: &Project| {
            all_tensors(&project.path(&format!("{RUN}/checkpoints/epoch_{epoch:03}.ckpt")))
        };
        assert!(tensors(&plain) == tensors(&looked), "epoch {epoch}");
    }
    let of_epochs = |project: &Project| project.metadata(RUN)["history"][2]["metrics"].clone();
    assert_eq!(of_epochs(&plain), of_epochs(&looked));
    assert_eq!(plain.metadata(RUN)["identity"], looked.metadata(RUN)["identity"]);
    let seen: Vec<_> = validations(&looked).iter().map(|(step, _, end)| (*step, *end)).collect();
    assert_eq!(seen, [(2, false), (3, true), (4, false), (6, true), (8, false), (9, true)]);
    let steps = |all: &[u64]| all.iter().map(|n| format!("step_{n:08}.png")).collect::<Vec<_>>();
    assert_eq!(names(&looked), steps(&[2, 4, 6, 8]));
    looked.pipe(&["report", "-o", "page.html"]).succeeds();
    assert!(looked.read("page.html").contains(r#""step":4"#));

    // More epochs, with pictures of epochs besides: one a step.
    let more = ["run", "p.yaml", "--epochs=4", "--set", "sample_every_n_epochs=2"];
    looked.pipe(&more).succeeds();
    let mut all = vec!["epoch_004.png".to_owned()];
    all.extend(steps(&[2, 4, 6, 8, 10]));
    assert_eq!(names(&looked), all);
    looked.pipe(&["verify"]).succeeds();
}

#[test]
fn killed_at_random_none_is_missing_and_none_is_there_twice() {
    let arguments = ["run", "p.yaml", "--epochs=4"];
    let whole = project(LOOKS);
    let began = std::time::Instant::now();
    whole.pipe(&arguments).succeeds();
    let took = u64::try_from(began.elapsed().as_millis()).unwrap();
    let pieces = project(LOOKS);
    let kills = in_pieces(&pieces, &arguments, delays(took / 4 + 20, took + 100));
    assert_eq!(validations(&pieces), validations(&whole), "after {kills} kills");
    assert!(pictures(&pieces) == pictures(&whole), "after {kills} kills: {:?}", names(&pieces));
}

#[test]
fn a_picture_that_a_crash_took_is_sampled_again() {
    let project = project(LOOKS);
    project.pipe(&["run", "p.yaml", "--epochs=1", "--set", "max_steps=2"]).succeeds();
    let drawn = pictures(&project);
    assert_eq!(names(&project), ["step_00000002.png"]);
    std::fs::remove_file(project.path(&format!("{RUN}/samples/step_00000002.png"))).unwrap();
    project.pipe(&["run", "p.yaml", "--epochs=1"]).succeeds();
    assert!(pictures(&project) == drawn);
}
