//! How good a model is: `kind: evaluate`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::project::{Project, TINY};

const STAGES: &str = "
  quality:
    kind: evaluate
    from: base
    dataset: data
    to: quality
    metrics: [val_loss, nearest]
    seeds: 0-9
    steps: 2
    device: cpu
";

/// The tiny pipeline with validation images and a stage that judges its model.
fn project(changes: &[(&str, &str)]) -> Project {
    let project = Project::new();
    let mut text = TINY.replace("num_images: 64", "num_images: 64\n    val_split: 0.25") + STAGES;
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    project.write("p.yaml", text);
    project
}

fn metrics(project: &Project) -> BTreeMap<String, f64> {
    serde_json::from_str(&project.read("quality/metrics.json")).unwrap()
}

#[test]
fn a_model_is_judged_by_its_loss_and_by_its_pictures() {
    let project = project(&[]);
    project.pipe(&["run", "p.yaml"]).succeeds().says("epoch 2: nearest=").says(" val_loss=");
    let found = metrics(&project);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names.len(), 3 + 8 + 2, "{names:?}");
    assert!(found["nearest"] > 0.0 && found["nearest/of_validation"] > 0.0);
    let levels = found.iter().filter(|(name, _)| name.starts_with("val_loss/sigma_"));
    let mean = levels.map(|(_, loss)| loss).sum::<f64>() / 8.0;
    assert!((mean / found["val_loss"] - 1.0).abs() < 1e-9);
    assert!(
        found.contains_key("val_loss/class_circle") && found.contains_key("val_loss/class_square")
    );
    assert_eq!(project.list("quality"), ["metrics.json", "nearest.png", "pictures"]);
    // On the page it stands over the epoch of the checkpoint, without the details.
    project.pipe(&["report", "p.yaml"]).succeeds();
    let page = crate::report::data(&project.read("report.html"));
    let curves = page["runs"][0]["curves"].as_object().unwrap();
    assert_eq!(curves["quality.val_loss"], serde_json::json!([[2.0, found["val_loss"]]]));
    assert!(!curves.keys().any(|name| name.contains('/')), "{:?}", curves.keys());
    assert_eq!(project.list("quality/pictures/circle").len(), 5);
    let again = project.pipe(&["run", "p.yaml"]).succeeds();
    again.says("everything is up to date");
    let plan = project.pipe(&["plan", "p.yaml", "--json"]).succeeds().stdout();
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let stages = plan["steps"].as_array().unwrap().iter();
    let reason = |stage: &Value| stage["reason"].as_str().unwrap_or_default().to_owned();
    let reasons: Vec<String> = stages.filter(|s| s["stage"] == "quality").map(reason).collect();
    assert!(reasons[0].starts_with("up to date, nearest="), "{plan}");
    assert!(!reasons[0].contains("sigma"), "details are in the file: {}", reasons[0]);
}

#[test]
fn what_is_found_is_made_again_where_it_is_lost_and_pictures_are_kept() {
    let project = project(&[]);
    project.pipe(&["run", "p.yaml"]).succeeds();
    let (first, text) = (metrics(&project), project.read("quality/metrics.json"));
    let picture = project.path("quality/pictures/square/000003.png");
    let made = std::fs::metadata(&picture).unwrap().modified().unwrap();
    for lost in ["quality/metrics.json", "quality/nearest.png"] {
        std::fs::remove_file(project.path(lost)).unwrap();
        project.pipe(&["plan", "p.yaml"]).succeeds().says(&format!("{lost} is not there"));
        project.pipe(&["run", "p.yaml"]).succeeds();
        assert_eq!(project.read("quality/metrics.json"), text, "to the byte");
    }
    assert_eq!(std::fs::metadata(&picture).unwrap().modified().unwrap(), made);
    // More of the same pictures are sampled besides those that are there.
    project.pipe(&["run", "p.yaml", "--set", "quality.seeds=0-11"]).succeeds();
    assert_eq!(std::fs::metadata(&picture).unwrap().modified().unwrap(), made);
    assert_eq!(project.list("quality/pictures/circle").len(), 6);
    let more = metrics(&project);
    assert_eq!(more["val_loss"], first["val_loss"]);
    assert_ne!(more["nearest"], first["nearest"]);
    // Another model is another judgement.
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds().says("epoch 3: nearest=");
    assert_ne!(metrics(&project)["val_loss"], first["val_loss"]);
}

#[test]
fn a_stage_that_is_stopped_goes_on_and_finds_the_same() {
    let straight = project(&[("seeds: 0-9", "seeds: 0-199")]);
    straight.pipe(&["run", "p.yaml"]).succeeds();
    let stopped = project(&[("seeds: 0-9", "seeds: 0-199")]);
    let mut child = stopped.start(&["run", "p.yaml"]);
    let some = || stopped.list("quality/pictures/circle").len() > 2;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !some() {
        assert!(std::time::Instant::now() < deadline && child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    stopped.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(stopped.read("quality/metrics.json"), straight.read("quality/metrics.json"));
}

#[test]
fn the_best_model_of_a_sweep_is_chosen_by_a_stage_that_judges() {
    let matrix = "    matrix: { learning_rate: [1.0e-3, 1.0e-6] }\n";
    let project = project(&[
        ("  base:\n    kind: train\n", &format!("  base:\n    kind: train\n{matrix}")),
        ("    from: base\n", "    from: base@learning_rate=${matrix.learning_rate}\n"),
        ("    to: quality\n", &format!("    to: quality/${{matrix.learning_rate}}\n{matrix}")),
    ]);
    let chosen = "
  chosen: { kind: select_best, over: base, by: quality.val_loss }
";
    let text = project.read("p.yaml") + chosen;
    project.write("p.yaml", text.replace("quality.val_loss }", "quality.val_los }"));
    project.pipe(&["check", "p.yaml"]).exits(2).says("`quality` reports no `val_los`");
    project.write("p.yaml", text);
    project
        .pipe(&["run", "p.yaml"])
        .succeeds()
        .says("chosen: base@learning_rate=0.001, quality.val_loss");
}

#[test]
fn what_cannot_be_judged_is_refused_before_anything_runs() {
    for (change, said) in [
        (("\n    val_split: 0.25", ""), "data set `data` has no validation images"),
        (("[val_loss, nearest]", "[]"), "at least one"),
        (("[val_loss, nearest]", "[val_loss, val_loss]"), "each metric once"),
        (("[val_loss, nearest]", "[val_loss]"), "only metrics of pictures use it"),
        (("[val_loss, nearest]", "[val_lost]"), "val_loss"),
        (("seeds: 0-9", "seeds: 0-9\n    resize: legacy"), "`precision` and `recall` use it"),
        (("seeds: 0-9", "seeds: 0-9\n    statistics: s.npz"), "`fid` among the metrics"),
        (("seeds: 0-9", "seeds: 0-9\n    guidance: -1"), "0 or more"),
        (("seeds: 0-9", "seeds: 0-9\n    sampler: { rho: 0 }"), "1 to 100"),
        (("to: quality", "to: ../quality"), "inside the project"),
        (("from: base", "from: data"), "`data`"),
        (("dataset: data\n    to", "dataset: base\n    to"), "`base`"),
        (("seeds: 0-9", "seeds: 0-9\n    split: test"), "validation"),
    ] {
        project(&[change]).pipe(&["check", "p.yaml"]).exits(2).says(said);
    }
    let shapes = "\n  other: { kind: dataset, source: shapes, image_size: 16, val_split: 0.5 }";
    let other = project(&[("    dataset: data\n    to", "    dataset: other\n    to")]);
    other.write("p.yaml", other.read("p.yaml") + shapes);
    other.pipe(&["check", "p.yaml"]).exits(2).says("set its image_size to 8");
}

#[test]
fn what_is_set_for_all_stages_is_left_out_where_it_does_nothing() {
    let project =
        project(&[("[val_loss, nearest]", "[val_loss]"), ("    seeds: 0-9\n    steps: 2\n", "")])
            .environment("PIPE_STEPS", "3");
    let drawn = "  drawn: { kind: sample, from: base, to: drawn, seeds: 0-4, device: cpu }\n";
    project.write("p.yaml", project.read("p.yaml") + drawn);
    project.pipe(&["check", "p.yaml", "--seed", "7", "--set", "n=5"]).succeeds();
    let own = ["check", "p.yaml", "--set", "drawn.seed=7"];
    project.pipe(&own).exits(2).says("drawn.seed=7: `seeds` says which pictures are sampled");
}
