//! Trainings that end before their last epoch, as a success, and go on when more is wanted.

use std::time::{Duration, Instant};

use crate::project::{Project, TINY, all_tensors, send};
use crate::resume::{delays, in_pieces};

const RUN: &str = "checkpoints/base_training/run_001";

/// The tiny training with further keys of its stage.
fn tiny(keys: &str) -> Project {
    let project = Project::new();
    project.write("p.yaml", format!("{TINY}{keys}"));
    project
}

fn last(project: &Project) -> Vec<(String, Vec<u8>)> {
    all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")))
}

fn epochs(project: &Project) -> Vec<serde_json::Value> {
    let history = project.metadata(RUN)["history"].clone();
    history.as_array().unwrap().iter().map(|e| e["metrics"].clone()).collect()
}

/// Moments within the time that something took which began then.
fn within(began: Instant) -> impl Iterator<Item = Duration> {
    let took = u64::try_from(began.elapsed().as_millis()).unwrap();
    delays(took / 4 + 20, took + 100)
}

/// No loss falls so far: the first epoch is the best, and `patience` more follow.
const NO_GAIN: &str = "    early_stopping: { patience: 2, min_delta: 100 }\n";

#[test]
fn a_training_that_gets_no_better_ends_well_and_extends_with_more_patience() {
    let project = tiny(NO_GAIN);
    let run = |more: &[&str]| project.pipe(&[&["run", "p.yaml", "--epochs=7"], more].concat());
    run(&[])
        .succeeds()
        .says("3 of 7 epochs (no gain in 2 epochs of train_loss)")
        .says("best train_loss");
    let metadata = project.metadata(RUN);
    assert_eq!(metadata["status"], "completed");
    assert_eq!(metadata["ended_by"], "early_stopping");
    run(&[]).succeeds().says("up to date, run 001: ended at epoch 3 of 7, no gain in 2 epochs");

    // More patience goes on from where it stood, to the bit.
    let patient = ["--set", "early_stopping.patience=4"];
    let plan = |more: &[&str]| project.pipe(&[&["plan", "p.yaml", "--epochs=7"], more].concat());
    plan(&patient).succeeds().says("extend 3 -> 7");
    run(&patient).succeeds().says("Resumed from epoch 3").says("5 of 7 epochs (no gain in 4");
    let at_once = tiny(NO_GAIN);
    at_once.pipe(&[&["run", "p.yaml", "--epochs=7"], &patient[..]].concat()).succeeds();
    assert!(last(&project) == last(&at_once));
    assert_eq!(epochs(&project), epochs(&at_once));
    assert_eq!(project.metadata(RUN)["identity"], metadata["identity"]);

    // Less patience leaves it as it is.
    plan(&[]).succeeds().says("ended at epoch 5 of 7, no gain in 2 epochs");
    // Without the rule, and without a threshold, it goes on.
    for setting in ["early_stopping=null", "early_stopping.min_delta=0"] {
        plan(&["--set", setting]).succeeds().says("extend 5 -> 7");
    }
    run(&["--set", "early_stopping=null"]).succeeds();
    let plain = tiny("");
    plain.pipe(&["run", "p.yaml", "--epochs=7"]).succeeds();
    assert!(last(&project) == last(&plain));
    assert_eq!(project.metadata(RUN)["ended_by"], serde_json::Value::Null);
    assert_eq!(
        plain.metadata(RUN)["identity"],
        metadata["identity"],
        "it is no part of the identity"
    );
    plain.pipe(&["plan", "p.yaml", "--epochs=9"]).succeeds().says("extend 7 -> 9");
}

#[test]
fn killed_at_random_it_ends_after_the_same_epoch() {
    let keys = "    early_stopping: { patience: 5, min_delta: 100 }\n    checkpoint: { save_every_n_epochs: 2 }\n";
    let arguments = ["run", "p.yaml", "--epochs=30", "--set", "num_images=256"];
    let whole = tiny(keys);
    let began = Instant::now();
    whole.pipe(&arguments).succeeds().says("6 of 30 epochs");
    let pieces = tiny(keys);
    let kills = in_pieces(&pieces, &arguments, within(began));
    assert!(last(&whole) == last(&pieces), "after {kills} kills");
    assert_eq!(epochs(&whole), epochs(&pieces));
    let names = |project: &Project| project.list(&format!("{RUN}/checkpoints"));
    assert_eq!(names(&whole), names(&pieces));
}

#[test]
fn a_crash_behind_the_last_epoch_is_put_in_order() {
    let project = tiny(NO_GAIN);
    project.pipe(&["run", "p.yaml", "--epochs=7"]).succeeds();
    let mut metadata = project.metadata(RUN);
    metadata["status"] = "running".into();
    metadata.as_object_mut().unwrap().remove("finished_early");
    metadata.as_object_mut().unwrap().remove("checksum");
    project.write(&format!("{RUN}/metadata.json"), metadata.to_string());
    project.pipe(&["plan", "p.yaml", "--epochs=7"]).succeeds().says("run 001: trained, ended");
    project.pipe(&["run", "p.yaml", "--epochs=7"]).succeeds().says("3 of 7 epochs (no gain");
    assert_eq!(project.metadata(RUN)["history"], metadata["history"]);
}

/// Optimizer steps that the logs tell of.
fn steps(project: &Project) -> Vec<u64> {
    let text = project.read(&format!("{RUN}/logs/metrics.jsonl"));
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines
        .filter(|l| l["train_loss_step"].is_number())
        .map(|l| l["step"].as_u64().unwrap())
        .collect()
}

/// Four steps an epoch.
#[test]
fn a_training_of_so_many_steps_ends_inside_an_epoch_and_extends() {
    let project =
        tiny("    max_steps: 6\n  copy: { kind: copy_best, from: base, to: copy.ckpt }\n");
    let pipe = |command: &str, more: &[&str]| {
        project.pipe(&[&[command, "p.yaml", "--epochs=5"], more].concat())
    };
    pipe("run", &[]).succeeds().says("1 of 2 epochs (max_steps of 6 is reached)");
    let metadata = project.metadata(RUN);
    assert_eq!(
        (&metadata["status"], &metadata["ended_by"]),
        (&"completed".into(), &"max_steps".into())
    );
    assert_eq!(metadata["partial_checkpoint"]["global_step"], 6);
    assert_eq!(metadata["best_checkpoint"]["epoch"], 1);
    let files = project.list(&format!("{RUN}/checkpoints"));
    assert_eq!(files, ["best.ckpt", "epoch_001.ckpt", "last.ckpt", "step_00000006.ckpt"]);
    assert_eq!(steps(&project), (1..=6).collect::<Vec<_>>());
    pipe("run", &[]).succeeds().says("ended at epoch 1 of 2, max_steps of 6 is reached");
    pipe("plan", &["--set", "max_steps=5"]).succeeds().says("ended at epoch 1 of 2");
    pipe("plan", &["--set", "max_steps=10"]).succeeds().says("extend 1 -> 3");
    project.pipe(&["verify"]).succeeds();

    pipe("run", &["--set", "max_steps=10"]).succeeds().says("2 of 3 epochs (max_steps of 10");
    let at_once = tiny("    max_steps: 10\n");
    at_once.pipe(&["run", "p.yaml", "--epochs=5"]).succeeds();
    assert!(last(&project) == last(&at_once));
    assert_eq!((epochs(&project), steps(&project)), (epochs(&at_once), steps(&at_once)));
    // At an epoch's end nothing ends early.
    pipe("run", &["--set", "max_steps=12"]).succeeds().says("run 001, 3 epochs");
    assert_eq!(project.metadata(RUN)["ended_by"], serde_json::Value::Null);
    pipe("run", &["--set", "max_steps=null"]).succeeds();
    let plain = tiny("");
    plain.pipe(&["run", "p.yaml", "--epochs=5"]).succeeds();
    assert!(last(&project) == last(&plain));
    assert_eq!(project.metadata(RUN)["identity"], plain.metadata(RUN)["identity"]);
}

#[test]
fn without_epochs_the_steps_alone_end_it() {
    let project = Project::new();
    let text = TINY.replace("    epochs: ${params.epochs}\n", "    max_steps: 46\n");
    project.write("p.yaml", text);
    project.pipe(&["run", "p.yaml"]).succeeds().says("11 of 12 epochs (max_steps of 46");
    assert_eq!(project.metadata(RUN)["epochs"], 12);
    assert_eq!(steps(&project), (1..=46).collect::<Vec<_>>());
    project.pipe(&["runs", "show", "1"]).succeeds();
    // Its own settings, written down, repeat it.
    let config = project.read(&format!("{RUN}/config.yaml"));
    assert!(config.contains("max_steps: 46") && !config.contains("\n    epochs: "), "{config}");
    let again = Project::new();
    again.write("p.yaml", config);
    again.pipe(&["run", "p.yaml", "base"]).succeeds();
    assert!(last(&project) == last(&again));

    // A schedule that spans the steps makes others another experiment.
    let cosine = ["--set", "schedule.kind=cosine"];
    project.pipe(&[&["run", "p.yaml"], &cosine[..]].concat()).succeeds();
    let rates = project.metadata("checkpoints/base_training/run_002")["history"].clone();
    let rates: Vec<f64> =
        rates.as_array().unwrap().iter().map(|e| e["learning_rate"].as_f64().unwrap()).collect();
    assert!(rates.is_sorted_by(|a, b| a > b) && rates[10] < 2e-5, "{rates:?}");
    let more = [&["plan", "p.yaml", "--set", "max_steps=50"], &cosine[..]].concat();
    project.pipe(&more).succeeds().says("schedule horizon in steps 46 -> 50").says("(new run_003");
    let fixed = [&more[..], &["--set", "schedule_epochs=20"]].concat();
    project.pipe(&fixed).succeeds().says("schedule horizon");
}

#[test]
fn killed_at_random_it_ends_with_the_same_step() {
    let keys = "    max_steps: 38\n    checkpoint: { save_every_n_steps: 3 }\n";
    let arguments = ["run", "p.yaml", "--epochs=30", "--set", "num_images=256"];
    let whole = tiny(keys);
    let began = Instant::now();
    whole.pipe(&arguments).succeeds().says("2 of 3 epochs (max_steps of 38");
    let pieces = tiny(keys);
    let kills = in_pieces(&pieces, &arguments, within(began));
    assert!(last(&whole) == last(&pieces), "after {kills} kills");
    assert_eq!((epochs(&whole), steps(&whole)), (epochs(&pieces), steps(&pieces)));
}

#[test]
fn a_training_whose_time_is_up_is_saved_where_it_is_and_goes_on_with_more() {
    let keys = "    max_time: 300ms\n";
    let slow = ["--epochs=400", "--set", "num_images=2048", "--set", "batch_size=4"];
    let one = ["--epochs=1", "--set", "num_images=2048", "--set", "batch_size=4"];
    let project =
        tiny(&format!("{keys}  copy: {{ kind: copy_best, from: base, to: copy.ckpt }}\n"));
    let pipe = |command: &str, more: &[&str]| {
        project.pipe(&[&[command, "p.yaml"], &slow[..], more].concat())
    };
    pipe("run", &[]).succeeds().says("0 of 400 epochs (max_time of 300ms is up)");
    let metadata = project.metadata(RUN);
    assert_eq!(
        (&metadata["status"], &metadata["ended_by"]),
        (&"completed".into(), &"max_time".into())
    );
    let partial = &metadata["partial_checkpoint"];
    assert!(partial["seconds_in_epoch"].as_f64().unwrap() >= 0.3, "{partial}");
    // Where no epoch is complete, the state inside it is what is handed on.
    let file = project.path(&format!("{RUN}/{}", partial["path"].as_str().unwrap()));
    assert!(all_tensors(&project.path("copy.ckpt")) == all_tensors(&file));
    assert!(last(&project) == all_tensors(&file));
    pipe("run", &[]).succeeds().says("up to date, run 001: ended at epoch 0 of 400, max_time of");
    pipe("plan", &["--set", "max_time=200ms"]).succeeds().says("ended at epoch 0 of 400");
    pipe("plan", &["--set", "max_time=1h"]).succeeds().says("extend 0 -> 400");
    project.pipe(&["verify"]).succeeds();
    project.pipe(&["runs"]).succeeds().says("completed");

    let without = [&["run", "p.yaml"], &one[..], &["--set", "max_time=null"]].concat();
    project.pipe(&without).succeeds().says("Resumed from epoch 0");
    let at_once = tiny("");
    at_once.pipe(&[&["run", "p.yaml"], &one[..]].concat()).succeeds();
    assert!(last(&project) == last(&at_once));
    assert_eq!(epochs(&project), epochs(&at_once));
    assert_eq!(project.metadata(RUN)["identity"], at_once.metadata(RUN)["identity"]);
    assert!(
        project.metadata(RUN)["history"][0]["seconds"].as_f64().unwrap() > 0.3,
        "of both pieces"
    );
}

#[test]
fn the_time_of_an_interrupted_training_counts() {
    let project = tiny("");
    let arguments =
        ["run", "p.yaml", "--epochs=400", "--set", "num_images=2048", "--set", "batch_size=4"];
    let mut child = project.start(&arguments);
    let log = project.path(&format!("{RUN}/logs/metrics.jsonl"));
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 5) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let before = last(&project);
    let timed = [&arguments[..], &["--set", "max_time=1ms"]].concat();
    project.pipe(&timed).succeeds().says("max_time of 1ms is up");
    assert!(last(&project) == before, "not a step more");
    assert_eq!(project.metadata(RUN)["status"], "completed");
}

#[test]
fn stages_behind_it_take_the_best_so_far() {
    let project =
        tiny(&format!("{NO_GAIN}  best: {{ kind: copy_best, from: base, to: best.ckpt }}\n"));
    project.pipe(&["run", "p.yaml", "--epochs=9"]).succeeds();
    let best = project.path(&format!("{RUN}/checkpoints/best.ckpt"));
    assert!(all_tensors(&project.path("best.ckpt")) == all_tensors(&best));
    project.pipe(&["run", "p.yaml", "--epochs=9"]).succeeds().says("best: skip");
}

#[test]
fn what_cannot_work_is_told_with_key_and_stage() {
    for (keys, code, said) in [
        ("early_stopping: { patience: 0 }", 2, "early_stopping.patience"),
        ("early_stopping: { min_delta: -0.1 }", 2, "early_stopping.min_delta"),
        ("early_stopping: { monitor: val_accuracy }", 2, "early_stopping.mode"),
        ("early_stopping: { patiance: 2 }", 2, "did you mean `patience`?"),
        (
            "early_stopping: { monitor: val_los }",
            2,
            "the training reports no `val_los`; it reports train_loss, val_loss; did you mean `val_loss`?",
        ),
        (
            "early_stopping: { monitor: val_loss }",
            2,
            "is val_loss, and data set `data` has no validation images",
        ),
        ("early_stopping: { patience: 2 }", 0, "of 2 epochs none can be saved"),
        ("max_steps: 0", 2, "max_steps"),
        ("max_steps: -1", 2, "max_steps"),
        ("max_time: 0s", 2, "max_time"),
        ("max_time: soon", 2, "max_time"),
        ("sample_every_n_steps: 0", 2, "sample_every_n_steps"),
        ("validate_every_n_steps: 0", 2, "validate_every_n_steps"),
        ("validate_every_n_steps: 2", 2, "data set `data` has no validation images"),
        ("early_stopping: { mode: max, patience: 1 }", 0, "does not rise any more"),
    ] {
        let ended =
            tiny(&format!("    {keys}\n")).pipe(&["check", "p.yaml"]).exits(code).says(said);
        let said = ended.stdout() + &ended.stderr();
        let key = keys.split(':').next().unwrap();
        assert!(said.contains("base") && said.contains(key), "{said}");
    }
}

#[cfg(unix)]
mod programs {
    use serde_json::{Value, json};

    use crate::project::Project;
    use crate::trainer::stage;
    use crate::training_program::inner;

    const RUN: &str = "checkpoints/trainer/run_001";
    /// Losses are 1, 1/2, 1/3, …: none is a gain behind the first.
    const NO_GAIN: &str = "    early_stopping: { patience: 2, min_delta: 0.9 }\n";

    fn project(keys: &str) -> Project {
        let project = Project::new();
        project.write("p.yaml", stage(keys));
        project
    }

    fn state(project: &Project) -> String {
        let path = project.path(&format!("{RUN}/checkpoints/last.ckpt"));
        std::fs::read_to_string(inner(&path)).unwrap()
    }

    #[test]
    fn a_program_that_gets_no_better_is_told_to_stop_and_extends() {
        for folder in ["", "    settings: { folder: true }\n"] {
            let keys = format!("{NO_GAIN}{folder}");
            let project = project(&keys);
            let args = ["run", "p.yaml", "--epochs=9"];
            project
                .pipe(&args)
                .succeeds()
                .says("3 of 9 epochs (no gain in 2 epochs of train_loss)");
            assert_eq!(project.metadata(RUN)["ended_by"], "early_stopping");
            project.pipe(&args).succeeds().says("up to date, run 001: ended at epoch 3 of 9");
            let patient = [&args[..], &["--set", "base.early_stopping.patience=3"]].concat();
            project.pipe(&patient).succeeds().says("Resumed from epoch 3").says("4 of 9 epochs");
            let at_once = self::project(&keys);
            at_once.pipe(&patient).succeeds();
            assert_eq!(state(&project), state(&at_once));
            project.pipe(&args).succeeds().says("ended at epoch 4 of 9");
            project.pipe(&["verify"]).succeeds();
        }
    }

    #[test]
    fn of_a_program_the_last_epoch_is_saved_whatever_the_policy() {
        let keys = format!("{NO_GAIN}    checkpoint: {{ save_every_n_epochs: 5 }}\n");
        let project = project(&keys);
        project.pipe(&["run", "p.yaml", "--epochs=9"]).succeeds().says("3 of 9 epochs");
        assert_eq!(project.metadata(RUN)["checkpoints"][0]["epoch"], 3);
    }

    #[test]
    fn a_program_that_does_not_listen_is_ended_and_nothing_behind_the_end_counts() {
        let mut items = Vec::new();
        for epoch in 1..=6 {
            items.push(json!({"write": "s", "text": format!("state {epoch}")}));
            items.push(Value::String(
                json!({"checkpoint": "s", "epoch": epoch, "metrics": {"train_loss": 1}})
                    .to_string(),
            ));
            items.push(Value::String(json!({"step": 10 * epoch + 1}).to_string()));
        }
        items.push(json!({"sleep": 600}));
        let script = Value::Array(items);
        let project =
            project(&format!("{NO_GAIN}    grace: 1s\n    settings: {{ script: {script} }}\n"));
        let begun = std::time::Instant::now();
        project.pipe(&["run", "p.yaml", "--epochs=9"]).succeeds().says("3 of 9 epochs");
        assert!(begun.elapsed().as_secs() < 60);
        assert_eq!(state(&project), "state 3");
        assert_eq!(project.metadata(RUN)["history"].as_array().unwrap().len(), 3);
        project.pipe(&["verify"]).succeeds();
    }

    #[test]
    fn a_shell_script_ends_with_the_code_that_it_was_told() {
        let project = Project::new();
        project.write(
            "train.sh",
            "set -e\nscratch=$(pipe job get scratch)\nfor epoch in $(pipe job epochs); do\n  \
             echo $epoch > \"$scratch/state\"\n  \
             pipe job epoch $epoch --metric train_loss=0.5 --checkpoint \"$scratch/state\" > /dev/null\ndone\n",
        );
        project.write(
            "p.yaml",
            format!("name: s\nstages:\n  base:\n    kind: trainer\n    run: sh train.sh\n    epochs: 9\n{NO_GAIN}"),
        );
        let path = std::env::var("PATH").unwrap_or_default();
        let own = std::path::Path::new(env!("CARGO_BIN_EXE_pipe")).parent().unwrap().display();
        let project = project.environment("PATH", format!("{own}:{path}"));
        project.pipe(&["run", "p.yaml"]).succeeds().says("3 of 9 epochs");
        assert_eq!(state(&project), "3\n");
    }

    #[test]
    fn a_program_is_told_when_its_time_is_up_and_goes_on_with_more() {
        let keys = "    max_time: 200ms\n    settings: { pause_us: 10000, steps: 60 }\n";
        let project = project(keys);
        let args = ["run", "p.yaml", "--epochs=9"];
        project.pipe(&args).succeeds().says("0 of 9 epochs (max_time of 200ms is up)");
        let partial = project.metadata(RUN)["partial_checkpoint"].clone();
        assert!(partial["step_in_epoch"].as_u64().unwrap() > 2, "{partial}");
        assert!(partial["seconds_in_epoch"].as_f64().unwrap() >= 0.2, "{partial}");
        project.pipe(&args).succeeds().says("ended at epoch 0 of 9, max_time of 200ms is up");
        let more = [&args[..], &["--set", "base.max_time=1h"]].concat();
        project.pipe(&[&["plan"], &more[1..]].concat()).succeeds().says("extend 0 -> 9");
        let one = ["run", "p.yaml", "--epochs=1", "--set", "base.max_time=1h"];
        project.pipe(&one).succeeds().says("Resumed from epoch 0");
        let at_once = self::project("    settings: { pause_us: 0, steps: 60 }\n");
        at_once.pipe(&["run", "p.yaml", "--epochs=1"]).succeeds();
        assert_eq!(state(&project), state(&at_once));
        project.pipe(&["verify"]).succeeds();
    }

    #[test]
    fn a_program_ends_within_its_budget_and_by_the_clock() {
        let slow = "    settings: { pause_us: 10000, steps: 60 }\n";
        let budget = project(&format!("    budget: 200ms\n{slow}"));
        let args = ["run", "p.yaml", "--epochs=9"];
        budget.pipe(&args).succeeds().says("0 of 9 epochs (budget of 200ms is used)");
        budget.pipe(&args).succeeds().says("ended at epoch 0 of 9, budget of 200ms is used");
        let more = ["plan", "p.yaml", "--epochs=9", "--set", "base.budget=1h"];
        budget.pipe(&more).succeeds().says("extend 0 -> 9");
        let past = project(&format!("    until: 2020-01-01 07:00\n{slow}"));
        past.pipe(&args).succeeds();
        assert_eq!(past.metadata(RUN)["ended_by"], "until");
        past.pipe(&args).succeeds().says("until 2020-01-01 07:00");
    }

    #[test]
    fn a_program_of_so_many_steps_ends_inside_an_epoch_and_extends() {
        for folder in [false, true] {
            let keys =
                format!("    max_steps: 10\n    settings: {{ folder: {folder}, steps: 7 }}\n");
            let project = project(&keys);
            let args = ["run", "p.yaml", "--epochs=3"];
            project.pipe(&args).succeeds().says("1 of 3 epochs (max_steps of 10 is reached)");
            let metadata = project.metadata(RUN);
            assert_eq!(metadata["partial_checkpoint"]["global_step"], 10);
            assert_eq!(metadata["best_checkpoint"]["epoch"], 1);
            project.pipe(&args).succeeds().says("ended at epoch 1 of 3, max_steps of 10");
            let more = [&args[..], &["--set", "base.max_steps=100"]].concat();
            project.pipe(&more).succeeds().says("Resumed from epoch 1");
            let at_once =
                self::project(&format!("    settings: {{ folder: {folder}, steps: 7 }}\n"));
            at_once.pipe(&args).succeeds();
            assert_eq!(state(&project), state(&at_once));
            project.pipe(&["verify"]).succeeds();
        }
    }

    #[test]
    fn a_program_that_saves_between_epochs_alone_ends_with_the_next_one() {
        let project = Project::new();
        project.write(
            "train.sh",
            "scratch=$(pipe job get scratch)\nfor epoch in $(pipe job epochs); do\n  \
             sleep 0.2\n  echo $epoch > \"$scratch/state\"\n  \
             pipe job epoch $epoch --metric train_loss=0.5 --checkpoint \"$scratch/state\" > /dev/null || exit 0\ndone\n",
        );
        let keys = "name: s\nstages:\n  base:\n    kind: trainer\n    run: sh train.sh\n    \
                    epochs: 900\n    max_time: 500ms\n";
        project.write("p.yaml", keys);
        let path = std::env::var("PATH").unwrap_or_default();
        let own = std::path::Path::new(env!("CARGO_BIN_EXE_pipe")).parent().unwrap().display();
        let project = project.environment("PATH", format!("{own}:{path}"));
        project.pipe(&["run", "p.yaml"]).succeeds().says("max_time of 500ms is up");
        let epochs = project.metadata(RUN)["history"].as_array().unwrap().len();
        assert_eq!(state(&project), format!("{epochs}\n"));
        project.pipe(&["run", "p.yaml"]).succeeds().says("up to date, run 001: ended at epoch");
    }

    #[test]
    fn a_metric_that_the_program_never_tells_fails_at_the_first_epoch() {
        let keys = "    early_stopping: { monitor: val_loss }\n";
        project(keys)
            .pipe(&["run", "p.yaml"])
            .exits(1)
            .says("stage base")
            .says("early_stopping.monitor: the training reports no `val_loss`; it reports accuracy, train_loss");
        let keys = "    early_stopping: { patience: 0 }\n";
        project(keys).pipe(&["check", "p.yaml"]).exits(2).says("early_stopping.patience");
    }
}
