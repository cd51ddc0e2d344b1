//! `--run-number N --resume` with other settings: the run goes on with them, and notes the change.

use std::time::Duration;

use serde_json::{Value, json};

use crate::project::{Project, TINY, all_tensors, send};
use crate::resume::{delays, in_pieces};

const BASE: &str = "checkpoints/base_training";
const RUN: &str = "checkpoints/base_training/run_001";

/// The command that goes on with run 1 and other settings.
const ON: [&str; 5] = ["run", "p.yaml", "--run-number", "1", "--resume"];

fn with_copy() -> Project {
    let project = Project::new();
    project.write(
        "p.yaml",
        format!("{TINY}  best: {{ kind: copy_best, from: base, to: best.ckpt }}\n"),
    );
    project
}

fn last(project: &Project) -> Vec<(String, Vec<u8>)> {
    all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")))
}

/// What is noted of changes, without the time.
fn changes(project: &Project) -> Value {
    let mut noted = project.metadata(RUN)["changes"].clone();
    for change in noted.as_array_mut().into_iter().flatten() {
        assert!(change.as_object_mut().unwrap().remove("at").unwrap().is_string());
    }
    noted
}

#[test]
fn a_changed_run_is_used_by_its_number_alone() {
    let project = with_copy();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let change = [&ON[..], &["--learning-rate", "1e-5", "--epochs", "4"]].concat();
    let plan = [&["plan"], &change[1..]].concat();
    project.pipe(&plan).succeeds().says("goes on with a change, learning_rate 0.001 -> 0.00001");
    let said = project.pipe(&change).succeeds();
    said.says("Run 001 goes on with changed settings from epoch 3: learning_rate 0.001 -> 0.00001")
        .says("Resumed from epoch 2")
        .says("The learning rate was 1.000e-3 in the last step, and goes on at 1.000e-5");
    let noted = json!([{"from_epoch": 3, "settings": {"learning_rate": [1e-3, 1e-5]}}]);
    assert_eq!(changes(&project), noted);
    let rates: Vec<f64> = project.metadata(RUN)["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|epoch| epoch["learning_rate"].as_f64().unwrap())
        .collect();
    assert_eq!(rates, [1e-3, 1e-3, 1e-5, 1e-5]);
    let best_of_changed = std::fs::read(project.path("best.ckpt")).unwrap();

    // The same command again, and the number alone.
    project.pipe(&change).succeeds().says("everything is up to date");
    project
        .pipe(&ON)
        .succeeds()
        .says("base.learning_rate 0.00001")
        .says("everything is up to date");
    assert_eq!(changes(&project), noted);

    // Whoever does not name it has a run from the beginning, by the old settings and the new ones.
    let plan = project.pipe(&["plan", "p.yaml"]).succeeds();
    plan.says("learning_rate 0.00001 -> 0.001 (new run_002)");
    let new = ["p.yaml", "--learning-rate", "1e-5", "--epochs", "4"];
    let plan = project.pipe(&[&["plan"], &new[..]].concat()).succeeds();
    plan.says("run 001 was changed from epoch 3: learning_rate 0.001 -> 0.00001; it is used where its number is given (new run_002)");
    project.pipe(&["run", "p.yaml"]).succeeds().says("Run 002");
    assert_ne!(std::fs::read(project.path("best.ckpt")).unwrap(), best_of_changed);
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    project.pipe(&[&["run"], &new[..]].concat()).succeeds().says("Run 003");
    let fresh = all_tensors(&project.path(&format!("{BASE}/run_003/checkpoints/last.ckpt")));
    assert!(last(&project) != fresh, "it equals no training from the beginning");
    // What stands behind it follows the run that is asked for.
    project.pipe(&change).succeeds().says("up to date, run 001");
    assert_eq!(std::fs::read(project.path("best.ckpt")).unwrap(), best_of_changed);

    // It is told wherever the run is shown.
    project.pipe(&["runs"]).succeeds().says("Changed").says("from epoch 3: learning_rate 0.001");
    project.pipe(&["runs", "show", "1"]).succeeds().says("changed     from epoch 3: learning_rate");
    project.pipe(&["runs", "show", "1", "--json"]).succeeds().says("\"from_epoch\": 3");
    project.pipe(&["report", "-o", "page.html"]).succeeds();
    assert!(project.read("page.html").contains("from epoch 3: learning_rate 0.001 -> 0.00001"));
    assert!(project.read(&format!("{RUN}/config.yaml")).contains("they do not repeat it"));
    project.pipe(&["verify"]).succeeds();
}

#[test]
fn killed_at_random_it_goes_on_with_the_change_by_the_same_command() {
    let more = ["--set", "num_images=256", "--set", "checkpoint.save_every_n_steps=3"];
    let first = [&["run", "p.yaml"], &more[..]].concat();
    let change = ["--learning-rate", "1e-4", "--batch-size", "8", "--epochs", "8"];
    let change = [&ON[..], &more[..], &change[..]].concat();
    let [straight, pieces] = [(); 2].map(|()| Project::new());
    for project in [&straight, &pieces] {
        project.pipe(&first).succeeds();
    }
    let began = std::time::Instant::now();
    straight.pipe(&change).succeeds();
    let whole = began.elapsed().as_millis() as u64;
    let kills = in_pieces(&pieces, &change, delays(whole / 12 + 20, whole / 4 + 60));
    assert!(kills > 0);
    assert!(last(&straight) == last(&pieces), "the tensors differ after {kills} kills");
    let noted = json!([{"from_epoch": 3, "settings": {
        "learning_rate": [1e-3, 1e-4], "batch_size": [16, 8]}}]);
    assert_eq!((changes(&straight), changes(&pieces)), (noted.clone(), noted));
    assert_eq!(pieces.list(BASE), ["run_001"]);
    pieces.pipe(&change).succeeds().says("everything is up to date");
}

/// Trains, and stops inside an epoch; gives the epochs that are complete.
fn stop_inside(project: &Project, arguments: &[&str]) -> u64 {
    let mut child = project.start(arguments);
    let inside = || {
        let names = project.list(&format!("{RUN}/checkpoints"));
        let has = |start: &str| names.iter().any(|name| name.starts_with(start));
        has("epoch_") && has("step_")
    };
    while !inside() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
    send(&child, "TERM");
    child.wait().unwrap();
    let partial = &project.metadata(RUN)["partial_checkpoint"];
    assert!(partial["step_in_epoch"].as_u64().unwrap() > 0, "{partial}");
    partial["epoch"].as_u64().unwrap()
}

#[test]
fn inside_an_epoch_a_rate_changes_there_and_a_batch_size_at_its_beginning() {
    let more = ["--set", "num_images=2048", "--set", "checkpoint.save_every_n_steps=2"];
    let first = [&["run", "p.yaml", "--epochs", "1000"], &more[..]].concat();
    let project = Project::new();
    let done = stop_inside(&project, &first);
    let epochs = (done + 1).to_string();
    let on = [&ON[..], &more[..], &["--epochs", &epochs]].concat();
    let rate = [&on[..], &["--learning-rate", "1e-4"]].concat();
    let batches = [&on[..], &["--batch-size", "64"]].concat();

    let plain = Project::new();
    let whole = done.to_string();
    plain.pipe(&[&["run", "p.yaml", "--epochs", &whole], &more[..]].concat()).succeeds();
    plain.pipe(&batches).succeeds();

    let copy = Project::new();
    let from = project.path("checkpoints");
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(copy.path("")).status();
    assert!(copied.unwrap().success());
    let said = copy.pipe(&rate).succeeds();
    said.says(&format!("from epoch {epochs}, step ")).says(&format!("Resumed from epoch {done}"));
    assert!(changes(&copy)[0]["step_in_epoch"].as_u64().unwrap() > 0);

    let said = project.pipe(&batches).succeeds();
    said.says(&format!("batch_size counts from an epoch's beginning: epoch {epochs} begins again"));
    assert!(last(&project) == last(&plain), "as if it had been stopped at the epoch's end");
    assert_eq!(changes(&project), changes(&plain));
    project.pipe(&["verify"]).succeeds();
}

#[test]
fn a_schedule_counts_as_todays_settings_say() {
    let cosine = ["--set", "base.schedule={kind: cosine}", "--set", "schedule_epochs=4"];
    let project = Project::new();
    project.pipe(&[&["run", "p.yaml"], &cosine[..]].concat()).succeeds();
    let change = ["--batch-size", "32", "--epochs", "4"];
    project.pipe(&[&ON[..], &cosine[..], &change[..]].concat()).succeeds();
    let metadata = project.metadata(RUN);
    let history = metadata["history"].as_array().unwrap();
    // Two epochs of 4 steps, two of 2: the rate is that of the 8th of 8.
    assert_eq!(history[3]["global_step"], 12);
    let expected = 1e-3 * 0.5 * (1.0 + (std::f64::consts::PI * 7.0 / 8.0).cos());
    let rate = history[3]["learning_rate"].as_f64().unwrap();
    assert!((rate - expected).abs() < 1e-12, "{rate} {expected}");
    // More epochs alone stretch no schedule; a length that is named does.
    let cosine = &cosine[..2];
    let longer = [&ON[..], cosine, &["--batch-size", "32", "--epochs", "6"]].concat();
    let refused = project.pipe(&longer).exits(2);
    refused.says("a cosine schedule depends on its length").says("schedule horizon 4 -> 6");
    let said = project.pipe(&[&longer[..], &["--set", "schedule_epochs=8"]].concat()).succeeds();
    said.says("from epoch 5: schedule horizon 4 -> 8").says("The learning rate was 3.806e-5");
    assert_eq!(changes(&project).as_array().unwrap().len(), 2);
}

#[test]
fn what_a_checkpoint_holds_does_not_change_inside_a_run() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let on = [&ON[..], &["--epochs", "4"]].concat();
    for (set, key) in [
        ("base.seed=7", "seed"),
        ("base.model.dim=32", "model.dim"),
        ("base.ema.enabled=false", "ema.enabled"),
        ("base.optimizer.kind=adam", "optimizer.kind"),
        ("checkpoint.mode=max", "checkpoint.mode"),
        ("data.classes=[circle, star]", "dataset.classes"),
        ("num_images=32", "dataset.num_images"),
    ] {
        let ended = project.pipe(&[&on[..], &["--set", set]].concat()).exits(2);
        ended
            .says("run 1 was trained with other settings")
            .says(&format!("{key} stays what it is inside a run"));
    }
    // Without one of the two it is another experiment, or refused as ever.
    let rate = ["--learning-rate", "1e-5", "--epochs", "4"];
    let numbered = [&["run", "p.yaml", "--run-number", "1"], &rate[..]].concat();
    project.pipe(&numbered).exits(2).says("with `--resume` beside its number it goes on with them");
    let resumed = [&["run", "p.yaml", "--resume"], &rate[..]].concat();
    project.pipe(&resumed).exits(2).says("run 1 was trained with other settings");
    // Nothing is left to be trained with them.
    let done = [&ON[..], &["--learning-rate", "1e-5"]].concat();
    project.pipe(&done).exits(2).says("all its 2 epochs are trained").says("`epochs: 3`");
    assert!(project.metadata(RUN).get("changes").is_none());
    assert_eq!(project.list(BASE), ["run_001"]);
}

#[test]
fn a_file_that_names_the_run_changes_its_settings() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let text = project.read("p.yaml").replace("epochs: 2 }", "epochs: 3 }");
    let named = "device: cpu\n    learning_rate: 0.0005\n    checkpoint: { run_number: 1 }";
    project.write("p.yaml", text.replace("device: cpu", named));
    project.pipe(&["run", "p.yaml"]).exits(2).says("with `--resume` beside its number");
    project.pipe(&["run", "p.yaml", "--resume"]).succeeds().says("learning_rate 0.001 -> 0.0005");
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    assert_eq!(project.list(BASE), ["run_001"]);
}

#[test]
fn a_run_without_a_step_takes_the_settings_and_notes_nothing() {
    let project = Project::new();
    let large = ["--set", "num_images=4096"];
    let mut child = project.start(&[&["run", "p.yaml"], &large[..]].concat());
    let logs = project.path(&format!("{RUN}/logs"));
    while !logs.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(project.list(&format!("{RUN}/checkpoints")).is_empty());
    let rate = ["--learning-rate", "1e-4"];
    let said = project.pipe(&[&ON[..], &large[..], &rate[..]].concat()).succeeds();
    said.says("Run 001 begins with other settings, since nothing was trained in it");
    assert!(project.metadata(RUN).get("changes").is_none());
    let plan = project.pipe(&[&["plan", "p.yaml"], &large[..], &rate[..]].concat()).succeeds();
    plan.says("up to date, run 001");
    let fresh = Project::new();
    fresh.pipe(&[&["run", "p.yaml"], &large[..], &rate[..]].concat()).succeeds();
    assert!(last(&project) == last(&fresh), "it equals a training from the beginning");
}

#[test]
fn a_run_that_has_ended_takes_no_change() {
    let project = Project::with(
        "    epochs:",
        "    early_stopping: { monitor: train_loss, patience: 1, min_delta: 100 }\n    epochs:",
    );
    let run = ["run", "p.yaml", "--epochs", "6"];
    project.pipe(&run).succeeds();
    let ended = [&run[..], &["--run-number", "1", "--resume", "--learning-rate", "1e-4"]].concat();
    project.pipe(&ended).succeeds().says("no step is trained with the other settings");
    let metadata = project.metadata("checkpoints/base_training/run_001");
    assert!(metadata.get("changes").is_none(), "{metadata:#}");
    project.pipe(&run).succeeds().says("up to date, run 001");
}
