//! Plans, status, matrices and selections, with real trainings.

use crate::project::Project;

const SWEEP: &str = "\
name: sweep
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 32 }
  base:
    kind: train
    dataset: data
    matrix: { learning_rate: [0.001, 0.0001] }
    epochs: 2
    batch_size: 16
    model: { dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }
    device: cpu
  winner: { kind: select_best, over: base }
  best: { kind: copy_best, from: winner, to: best.ckpt }
  note: { kind: command, run: 'wc -c < best.ckpt > size.txt', inputs: [best.ckpt], outputs: [size.txt] }
";

fn sweep() -> Project {
    let project = Project::new();
    project.write("p.yaml", SWEEP);
    project
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// `stage action` of each step of `pipe plan --json`.
fn planned(project: &Project, more: &[&str]) -> Vec<String> {
    let plan =
        json(&project.pipe(&[&["plan", "p.yaml", "--json"], more].concat()).succeeds().stdout());
    let word = |step: &serde_json::Value, key: &str| step[key].as_str().unwrap().to_owned();
    plan["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| word(s, "stage") + " " + &word(s, "action"))
        .collect()
}

#[test]
fn a_matrix_is_trained_and_its_winner_handed_on() {
    let project = sweep();
    let ran = project.pipe(&["run", "p.yaml", "--jobs", "2"]).succeeds();
    ran.says("base@learning_rate=0.001 | ").says("base@learning_rate=0.0001 | ");
    assert_eq!(project.list("checkpoints/base_training"), ["run_001", "run_002"]);
    let best = |run: &str| {
        let run = project.metadata(&format!("checkpoints/base_training/{run}"));
        (run["best_checkpoint"]["metrics"]["train_loss"].as_f64().unwrap(), run["stage"].clone())
    };
    let winner =
        [best("run_001"), best("run_002")].into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    let status = json(&project.pipe(&["status", "p.yaml", "--json"]).succeeds().stdout());
    let of = |stage: &str| {
        status.as_array().unwrap().iter().find(|s| s["stage"] == stage).unwrap().clone()
    };
    let detail = of("winner")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(winner.1.as_str().unwrap()), "{detail}");
    let size = std::fs::metadata(project.path("best.ckpt")).unwrap().len();
    assert_eq!(project.read("size.txt").trim(), size.to_string());
    assert!(
        planned(&project, &[]).iter().all(|step| step.ends_with(" skip")),
        "{:?}",
        planned(&project, &[])
    );

    // One more value: the others stay.
    project.write("p.yaml", SWEEP.replace("[0.001,", "[0.01, 0.001,"));
    let steps = planned(&project, &[]);
    let wanted = [
        "data run",
        "base@learning_rate=0.01 run",
        "base@learning_rate=0.001 skip",
        "base@learning_rate=0.0001 skip",
    ];
    assert_eq!(steps[..4], wanted);
}

#[test]
fn both_ways_to_run_many_give_the_same_bytes() {
    let last = |jobs: &str| {
        let project = sweep();
        project.pipe(&["run", "p.yaml", "--jobs", jobs]).succeeds();
        crate::project::all_tensors(&project.path("best.ckpt"))
    };
    assert!(last("1") == last("3"));
}

#[test]
fn a_plan_says_what_and_why() {
    let project = sweep();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let changed = ["plan", "p.yaml", "--set", "base.seed=7", "--json"];
    let plan = json(&project.pipe(&changed).succeeds().stdout());
    let step = &plan["steps"][1];
    assert_eq!(step["reason"], "seed 42 -> 7 (new run_003)");
    assert_eq!(step["changes"], serde_json::json!([{"key": "seed", "old": 42, "new": 7}]));
    assert!(step["identity"].as_str().unwrap().starts_with("sha256:"));
    project.pipe(&["plan", "p.yaml", "--epochs", "3"]).says("extend 2 -> 3").says("run?     ");
    let text = project.pipe(&["plan", "p.yaml", "winner", "--force"]).succeeds().stdout();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    assert!(
        lines[1].ends_with("skip  up to date, run 001") && lines[3].ends_with("run   forced"),
        "{text}"
    );
}

#[test]
fn a_plan_file_is_kept_to() {
    let project = sweep();
    project.pipe(&["plan", "p.yaml", "--epochs", "1", "-o", "plan.json"]).succeeds();
    project.pipe(&["run", "--plan", "plan.json"]).succeeds();
    assert_eq!(project.metadata("checkpoints/base_training/run_001")["epochs"], 1);
    let refused = project.pipe(&["run", "--plan", "plan.json"]).exits(2);
    refused
        .says("the plan does not hold any more")
        .says("winner: run (")
        .says("-> skip (up to date");
    project.pipe(&["run", "p.yaml", "--plan", "plan.json"]).exits(2).says("cannot be used with");

    // What decides no result is part of it, too: how long, and what is kept.
    let text = |epochs: u32, keep: u32| {
        let keys = format!("epochs: {epochs}\n    checkpoint: {{ keep_last_n: {keep} }}");
        format!("name: t\nstages:\n  base:\n    kind: trainer\n    run: exit 3\n    {keys}\n")
    };
    project.write("q.yaml", text(2, 2));
    project.pipe(&["plan", "q.yaml", "-o", "q.json"]).succeeds();
    for other in [text(9, 2), text(2, 1)] {
        project.write("q.yaml", other);
        let refused = project.pipe(&["run", "--plan", "q.json"]).exits(2);
        refused.says("does not hold any more").says("base: other settings or inputs");
    }
    project.write("q.yaml", text(2, 2));
    project.pipe(&["run", "--plan", "q.json"]).exits(1).says("ended with exit code 3");
}

#[test]
fn parts_of_a_pipeline_can_be_named() {
    let project = sweep();
    assert_eq!(planned(&project, &["base"]).len(), 3, "a name means its whole matrix");
    assert_eq!(planned(&project, &["base@learning_rate=0.001"]).len(), 2);
    assert_eq!(planned(&project, &["--until", "winner"]).len(), 4);
    assert_eq!(planned(&project, &["--from", "best"]).len(), 6);
    project.pipe(&["plan", "p.yaml", "bset"]).exits(2).says("did you mean `best`?");
    project
        .pipe(&["plan", "p.yaml", "--from", "note", "--until", "best"])
        .exits(2)
        .says("no stage lies between");
}

#[test]
fn status_has_a_record_for_every_stage() {
    let project = sweep();
    let status = |project: &Project| -> Vec<String> {
        let all = json(&project.pipe(&["status", "p.yaml", "--json"]).succeeds().stdout());
        let word = |s: &serde_json::Value| s["status"].as_str().unwrap().to_owned();
        all.as_array().unwrap().iter().map(word).collect()
    };
    assert_eq!(
        status(&project),
        ["on demand", "not run", "not run", "not run", "not run", "not run"]
    );
    project.write("p.yaml", SWEEP.replace("wc -c", "exit 7; wc -c"));
    project.pipe(&["run", "p.yaml"]).exits(1).says("ended with exit code 7");
    assert_eq!(status(&project), ["on demand", "done", "done", "done", "done", "failed"]);
    project.write("p.yaml", SWEEP);
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("p.yaml", SWEEP.replace("wc -c", "wc -m"));
    assert_eq!(status(&project).last().unwrap(), "stale");
    project.pipe(&["status", "p.yaml"]).says("run wc -c < best.ckpt > size.txt -> wc -m");
}

#[test]
fn a_time_limit_saves_a_checkpoint_first() {
    let project = Project::with("batch_size: 16", "batch_size: 16\n    timeout: 3s");
    let long = ["run", "p.yaml", "--epochs", "4000"];
    project.pipe(&long).exits(1).says("stopped by its timeout").says("(timeout: 3s)");
    let status = project.pipe(&["status", "p.yaml"]).succeeds().stdout();
    assert!(status.contains("failed") || status.contains("partial"), "{status}");
    project.pipe(&["plan", "p.yaml", "--epochs", "4000"]).says("resume at epoch");
}

#[test]
fn runs_that_nothing_needs_can_go() {
    let project = sweep();
    project.pipe(&["run", "p.yaml"]).succeeds();
    // Two more of each, so that the first ones are old.
    for seed in ["base.seed=1", "base.seed=2"] {
        project.pipe(&["run", "p.yaml", "base", "--set", seed]).succeeds();
    }
    let runs = || project.list("checkpoints/base_training");
    assert_eq!(runs().len(), 6);
    let status = project.pipe(&["status", "p.yaml", "winner"]).succeeds().stdout();
    let winner =
        if status.contains("base@learning_rate=0.001 with") { "run_001" } else { "run_002" };
    // The winner's checkpoint was copied, and both were compared with each other.
    let told = project.pipe(&["runs", "prune", "--keep", "1", "--dry-run"]).succeeds().stdout();
    assert!(
        told.contains("run_001: stage winner of sweep was made from it")
            || told.contains("run_001: stage best"),
        "{told}"
    );
    assert!(told.contains("would remove checkpoints/base_training/run_003"), "{told}");
    assert_eq!(runs().len(), 6);
    project.pipe(&["runs", "prune", "--keep", "1"]).succeeds().says("are free");
    assert_eq!(runs(), ["run_001", "run_002", "run_005", "run_006"]);
    project.pipe(&["runs", "prune", "--keep", "1"]).succeeds().says("nothing to remove");

    let number = winner.trim_start_matches("run_");
    project.pipe(&["runs", "rm", number]).exits(2).says("was made from");
    project.pipe(&["runs", "rm", "5"]).exits(2).says("stands on");
    project.pipe(&["runs", "rm", "5", "--force"]).succeeds();
    project.pipe(&["runs", "rm", number, "--force"]).succeeds();
    assert_eq!(runs().len(), 2);
    project.pipe(&["runs", "rm", "77"]).exits(2).says("there is no run 77");
}

#[test]
fn what_a_crash_left_is_collected() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let run = "checkpoints/base_training/run_001";
    project.write(&format!("{run}/checkpoints/.epoch_003.ckpt.tmp-1-0"), "half");
    std::fs::copy(
        project.path(&format!("{run}/checkpoints/epoch_001.ckpt")),
        project.path(&format!("{run}/checkpoints/epoch_009.ckpt")),
    )
    .unwrap();
    std::fs::create_dir(project.path("checkpoints/base_training/run_007")).unwrap();
    let before = project.list(&format!("{run}/checkpoints")).len();
    let told = project.pipe(&["gc", "--dry-run"]).succeeds().stdout();
    for piece in [
        ".epoch_003.ckpt.tmp-1-0",
        "epoch_009.ckpt (a checkpoint that its run does not list",
        "run_007",
    ] {
        assert!(told.contains(piece), "{told}");
    }
    assert_eq!(project.list(&format!("{run}/checkpoints")).len(), before);
    project.pipe(&["gc"]).succeeds();
    assert_eq!(
        project.list(&format!("{run}/checkpoints")),
        ["best.ckpt", "epoch_001.ckpt", "epoch_002.ckpt", "last.ckpt"]
    );
    project.write(".pipe/cache/images/0", "pixels");
    project.pipe(&["gc"]).succeeds().says("nothing to remove");
    project
        .pipe(&["gc", "--cache"])
        .succeeds()
        .says(".pipe/cache (made again when it is missed, 6 B)");
    assert!(!project.path(".pipe/cache").exists());
    project.pipe(&["plan", "p.yaml"]).says("base  skip");
}

#[test]
fn runs_are_compared_by_what_differs() {
    let project = Project::with("    num_images: 64", "    num_images: 64\n    val_split: 0.25");
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["run", "p.yaml", "--learning-rate", "0.01"]).succeeds();
    let table = project.pipe(&["runs", "compare", "1", "2"]).succeeds().stdout();
    assert!(
        table.lines().any(|l| l.split_whitespace().eq(["learning_rate", "0.001", "0.01"])),
        "{table}"
    );
    assert!(table.contains("best train_loss") && !table.contains("seed"), "{table}");
    let both = json(&project.pipe(&["runs", "compare", "1", "2", "--json"]).succeeds().stdout());
    assert_eq!(both["run 002"]["learning_rate"], 0.01);
    // Every metric of the best checkpoint, and not only that which chose it.
    let best = &project.metadata("checkpoints/base_training/run_002")["best_checkpoint"];
    assert_eq!(both["run 002"]["val_loss at best epoch"], best["metrics"]["val_loss"]);
    assert!(best["metrics"]["val_loss"].is_f64(), "{best}");
    project.pipe(&["runs", "compare", "1", "9"]).exits(2).says("there is no run 9");
}
