//! Images count by their content: for trainings, for what stands behind them, for the choice of a
//! run.

use serde_json::Value;

use crate::project::Project;

const RUNS: &str = "checkpoints/base_training";

const CHAIN: &str = "\
name: tiny
stages:
  data: { kind: dataset, source: image_folder, root: pictures, image_size: 8 }
  base:
    kind: train
    dataset: data
    epochs: 1
    batch_size: 4
    model: { dim: 16, mults: [1], depths: [1], heads: 1, window: 8 }
    device: cpu
  best: { kind: copy_best, from: base, to: best.ckpt }
";

/// A picture of one colour.
fn picture(shade: u8) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(8, 8, image::Rgb([shade, 20, 255 - shade]));
    image.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

/// A project with four pictures in each of two classes below `pictures`.
fn project(pipeline: &str) -> Project {
    let project = Project::new();
    project.write("p.yaml", pipeline);
    add(&project, "pictures", &["dark", "light"], 0..4);
    project
}

fn add(project: &Project, folder: &str, classes: &[&str], numbers: std::ops::Range<u8>) {
    for (shade, class) in classes.iter().enumerate() {
        for i in numbers.clone() {
            project.write(&format!("{folder}/{class}/{i}.png"), picture(shade as u8 * 100 + i));
        }
    }
}

/// What the plan says of a stage.
fn planned(project: &Project, stage: &str, more: &[&str]) -> String {
    let ended = project.pipe(&[&["plan", "p.yaml"], more].concat()).succeeds();
    let line = ended
        .stdout()
        .lines()
        .find(|line| line.split(' ').next() == Some(stage))
        .map(str::to_owned);
    let line = line.unwrap_or_else(|| panic!("no {stage} in\n{}", ended.stdout()));
    line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

/// Changes a run's metadata as another version of the program would have left it.
fn rewrite(project: &Project, run: &str, change: impl FnOnce(&mut Value)) {
    let path = format!("{RUNS}/{run}/metadata.json");
    let mut metadata = project.metadata(&format!("{RUNS}/{run}"));
    metadata.as_object_mut().unwrap().remove("checksum");
    change(&mut metadata);
    project.write(&path, metadata.to_string());
    let _ = std::fs::remove_file(project.path(&format!("{path}.previous")));
}

#[test]
fn other_images_are_a_new_run_and_the_old_ones_go_on_with_the_old_run() {
    let project = project(CHAIN);
    project.pipe(&["run", "p.yaml"]).succeeds().says("8 images in 2 classes");
    assert_eq!(planned(&project, "base", &[]), "skip up to date, run 001");
    let first = std::fs::read(project.path("best.ckpt")).unwrap();

    project.write("pictures/dark/a.png", picture(7));
    project.write("pictures/dark/b.png", picture(8));
    assert_eq!(planned(&project, "base", &[]), "run 10 images instead of 8: 2 added (new run_002)");
    project.pipe(&["status", "p.yaml", "base"]).succeeds().says("stale").says("2 added");
    project.pipe(&["run", "p.yaml"]).succeeds().says("Run 002");
    assert_eq!(planned(&project, "base", &[]), "skip up to date, run 002");
    assert_ne!(
        std::fs::read(project.path("best.ckpt")).unwrap(),
        first,
        "what stands behind it is new too"
    );

    std::fs::remove_file(project.path("pictures/dark/a.png")).unwrap();
    std::fs::remove_file(project.path("pictures/dark/b.png")).unwrap();
    assert_eq!(planned(&project, "base", &[]), "skip up to date, run 001");
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(std::fs::read(project.path("best.ckpt")).unwrap(), first, "as before");
    assert_eq!(project.list(RUNS), ["run_001", "run_002"]);
}

#[test]
fn the_plan_says_what_changed_of_the_images() {
    let project = project(CHAIN);
    project.pipe(&["run", "p.yaml", "base"]).succeeds();
    project.write("pictures/light/0.png", picture(3));
    assert_eq!(planned(&project, "base", &[]), "run 8 images as before: 1 replaced (new run_002)");
    std::fs::remove_file(project.path("pictures/light/0.png")).unwrap();
    assert_eq!(
        planned(&project, "base", &[]),
        "run 7 images instead of 8: 1 removed (new run_002)"
    );
    project.write("pictures/light/0.png", picture(100));
    project.write("pictures/blue/0.png", picture(0));
    let added = "run 9 images instead of 8: class blue is new, 1 added (new run_002)";
    assert_eq!(planned(&project, "base", &[]), added);
    // Both at once; and without the list of files, from what the run notes.
    let both = planned(&project, "base", &["--learning-rate", "0.1"]);
    assert_eq!(both, format!("run learning_rate 0.001 -> 0.1, {}", &added["run ".len()..]));
    project.pipe(&["gc", "--cache"]).succeeds();
    let counted = "run 9 images instead of 8: class blue is new (new run_002)";
    assert_eq!(planned(&project, "base", &[]), counted);
    let json: Value =
        serde_json::from_str(&project.pipe(&["plan", "p.yaml", "--json"]).succeeds().stdout())
            .unwrap();
    assert_eq!(json["steps"][1]["changes"][0]["key"], "dataset");
}

#[test]
fn another_folder_counts_by_what_is_in_it() {
    let project = project(CHAIN);
    add(&project, "same", &["dark", "light"], 0..4);
    add(&project, "other", &["dark", "light"], 0..5);
    project.pipe(&["run", "p.yaml", "base"]).succeeds();
    assert_eq!(planned(&project, "base", &["--set", "data.root=same"]), "skip up to date, run 001");
    let other = ["--set", "data.root=other"];
    assert_eq!(
        planned(&project, "base", &other),
        "run 10 images instead of 8: 2 added (new run_002)"
    );
    let numbered = [&["run", "p.yaml", "--run-number", "1", "--epochs", "2"], &other[..]].concat();
    let refused = project.pipe(&numbered).exits(2);
    refused
        .says("run 1 was trained on other images: 10 images instead of 8")
        .says("put the old images back");
}

#[test]
fn a_folder_that_is_gone_is_an_error_before_anything_runs_and_shown_in_the_status() {
    let project = project(CHAIN);
    project.pipe(&["run", "p.yaml"]).succeeds();
    std::fs::remove_dir_all(project.path("pictures")).unwrap();
    for command in ["plan", "run"] {
        project
            .pipe(&[command, "p.yaml"])
            .exits(1)
            .says("stages.data.root")
            .says("pictures")
            .says("it is not there");
    }
    let status = project.pipe(&["status", "p.yaml", "--json"]).succeeds();
    let stages: Vec<Value> = serde_json::from_str(&status.stdout()).unwrap();
    assert!(stages[0]["detail"].as_str().unwrap().contains("it is not there"), "{}", stages[0]);
    assert_eq!(stages[1]["status"], "done");
    project.pipe(&["report", "p.yaml"]).succeeds();
}

#[test]
fn an_adapter_counts_its_images_too() {
    let lora = "  lora: { kind: lora, base: best, dataset: own, epochs: 1, batch_size: 4, device: cpu, lora: { r: 2 } }\n";
    let own = "  own: { kind: dataset, source: image_folder, root: own, image_size: 8 }\n";
    let project = project(&format!("{CHAIN}{own}{lora}"));
    add(&project, "own", &["dark", "light"], 0..4);
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("own/dark/more.png", picture(9));
    // Its base model is copied into the new run.
    let plan = planned(&project, "lora", &[]);
    assert!(
        plan.starts_with("run 9 images instead of 8: 1 added (new run_002); copies 0."),
        "{plan}"
    );
    assert_eq!(planned(&project, "base", &[]), "skip up to date, run 001");
    project.pipe(&["run", "p.yaml"]).succeeds().says("skipped, up to date: data, base, best");
    assert_eq!(project.list("checkpoints/lora"), ["run_001", "run_002"]);
}

#[test]
fn a_run_of_an_earlier_version_is_gone_on_with_by_the_digest_it_noted() {
    let project = project(CHAIN);
    project.pipe(&["run", "p.yaml", "base"]).succeeds();
    let mut noted = String::new();
    rewrite(&project, "run_001", |metadata| {
        assert!(metadata["manifest"].as_object_mut().unwrap().remove("dataset").is_some());
        metadata["identity"] = "sha256:of an earlier version".into();
        noted = metadata["dataset"]["digest"].as_str().unwrap().to_owned();
    });
    assert_eq!(noted.len(), 64);
    assert_eq!(planned(&project, "base", &[]), "skip up to date, run 001");
    let extend = ["run", "p.yaml", "base", "--epochs", "2"];
    project.pipe(&extend).succeeds();
    assert_eq!(project.list(RUNS), ["run_001"]);
    let shown = project.pipe(&[
        "ckpt",
        "show",
        &format!("{RUNS}/run_001/checkpoints/epoch_002.ckpt"),
        "--json",
    ]);
    assert!(
        shown.succeeds().stdout().contains("of an earlier version"),
        "a checkpoint belongs to its run"
    );
    project.write("pictures/dark/more.png", picture(9));
    assert!(planned(&project, "base", &[]).contains("9 images instead of 8: 1 added"));
}

#[test]
fn a_run_that_was_trained_on_nothing_yet_takes_the_images_as_they_are_now() {
    let project = project(CHAIN);
    project.pipe(&["run", "p.yaml", "base"]).succeeds();
    // As a run that failed in its first epoch, over a picture that could not be decoded.
    for file in project.list(&format!("{RUNS}/run_001/checkpoints")) {
        std::fs::remove_file(project.path(&format!("{RUNS}/run_001/checkpoints/{file}"))).unwrap();
    }
    rewrite(&project, "run_001", |metadata| {
        metadata["checkpoints"] = Value::Array(Vec::new());
        metadata["best_checkpoint"] = Value::Null;
        metadata["status"] = "failed".into();
    });
    project.write("pictures/dark/0.png", picture(77));
    assert!(planned(&project, "base", &[]).starts_with("resume at epoch 0/1"));
    project.pipe(&["run", "p.yaml", "base"]).succeeds();
    assert_eq!(project.list(RUNS), ["run_001"], "nothing is lost, and nothing is made anew");
    assert_eq!(planned(&project, "base", &[]), "skip up to date, run 001");
}

#[test]
fn images_that_a_command_makes_are_looked_at_when_it_has_made_them() {
    let make = "  make: { kind: command, run: 'rm -rf pictures; cp -r from pictures', inputs: [from], outputs: [pictures] }\n";
    let project = project(&format!("{CHAIN}{make}"));
    std::fs::rename(project.path("pictures"), project.path("from")).unwrap();
    project.pipe(&["graph", "p.yaml"]).succeeds().says("data  dataset  <- make");
    assert_eq!(
        planned(&project, "base", &[]),
        "run no run yet",
        "although there are no pictures yet"
    );
    project.pipe(&["run", "p.yaml"]).succeeds().says("8 images in 2 classes");
    assert_eq!(planned(&project, "base", &[]), "skip up to date, run 001");

    project.write("from/dark/more.png", picture(9));
    assert_eq!(planned(&project, "base", &[]), "run? make runs before it");
    project
        .pipe(&["run", "p.yaml"])
        .succeeds()
        .says("9 images instead of 8: 1 added")
        .says("Run 002");
    // Made anew with the same content, it is the same data set.
    std::fs::remove_dir_all(project.path("pictures")).unwrap();
    project.pipe(&["run", "p.yaml"]).succeeds().says("skipped, up to date: base, best, data");
}

#[test]
fn without_a_check_the_images_are_those_that_were_last_seen() {
    let project = project(CHAIN);
    project.pipe(&["run", "p.yaml", "base"]).succeeds();
    project.write("pictures/dark/more.png", picture(9));
    assert_eq!(planned(&project, "base", &["--no-data-check"]), "skip up to date, run 001");
    project
        .pipe(&["run", "p.yaml", "base", "--no-data-check"])
        .succeeds()
        .says("everything is up to date");
    project.pipe(&["status", "p.yaml", "base", "--no-data-check"]).succeeds().says("done");
    assert!(planned(&project, "base", &[]).starts_with("run 9 images"));
    assert!(
        planned(&project, "base", &["--no-data-check"]).starts_with("run 9 images"),
        "seen by now"
    );
    // What is trained on is opened all the same, so that no run holds what it was not trained on.
    std::fs::remove_file(project.path("pictures/dark/more.png")).unwrap();
    project.pipe(&["run", "p.yaml", "base", "--no-data-check", "--epochs", "2"]).succeeds();
    assert_eq!(project.list(RUNS), ["run_001"]);
}

#[test]
fn an_archive_in_the_place_of_another_is_another_data_set_and_one_that_is_not_there_yet_tells_nothing()
 {
    let project = project(&CHAIN.replace("image_folder, root: pictures", "cifar10"));
    let batch = |shade: u8| -> Vec<u8> {
        (0..20u8).flat_map(|i| [vec![i % 10], vec![shade + i; 3072]].concat()).collect()
    };
    project.write("data/cifar-10-batches-bin/data_batch_1.bin", batch(0));
    project.pipe(&["run", "p.yaml", "base"]).succeeds();
    assert_eq!(planned(&project, "base", &[]), "skip up to date, run 001");
    project.write("data/cifar-10-batches-bin/data_batch_1.bin", batch(1));
    let words = "run 20 images as before, with another content (new run_002)";
    assert_eq!(planned(&project, "base", &[]), words);
    // It would be downloaded, and is what was published.
    std::fs::remove_dir_all(project.path("data")).unwrap();
    assert_eq!(planned(&project, "base", &[]), "skip up to date, run 001");
    project
        .pipe(&["plan", "p.yaml", "--set", "data.download=false"])
        .exits(1)
        .says("failed to find");
}

#[test]
fn runs_in_the_folder_of_before_are_found_when_base_dir_is_another_one() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let other = ["--set", "checkpoint.base_dir=kept/elsewhere"];
    let found = "skip up to date, run 001 in checkpoints/base_training";
    assert_eq!(planned(&project, "base", &other), found);
    project
        .pipe(&[&["run", "p.yaml", "--epochs", "3"], &other[..]].concat())
        .succeeds()
        .says("Resumed from epoch 2");
    assert!(project.list("kept").is_empty(), "nothing is trained anew");
    project.pipe(&[&["run", "p.yaml", "--set", "base.seed=9"], &other[..]].concat()).succeeds();
    assert_eq!(
        project.list("kept/elsewhere"),
        ["run_001"],
        "another experiment begins where it is wanted"
    );
    let back = planned(&project, "base", &["--set", "base.seed=9"]);
    assert_eq!(back, "run seed 42 -> 9 (new run_002)", "where there are runs, those alone count");
}
