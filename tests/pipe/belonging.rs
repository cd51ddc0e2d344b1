//! Which training a numbered run belongs to, and what goes on with it.

use serde_json::Value;

use crate::project::{Project, TINY, all_tensors, send};

const BASE: &str = "checkpoints/base_training";
const RUN: &str = "checkpoints/base_training/run_001";

fn remove(project: &Project, files: &[&str]) {
    for file in files {
        std::fs::remove_file(project.path(&format!("{RUN}/{file}"))).unwrap();
    }
}

fn epochs(project: &Project, run: &str) -> Vec<u64> {
    let history = project.metadata(run)["history"].clone();
    history.as_array().unwrap().iter().map(|e| e["epoch"].as_u64().unwrap()).collect()
}

#[track_caller]
fn plan(project: &Project, arguments: &[&str]) -> String {
    project.pipe(&[&["plan", "p.yaml"], arguments].concat()).succeeds().stdout()
}

#[test]
fn a_run_of_which_only_best_and_last_are_left_is_gone_on_with() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    let epoch_files =
        ["checkpoints/epoch_001.ckpt", "checkpoints/epoch_002.ckpt", "checkpoints/epoch_003.ckpt"];
    remove(&project, &epoch_files);
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds().says("everything is up to date");
    let extended = project.pipe(&["run", "p.yaml", "--epochs", "4"]).succeeds();
    extended.says("extend 3 -> 4").says("Resumed from epoch 3");
    assert_eq!(epochs(&project, RUN), [1, 2, 3, 4]);
    assert_eq!(project.list(BASE), ["run_001"]);

    let straight = Project::new();
    straight.pipe(&["run", "p.yaml", "--epochs", "4"]).succeeds();
    let last =
        |project: &Project| all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")));
    assert!(last(&project) == last(&straight));
}

#[test]
fn a_completed_run_without_any_checkpoint_is_left_as_it_is() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    std::fs::remove_dir_all(project.path(&format!("{RUN}/checkpoints"))).unwrap();
    let before = project.metadata(RUN);
    let reason = "run 001 was completed, and none of its checkpoints is left (new run_002)";
    assert!(plan(&project, &[]).contains(reason), "{}", plan(&project, &[]));
    project
        .pipe(&["run", "p.yaml", "--run-number", "1", "--resume"])
        .exits(2)
        .says("none of its checkpoints");
    project.pipe(&["run", "p.yaml"]).succeeds().says("Run 002");
    assert_eq!(project.metadata(RUN), before);
}

#[test]
fn a_missing_best_checkpoint_is_put_in_order_without_training() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let best = project.path(&format!("{RUN}/checkpoints/best.ckpt"));
    let bytes = std::fs::read(&best).unwrap();
    std::fs::remove_file(&best).unwrap();
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(std::fs::read(&best).unwrap(), bytes);
    assert_eq!(epochs(&project, RUN), [1, 2]);
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
}

#[test]
fn a_run_without_its_metadata_has_the_version_before_it() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    remove(&project, &["metadata.json"]);
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds().says("Resumed from epoch 2");
    assert_eq!(epochs(&project, RUN), [1, 2, 3]);
}

#[test]
fn half_a_copy_of_a_run_is_nobodys() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    remove(&project, &["metadata.json", "metadata.json.previous"]);
    let files = project.list(&format!("{RUN}/checkpoints"));
    for arguments in [&["--seed", "9"][..], &[]] {
        let plan = plan(&project, arguments);
        assert!(plan.contains("no run yet; run_001 has no metadata.json"), "{plan}");
        let number = ["run", "p.yaml", "--run-number", "1"];
        project.pipe(&[&number, arguments].concat()).exits(2).says("run 1 has no metadata.json");
    }
    project.pipe(&["gc"]).succeeds().says("nothing to remove");
    project.pipe(&["run", "p.yaml", "--seed", "9"]).succeeds().says("Run 002");
    assert_eq!(project.list(&format!("{RUN}/checkpoints")), files);
    assert_eq!(project.list(BASE), ["run_001", "run_002"]);
    // What its process left before it wrote anything is taken.
    std::fs::create_dir_all(project.path(&format!("{BASE}/run_003/checkpoints"))).unwrap();
    project.pipe(&["run", "p.yaml", "--seed", "10"]).succeeds().says("Run 003");
}

#[test]
fn a_checkpoint_of_another_run_in_the_folder_is_passed_over_and_kept() {
    let other = Project::new();
    other.pipe(&["run", "p.yaml", "--epochs", "3", "--seed", "77"]).succeeds();
    let foreign = std::fs::read(other.path(&format!("{RUN}/checkpoints/epoch_003.ckpt"))).unwrap();
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write(&format!("{RUN}/checkpoints/epoch_003.ckpt"), &foreign);
    let ended = project.pipe(&["run", "p.yaml", "--epochs", "4"]).succeeds();
    ended
        .says("passed over checkpoints/base_training/run_001/checkpoints/epoch_003.ckpt")
        .says("epoch 2");
    let kept = project.path(&format!("{RUN}/checkpoints/epoch_003.of_another_run_1.ckpt"));
    assert_eq!(std::fs::read(kept).unwrap(), foreign);

    let straight = Project::new();
    straight.pipe(&["run", "p.yaml", "--epochs", "4"]).succeeds();
    let last =
        |project: &Project| all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")));
    assert!(last(&project) == last(&straight));
}

#[test]
fn another_pipelines_run_is_used_and_not_gone_on_with_unless_it_is_named() {
    let project = Project::new();
    project.write("q.yaml", TINY.replace("name: tiny", "name: other"));
    project.pipe(&["run", "p.yaml"]).succeeds();
    let plan = project.pipe(&["plan", "q.yaml"]).succeeds().stdout();
    assert!(plan.contains("skip  up to date, run 001 of pipeline tiny"), "{plan}");
    let longer = ["q.yaml", "--epochs", "3"];
    let plan = project.pipe(&[&["plan"], &longer[..]].concat()).succeeds().stdout();
    let offered = "run 001 of stage base of pipeline tiny is the same training: `--set base.checkpoint.run_number=1` goes on with it";
    assert!(plan.contains("base  run  no run yet") && plan.contains(offered), "{plan}");
    project.pipe(&[&["run"], &longer[..]].concat()).succeeds().says("Run 002");
    assert_eq!(epochs(&project, RUN), [1, 2]);

    // It is taken over as offered, and belongs to that pipeline from then on.
    let take = ["run", "q.yaml", "--epochs", "4", "--run-number", "1"];
    project.pipe(&take).succeeds().says("Resumed from epoch 2");
    assert_eq!(project.metadata(RUN)["pipeline"], "other");
    project.pipe(&take[..4]).succeeds();
    assert_eq!(epochs(&project, RUN), [1, 2, 3, 4]);
    assert_eq!(project.list(BASE), ["run_001", "run_002"]);
}

#[test]
fn a_run_by_its_number_goes_on_with_its_own_settings() {
    let project = Project::new();
    let own = ["--learning-rate", "1e-4", "--epochs", "3", "--set", "data.num_images=32"];
    project.pipe(&[&["run", "p.yaml"], &own[..]].concat()).succeeds();
    let resume = ["run", "p.yaml", "--run-number", "1", "--resume"];
    let ended = project.pipe(&resume).succeeds();
    ended
        .says("base.learning_rate 0.0001")
        .says("data.num_images 32")
        .says("everything is up to date");
    project
        .pipe(&[&resume[..], &["--epochs", "4"]].concat())
        .succeeds()
        .says("Resumed from epoch 3");
    let metadata = project.metadata(RUN);
    assert_eq!(
        (&metadata["manifest"]["learning_rate"], &metadata["epochs"]),
        (&1e-4.into(), &4.into())
    );
    // The default is a value like another, where it is asked for.
    let refused = project.pipe(&[&resume[..], &["--learning-rate", "1e-3"]].concat()).exits(2);
    refused.says("run 1 was trained with other settings: learning_rate 0.0001 -> 0.001");
    assert_eq!(project.list(BASE), ["run_001"]);
}

#[test]
fn an_interrupted_run_goes_on_by_its_number_to_the_end_that_it_was_to_have() {
    let project = Project::with("batch_size: 16", "batch_size: 16\n    schedule: { kind: cosine }");
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    let mut metadata = project.metadata(RUN);
    metadata["status"] = "interrupted".into();
    let checkpoints = metadata["checkpoints"].as_array_mut().unwrap();
    checkpoints.retain(|c| c["epoch"] != 3);
    project.write(&format!("{RUN}/metadata.json"), metadata.to_string());
    remove(
        &project,
        &["checkpoints/epoch_003.ckpt", "checkpoints/last.ckpt", "checkpoints/best.ckpt"],
    );
    let ended = project.pipe(&["run", "p.yaml", "--run-number", "1", "--resume"]).succeeds();
    ended.says("base.epochs 3").says("Resumed from epoch 2").says("Epoch 3/3");
    assert_eq!(project.metadata(RUN)["manifest"]["schedule horizon"], 3);
}

#[test]
fn fewer_epochs_than_a_run_has_are_told() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    let told = "run 001 was trained for 3 epochs, more than the 1 asked for";
    assert!(plan(&project, &["--epochs", "1"]).contains(told));
    project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds().says(told);
    assert_eq!(project.metadata(RUN)["epochs"], 3);
}

#[test]
fn fewer_epochs_than_a_stopped_run_has_are_told() {
    let project = Project::new();
    let mut child = project.start(&["run", "p.yaml", "--epochs", "4000"]);
    let epochs = || project.metadata(RUN)["history"].as_array().map_or(0, Vec::len);
    let file = project.path(&format!("{RUN}/metadata.json"));
    while !file.exists() || epochs() < 4 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    send(&child, "INT");
    child.wait().unwrap();
    let trained = epochs();
    let told = format!("trained for {trained} epochs, more than the 2 asked for");
    assert!(plan(&project, &["--epochs", "2"]).contains(&told));
    let ran = project.pipe(&["run", "p.yaml", "--epochs", "2"]).succeeds();
    ran.says(&told).says(&format!("run 001, {trained} epochs"));
    assert_eq!(epochs(), trained);
}

#[test]
fn resume_takes_the_run_that_fits_though_a_newer_one_does_not() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["run", "p.yaml", "--learning-rate", "1e-4"]).succeeds();
    project
        .pipe(&["run", "p.yaml", "--resume", "--epochs", "3"])
        .succeeds()
        .says("Resumed from epoch 2");
    assert_eq!(epochs(&project, RUN), [1, 2, 3]);
    project
        .pipe(&["run", "p.yaml", "--resume", "--seed", "5"])
        .exits(2)
        .says("run 2 was trained with other");
}

#[test]
fn nobody_is_told_to_train_at_a_learning_rate_of_zero() {
    let project = Project::with("batch_size: 16", "batch_size: 16\n    schedule: { kind: cosine }");
    project.pipe(&["run", "p.yaml"]).succeeds();
    let longer = plan(&project, &["--epochs", "6"]);
    assert!(longer.contains("ends at a learning rate of 0 after epoch 2"), "{longer}");
    assert!(!longer.contains("schedule_epochs"), "{longer}");
    let settings = ["--epochs", "6", "--set", "base.schedule_epochs=2"];
    let warned = project.pipe(&[&["plan", "p.yaml"], &settings[..]].concat()).succeeds();
    let text = "the cosine schedule ends after epoch 2 of 6: from then on the learning rate is 0";
    assert!(warned.stderr().contains(text), "{}", warned.stderr());
    let floor = ["--set", "base.schedule.min_lr_ratio=0.5"];
    let warned =
        project.pipe(&[&["plan", "p.yaml"], &settings[..], &floor[..]].concat()).succeeds();
    assert!(warned.stderr().contains("the learning rate stays at 0.0005"), "{}", warned.stderr());
    // A shorter training than the schedule's is what `schedule_epochs` is for.
    let shorter = project.pipe(&["plan", "p.yaml", "--set", "base.schedule_epochs=9"]).succeeds();
    assert_eq!(shorter.stderr(), "");
}

#[test]
fn every_checkpoint_of_a_run_has_the_runs_identity() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let identity = project.metadata(RUN)["identity"].clone();
    for file in project.list(&format!("{RUN}/checkpoints")) {
        let path = format!("{RUN}/checkpoints/{file}");
        let shown = project.pipe(&["ckpt", "show", &path, "--json"]).succeeds().stdout();
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["identity"], identity, "{file}");
    }
}

/// The epoch of a checkpoint file.
fn epoch_of(project: &Project, file: &str) -> u64 {
    let shown = project.pipe(&["ckpt", "show", "--json", file]).succeeds().stdout();
    serde_json::from_str::<Value>(&shown).unwrap()["epoch"].as_u64().unwrap()
}

#[test]
fn members_of_a_sweep_over_the_length_are_trainings_of_their_own() {
    let copy = "  copy: { kind: copy_best, from: base, select: last, to: copy.ckpt }\n";
    // Four steps are an epoch.
    for (key, values, epochs) in
        [("epochs", [3, 1, 2], [3, 1, 2]), ("max_steps", [8, 4, 7], [2, 1, 1])]
    {
        for jobs in ["1", "3"] {
            let project = Project::with("    epochs: ${params.epochs}\n", "");
            project.write("p.yaml", project.read("p.yaml") + copy);
            let sweep = |values: &[u64]| {
                let values: Vec<String> = values.iter().map(u64::to_string).collect();
                let sweep = format!("base.{key}={}", values.join(","));
                project.pipe(&["run", "p.yaml", "--sweep", &sweep, "--jobs", jobs]).succeeds()
            };
            let once = format!("base.{key}=8");
            project.pipe(&["run", "p.yaml", "--set", &once]).succeeds();
            sweep(&values[..2]);
            sweep(&values);
            let found: Vec<u64> = values
                .iter()
                .map(|value| epoch_of(&project, &format!("copy_{value}.ckpt")))
                .collect();
            assert_eq!(found, epochs, "{key} {values:?} with --jobs {jobs}");
            sweep(&values).says("everything is up to date");
        }
    }
}

#[test]
fn epochs_that_were_trained_otherwise_are_not_handed_on() {
    let project =
        Project::with("    epochs: ${params", "    learning_rate: 1e-3\n    epochs: ${params");
    let copy = "  copy: { kind: copy_best, from: base, select: last, to: copy.ckpt }\n";
    let each = "  grids: { kind: sample, from: base, each_checkpoint: true, to: grids/g.png, n: 2, steps: 2 }\n";
    project.write("p.yaml", project.read("p.yaml") + copy + each);
    let then = "base.then=[{from: 2, learning_rate: 1e-5}]";
    project.pipe(&["run", "p.yaml", "--set", then, "--epochs", "4"]).succeeds();
    let told = "the first 2 epochs of run 001, which was trained with other settings behind them";
    project.pipe(&["plan", "p.yaml"]).succeeds().says(told);
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(epoch_of(&project, "copy.ckpt"), 2);
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    assert_eq!(project.list("grids"), ["g.png", "g_epoch_001.png", "g_epoch_002.png"]);
    let grid = |name: &str| std::fs::read(project.path(&format!("grids/{name}.png"))).unwrap();
    assert!(grid("g") == grid("g_epoch_002"), "the best of these epochs");
    // What is gone of them is trained.
    let kept = project.path(&format!("{RUN}/checkpoints"));
    std::fs::remove_file(kept.join("epoch_002.ckpt")).unwrap();
    project.pipe(&["run", "p.yaml"]).succeeds().says("learning_rate after epoch 2");
    assert_eq!(epoch_of(&project, "copy.ckpt"), 2);
    // With the same list it is the same training with fewer epochs.
    let plan = project.pipe(&["plan", "p.yaml", "--set", then, "--epochs", "3"]).succeeds();
    plan.says("trained for 4 epochs, more than the 3 asked for");
    let plan = project.pipe(&["plan", "p.yaml", "--set", then, "--epochs", "1"]).succeeds();
    plan.says("more than the 1 asked for");
}

#[test]
fn a_sweep_takes_what_was_trained_without_it() {
    let project = Project::new();
    project.write("p.yaml", TINY);
    project.pipe(&["run", "p.yaml", "--learning-rate", "1e-3"]).succeeds();
    let sweep = ["run", "p.yaml", "--sweep", "base.learning_rate=1e-3,2e-3"];
    let said = project.pipe(&sweep).succeeds().stderr();
    assert!(said.contains("base@learning_rate=0.001: skip"), "{said}");
    assert_eq!(project.list("checkpoints/base_training"), ["run_001", "run_002"]);
    // And the other way round.
    project
        .pipe(&["plan", "p.yaml", "--learning-rate", "2e-3"])
        .succeeds()
        .says("up to date, run 002 of stage base@learning_rate=0.002");
    // What is not finished is another's.
    let more = project.pipe(&[&sweep[..], &["--epochs=3", "--dry-run"]].concat()).succeeds();
    more.says("run 001 of stage base is the same training, not finished");
}
