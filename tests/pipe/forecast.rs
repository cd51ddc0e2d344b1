//! How long a plan takes and whether it fits on the disk, as `pipe plan` and `pipe run` say.

use serde_json::Value;

use crate::project::Project;

const RUN: &str = "checkpoints/base_training/run_001";

fn forecast(project: &Project, arguments: &[&str]) -> Value {
    let arguments = [&["plan", "p.yaml", "--json"], arguments].concat();
    let plan = project.pipe(&arguments).succeeds().stdout();
    serde_json::from_str::<Value>(&plan).unwrap()["forecast"].clone()
}

#[test]
fn a_training_takes_what_its_epochs_took() {
    let project = Project::new();
    assert_eq!(forecast(&project, &[])["unknown"], serde_json::json!(["base"]));
    project.pipe(&["plan", "p.yaml"]).succeeds();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let history = project.metadata(RUN)["history"].clone();
    let seconds = |at: usize| history[at]["seconds"].as_f64().unwrap();
    let slower = seconds(0).max(seconds(1));

    let longer = forecast(&project, &["--epochs=7"]);
    let base = &longer["stages"][0];
    assert_eq!(base["stage"], "base", "{longer:#}");
    assert_eq!(base["from"], "run 001");
    assert!((base["seconds"].as_f64().unwrap() - 5.0 * slower).abs() < 1e-9, "{longer:#}");
    assert_eq!(longer["seconds"], base["ends_in"]);
    // Three of the newest and the best stay, and one more is written before the oldest goes.
    let file = project.path(&format!("{RUN}/checkpoints/epoch_002.ckpt"));
    let bytes = std::fs::metadata(file).unwrap().len();
    assert_eq!(base["bytes"].as_u64(), Some(3 * bytes));
    let shown = project.pipe(&["plan", "p.yaml", "--epochs=7"]).succeeds();
    shown.says("Stage   Takes").says("run 001").says("1 at once").says(" are free");

    // What changes no step takes as long; what does is said.
    let other = forecast(&project, &["--learning-rate=0.5"]);
    assert_eq!(other["stages"][0]["from"], "run 001");
    let other = forecast(&project, &["--batch-size=8"]);
    assert_eq!(other["stages"][0]["from"], "run 001, which has other settings");
    // Four times the pixels of twice the images.
    let larger = forecast(&project, &["--set", "image_size=16", "--set", "num_images=128"]);
    let base = &larger["stages"][0];
    assert_eq!(base["from"], "run 001, which has other settings (8 times)");
    assert!((base["seconds"].as_f64().unwrap() - 2.0 * 8.0 * slower).abs() < 1e-9, "{larger:#}");
    assert!(base["memory"].is_null(), "{larger:#}");
    // Nothing to do takes no time, and a plan with a forecast holds when it is carried out.
    assert_eq!(forecast(&project, &[])["seconds"], 0.0);
    project.pipe(&["plan", "p.yaml", "--epochs=3", "-o", "plan.json"]).succeeds();
    project.pipe(&["run", "--plan", "plan.json"]).succeeds();
    // The members of a matrix are like each other.
    let swept = forecast(&project, &["--sweep", "base.learning_rate=0.1,0.2", "--jobs=2"]);
    let froms: Vec<&Value> =
        swept["stages"].as_array().unwrap().iter().map(|s| &s["from"]).collect();
    assert_eq!(froms, ["run 001", "run 001"]);
}

#[test]
fn what_cannot_fit_on_the_disk_is_not_begun() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    // A checkpoint of a petabyte, as far as the run knows.
    let path = format!("{RUN}/metadata.json");
    let mut metadata: Value = serde_json::from_str(&project.read(&path)).unwrap();
    metadata["checkpoints"][1]["bytes"] = 1_000_000_000_000_000u64.into();
    project.write(&path, serde_json::to_string(&metadata).unwrap());
    let more = project.pipe(&["run", "p.yaml", "--epochs=4"]).exits(1);
    more.says("checkpoints will take up to 2000.0 TB")
        .says("are free on the disk")
        .says("keep_last_n");
    assert_eq!(project.metadata(RUN)["history"].as_array().unwrap().len(), 2);
    project.pipe(&["plan", "p.yaml", "--epochs=4"]).succeeds();
}

#[test]
fn what_nothing_is_known_of_is_timed_for_some_steps() {
    let project = Project::new();
    let lora = "  best: { kind: copy_best, from: base, to: best.ckpt }\n  tuned:\n    kind: lora\n    base: best\n    \
                dataset: data\n    epochs: 3\n    batch_size: 16\n    device: cpu\n";
    project.write("p.yaml", format!("{}{lora}", crate::project::TINY));
    let before = project.list(".");
    let measured = forecast(&project, &["--measure", "--jobs=2"]);
    let of = |name: &str| {
        let stages = measured["stages"].as_array().unwrap().iter();
        stages.clone().find(|stage| stage["stage"] == name).unwrap().clone()
    };
    for name in ["base", "tuned"] {
        assert_eq!(of(name)["from"], "some steps, timed now", "{measured:#}");
        assert!(of(name)["bytes"].as_u64().unwrap() > 1000, "{measured:#}");
        assert!(of(name)["memory"].as_u64().unwrap() > 1_000_000, "{measured:#}");
    }
    assert_eq!(measured["unknown"], serde_json::json!(["best"]));
    assert_eq!(measured["critical_path"], serde_json::json!(["base", "best", "tuned"]));
    assert_eq!(project.list("."), before, "nothing stays of it");
    project.pipe(&["run", "p.yaml"]).succeeds();
    let history = project.metadata(RUN)["history"].clone();
    let took: f64 =
        history.as_array().unwrap().iter().map(|e| e["seconds"].as_f64().unwrap()).sum();
    let ratio = of("base")["seconds"].as_f64().unwrap() / took;
    assert!((0.05..20.0).contains(&ratio), "on a machine of many programs: {ratio}");
    // From then on the run tells.
    assert!(project.metadata(RUN)["peak_memory"].as_u64().unwrap() > 1_000_000);
    let known = forecast(&project, &["--epochs=7", "--measure"]);
    assert_eq!(known["stages"][0]["from"], "run 001");
    assert!(known["stages"][0]["memory"].as_u64().is_some(), "{known:#}");
}
