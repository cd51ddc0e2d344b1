//! What is told to type is what works: each command that the program prints is read from its
//! output, in the state in which it was printed, and typed into a shell.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::chain::chain;
use crate::project::{Project, TINY, send, weights};

const RUNS: &str = "checkpoints/base_training";

/// What a shell that stands in `folder` of the project makes of a line: what it said, which must
/// have ended well.
#[track_caller]
pub fn typed(project: &Project, folder: &str, line: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_pipe")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .current_dir(project.path(folder))
        .env("PATH", path)
        .stdin(Stdio::null());
    // The same environment as that of the command that printed it.
    for (key, value) in project.command(&[]).get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}\n{said}");
    said
}

/// What stands behind `words` in the line that has them.
#[track_caller]
pub fn after(said: &str, words: &str) -> String {
    let line = said.lines().find_map(|line| line.split_once(words));
    line.unwrap_or_else(|| panic!("no {words:?} in\n{said}")).1.to_owned()
}

/// What stands between the first two backticks behind `words`.
#[track_caller]
fn quoted_after(said: &str, words: &str) -> String {
    let rest = said.split_once(words).unwrap_or_else(|| panic!("no {words:?} in\n{said}")).1;
    rest.split('`').nth(1).unwrap_or_else(|| panic!("no command in {rest:?}")).to_owned()
}

/// Starts in a folder of the project, presses Ctrl-C when there is a checkpoint, and returns what
/// was said.
#[track_caller]
fn interrupted(project: &Project, folder: &str, arguments: &[&str]) -> String {
    let mut command = project.command(arguments);
    command.current_dir(project.path(folder)).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while project.list(&format!("{RUNS}/run_001/checkpoints")).is_empty() {
        assert!(Instant::now() < deadline, "no checkpoint after a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    send(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "it was not interrupted");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn after_ctrl_c_the_command_goes_on_with_all_that_was_asked_for() {
    let project = Project::new();
    std::fs::rename(project.path("p.yaml"), project.path("it's mine.yaml")).unwrap();
    let asked = [
        "run",
        "it's mine.yaml",
        "base",
        "--epochs",
        "40",
        "--learning-rate",
        "3e-4",
        "--seed=7",
        "--set",
        "data.classes=[circle, square]",
        "--set",
        "base.model.dim=32",
        "--run-number",
        "1",
        "--keep-going",
        "--device",
        "cpu",
        "--jobs",
        "2",
    ];
    let said = interrupted(&project, "", &asked);
    let again = after(&said, "go on with: ");
    let told = typed(&project, "", &again);
    assert!(told.contains("run 001, 40 epochs"), "{told}");
    let metadata = project.metadata(&format!("{RUNS}/run_001"));
    assert_eq!((&metadata["status"], &metadata["epochs"]), (&"completed".into(), &40.into()));
    assert_eq!(metadata["settings"]["model"]["dim"], 32);
    assert_eq!(project.list(RUNS), ["run_001"]);
}

#[test]
fn going_on_does_not_force_again() {
    let project = Project::new();
    let said = interrupted(&project, "", &["run", "p.yaml", "--force", "--epochs", "40"]);
    let again = after(&said, "go on with: ");
    assert_eq!(again, "pipe run p.yaml --epochs 40");
    typed(&project, "", &again);
    assert_eq!(project.list(RUNS), ["run_001"]);
}

#[test]
fn settings_of_the_environment_are_part_of_the_command() {
    let project =
        Project::new().environment("PIPE_EPOCHS", "40").environment("PIPE_TOKEN", "secret");
    let said = interrupted(&project, "", &["run", "p.yaml"]);
    let again = after(&said, "go on with: ");
    assert_eq!(again, "PIPE_EPOCHS=40 pipe run p.yaml");
    typed(&project, "", &again);
    assert_eq!(
        project.metadata(&format!("{RUNS}/run_001"))["history"].as_array().unwrap().len(),
        40
    );
}

#[test]
fn after_a_failure_the_commands_go_on_and_force_what_was_not_begun() {
    let project = Project::new();
    let file = "name: q\nstages:\n  a: { kind: command, run: 'test -e \"$READY\" && echo x >> a.txt', outputs: [a.txt] }\n  \
                b: { kind: command, run: 'cat a.txt >> log.txt; wc -l < log.txt > b.txt', inputs: [a.txt], outputs: [b.txt] }\n";
    let project = project.environment("READY", "ready");
    project.write("q.yaml", file);
    project.write("ready", "");
    project.pipe(&["run", "q.yaml"]).succeeds();
    std::fs::remove_file(project.path("ready")).unwrap();
    let said = project
        .pipe(&["run", "q.yaml", "--force", "--jobs", "3", "--keep-going"])
        .exits(1)
        .stderr();
    project.write("ready", "");
    let again = after(&said, "go on with: ");
    assert_eq!(again, "pipe run q.yaml --jobs 3 --keep-going");
    typed(&project, "", &again);
    let lines = project.read("log.txt").lines().count();
    typed(&project, "", &after(&said, "force what was not begun with: "));
    assert!(project.read("log.txt").lines().count() > lines, "b was forced");
}

#[test]
fn what_is_up_to_date_is_run_again_as_it_says() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds();
    let said = project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds().stdout();
    let option = quoted_after(&said, "everything is up to date (");
    typed(&project, "", &format!("pipe run p.yaml --epochs 1 {option}"));
    assert_eq!(project.list(RUNS), ["run_001", "run_002"]);
    // With options that do not go with that one, it is the whole command.
    let resumed = ["run", "p.yaml", "--epochs", "1", "--run-number", "1", "--resume"];
    let said = project.pipe(&resumed).succeeds().stdout();
    typed(&project, "", &quoted_after(&said, "everything is up to date ("));
    assert_eq!(project.list(RUNS), ["run_001", "run_002", "run_003"]);
}

#[test]
fn next_of_a_sweep_is_the_best_of_it() {
    let sweep = "matrix: { learning_rate: [0.003, 0.000001], seed: [1] }\n    epochs:";
    let project = Project::with("epochs: ${params.epochs}", &format!("{sweep} 4"));
    let said = project.pipe(&["run", "p.yaml"]).succeeds().stdout();
    let loss = |run: u32| {
        let metadata = project.metadata(&format!("{RUNS}/run_{run:03}"));
        metadata["best_checkpoint"]["metrics"]["train_loss"].as_f64().unwrap()
    };
    let best = if loss(1) < loss(2) { 1 } else { 2 };
    let next = after(&said, "next: ");
    assert!(next.contains(&format!("run_{best:03}/")), "{said}");
    typed(&project, "", &next);
    assert!(project.path("samples.png").is_file());
    // Of a sweep that one training was added to, too; and of a choice what was chosen.
    let text = project.read("p.yaml").replace("seed: [1]", "seed: [1, 2]").replace("0.003, ", "");
    project.write("p.yaml", text);
    let said = project.pipe(&["run", "p.yaml"]).succeeds().stdout();
    assert!(!after(&said, "next: ").contains("run_001/"), "not of this pipeline any more: {said}");
    project.write(
        "p.yaml",
        project.read("p.yaml") + "  winner: { kind: select_best, over: base, mode: max }\n",
    );
    let said = project.pipe(&["run", "p.yaml"]).succeeds().stdout();
    let worst = if loss(2) > loss(3) { 2 } else { 3 };
    assert!(after(&said, "next: ").contains(&format!("run_{worst:03}/")), "{said}");
}

#[test]
fn a_run_is_repeated_with_the_command_in_its_config() {
    let again = |project: &Project, runs: &str| {
        let config = project.read(&format!("{runs}/run_001/config.yaml"));
        typed(project, "", &after(&config, "It can be repeated with: "));
        let last =
            |run: &str| weights(&project.path(&format!("{runs}/{run}/checkpoints/last.ckpt")));
        assert_eq!(last("run_001"), last("run_002"));
    };
    // In a folder whose name a shell reads otherwise, and with a number of its own.
    let project = Project::new();
    let folder = "runs of $HOME/it's mine";
    let set = format!("checkpoint.base_dir={folder}");
    project.pipe(&["run", "p.yaml", "--set", &set, "--set", "checkpoint.run_number=1"]).succeeds();
    again(&project, folder);
    // One of a matrix.
    let matrix = "matrix: { learning_rate: [0.003] }\n    epochs:";
    let project = Project::new();
    project.write("p.yaml", TINY.replace("    epochs:", &format!("    {matrix}")));
    project.pipe(&["run", "p.yaml"]).succeeds();
    again(&project, RUNS);
}

#[test]
fn the_run_of_a_chain_is_repeated_with_the_command_in_its_config() {
    let project = chain();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let config = project.read("checkpoints/lora/run_001/config.yaml");
    typed(&project, "", &after(&config, "It can be repeated with: "));
    assert_eq!(project.list("checkpoints/lora"), ["run_001", "run_002"]);
    assert_eq!(project.list(RUNS), ["run_001"], "its base model stands");
    // An adapter says with what it is used.
    let said = project.pipe(&["sample", "checkpoints/lora/run_001/adapter"]).exits(2).stderr();
    typed(&project, "", &(after(&said, "sample from both with: ") + " --n 4 --steps 2"));
    // Names of runs that are there twice.
    let said = project.pipe(&["runs", "show", "1"]).exits(2).stderr();
    for name in after(&said, "say which: ").split(", ") {
        typed(&project, "", &format!("pipe runs show {name}"));
    }
}

#[test]
fn a_plan_that_does_not_hold_is_made_anew_as_it_says() {
    let project = Project::new();
    let plan = ["plan", "p.yaml", "base", "--epochs", "1", "--seed", "3", "-o", "my plan.json"];
    project.pipe(&plan).succeeds();
    project.pipe(&["run", "p.yaml", "--epochs", "1", "--seed", "3"]).succeeds();
    let said = project.pipe(&["run", "--plan", "my plan.json"]).exits(2).stderr();
    let again = after(&said, "make a new one: ");
    assert_eq!(again, "pipe plan p.yaml base --epochs 1 --seed 3 -o 'my plan.json'");
    typed(&project, "", &again);
    let said = project.pipe(&["run", "--plan", "my plan.json"]).succeeds().stdout();
    typed(&project, "", &quoted_after(&said, "everything is up to date ("));
    assert_eq!(project.list(RUNS), ["run_001", "run_002"]);
}

#[test]
fn a_project_without_runs_says_how_the_first_is_made() {
    let project = Project::new();
    let said = project.pipe(&["runs"]).succeeds().stdout();
    typed(&project, "", &quoted_after(&said, "no runs yet"));
    assert_eq!(project.list(RUNS), ["run_001"]);
    std::fs::remove_file(project.path("p.yaml")).unwrap();
    std::fs::remove_dir_all(project.path("checkpoints")).unwrap();
    let said = project.pipe(&["runs"]).succeeds().stdout();
    typed(&project, "", &quoted_after(&said, "no runs yet"));
    typed(&project, "my_project", "pipe check pipelines/*.yaml");
}

/// So small that the shipped pipelines take a second.
pub fn small(project: Project) -> Project {
    let settings = [
        ("PIPE_EPOCHS", "1"),
        ("PIPE_NUM_IMAGES", "32"),
        ("PIPE_BATCH_SIZE", "16"),
        ("PIPE_IMAGE_SIZE", "8"),
        ("PIPE_MODEL__ARCH", "diffit"),
        ("PIPE_MODEL__PRESET", "diffit_tiny"),
        ("PIPE_MODEL__DIM", "16"),
        ("PIPE_MODEL__MULTS", "[1, 2]"),
        ("PIPE_MODEL__DEPTHS", "[1, 1]"),
        ("PIPE_MODEL__HEADS", "2"),
        ("PIPE_MODEL__WINDOW", "4"),
        ("PIPE_DEVICE", "cpu"),
    ];
    settings.into_iter().fold(project, |project, (key, value)| project.environment(key, value))
}

#[test]
fn a_new_project_runs_as_it_says_wherever_it_is() {
    let project = small(Project::new());
    let said = project.pipe(&["init", "a b/c $HOME"]).succeeds().stdout();
    typed(&project, "", &after(&said, "next: "));
    assert_eq!(project.list("a b/c $HOME/checkpoints/base_training"), ["run_001"]);
    project.write("a b/c $HOME/pipelines/base_to_lora.yaml", "mine");
    let said = project.pipe(&["init", "a b/c $HOME", "--template", "chain"]).exits(2).stderr();
    let said = typed(&project, "", &after(&said, "choose another folder: "));
    assert!(after(&said, "next: ").ends_with("pipelines/base_to_lora.yaml"), "{said}");
    assert_eq!(project.list("a b"), ["c $HOME", "c $HOME_2"]);
}

#[test]
fn a_store_that_went_on_elsewhere_says_how_to_choose() {
    let store = tempfile::tempdir().unwrap();
    let url = format!("file://{}", store.path().join("store").display());
    let one = Project::new();
    one.pipe(&["run", "p.yaml", "--epochs", "1", "--store", &url]).succeeds();
    let two = Project::new();
    two.pipe(&["run", "p.yaml", "--epochs", "2", "--store", &url]).succeeds();
    one.pipe(&["run", "p.yaml", "--epochs", "3", "--store", "none"]).succeeds();
    let said = one.pipe(&["plan", "p.yaml", "--epochs", "3", "--store", &url]).exits(2).stderr();
    let line = after(&said, "= type: ");
    assert!(line.contains("--take store") && line.contains("--epochs 3"), "{line}");
    typed(&one, "", &line);
    assert_eq!(one.metadata(&format!("{RUNS}/run_001"))["history"].as_array().unwrap().len(), 3);
}

/// Programs in the place of Slurm's: jobs that never end unless they are cancelled.
fn slurm() -> Project {
    let project = Project::new();
    let programs = [
        ("sbatch", "echo x >> jobs; wc -l < jobs"),
        (
            "squeue",
            "case \"$*\" in *--me*) exit 0;; esac\nfor n in $(seq $(wc -l < jobs)); do\n  \
          if [ -e cancelled ]; then echo \"$n|CANCELLED||None\"; else echo \"$n|RUNNING|node|None\"; fi\ndone",
        ),
        ("scancel", "touch cancelled"),
        ("sacct", "exit 0"),
    ];
    for (name, script) in programs {
        project.write(&format!("bin/{name}"), format!("#!/bin/sh\n{script}\n"));
        let made = Command::new("chmod")
            .arg("+x")
            .arg(project.path(&format!("bin/{name}")))
            .status()
            .unwrap();
        assert!(made.success());
    }
    project
        .write("p.yaml", TINY.replace("params:", "executor: { kind: slurm, poll: 1s }\nparams:"));
    let own = Path::new(env!("CARGO_BIN_EXE_pipe")).parent().unwrap().display().to_string();
    let path =
        [project.path("bin").display().to_string(), own, std::env::var("PATH").unwrap()].join(":");
    project.environment("PATH", path)
}

#[test]
fn jobs_that_go_on_are_looked_at_and_ended_as_it_says() {
    let project = slurm();
    let file = "it's p.yaml";
    std::fs::rename(project.path("p.yaml"), project.path(file)).unwrap();
    let said = project.pipe(&["run", file, "--detach", "--epochs", "7"]).succeeds().stdout();
    let status = after(&said, "see how they stand with: ");
    assert_eq!(status, "pipe status 'it'\\''s p.yaml' --epochs 7");
    assert!(typed(&project, "", &status).contains("RUNNING"));
    // Other settings would be another training.
    let said = project.pipe(&["run", file, "--epochs", "8"]).exits(1).stderr();
    typed(&project, "", &quoted_after(&said, "or end it with "));
    assert!(project.path("cancelled").exists());
    std::fs::remove_file(project.path("cancelled")).unwrap();
    // Whoever follows is told how to end what goes on without him.
    let mut command = project.command(&["run", file, "--epochs", "7"]);
    let errors = std::fs::File::create(project.path("errors")).unwrap();
    let child = command.stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !project.read("errors").contains("has job") && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    send(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    let said = project.read("errors");
    assert_eq!(output.status.code(), Some(75), "{said}");
    typed(&project, "", &quoted_after(&said, "follows them again, "));
    assert!(project.path("cancelled").exists(), "{said}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(after(&told, "go on with: "), "pipe run 'it'\\''s p.yaml' --epochs 7");
}

/// Files that print commands, in how many lines, and the tests that type them. Whoever adds one
/// adds its test here.
const PRINTED: [(&str, usize, &[&str]); 43] = [
    (
        "src/cli/pipeline_args.rs",
        2,
        &["a_store_that_went_on", "what_is_up_to_date", "after_a_failure"],
    ),
    ("src/cli/clean.rs", 2, &["place::a_run_has_a_name", "the_run_that_a_stage_stands"]),
    ("src/cli/files.rs", 1, &["the_run_of_a_chain"]),
    ("src/cli/fork.rs", 1, &["fork::an_interrupted_fork_says"]),
    (
        "src/cli/hub.rs",
        1,
        &["hub::the_folder_has_weights_a_configuration_and_a_card_that_says_where_they_come_from"],
    ),
    ("src/cli/init.rs", 3, &["a_new_project", "init::pictures_of_ones_own"]),
    ("src/cli/init/written.rs", 1, &["init::pictures_of_ones_own"]),
    ("src/cli/job.rs", 1, &["trainer::a_shell_script"]),
    ("src/cli/jobs.rs", 2, &["jobs_that_go_on"]),
    ("src/cli/logs.rs", 2, &["stage_logs::what_a_program_printed_can_be_read_afterwards"]),
    ("src/cli/plan.rs", 1, &["a_plan_that_does_not_hold"]),
    ("src/cli/suggestions.rs", 1, &["told::an_empty_folder"]),
    (
        "src/cli/pipeline_name.rs",
        4,
        &["told::an_empty_folder", "a_project_without_runs", "named::a_name_of_a_project_below"],
    ),
    ("src/cli/report.rs", 1, &["a_page_without_runs"]),
    ("src/cli/run.rs", 1, &["jobs_that_go_on"]),
    (
        "src/cli/run_summary.rs",
        5,
        &[
            "after_ctrl_c",
            "after_a_failure",
            "what_is_up_to_date",
            "jobs_that_go_on",
            "trainer::the_package_is_written",
        ],
    ),
    ("src/cli/runs/archive.rs", 1, &["run_archive::a_run_that_is_there"]),
    ("src/cli/runs/named.rs", 3, &["commands_that_are_pointed_to"]),
    ("src/cli/verify.rs", 2, &["told::what_verify_finds"]),
    ("src/data/error.rs", 1, &["images::bad_pictures_are_told"]),
    ("src/engine/exec/scheduler/begin.rs", 1, &["told::several_settings"]),
    ("src/engine/exec/slurm/executor.rs", 2, &["halving::what_cannot_be_halved"]),
    ("src/engine/export/argo.rs", 1, &["halving::what_paused_at_rungs"]),
    ("src/engine/pipeline_file/apply/unknown.rs", 1, &["reuse::a_profile_is_in_what_is_printed"]),
    (
        "src/engine/pipeline_file/include/included.rs",
        1,
        &["reuse::a_profile_is_in_what_is_printed"],
    ),
    // An argument of sbatch.
    ("src/engine/policy/slurm/values.rs", 1, &[]),
    ("src/engine/pipeline_file/layers.rs", 1, &["told::all_keys"]),
    ("src/engine/pipeline_file/swept.rs", 1, &["told::what_cannot_be_swept"]),
    ("src/engine/pipeline_file/load.rs", 1, &["told::runs_outside_the_project"]),
    ("src/upkeep/verify.rs", 3, &["told::what_verify_finds"]),
    ("src/remote/pull.rs", 3, &["a_store_that_went_on"]),
    ("src/report/page/serve/guard.rs", 1, &["ui::only_whoever_knows_the_token"]),
    ("src/train/checkpoint/rebuild.rs", 1, &["told::a_lora_checkpoint_without_its_base"]),
    ("src/train/device/spec.rs", 1, &["commands_that_are_pointed_to"]),
    ("src/train/device/list.rs", 1, &["commands_that_are_pointed_to"]),
    ("src/train/stages/copy_best/writing.rs", 1, &["who_writes_to_a_copy"]),
    ("src/train/stages/resume_compatibility.rs", 1, &["told::lora_weights_become"]),
    ("src/train/stages/training/device_group.rs", 1, &["commands_that_are_pointed_to"]),
    ("src/train/stages/training/mod.rs", 1, &["next_of_a_sweep"]),
    ("src/trainer/opening.rs", 1, &["a_run_is_repeated"]),
    ("src/trainer/run_catalog.rs", 1, &["told::a_run_of_a_renamed_pipeline"]),
    (
        "src/trainer/selection.rs",
        4,
        &["a_number_that_is_taken", "told::a_change_of_a_run", "fork::what_cannot_be_forked"],
    ),
    ("src/trainer/training.rs", 1, &["told::fewer_epochs"]),
];

/// Lines of a source file that print a command or an option to type: no comments, tests, help or
/// schemas.
fn printing(text: &str) -> usize {
    let code = text.split("#[cfg(test)]").next().unwrap().lines().map(str::trim);
    let code = code.filter(|line| {
        !line.starts_with("//") && !line.contains("after_help") && !line.contains("\"description\"")
    });
    let marks = ["[\"pipe\", \"", ".command_line(\"", ".forced_command_line()", "`pipe ", "`--"];
    code.filter(|line| marks.iter().any(|mark| line.contains(mark))).count()
}

#[test]
fn every_place_that_prints_a_command_has_a_test_that_types_it() {
    let mut found = Vec::new();
    let mut folders = vec![crate::project::root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(crate::project::root()).unwrap().display().to_string();
            if path.is_dir() && !name.ends_with("/tests") && !name.ends_with("/benches") {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("/tests.rs") {
                let count = printing(&std::fs::read_to_string(path).unwrap());
                found.extend((count > 0).then_some((name, count)));
            }
        }
    }
    found.sort();
    let mut known = PRINTED.map(|(file, count, _)| (file.to_owned(), count));
    known.sort();
    assert_eq!(found, known, "type what a new place prints in a test, and list it in PRINTED");
    let tests = [
        include_str!("advice.rs"),
        include_str!("copies.rs"),
        include_str!("fork.rs"),
        include_str!("halving.rs"),
        include_str!("hub.rs"),
        include_str!("images.rs"),
        include_str!("init.rs"),
        include_str!("named.rs"),
        include_str!("place.rs"),
        include_str!("removal.rs"),
        include_str!("reuse.rs"),
        include_str!("run_archive.rs"),
        include_str!("stage_logs.rs"),
        include_str!("told.rs"),
        include_str!("trainer.rs"),
        include_str!("ui.rs"),
    ]
    .concat();
    for test in PRINTED.iter().flat_map(|(.., tests)| *tests) {
        let name = test.rsplit("::").next().unwrap();
        assert!(tests.contains(&format!("fn {name}")), "no test {test}");
    }
}

#[test]
fn commands_that_are_pointed_to_answer_the_question() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds();
    for wrong in ["7", "base", "other/1"] {
        let said = project.pipe(&["runs", "show", wrong]).exits(2).stderr();
        assert!(typed(&project, "", &quoted_after(&said, "; ")).contains("1      tiny"), "{wrong}");
    }
    for device in ["cuda", "gpu:99"] {
        let ended = project.pipe(&["run", "p.yaml", "--device", device, "--force"]).exits(2);
        if ended.stderr().contains("`pipe devices`") {
            assert!(typed(&project, "", "pipe devices").contains("cpu"));
        }
    }
    let said = project.pipe(&["run", "p.yaml", "--set", "base.epocs=3"]).exits(2).stderr();
    if said.contains("names are valid here") {
        assert!(
            typed(&project, "", &quoted_after(&said, "names are valid here"))
                .contains("\"epochs\"")
        );
    }
}

#[test]
fn a_number_that_is_taken_is_left_or_another_one_given() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds();
    project
        .pipe(&["run", "p.yaml", "--epochs", "1", "--force", "--run-number", "1"])
        .exits(2)
        .says("`--force` needs");
    project.pipe(&["run", "p.yaml", "--epochs", "1", "--force", "--run-number", "2"]).succeeds();
    project.pipe(&["run", "p.yaml", "--epochs", "1", "--force"]).succeeds();
    for checkpoint in project.list(&format!("{RUNS}/run_003/checkpoints")) {
        let path = project.path(&format!("{RUNS}/run_003/checkpoints/{checkpoint}"));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let broken = ["run", "p.yaml", "--epochs", "2", "--run-number", "3", "--resume"];
    project
        .pipe(&broken)
        .exits(1)
        .says("start a new run with --force, without --resume and --run-number");
    typed(&project, "", "pipe run p.yaml --epochs 2 --force");
}

#[test]
fn a_page_without_runs_says_how_the_first_is_made() {
    let project = Project::new();
    std::fs::rename(project.path("p.yaml"), project.path("my p.yaml")).unwrap();
    project.pipe(&["report", "my p.yaml"]).succeeds();
    let page = crate::report::data(&project.read("report.html"));
    typed(&project, "", page["run"].as_str().unwrap());
    assert_eq!(project.list(RUNS), ["run_001"]);
}
