//! `kind: trainer`: a training program of the user's under the policies of the built-in trainings.
#![cfg(unix)]

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::project::{Project, send};
use crate::training_program;

/// The training program itself: see `training_program`.
#[test]
fn program() {
    training_program::run();
}

/// A stage `base` that runs it, with further keys of the stage.
pub fn stage(keys: &str) -> String {
    let exe = std::env::current_exe().unwrap();
    let exe = exe.display();
    format!(
        "name: t\nparams: {{ epochs: 4 }}\nstages:\n  base:\n    kind: trainer\n    \
         run: ['{exe}', --exact, 'trainer::program', --nocapture, -q]\n    \
         epochs: ${{params.epochs}}\n{keys}"
    )
}

fn project(keys: &str) -> Project {
    let project = Project::new();
    project.write("p.yaml", stage(keys));
    project
}

fn script(items: Value) -> Project {
    project(&format!("    grace: 1s\n    settings: {{ script: {items} }}\n"))
}

/// With the program of the tests on the path.
fn with_own_pipe(project: Project) -> Project {
    let path = std::env::var("PATH").unwrap_or_default();
    let own = Path::new(env!("CARGO_BIN_EXE_pipe")).parent().unwrap().display();
    project.environment("PATH", format!("{own}:{path}"))
}

const RUN: &str = "checkpoints/trainer/run_001";

fn state(project: &Project, name: &str) -> String {
    let path = project.path(&format!("{RUN}/checkpoints/{name}.ckpt"));
    std::fs::read_to_string(training_program::inner(&path)).unwrap()
}

/// What an undisturbed training of so many epochs ends with.
fn undisturbed(keys: &str, epochs: u32) -> String {
    let project = project(keys);
    project.pipe(&["run", "p.yaml", &format!("--epochs={epochs}")]).succeeds();
    state(&project, "last")
}

/// A socket's address has some 100 bytes; folders for temporary files may have more.
#[test]
fn a_program_is_talked_to_whatever_the_folder_for_temporary_files() {
    for folder in ["tmp".to_owned(), "t/".repeat(60), "t".repeat(120)] {
        let project = project("").environment("TMPDIR", &folder);
        std::fs::create_dir_all(project.path(&folder)).unwrap();
        project.pipe(&["run", "p.yaml"]).succeeds().says("Epoch 4/4: accuracy=");
        assert_eq!(project.list(&folder), [] as [&str; 0], "{folder}");
    }
}

#[test]
fn a_program_trains_under_the_policies_and_is_extended() {
    for keys in ["", "    settings: { folder: true }\n"] {
        let project = project(keys);
        project
            .pipe(&["run", "p.yaml"])
            .succeeds()
            .says("Epoch 4/4: accuracy=")
            .says("best train_loss");
        let names = project.list(&format!("{RUN}/checkpoints"));
        let kept = ["best", "epoch_002", "epoch_003", "epoch_004", "last"];
        let both = kept.iter().flat_map(|n| [format!("{n}.ckpt"), format!("{n}.ckpt.json")]);
        assert_eq!(names, both.collect::<Vec<_>>());
        let metadata = project.metadata(RUN);
        assert_eq!(metadata["status"], "completed");
        assert_eq!(metadata["history"].as_array().unwrap().len(), 4);
        assert_eq!(metadata["best_checkpoint"]["epoch"], 4);
        let metrics = project.read(&format!("{RUN}/logs/metrics.jsonl"));
        assert_eq!(metrics.lines().filter(|line| line.contains("\"loss\"")).count(), 16);
        assert!(!project.path(&format!("{RUN}/scratch")).exists());
        project.pipe(&["run", "p.yaml"]).succeeds().says("up to date, run 001");
        project.pipe(&["plan", "p.yaml", "--epochs=6"]).succeeds().says("extend 4 -> 6");
        project.pipe(&["run", "p.yaml", "--epochs=6"]).succeeds().says("Resumed from epoch 4");
        assert_eq!(state(&project, "last"), undisturbed(keys, 6));
        project.pipe(&["verify"]).succeeds();
        let listed = project.pipe(&["runs"]).succeeds().stdout();
        assert!(listed.contains("completed") && listed.contains("0.1667"), "{listed}");
        let shown = format!("{RUN}/checkpoints/best.ckpt");
        project.pipe(&["ckpt", "show", &shown]).succeeds().says("epoch").says("program");
        project.pipe(&["ckpt", "verify", &shown]).succeeds();
        project.pipe(&["report", "-o", "page.html"]).succeeds();
        let told = project.pipe(&["runs", "export", "1", "-o", "run.tar"]).succeeds();
        assert!(!told.stderr().contains("stays behind"), "{}", told.stderr());
        let other = self::project(keys);
        std::fs::copy(project.path("run.tar"), other.path("run.tar")).unwrap();
        other.pipe(&["runs", "import", "run.tar"]).succeeds();
        let names = |of: &Project| of.list(&format!("{RUN}/checkpoints"));
        assert_eq!(names(&other), names(&project), "with best and last");
        for name in ["best", "last"] {
            let path = format!("{RUN}/checkpoints/{name}.ckpt");
            other.pipe(&["runs", "path", "1", &format!("--{name}")]).succeeds().says(&path);
            assert_eq!(state(&other, name), state(&project, name));
        }
        other.pipe(&["verify"]).succeeds();
        other.pipe(&["plan", "p.yaml", "--epochs=6"]).succeeds().says("up to date, run 001");
        other.pipe(&["run", "p.yaml", "--epochs=7"]).succeeds();
        assert_eq!(state(&other, "last"), undisturbed(keys, 7));
    }
}

#[test]
fn killed_at_random_it_goes_on_to_the_same_bytes() {
    for (folder, every) in [(false, "null"), (true, "null"), (false, "3"), (true, "2")] {
        let keys = format!(
            "    settings: {{ folder: {folder}, pause_us: 3000, steps: 7 }}\n    \
             checkpoint: {{ save_every_n_steps: {every} }}\n"
        );
        let expected = undisturbed(&keys, 4);
        let project = project(&keys);
        for (round, milliseconds) in [40, 60, 35, 80, 50].into_iter().enumerate() {
            let mut child = project.start(&["run", "p.yaml"]);
            std::thread::sleep(Duration::from_millis(milliseconds));
            send(&child, if round % 2 == 0 { "KILL" } else { "TERM" });
            child.wait().unwrap();
            // What outlives its `pipe` has the stage to itself until it has ended.
            until_free(&project);
        }
        project.pipe(&["run", "p.yaml"]).succeeds();
        assert_eq!(state(&project, "last"), expected, "folder: {folder}, steps: {every}");
        assert_eq!(project.list("checkpoints/trainer").len(), 1, "one run");
        project.pipe(&["verify"]).succeeds();
    }
}

#[test]
fn a_program_goes_on_with_changed_settings() {
    let keys = "    settings: { pause_us: 3000, steps: 7, rate: 1.0 }\n    \
                checkpoint: { save_every_n_steps: 3 }\n";
    let expected = undisturbed(keys, 6);
    let project = project(keys);
    project.pipe(&["run", "p.yaml", "--epochs=2"]).succeeds();
    let on = ["run", "p.yaml", "--epochs=6", "--run-number=1"];
    let change = [&on[..], &["--resume", "--set=base.rate=0.5"]].concat();
    for milliseconds in [70, 90, 60] {
        let mut child = project.start(&change);
        std::thread::sleep(Duration::from_millis(milliseconds));
        send(&child, "KILL");
        child.wait().unwrap();
        until_free(&project);
    }
    project.pipe(&change).succeeds();
    assert_eq!(state(&project, "last"), expected, "every step was done once");
    let changes = &project.metadata(RUN)["changes"];
    assert_eq!(changes[0]["settings"], json!({"settings.rate": [1.0, 0.5]}));
    assert_eq!((&changes[0]["from_epoch"], changes.as_array().unwrap().len()), (&json!(3), 1));
    project.pipe(&change).succeeds().says("everything is up to date");
    let plan = project.pipe(&["plan", "p.yaml", "--epochs=6"]).succeeds();
    plan.says("settings.rate 0.5 -> 1.0 (new run_002)");
    let seed = [&on[..], &["--resume", "--seed=7"]].concat();
    project.pipe(&seed).exits(2).says("seed stays what it is inside a run");
    project.pipe(&["verify"]).succeeds();
}

fn until_free(project: &Project) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while project.pipe(&["status", "p.yaml"]).stdout().contains("left behind") {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_stop_saves_inside_an_epoch_and_exits_with_75() {
    let keys = "    settings: { pause_us: 20000, steps: 50 }\n";
    let project = project(keys);
    let child = project.start(&["run", "p.yaml"]);
    let log = project.path(&format!("{RUN}/logs/metrics.jsonl"));
    let deadline = Instant::now() + Duration::from_secs(30);
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 3) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    send(&child, "TERM");
    let mut child = child;
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let metadata = project.metadata(RUN);
    assert_eq!(metadata["status"], "interrupted");
    assert!(metadata["partial_checkpoint"]["step_in_epoch"].as_u64().unwrap() >= 3);
    project.pipe(&["plan", "p.yaml"]).succeeds().says("resume");
    project.pipe(&["run", "p.yaml", "--epochs=1"]).succeeds();
    assert_eq!(state(&project, "last"), undisturbed(keys, 1));
}

#[test]
fn other_settings_and_other_files_are_another_run() {
    let keys = "    inputs: [data.txt]\n    settings: { rate: 0.1 }\n";
    let project = project(keys);
    let missing = "inputs: there is no data.txt in the project's folder, /";
    project.pipe(&["plan", "p.yaml"]).succeeds().says(missing);
    project.pipe(&["run", "p.yaml"]).exits(1).says(missing);
    project.write("data.txt", "one");
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["plan", "p.yaml"]).succeeds().says("up to date, run 001");
    project.write("data.txt", "two");
    project.pipe(&["plan", "p.yaml"]).succeeds().says("data.txt was changed (new run_002)");
    project.pipe(&["run", "p.yaml", "--resume"]).exits(2).says("with other files");
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("data.txt", "one");
    project.pipe(&["plan", "p.yaml"]).succeeds().says("up to date, run 001");
    let other = ["run", "p.yaml", "--set", "base.settings.rate=0.2"];
    project.pipe(&other).succeeds();
    assert_eq!(project.list("checkpoints/trainer"), ["run_001", "run_002", "run_003"]);
}

#[test]
fn the_best_is_by_a_metric_that_is_told() {
    let project = script(json!([r#"{"epoch": 1, "metrics": {"accuracy": 0.9}}"#]));
    let ended = project.pipe(&["run", "p.yaml", "--epochs=1"]).exits(1);
    ended
        .says("checkpoint.monitor: the training reports no `train_loss`; it reports accuracy")
        .says("with `mode: max` where higher is better");
    let lowest = ["check", "p.yaml", "--set", "base.checkpoint.monitor=accuracy"];
    project.pipe(&lowest).says("the lowest accuracy would be the best");
    // A program that tells nothing has no best checkpoint, and is not in the wrong.
    let silent = script(json!([r#"{"epoch": 1}"#]));
    silent.pipe(&["run", "p.yaml", "--epochs=1"]).says("the last checkpoint stands for the best");
}

#[test]
fn a_metric_that_is_told_at_some_epochs_alone_decides_among_these() {
    let project = project("    settings: { sparse: true }\n");
    project.pipe(&["run", "p.yaml"]).succeeds().says("best train_loss");
    let metadata = project.metadata(RUN);
    assert_eq!(metadata["history"].as_array().unwrap().len(), 4);
    assert_eq!(metadata["best_checkpoint"]["epoch"], 3, "the last that has one: {metadata}");
}

#[test]
fn a_program_that_ends_early_on_purpose_has_succeeded_and_extends() {
    let project = project("    settings: { enough_at: 2 }\n");
    let args = ["run", "p.yaml"];
    project.pipe(&args).succeeds().says("2 of 4 epochs (good enough)");
    project.pipe(&["plan", "p.yaml"]).succeeds().says("ended at epoch 2 of 4, good enough");
    project.pipe(&["plan", "p.yaml", "--epochs=6"]).succeeds().says("extend 2 -> 6");
    project.pipe(&["run", "p.yaml", "--epochs=6"]).succeeds();
    assert_eq!(project.metadata(RUN)["status"], "completed");
}

#[test]
fn one_that_does_not_resume_is_started_anew() {
    let project = project("    resumable: false\n    settings: { pause_us: 5000 }\n");
    let mut child = project.start(&["run", "p.yaml"]);
    let first = project.path(&format!("{RUN}/checkpoints/epoch_001.ckpt"));
    while !first.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    send(&child, "TERM");
    child.wait().unwrap();
    project.pipe(&["plan", "p.yaml"]).succeeds().says("is started anew").says("new run_002");
    project.pipe(&args()).succeeds();
    let last = project.path("checkpoints/trainer/run_002/checkpoints/last.ckpt");
    assert_eq!(std::fs::read_to_string(last).unwrap(), undisturbed("", 4));
    project.pipe(&args()).succeeds().says("up to date, run 002");
    let by_number = ["run", "p.yaml", "--run-number=1", "--resume"];
    project.pipe(&by_number).exits(2).says("run 001 cannot be gone on with: it does not resume");
}

#[test]
fn nothing_of_an_attempt_before_is_handed_on_by_one_that_does_not_resume() {
    let project = with_own_pipe(Project::new());
    project.write(
        "train.sh",
        "set -e\nscratch=$(pipe job get scratch)\nlosses='0.9 0.1 fail'\n\
         [ ! -e mended ] || losses='0.8 end'\nepoch=0\n\
         for loss in $losses; do\n  epoch=$((epoch + 1))\n  [ $loss != fail ] || exit 1\n  \
         [ $loss != end ] || { pipe job finished enough > /dev/null; exit 0; }\n  \
         echo \"$losses\" > \"$scratch/state\"\n  \
         pipe job epoch $epoch --metric train_loss=$loss --checkpoint \"$scratch/state\" > /dev/null\n\
         done\n",
    );
    let keys = "name: s\nstages:\n  base:\n    kind: trainer\n    run: sh train.sh\n    epochs: 4\n    \
                resumable: false\n  best: { kind: copy_best, from: base, to: best.txt }\n";
    project.write("p.yaml", keys);
    project.pipe(&args()).exits(1).says("best so far");
    project.write("mended", "");
    project.pipe(&["plan", "p.yaml"]).succeeds().says("is started anew").says("new run_002");
    project.pipe(&args()).succeeds().says("best train_loss 0.8000 at epoch 1");
    assert_eq!(project.read("best.txt"), "0.8 end\n");
    project.pipe(&args()).succeeds().says("up to date");
    // More epochs are another run, too.
    project.pipe(&["plan", "p.yaml", "--epochs=5"]).succeeds().says("new run_003");
}

fn args() -> [&'static str; 2] {
    ["run", "p.yaml"]
}

#[test]
fn a_swept_program_and_its_best() {
    let project = project(
        "    matrix: { settings.rate: [0.1, 0.5] }\n  best:\n    kind: select_best\n    over: base\n  copy:\n    \
         kind: copy_best\n    from: best\n    to: out/model.ckpt\n",
    );
    project.pipe(&args()).succeeds().says("settings.rate=0.1");
    assert!(
        project.path("out/model.ckpt").is_file() && project.path("out/model.ckpt.json").is_file()
    );
    project.pipe(&args()).succeeds().says("up to date");
}

#[test]
fn keys_of_the_program_are_named_without_where_they_stand() {
    let project = project("    settings: { rate: 0.1, learning_rate: 1 }\n");
    let rate = |arguments: &[&str]| {
        let all = [&["plan", "p.yaml", "--json"], arguments].concat();
        project.pipe(&all).succeeds();
        let all = [&["run", "p.yaml", "--epochs=1"], arguments].concat();
        project.pipe(&all).succeeds();
        let runs = project.list("checkpoints/trainer");
        project.metadata(&format!("checkpoints/trainer/{}", runs.last().unwrap()))["settings"]
            ["settings"]
            .clone()
    };
    assert_eq!(rate(&[]), json!({"rate": 0.1, "learning_rate": 1}));
    assert_eq!(rate(&["--set", "base.rate=0.2"]), json!({"rate": 0.2, "learning_rate": 1}));
    assert_eq!(rate(&["--set", "rate=0.3"]), json!({"rate": 0.3, "learning_rate": 1}));
    assert_eq!(rate(&["--learning-rate=0.5"]), json!({"rate": 0.1, "learning_rate": 0.5}));
    project.pipe(&["plan", "p.yaml", "--set", "base.rte=1"]).exits(2).says("rte");
    let swept = self::project("    settings: { rate: 0.1 }\n    matrix: { rate: [0.1, 0.5] }\n");
    swept.pipe(&["plan", "p.yaml"]).succeeds().says("base@rate=0.5");
    swept
        .pipe(&["plan", "p.yaml", "--set", "base.rate=1"])
        .exits(2)
        .says("has a matrix over `rate`");
}

#[test]
fn what_a_program_hands_on_begins_another_training() {
    for folder in [false, true] {
        let exe = std::env::current_exe().unwrap();
        let second = format!(
            "    settings: {{ folder: {folder} }}\n  copy: {{ kind: copy_best, from: base, to: out/model.ckpt }}\n  \
             tuned:\n    kind: trainer\n    run: ['{}', --exact, 'trainer::program', --nocapture, -q]\n    \
             epochs: 1\n    init: copy\n    checkpoint: {{ base_dir: checkpoints/tuned }}\n",
            exe.display()
        );
        let project = project(&second);
        // Somebody's file where the copy's header would stand.
        project.write("out/model.ckpt.json", "mine");
        project.pipe(&args()).exits(2).says("out/model.ckpt.json exists and was not made by");
        assert_eq!(project.read("out/model.ckpt.json"), "mine");
        std::fs::remove_file(project.path("out/model.ckpt.json")).unwrap();
        project.pipe(&args()).succeeds();
        let tuned = project.path("checkpoints/tuned/run_001/checkpoints/last.ckpt");
        let text = std::fs::read_to_string(training_program::inner(&tuned)).unwrap();
        assert_ne!(text, undisturbed("", 1), "it began from other weights");
        project.pipe(&args()).succeeds().says("tuned: skip");
        project.pipe(&["verify"]).succeeds();
        // What somebody changed in a copy is theirs.
        let copy = training_program::inner(&project.path("out/model.ckpt"));
        std::fs::write(&copy, "changed").unwrap();
        project.pipe(&["plan", "p.yaml"]).succeeds().says("has another content, and is left alone");
        project.pipe(&args()).exits(2).says("out/model.ckpt is not as this stage made it");
        project.pipe(&["run", "p.yaml", "--set", "copy.overwrite=true"]).succeeds();
        assert_ne!(std::fs::read_to_string(&copy).unwrap(), "changed");
        project.pipe(&["verify"]).succeeds();
    }
}

/// What a plan says of a stage behind others that run is a guess by what stands of them.
#[test]
fn a_stage_that_may_be_up_to_date_behind_others_is_planned_so() {
    let exe = std::env::current_exe().unwrap();
    let behind = format!(
        "    settings: {{ rate: 0.1 }}\n  win: {{ kind: select_best, over: [base], by: train_loss }}\n  \
         tuned:\n    kind: trainer\n    run: ['{}', --exact, 'trainer::program', --nocapture, -q]\n    \
         epochs: 1\n    init: win\n    checkpoint: {{ base_dir: checkpoints/tuned }}\n  \
         copy: {{ kind: copy_best, from: tuned, to: out/t.ckpt }}\n",
        exe.display()
    );
    let project = project(&behind);
    for rate in ["0.1", "0.5", "0.1"] {
        project.pipe(&["run", "p.yaml", "--set", &format!("base.rate={rate}")]).succeeds();
    }
    let by = ["p.yaml", "--set", "win.by=accuracy", "--set", "win.mode=max"];
    let plan = project.pipe(&[&["plan"], &by[..]].concat()).succeeds().stdout();
    let line = plan.lines().find(|line| line.starts_with("copy ")).unwrap();
    assert!(line.contains("run?"), "{plan}");
    project.pipe(&[&["run"], &by[..]].concat()).succeeds().says("copy: skip (up to date");
}

#[test]
fn a_first_training_is_not_told_to_be_nothing() {
    let project = project("    settings: { steps: 1000, pause_us: 50000 }\n");
    let mut child = project.start(&["run", "p.yaml"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !project.path(&format!("{RUN}/metadata.json")).exists() {
        assert!(Instant::now() < deadline, "no run after a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
    let verified = project.pipe(&["verify"]);
    send(&child, "TERM");
    child.wait().unwrap();
    verified
        .succeeds()
        .says("left out checkpoints/trainer/run_001: pid ")
        .says("nothing else is noted in this folder");
}

#[test]
fn half_copies_of_folders_are_cleared_away() {
    let keys =
        "    settings: { folder: true }\n  copy: { kind: copy_best, from: base, to: out/m.ckpt }\n";
    let project = project(keys);
    let leave = || {
        project.write("out/.m.ckpt.copying/state", "half");
        project.write("out/..m.ckpt.copying.tmp-1-2/state", "half");
        project.write("out/.m.ckpt.tmp-1-3/state", "half");
        project.write("out/.notes.copying", "a year of work");
    };
    leave();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let left = [".notes.copying", "m.ckpt", "m.ckpt.json"];
    assert_eq!(project.list("out"), left, "by the stage itself");
    leave();
    let told = project.pipe(&["gc", "--dry-run"]).succeeds();
    told.says("would remove out/.m.ckpt.copying (left by a crash while it was written, 4 B)")
        .says("out/..m.ckpt.copying.tmp-1-2")
        .says("out/.m.ckpt.tmp-1-3");
    project.pipe(&["gc"]).succeeds();
    assert_eq!(project.list("out"), left);
    project.pipe(&["run", "p.yaml"]).succeeds().says("copy: skip");
}

#[test]
fn stages_that_need_a_model_of_this_program_refuse_a_program_s() {
    let keys = "  data: { kind: dataset, source: shapes, image_size: 8, num_images: 16 }\n  \
                lora: { kind: lora, base: base, dataset: data, epochs: 1 }\n";
    project(keys).pipe(&["check", "p.yaml"]).exits(2).says("a program of its own");
    let sample = "  pictures: { kind: sample, from: base, to: grid.png }\n";
    project(sample).pipe(&["check", "p.yaml"]).exits(2).says("a program of its own");
}

/// A failure's message, and the exit code.
#[track_caller]
fn fails(items: Value, said: &str) -> Project {
    let project = script(items);
    project.pipe(&args()).exits(1).says("stage base").says(said);
    assert_eq!(project.metadata(RUN)["status"], "failed");
    project
}

#[test]
fn what_breaks_the_contract_is_told_by_line() {
    let epoch = |n: u32| format!(r#"{{"epoch": {n}, "metrics": {{"train_loss": 0.5}}}}"#);
    for (items, said) in [
        (json!([]), "said nothing"),
        (json!(["hello"]), "line 1 of what the program said breaks the contract: expected a JSON"),
        (
            json!([epoch(1), epoch(5)]),
            "line 2 of what the program said breaks the contract: epoch 5 after 1",
        ),
        (json!([r#"{"step": 9}"#, r#"{"step": 8}"#]), "step 8 after step 9"),
        (json!([r#"{"epoch": 1, "checkpoint": "/etc/hostname"}"#]), "not inside `scratch`"),
        (json!([r#"{"epoch": 1, "checkpoint": "../metadata.json"}"#]), "not inside `scratch`"),
        (json!([r#"{"epoch": 1, "checkpoint": "missing"}"#]), "missing is not there"),
        (json!([epoch(1)]), "after epoch 1 of 4"),
        (json!([epoch(1), {"exit": 5}]), "exit code 5"),
        (
            json!([r#"{"failure": "not_finite", "message": "loss is NaN"}"#, {"exit": 1}]),
            "not finite: loss is NaN",
        ),
        (json!([{"write": "a.png", "text": "no picture"}, r#"{"sample": "a.png"}"#]), "is no PNG"),
        (json!(["x".repeat(1 << 21)]), "a line of more than"),
    ] {
        fails(items, said);
    }
}

#[test]
fn a_module_that_is_missing_is_answered_and_a_traceback_stays_out_of_tables() {
    for (module, said) in [
        ("burn_pipe", "`pipe python` writes that package as a wheel"),
        ("torch.nn", "starts has no `torch`: install it there"),
    ] {
        let traceback = format!("ModuleNotFoundError: No module named '{module}'");
        let project = Project::new();
        project.write("traceback", format!("Traceback\n  line 1\n{traceback}\n"));
        let run = "    run: |-\n      cat traceback >&2\n      exit 1\n";
        project.write(
            "p.yaml",
            format!("name: t\nstages:\n  base:\n    kind: trainer\n    epochs: 1\n{run}"),
        );
        project.pipe(&["run", "p.yaml"]).exits(1).says(&traceback).says(said);
        for command in ["plan", "status"] {
            let told = project.pipe(&[command, "p.yaml"]).succeeds().says(&traceback).stdout();
            assert!(!told.contains("line 1"), "{told}");
            let line = told.lines().find(|line| line.starts_with("base ")).unwrap().to_owned();
            assert!(line.contains("ended with exit code 1: ModuleNotFoundError"), "{told}");
        }
    }
}

#[test]
fn the_package_is_written_as_a_wheel_that_pip_installs() {
    let project = Project::new();
    let told = project.pipe(&["python", "-o", "wheels"]).succeeds().stdout();
    let wheel = told.lines().next().unwrap().to_owned();
    assert!(told.ends_with(&format!("\n\nnext: pip install ./{wheel}\n")), "{told}");
    let here = project.pipe(&["python"]).succeeds().stdout();
    assert!(here.contains("\nnext: pip install ./burn_pipe-"), "{here}");
    let bytes = std::fs::read(project.path(&wheel)).unwrap();
    project.pipe(&["python", "-o", "again"]).succeeds();
    let again = project.path(&wheel.replace("wheels", "again"));
    assert!(bytes == std::fs::read(again).unwrap(), "the same program writes the same bytes");
    let Ok(python) = std::env::var("PIPE_TEST_PYTHON") else {
        eprintln!("skipped: PIPE_TEST_PYTHON is not set");
        return;
    };
    let at = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&python);
        command.current_dir(project.path("")).env("PYTHONPATH", "site").args(arguments);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    at(&["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", "site", &wheel]);
    let ask = "import burn_pipe, importlib.metadata as m; \
               print(m.version('burn-pipe'), burn_pipe.job.epochs, burn_pipe.__file__)";
    let told = at(&["-c", ask]);
    assert!(told.starts_with(env!("CARGO_PKG_VERSION")), "{told}");
    assert!(told.trim_end().ends_with("site/burn_pipe/__init__.py"), "{told}");
}

#[test]
fn a_checkpoint_that_stands_stays_when_the_program_breaks_the_contract() {
    let items = json!([
        {"write": "s", "text": "one"}, r#"{"epoch": 1, "checkpoint": "s", "metrics": {"train_loss": 1}}"#,
        r#"{"epoch": 3}"#, {"sleep": 60.0}
    ]);
    let begun = Instant::now();
    let project = fails(items, "epoch 3 after 1, expected 2");
    assert!(begun.elapsed() < Duration::from_secs(20), "it was ended");
    assert_eq!(state(&project, "last"), "one");
    project.pipe(&["plan", "p.yaml"]).succeeds().says("resume at epoch 1/4");
}

/// Libraries that end a process badly at its exit leave a training that is done all the same.
#[test]
fn a_crash_behind_the_last_saved_epoch_is_a_warning() {
    let epoch = |n: u32| {
        let line =
            format!(r#"{{"epoch": {n}, "checkpoint": "s{n}", "metrics": {{"train_loss": 1}}}}"#);
        [json!({"write": format!("s{n}"), "text": n.to_string()}), json!(line)]
    };
    let all =
        |then: &[Value]| Value::from([&(1..=4).flat_map(epoch).collect::<Vec<_>>(), then].concat());
    let abort = || json!({"abort": true});
    let whole = "after the last epoch: the training is complete";
    for crash in [abort(), json!({"exit": 134})] {
        let project = script(all(&[crash]));
        let said = project.pipe(&["run", "p.yaml"]).succeeds().says("(SIGABRT").says(whole);
        assert!(!said.stderr().contains("error:"), "{}", said.stderr());
        assert_eq!(
            (state(&project, "last").as_str(), &project.metadata(RUN)["status"]),
            ("4", &json!("completed"))
        );
        project.pipe(&["run", "p.yaml"]).succeeds().says("up to date, run 001");
    }
    let on_purpose = [&epoch(1)[..], &[json!(r#"{"finished": "enough"}"#), abort()]].concat();
    script(on_purpose.into()).pipe(&["run", "p.yaml"]).succeeds().says(whole);

    // What the program says itself counts, and what is not trained or not saved is not there.
    let unsaved = json!([
        r#"{"epoch": 1, "metrics": {"train_loss": 1}}"#,
        r#"{"finished": "enough"}"#,
        abort()
    ]);
    for (items, said) in [
        (all(&[json!({"exit": 1})]), "ended with exit code 1"),
        (all(&[json!(r#"{"failure": "command", "message": "no room"}"#), abort()]), "no room"),
        (all(&[json!(r#"{"epoch": 5}"#), abort()]), "epoch 5"),
        ([&epoch(1)[..], &epoch(2)[..], &[abort()]].concat().into(), "SIGABRT"),
        (unsaved, "SIGABRT"),
    ] {
        let project = script(items);
        let told = project.pipe(&["run", "p.yaml"]).exits(1).says(said);
        assert!(!told.stderr().contains(whole), "{}", told.stderr());
        assert_eq!(project.metadata(RUN)["status"], "failed");
    }
}

#[test]
fn metrics_that_are_no_numbers_are_left_out() {
    let items = json!([
        {"write": "s", "text": "one"},
        r#"{"epoch": 1, "checkpoint": "s", "metrics": {"train_loss": NaN, "accuracy": 0.5}}"#,
        r#"{"finished": "enough"}"#
    ]);
    let project = script(items);
    project.pipe(&args()).succeeds().says("train_loss is no finite number");
    let metadata = project.metadata(RUN);
    assert_eq!(metadata["history"][0]["metrics"], json!({"accuracy": 0.5}));
    assert_eq!(metadata["best_checkpoint"], Value::Null);
}

#[test]
fn a_program_that_does_not_stop_is_ended_and_what_it_left_too() {
    let keys = "    grace: 1s\n    timeout: 2s\n    settings: { script: [{fork: 'sleep 6172'}, {sleep: 600}] }\n";
    let project = project(keys);
    let begun = Instant::now();
    project.pipe(&args()).exits(1).says("timeout");
    assert!(begun.elapsed() < Duration::from_secs(30));
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    assert!(!lines.any(|line| line.starts_with(b"sleep\x006172")), "it goes on");
}

#[test]
fn a_flood_of_steps_is_heard() {
    let items = json!([{"flood": 20000}, {"write": "s"}, r#"{"epoch": 1, "checkpoint": "s", "step": 20000}"#,
                       r#"{"finished": "enough"}"#]);
    let project = script(items);
    let begun = Instant::now();
    project.pipe(&args()).succeeds();
    let each = begun.elapsed().as_secs_f64() / 20000.0;
    assert!(each < 1e-3, "{:.0} us a step", 1e6 * each);
    let metrics = project.read(&format!("{RUN}/logs/metrics.jsonl"));
    assert_eq!(metrics.lines().count(), 20000 + 1);
}

#[test]
fn a_shell_script_trains_with_pipe_job() {
    let project = with_own_pipe(Project::new());
    project.write(
        "train.sh",
        "set -e\nscratch=$(pipe job get scratch)\nstart=$(pipe job get start)\nstate=begin\n\
         [ -z \"$start\" ] || state=$(cat \"$start\")\n\
         for epoch in $(pipe job epochs); do\n  state=$(echo \"$state $epoch\" | cksum)\n  \
         echo \"$state\" > \"$scratch/state\"\n  \
         pipe job epoch $epoch --metric train_loss=0.$((9 - epoch)) --checkpoint \"$scratch/state\" > /dev/null\ndone\n",
    );
    let keys = "name: s\nstages:\n  base:\n    kind: trainer\n    run: sh train.sh\n    inputs: [train.sh]\n    epochs: 2\n";
    project.write("p.yaml", keys);
    project.pipe(&args()).succeeds().says("best train_loss 0.7000 at epoch 2");
    let two = state(&project, "last");
    project.write("p.yaml", keys.replace("epochs: 2", "epochs: 3"));
    project.pipe(&args()).succeeds().says("Resumed from epoch 2");
    assert_ne!(state(&project, "last"), two);
    assert_eq!(project.metadata(RUN)["history"].as_array().unwrap().len(), 3);
    project.pipe(&["job", "epochs"]).exits(2).says("PIPE_JOB is not set");
}
