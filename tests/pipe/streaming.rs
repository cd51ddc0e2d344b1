//! Stages that look at each checkpoint while it is trained: `each_checkpoint: true`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::project::{Project, TINY};
use crate::slurm::{Cluster, job_of};

const RUN: &str = "checkpoints/base_training/run_001";

const STAGES: &str = "
    checkpoint: { keep_last_n: 1, monitor: quality.nearest }
  quality:
    kind: evaluate
    from: base
    each_checkpoint: true
    dataset: data
    to: quality
    metrics: [val_loss, nearest]
    seeds: 0-5
    steps: 2
    device: cpu
  grids: { kind: sample, from: base, each_checkpoint: true, to: grids/base.png, n: 4, steps: 2, device: cpu }
  best: { kind: copy_best, from: base, to: best.ckpt }
";

fn text() -> String {
    TINY.replace("num_images: 64", "num_images: 64\n    val_split: 0.25").trim_end().to_owned()
        + STAGES
}

/// The tiny pipeline with two stages that look at each checkpoint, of which one decides what is best.
fn project(changes: &[(&str, &str)]) -> Project {
    let project = Project::new();
    let mut text = text();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    project.write("p.yaml", text);
    project
}

fn metrics(project: &Project, file: &str) -> BTreeMap<String, f64> {
    serde_json::from_str(&project.read(file)).unwrap()
}

/// `nearest` of each epoch up to `epochs`, as its folder has it.
fn nearest(project: &Project, epochs: u64) -> Vec<f64> {
    let file = |epoch| format!("quality/epoch_{epoch:03}/metrics.json");
    (1..=epochs).map(|epoch| metrics(project, &file(epoch))["nearest"]).collect()
}

/// The epoch with the lowest value, counted from 1.
fn lowest(values: &[f64]) -> u64 {
    let lowest = (0..values.len()).min_by(|a, b| values[*a].total_cmp(&values[*b]));
    lowest.unwrap() as u64 + 1
}

/// The epochs of the checkpoints that stand.
fn standing(project: &Project) -> Vec<u64> {
    let all = project.metadata(RUN)["checkpoints"].as_array().unwrap().clone();
    all.iter().map(|c| c["epoch"].as_u64().unwrap()).collect()
}

/// Whether all is there and true of a training of so many epochs.
#[track_caller]
fn check(project: &Project, epochs: u64) -> Vec<f64> {
    let found = nearest(project, epochs);
    let best = lowest(&found);
    let metadata = project.metadata(RUN);
    assert_eq!(metadata["best_checkpoint"]["epoch"], best, "{found:?}");
    let mut kept = vec![best, epochs];
    kept.dedup();
    assert_eq!(standing(project), kept, "{found:?}");
    let show = |file: &str| {
        let shown = project.pipe(&["ckpt", "show", "--json", file]).succeeds().stdout();
        serde_json::from_str::<Value>(&shown).unwrap()["epoch"].as_u64().unwrap()
    };
    assert_eq!(show(&format!("{RUN}/checkpoints/best.ckpt")), best);
    assert_eq!(show("best.ckpt"), best, "what is behind it takes the best of all");
    assert_eq!(project.read("quality/metrics.json"), {
        project.read(&format!("quality/epoch_{best:03}/metrics.json"))
    });
    let bytes = |file: &str| std::fs::read(project.path(file)).unwrap();
    assert!(bytes("grids/base.png") == bytes(&format!("grids/base_epoch_{best:03}.png")));
    let shown = project.pipe(&["runs", "show", "1", "--json"]).succeeds().stdout();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let history = shown["history"].as_array().unwrap();
    let told: Vec<f64> =
        history.iter().map(|e| e["metrics"]["quality.nearest"].as_f64().unwrap()).collect();
    assert_eq!(told, found);
    project
        .pipe(&["run", "p.yaml", "--epochs", &epochs.to_string()])
        .succeeds()
        .says("everything is up to date");
    found
}

#[test]
fn what_a_judge_found_may_be_removed_by_hand() {
    let project = project(&[]);
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    std::fs::remove_dir_all(project.path("quality")).unwrap();
    std::fs::remove_dir_all(project.path("grids")).unwrap();
    // Of the checkpoints that stand it is found out again.
    let standing = standing(&project);
    let ran = project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    let count = standing.len();
    ran.says(&format!("of {count} checkpoint{}: grids/", if count == 1 { "" } else { "s" }));
    let folders: Vec<String> = standing.iter().map(|epoch| format!("epoch_{epoch:03}")).collect();
    assert_eq!(project.list("quality"), [folders, vec!["metrics.json".to_owned()]].concat());
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds().says("everything is up to date");
    // All of an epoch, or some of it.
    std::fs::remove_dir_all(project.path(&format!("quality/epoch_{:03}", standing[0]))).unwrap();
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
}

#[test]
fn a_plan_says_which_results_another_look_costs() {
    let project = project(&[]);
    project.pipe(&["run", "p.yaml", "--epochs", "4"]).succeeds();
    let gone = 4 - standing(&project).len();
    let plan = project.pipe(&["plan", "p.yaml", "--epochs", "4", "--set", "quality.seeds=0-6"]);
    plan.succeeds().says("seeds 0-5 -> 0-6").says(&format!("what was found of {gone} checkpoints"));
}

#[test]
fn a_training_that_ended_inside_its_first_epoch_has_nothing_to_look_at() {
    for (stage, other) in [("quality", "grids"), ("grids", "quality")] {
        let project = project(&[("monitor: quality.nearest", "monitor: train_loss")]);
        let ended = project.pipe(&["run", "p.yaml", "--set", "max_steps=1", stage]).exits(2);
        ended.says(&format!("stage {stage}")).says("no checkpoint of an epoch's end");
        assert!(!project.path(other).exists());
    }
}

#[test]
fn the_file_of_a_run_with_a_judge_runs_by_itself() {
    for changes in [
        &[][..],
        &[
            ("metrics: [val_loss, nearest]\n    seeds: 0-5\n    steps: 2", "metrics: [val_loss]"),
            ("monitor: quality.nearest", "monitor: quality.val_loss"),
            ("to: grids/base.png, n: 4", "to: grids, seeds: 0-3"),
        ],
    ] {
        let project = project(changes);
        project.pipe(&["run", "p.yaml", "--epochs", "2"]).succeeds();
        let file = format!("{RUN}/config.yaml");
        project.pipe(&["run", &file, "--dry-run"]).succeeds().says("base");
        project.pipe(&["audit", "1"]).succeeds().says("the same");
        project
            .pipe(&["fork", "1", "--at", "2", "--set", "learning_rate=1e-4", "--epochs", "3"])
            .succeeds();
    }
}

#[test]
fn nearest_has_no_better_side() {
    let project = project(&[("monitor: quality.nearest", "monitor: quality.nearest, mode: max")]);
    let said = project.pipe(&["check", "p.yaml"]).succeeds();
    assert!(!said.stderr().contains("better when lower"), "{}", said.stderr());
}

#[test]
fn a_judge_that_draws_nothing_leaves_nothing_to_remove() {
    let project = project(&[
        ("metrics: [val_loss, nearest]\n    seeds: 0-5\n    steps: 2", "metrics: [val_loss]"),
        ("monitor: quality.nearest", "monitor: quality.val_loss"),
    ]);
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds().says("Epoch 1: val_loss=");
    assert_eq!(project.list("quality/epoch_002"), ["metrics.json"]);
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds().says("everything is up to date");
}

#[test]
fn what_is_found_out_beside_a_training_decides_which_checkpoint_is_the_best() {
    let project = project(&[]);
    let ran = project.pipe(&["run", "p.yaml", "--epochs", "5"]).succeeds();
    ran.says("quality: ").says("Epoch 1: nearest=").says("5 checkpoints; of the best, epoch ");
    let first = check(&project, 5);
    let names: Vec<String> = (1..=5).map(|epoch| format!("base_epoch_{epoch:03}.png")).collect();
    assert_eq!(project.list("grids"), [vec!["base.png".to_owned()], names].concat());
    assert_eq!(project.list("quality/epoch_002"), ["metrics.json", "nearest.png"]);

    // More epochs of the same run: those that were looked at are not looked at again.
    let file = project.path("quality/epoch_001/metrics.json");
    let before = std::fs::metadata(&file).unwrap().modified().unwrap();
    project.pipe(&["run", "p.yaml", "--epochs", "7"]).succeeds();
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), before);
    assert_eq!(check(&project, 7)[..5], first[..]);
}

#[test]
fn other_settings_judge_what_stands_anew() {
    let project = project(&[]);
    project.pipe(&["run", "p.yaml", "--epochs", "4"]).succeeds();
    let kept = standing(&project);
    let plan = ["plan", "p.yaml", "--epochs", "4", "--set", "quality.steps=3"];
    project.pipe(&plan).succeeds().says("steps");
    let run = ["run", "p.yaml", "--epochs", "4", "--set", "quality.steps=3"];
    project.pipe(&run).succeeds();
    let of = |epoch: &u64| metrics(&project, &format!("quality/epoch_{epoch:03}/metrics.json"))["nearest"];
    let values: Vec<f64> = kept.iter().map(of).collect();
    let best = kept[lowest(&values) as usize - 1];
    assert_eq!(project.metadata(RUN)["best_checkpoint"]["epoch"], best, "{values:?}");
    project.pipe(&run).succeeds().says("everything is up to date");

    // What was lost is made again, where its checkpoint stands.
    let sheet = format!("quality/epoch_{best:03}/nearest.png");
    std::fs::remove_file(project.path(&sheet)).unwrap();
    project.pipe(&run).succeeds();
    assert!(project.path(&sheet).is_file());
}

#[test]
fn killed_at_any_time_it_ends_as_one_that_was_not() {
    let whole = project(&[]);
    whole.pipe(&["run", "p.yaml", "--epochs", "5"]).succeeds();
    let expected = check(&whole, 5);
    let broken = project(&[]);
    for wait in [200, 500, 900, 1400, 2000, 300, 700] {
        let mut child = broken.start(&["run", "p.yaml", "--epochs", "5"]);
        std::thread::sleep(Duration::from_millis(wait));
        let _ = child.kill();
        child.wait().unwrap();
    }
    broken.pipe(&["run", "p.yaml", "--epochs", "5"]).succeeds();
    assert_eq!(check(&broken, 5), expected, "the same numbers");
    for file in ["quality/metrics.json", "grids/base.png"] {
        let bytes = |project: &Project| std::fs::read(project.path(file)).unwrap();
        assert!(bytes(&whole) == bytes(&broken) || file.ends_with(".png"), "{file}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let said = |from: &str, to: &str| project(&[(from, to)]).pipe(&["check", "p.yaml"]).stderr();
    let message = said("monitor: quality.nearest", "monitor: qualty.nearest");
    assert!(message.contains("no stage is called `qualty`"), "{message}");
    let message = said("monitor: quality.nearest", "monitor: quality.fid");
    assert!(
        message.contains("`quality` reports no `fid`; it reports nearest, val_loss"),
        "{message}"
    );
    let message = said("each_checkpoint: true\n", "batch_size: 8\n");
    assert!(message.contains("stage `quality` does not judge what `base` makes"), "{message}");
    assert!(message.contains("each_checkpoint: true"), "{message}");
    let message = said("from: base, each_checkpoint", "from: best, each_checkpoint");
    assert!(message.contains("`best` has one checkpoint, and none for each epoch"), "{message}");
    let message = said("monitor: quality.nearest", "mode: max, monitor: quality.val_loss");
    assert!(message.contains("the highest quality.val_loss would be the best"), "{message}");
    let early = "batch_size: 16\n    early_stopping: { patience: 1 }";
    let message = said("batch_size: 16", early);
    assert!(message.contains("is found out beside the training"), "{message}");
}

#[test]
fn of_a_sweep_each_stage_is_judged_by_its_own() {
    const RATES: &str = "matrix: { learning_rate: [1.0e-3, 1.0e-5] }";
    let grids = "  grids: { kind: sample, from: base, each_checkpoint: true, to: grids/base.png, n: 4, steps: 2, device: cpu }\n";
    let project = project(&[
        ("kind: train", &format!("kind: train\n    {RATES}")),
        (
            "from: base\n",
            &format!("{RATES}\n    from: base@learning_rate=${{matrix.learning_rate}}\n"),
        ),
        ("to: quality\n", "to: quality/${matrix.learning_rate}\n"),
        (grids, ""),
        (
            "kind: copy_best, from: base, to: best.ckpt",
            "kind: copy_best, from: chosen, to: best.ckpt }\n  chosen: { kind: select_best, over: base, by: quality.nearest",
        ),
    ]);
    project.pipe(&["run", "p.yaml"]).succeeds();
    let of = |rate: &str, file: &str| metrics(&project, &format!("quality/{rate}/{file}"));
    let rates = ["0.001", "0.00001"];
    let values = rates.map(|rate| of(rate, "metrics.json")["nearest"]);
    for rate in rates {
        let each = ["epoch_001/metrics.json", "epoch_002/metrics.json"];
        let each = each.map(|file| of(rate, file)["nearest"]);
        assert_eq!(of(rate, "metrics.json")["nearest"], each[0].min(each[1]), "{rate}: {each:?}");
    }
    let best = rates[lowest(&values) as usize - 1];
    let shown = project.pipe(&["ckpt", "show", "--json", "best.ckpt"]).succeeds().stdout();
    assert!(shown.contains(&format!("base@learning_rate={best}")), "{values:?}: {shown}");
}

#[test]
fn a_run_moves_with_what_was_found_out() {
    let project = project(&[]);
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    project.pipe(&["runs", "export", "1", "-o", "run.tar"]).succeeds();
    let other = Project::new();
    std::fs::copy(project.path("run.tar"), other.path("run.tar")).unwrap();
    other.pipe(&["runs", "import", "run.tar"]).succeeds();
    let shown = other.pipe(&["runs", "show", "1", "--json"]).succeeds().stdout();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let metrics = &shown["history"][2]["metrics"];
    assert!(metrics["quality.nearest"].is_number(), "{metrics}");
    project.pipe(&["report", "-o", "page.html"]).succeeds();
    assert!(project.read("page.html").contains("quality.nearest"));
}

#[test]
fn on_slurm_it_is_a_job_of_its_own_beside_the_training() {
    let Some(cluster) = Cluster::start_two() else { return };
    let local = project(&[]);
    local.pipe(&["run", "p.yaml", "--epochs", "6"]).succeeds();
    let expected = check(&local, 6);

    // However late the second job starts, the training's waits in its hook until something is found out.
    let wait = "until [ -e quality/epoch_001/metrics.json ]; do sleep 0.1; done";
    let hook = format!("    on: {{ epoch_end: {{ run: '{wait}', timeout: 90s }} }}\n  quality:\n");
    let project = cluster.project(&text().replace("  quality:\n", &hook));
    let run = ["run", "p.yaml", "--epochs", "6", "--executor", "slurm"];
    project.pipe(&run).succeeds();
    assert_eq!(check(&project, 6), expected);
    let time = |stage: &str, key: &str| cluster.job(&job_of(&project, stage), key);
    assert!(time("quality", "StartTime") <= time("base", "EndTime"), "beside it");
    assert!(time("best", "StartTime") >= time("quality", "EndTime"), "behind both");
}
