//! Pipelines for other schedulers: what is exported is what the program itself can do, and what
//! Argo's schema takes.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_yaml::Value;

use crate::project::{Project, root, yaml_files};

const SWEEP: &str = "\
name: sweep
params: { epochs: 1 }
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 32 }
  base:
    kind: train
    dataset: data
    matrix: { learning_rate: [0.001, 0.0001] }
    epochs: ${params.epochs}
    batch_size: 16
    model: { dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }
    device: cpu
    retry: { max: 2 }
  winner: { kind: select_best, over: base }
  best: { kind: copy_best, from: winner, to: best.ckpt }
";

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value:?} is no text")).to_owned()
}

/// Carries the tasks out as Argo does, those at once that do not need each other.
fn carry_out(project: &Project, workflow: &Value) {
    let templates = workflow["spec"]["templates"].as_sequence().unwrap();
    let template = |name: &Value| templates.iter().find(|t| t["name"] == *name).unwrap();
    let tasks = template(&workflow["spec"]["entrypoint"])["dag"]["tasks"].as_sequence().unwrap();
    let needs = |task: &Value| {
        task.get("dependencies").and_then(Value::as_sequence).cloned().unwrap_or_default()
    };
    let mut done: Vec<Value> = Vec::new();
    while done.len() < tasks.len() {
        let is_ready = |task: &&Value| {
            !done.contains(&task["name"]) && needs(task).iter().all(|n| done.contains(n))
        };
        let ready: Vec<&Value> = tasks.iter().filter(is_ready).collect();
        assert!(!ready.is_empty(), "the tasks wait for each other");
        let started = ready.iter().map(|task| {
            let stage = text_of(&task["arguments"]["parameters"][0]["value"]);
            let container = &template(&task["template"])["container"];
            assert_eq!(container["command"][0], "pipe");
            let args = container["args"].as_sequence().unwrap().iter();
            let args: Vec<String> =
                args.map(|a| text_of(a).replace("{{inputs.parameters.stage}}", &stage)).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            project.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        });
        let started: Vec<_> = started.collect();
        for (task, child) in ready.into_iter().zip(started) {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{:?}: {}\n{said}", task["name"], output.status);
            done.push(task["name"].clone());
        }
    }
}

#[test]
fn the_tasks_do_what_one_run_does() {
    let project = Project::new();
    project.write("p.yaml", SWEEP);
    let arguments = ["export", "argo", "p.yaml", "--epochs", "2", "--set", "base.seed=3"];
    let text = project.pipe(&arguments).succeeds().stdout();
    let workflow: Value = serde_yaml::from_str(&text).unwrap();
    carry_out(&project, &workflow);
    assert_eq!(project.list("checkpoints/base_training"), ["run_001", "run_002"]);
    project
        .pipe(&["run", "p.yaml", "--epochs", "2", "--set", "base.seed=3"])
        .succeeds()
        .says("everything is up to date");
    project.pipe(&["plan", "p.yaml"]).says("seed 3 -> ");
}

const TRAINER: &str = "\
name: own
stages:
  base:
    kind: trainer
    matrix: { rate: [0.1, 0.5] }
    run: sh train.sh
    inputs: [train.sh]
    settings: { rate: 1 }
    epochs: 2
    resources: { gpu: 1 }
    retry: { max: 2 }
  winner: { kind: select_best, over: base }
  best: { kind: copy_best, from: winner, to: best.txt }
";

#[cfg(unix)]
#[test]
fn a_training_program_is_a_task_as_every_stage_is() {
    let project = Project::new();
    project.write("p.yaml", TRAINER);
    project.write(
        "train.sh",
        "set -e\nscratch=$(pipe job get scratch)\nfor epoch in $(pipe job epochs); do\n  \
         pipe job get settings.rate > \"$scratch/state\"\n  \
         pipe job epoch $epoch --metric train_loss=$(pipe job get settings.rate) --checkpoint \"$scratch/state\"\ndone\n",
    );
    let text = project.pipe(&["export", "argo", "p.yaml"]).succeeds().stdout();
    let workflow: Value = serde_yaml::from_str(&text).unwrap();
    let templates = workflow["spec"]["templates"].as_sequence().unwrap();
    let on_gpu =
        templates.iter().find(|t| t["container"]["resources"]["limits"]["nvidia.com/gpu"] == "1");
    assert!(on_gpu.is_some_and(|t| t["retryStrategy"].is_mapping()), "{text}");
    carry_out(&project, &workflow);
    assert_eq!(project.read("best.txt"), "0.1\n");
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    let Some(python) = std::env::var("PIPE_TEST_PYTHON").ok().filter(|python| has_hera(python))
    else {
        eprintln!("skipped: PIPE_TEST_PYTHON names no interpreter with hera and pyyaml");
        return;
    };
    project.write("w.yaml", &text);
    let told = validate(&python, &[project.path("w.yaml").display().to_string()], false);
    assert!(told.contains("1 files are valid"), "{told}");
}

#[test]
fn the_environment_stays_at_home() {
    let plain = Project::new();
    plain.write("p.yaml", SWEEP);
    let there = Project::new()
        .environment("PIPE_EPOCHS", "77")
        .environment("AWS_SECRET_ACCESS_KEY", "hush");
    there.write("p.yaml", SWEEP);
    let export =
        |project: &Project| project.pipe(&["export", "argo", "p.yaml"]).succeeds().stdout();
    let text = export(&plain);
    assert_eq!(text, export(&there), "the same text everywhere");
    assert!(!text.contains("77") && !text.contains("hush"), "{text}");
    there.pipe(&["export", "argo", "p.yaml", "-o", "w.yaml"]).succeeds().says("w.yaml");
    assert_eq!(there.read("w.yaml"), text);
    let absolute = there.path("p.yaml").canonicalize().unwrap();
    let named = there.pipe(&["export", "argo", absolute.to_str().unwrap()]).succeeds().stdout();
    assert_eq!(named, text, "the file is named from the project's folder");
}

#[test]
fn what_is_for_one_run_alone_is_refused() {
    let project = Project::new();
    for flag in [&["--force"][..], &["--run-number", "1"], &["--resume"]] {
        project
            .pipe(&[&["export", "argo", "p.yaml"], flag].concat())
            .exits(2)
            .says("may run many times");
    }
    project.pipe(&["export", "argo", "p.yaml", "--set", "base.epochz=1"]).exits(2).says("epochs");
    project.pipe(&["export", "argo", "p.yaml", "bse"]).exits(2).says("did you mean `base`?");
    project
        .pipe(&["export", "argo", "p.yaml", "--mount", "here"])
        .exits(2)
        .says("no absolute path");
}

/// The shipped pipelines by another project's reading of Argo's schema, which must find what is
/// spoiled, too.
#[test]
fn argos_schema_takes_what_is_exported_and_nothing_that_is_spoiled() {
    let Some(python) = std::env::var("PIPE_TEST_PYTHON").ok().filter(|python| has_hera(python))
    else {
        eprintln!("skipped: PIPE_TEST_PYTHON names no interpreter with hera and pyyaml");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let gpu = folder.path().join("gpu.yaml");
    let options = [
        "--namespace",
        "ml",
        "--service-account",
        "trainer",
        "--jobs",
        "4",
        "--gpu-resource",
        "amd.com/gpu",
    ];
    let pipelines = yaml_files("pipelines");
    let mut files: Vec<String> = Vec::new();
    for (i, file) in pipelines.iter().enumerate() {
        let relative = file.strip_prefix(root()).unwrap();
        let output = folder.path().join(format!("{i}.yaml")).display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command
            .current_dir(root())
            .args(["export", "argo"])
            .arg(relative)
            .args(["-o", &output])
            .args(options);
        assert!(command.output().unwrap().status.success(), "{}", relative.display());
        files.push(output);
    }
    let golden =
        std::fs::read_to_string(root().join("src/engine/tests/engine/export.yaml")).unwrap();
    std::fs::write(&gpu, &golden).unwrap();
    files.push(gpu.display().to_string());
    let told = validate(&python, &files, false);
    assert!(told.contains(&format!("{} files are valid", files.len())), "{told}");

    let spoiled = [
        ("mountPath", "mount_path"),
        ("retryStrategy:", "retryStrategi:"),
        ("failFast: true", "failFast: maybe"),
        ("claimName", "claimname"),
        ("runAsUser", "runAsUsr"),
        ("gpu: '1'", "gpu: [1]"),
        ("duration:", "durations:"),
        ("entrypoint: pipeline", "entrypoint: [pipeline]"),
    ];
    let mut bad = Vec::new();
    for (i, (from, to)) in spoiled.iter().enumerate() {
        assert!(golden.contains(from), "{from}");
        let path = folder.path().join(format!("bad{i}.yaml"));
        std::fs::write(&path, golden.replacen(from, to, 1)).unwrap();
        bad.push(path.display().to_string());
    }
    let told = validate(&python, &bad, true);
    assert!(told.contains(&format!("{} files are refused", bad.len())), "{told}");
}

fn has_hera(python: &str) -> bool {
    let asked = Command::new(python)
        .args(["-c", "import hera.workflows, yaml"])
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}

#[track_caller]
fn validate(python: &str, files: &[String], refused: bool) -> String {
    let mut command = Command::new(python);
    command.arg("tests/pipe/validate_workflow.py").args(files).current_dir(root());
    let output = if refused { command.arg("--refused") } else { &mut command }.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

/// No image can be made here. What it is made of can be looked at: each file that is copied is
/// there, and cargo finds in them all that the manifests name.
#[test]
fn the_image_is_made_of_what_there_is() {
    let text = std::fs::read_to_string(root().join("packaging/Dockerfile")).unwrap();
    let copies =
        text.lines().filter_map(|l| l.strip_prefix("COPY ")).filter(|l| !l.starts_with("--from"));
    let folder = tempfile::tempdir().unwrap();
    let mut copied = 0;
    for line in copies {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (to, sources) = words.split_last().unwrap();
        for source in sources {
            let from = root().join(source);
            assert!(from.exists(), "COPY {line}: there is no {source}");
            let to = match *to {
                "./" => folder.path().join(source),
                to => folder.path().join(to),
            };
            copy(&from, &to);
            copied += 1;
        }
    }
    assert!(copied > 5, "{copied}");
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--locked"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    for file in [
        "pipelines/base_training.yaml",
        "configs/training/base_training.yaml",
        "src/train/Cargo.toml",
    ] {
        assert!(folder.path().join(file).exists(), "{file} is built into the program");
    }
    let user = text.lines().find_map(|l| l.strip_prefix("USER ")).unwrap();
    let golden =
        std::fs::read_to_string(root().join("src/engine/tests/engine/export.yaml")).unwrap();
    assert!(
        golden.contains(&format!("runAsUser: {user}\n")),
        "the image's user and the workflow's"
    );
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::copy(from, to).unwrap();
    }
}
