//! Pictures of one's own: looked at before anything is trained, and nothing left out in silence.

use crate::project::Project;

const RUN: &str = "checkpoints/base_training/run_001";

/// A PNG of one colour.
fn png(shade: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(9, 9, image::Rgb([shade, 99, 0]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// The tiny pipeline on a folder of pictures, with these settings besides.
fn project(settings: &str) -> Project {
    let from = "source: shapes\n    classes: [circle, square]\n    image_size: 8";
    Project::with(
        from,
        &format!("source: image_folder\n    root: pictures\n    image_size: 8\n    {settings}"),
    )
}

/// `count` pictures in each of these folders.
fn fill(project: &Project, folders: &[&str], count: u8) {
    for folder in folders {
        (0..count).for_each(|i| project.write(&format!("pictures/{folder}/{i}.png"), png(10 * i)));
    }
}

#[test]
fn bad_pictures_are_told_together_before_a_run_is_begun() {
    let project = project("val_split: 0.5");
    fill(&project, &["dark", "light"], 8);
    let broken = ["dark/1.png", "dark/6.png", "light/0.png"];
    for name in broken {
        project.write(&format!("pictures/{name}"), "no picture");
    }
    let ended = project.pipe(&["run", "p.yaml"]).exits(1).says("failed to decode 3 of 16 images");
    let ended = broken.iter().fold(ended, |ended, name| ended.says(name));
    ended.says("replace or remove these files; `pipe data` looks at all images");
    project.pipe(&["data"]).exits(1).says("3 images that cannot be read");
    assert!(project.list("checkpoints").is_empty(), "nothing is begun on half a data set");
    for name in broken {
        project.write(&format!("pictures/{name}"), png(200));
    }
    project.pipe(&["run", "p.yaml"]).succeeds().says("8 images and 8 for validation in 2 classes");
    assert_eq!(project.metadata(RUN)["status"], "completed");
}

#[test]
fn what_is_passed_over_is_told() {
    let project = project("");
    fill(&project, &["dark", "light", "dark/deeper", "__MACOSX/dark"], 4);
    for name in ["dark/a.heic", "light/b.HEIC", "beside.jpg", "Thumbs.db"] {
        project.write(&format!("pictures/{name}"), "not read");
    }
    let told = "8 images in 2 classes at 8 x 8 pixels; passed over: 2 .heic, 1 deeper folder, 1 image beside the class folders";
    project.pipe(&["run", "p.yaml"]).succeeds().says(told);
    assert!(project.read(".pipe/events.jsonl").contains(told), "the journal has it too");
}

#[test]
fn classes_without_training_images_are_warned_of() {
    let project = project("val_split: 0.5");
    fill(&project, &["dark", "light"], 6);
    fill(&project, &["a single one", "b single one", "c single one"], 1);
    let ended = project.pipe(&["run", "p.yaml"]).succeeds();
    ended
        .says("no training image with `val_split: 0.5`: ")
        .says(" single one")
        .says("set a smaller val_split");
}

#[test]
fn a_flat_folder_trains_with_and_without_classes() {
    let project = project("");
    (0..20).for_each(|i| project.write(&format!("pictures/{i}.png"), png(10 * i)));
    project.pipe(&["run", "p.yaml"]).succeeds().says("20 images in 1 class at");
    assert_eq!(project.metadata(RUN)["dataset"]["classes"], serde_json::json!(["images"]));
    let plain = project.read("p.yaml").replace("model: {", "model: { class_conditional: false,");
    project.write("p.yaml", plain);
    project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds();
    project
        .pipe(&[
            "sample",
            &format!("{}/checkpoints/last.ckpt", RUN.replace("001", "002")),
            "--n",
            "1",
        ])
        .succeeds();
}

#[test]
fn a_class_is_found_however_its_accents_and_case_are_written() {
    let project = project("classes: [\"\u{c4} b\", O, o]");
    fill(&project, &["A\u{308} b", "O", "o", "unused"], 3);
    project.pipe(&["check", "p.yaml"]).succeeds();
    if project.list("pictures").len() == 4 {
        project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds().says("9 images in 3 classes");
    }
}

#[test]
fn a_setting_that_changes_nothing_trains_nothing_anew_and_one_that_does_is_named() {
    let project = project("");
    fill(&project, &["dark", "light"], 8);
    project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds();
    let with = |more: &str| {
        let arguments = ["plan", "p.yaml", "--epochs", "1", "--set", more];
        project.pipe(&arguments).succeeds()
    };
    for same in [
        "data.fit=crop",
        "data.recursive=false",
        "data.background=white",
        "data.background=[255,255,255]",
        "data.num_images=64",
        "data.seed=3",
        "data.augmentation.rotation_degrees=10",
        "data.augmentation.horizontal_flip=false",
    ] {
        with(same).says("base  skip  up to date, run 001");
    }
    with("data.fit=pad").says("fit");
    with("data.background=black").says("background");
    with("data.augmentation.enabled=true").says("augmentation.enabled");
    with("data.val_split=0.25").says("val_split");
}

#[test]
fn a_colour_that_is_a_comment_is_refused() {
    let project = project("background: #808080");
    fill(&project, &["dark"], 1);
    project
        .pipe(&["check", "p.yaml"])
        .exits(2)
        .says("data.background")
        .says("\"#rrggbb\" in quotes");
}

#[test]
fn a_folder_below_the_home_folder_is_found() {
    let project = project("").environment("HOME", std::env::temp_dir().display().to_string());
    let home = tempfile::tempdir_in(std::env::temp_dir()).unwrap();
    let name = home.path().file_name().unwrap().to_str().unwrap().to_owned();
    for i in 0..4 {
        std::fs::create_dir_all(home.path().join("photos")).unwrap();
        std::fs::write(home.path().join(format!("photos/{i}.png")), png(i)).unwrap();
    }
    let root = format!("data.root=~/{name}/photos");
    project
        .pipe(&["run", "p.yaml", "--epochs", "1", "--set", &root])
        .succeeds()
        .says("4 images in 1 class");
}

#[test]
fn a_class_that_no_image_has_is_told_before_hours_of_training() {
    const SAMPLED: &str = "
  best: { kind: copy_best, from: base, to: best.ckpt }
  tuned: { kind: lora, base: best, dataset: data, epochs: 1, batch_size: 4, device: cpu, lora: { r: 2, target_modules: [qkv] } }
  drawn: { kind: sample, from: FROM, to: drawn.png, classes: [CLASS], n: 2, steps: 2, device: cpu }
";
    let project = project("");
    fill(&project, &["ants", "bees"], 4);
    let pipeline = project.read("p.yaml");
    for from in ["base", "best", "tuned"] {
        let stages = SAMPLED.replace("FROM", from);
        project.write("p.yaml", pipeline.clone() + &stages.replace("CLASS", "beees"));
        let said = "the model has no class `beees`; it has ants, bees";
        project.pipe(&["plan", "p.yaml"]).exits(2).says("drawn").says(said);
        project.pipe(&["run", "p.yaml"]).exits(2).says(said);
        assert!(!project.path("checkpoints").exists(), "{from}");
        // What is not asked for is not looked at.
        project.pipe(&["plan", "p.yaml", "tuned"]).succeeds();
    }
    project.write("p.yaml", pipeline + &SAMPLED.replace("FROM", "tuned").replace("CLASS", "bees"));
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert!(project.path("drawn.png").is_file());
}

const JUDGED: &str = "
  test: { kind: dataset, source: image_folder, root: mine, image_size: 8, split: test }
  quality: { kind: evaluate, from: base, dataset: test, to: quality, device: cpu, METRICS }
";

/// A pipeline on pictures of ants and bees that is judged by pictures of ants and wasps.
fn judged(metrics: &str) -> Project {
    let project = project("");
    fill(&project, &["ants", "bees"], 4);
    ["ants", "wasps"].iter().for_each(|name| project.write(&format!("mine/{name}/0.png"), png(7)));
    project.write("p.yaml", project.read("p.yaml") + &JUDGED.replace("METRICS", metrics));
    project
}

/// Both commands refuse the pipeline, in these words, before anything is trained.
#[track_caller]
fn refused_before_training(project: &Project, words: [&str; 2]) {
    for command in ["plan", "run"] {
        project.pipe(&[command, "p.yaml"]).exits(2).says(words[0]).says(words[1]);
    }
    assert!(!project.path("checkpoints").exists(), "nothing is trained before");
}

#[test]
fn a_judge_of_a_class_that_no_image_has_is_told_before_hours_of_training() {
    let project = judged("metrics: [nearest], seeds: 0-1, steps: 2, classes: [beees]");
    let words = ["quality.classes", "the model has no class `beees`; it has ants, bees"];
    refused_before_training(&project, words);
    // Pictures are compared with images of any class.
    let bees = ["--set", "quality.classes=[bees]", "--epochs", "1"];
    project.pipe(&[&["run", "p.yaml"], &bees[..]].concat()).succeeds();
}

#[test]
fn images_of_a_class_that_the_model_has_not_are_told_before_hours_of_training() {
    let project = judged("metrics: [val_loss]");
    let words = ["quality.dataset", "the model has no class `wasps`; it has ants, bees"];
    refused_before_training(&project, words);
    let unconditional = "base.model.class_conditional=false";
    project.pipe(&["plan", "p.yaml", "--set", unconditional]).succeeds();
}

#[test]
fn a_class_that_is_gone_is_told_though_its_pictures_were_drawn_before() {
    const DRAWN: &str = "
  drawn: { kind: sample, from: base, to: drawn.png, classes: [bees], n: 2, steps: 2, device: cpu }
  best: { kind: copy_best, from: base, to: best.ckpt }
  copied: { kind: sample, from: best, to: copied.png, classes: [bees], n: 2, steps: 2, device: cpu }
  quality: { kind: evaluate, from: base, dataset: data, to: quality, metrics: [nearest], seeds: 0-1, classes: [bees], steps: 2, device: cpu }
";
    let project = project("");
    fill(&project, &["ants", "bees", "wasps"], 4);
    project.write("p.yaml", project.read("p.yaml") + DRAWN);
    project.pipe(&["run", "p.yaml"]).succeeds();
    let rename = |from: &str, to: &str| {
        std::fs::rename(
            project.path(&format!("pictures/{from}")),
            project.path(&format!("pictures/{to}")),
        )
        .unwrap();
    };
    rename("bees", "hornets");
    let said = "the model has no class `bees`; it has ants, hornets, wasps";
    for stage in ["drawn", "copied", "quality"] {
        project
            .pipe(&["plan", "p.yaml", stage])
            .exits(2)
            .says(&format!("{stage}.classes"))
            .says(said);
        project.pipe(&["run", "p.yaml", stage]).exits(2).says(said);
    }
    assert_eq!(project.list("checkpoints/base_training"), ["run_001"], "nothing is trained");
    rename("hornets", "bees");
    project.pipe(&["plan", "p.yaml"]).succeeds();
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
}

#[test]
fn labels_that_no_picture_has_are_told_though_all_else_is_up_to_date() {
    let project = project("");
    (0..4).for_each(|i| project.write(&format!("pictures/{i}.png"), png(10 * i)));
    let line = |name: &str, label: &str| {
        format!("{{\"file_name\": \"{name}\", \"label\": \"{label}\"}}\n")
    };
    let good: String = [("0.png", "a"), ("1.png", "a"), ("2.png", "b"), ("3.png", "b")]
        .map(|(n, l)| line(n, l))
        .concat();
    project.write("pictures/metadata.jsonl", &good);
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    for (wrong, name) in [(line("0.png", "b"), "0.png"), (line("gone.png", "a"), "gone.png")] {
        project.write("pictures/metadata.jsonl", good.clone() + &wrong);
        let said =
            format!("{name}: metadata.jsonl gives it a label, and it is not there, or stands");
        for command in [&["plan", "p.yaml"][..], &["run", "p.yaml"], &["plan", "p.yaml"]] {
            project.pipe(command).exits(1).says("data").says(&said);
        }
        project.pipe(&["data", "p.yaml"]).exits(1).says(&said);
    }
    project.write("pictures/metadata.jsonl", good);
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
}

#[test]
fn a_folder_of_test_images_is_judged_by_and_not_trained_on() {
    let project = project("");
    fill(&project, &["dark", "light"], 4);
    for class in ["dark", "light"] {
        (0..3).for_each(|i| project.write(&format!("mine/{class}/{i}.png"), png(7 * i + 1)));
    }
    let judge = "  test: { kind: dataset, source: image_folder, root: mine, image_size: 8, split: test }\n  \
                 quality: { kind: evaluate, from: base, dataset: test, to: quality, metrics: [val_loss] }\n";
    project.write("p.yaml", format!("{}\n{judge}", project.read("p.yaml").trim_end()));
    project
        .pipe(&["run", "p.yaml", "--epochs", "1"])
        .succeeds()
        .says("6 test images in 2 classes")
        .says("quality: epoch 1: val_loss=");
    project.pipe(&["check", "p.yaml", "--set", "base.dataset=test"]).exits(2).says("test");
}
