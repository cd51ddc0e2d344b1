//! Settings from outside the files, and words of other programs: what the program takes, and what
//! it says instead.

use crate::project::{Project, TINY};

/// A sweep over the learning rate that trains nothing here.
fn sweep() -> Project {
    Project::with(
        "    batch_size: 16\n",
        "    batch_size: 16\n    matrix: { learning_rate: [1.0e-3, 1.0e-4] }\n",
    )
}

#[test]
fn a_setting_that_a_matrix_decides_is_refused_by_every_way_to_give_it() {
    let says = "stage `base` has a matrix over `learning_rate`, which decides it";
    sweep()
        .pipe(&["run", "p.yaml", "--learning-rate", "5e-4"])
        .exits(2)
        .says(says)
        .says("--set 'base.matrix.learning_rate=[0.0005]'");
    sweep()
        .pipe(&["plan", "p.yaml", "--set", "base.learning_rate=1e-3"])
        .exits(2)
        .says("`base@learning_rate=0.001`");
    let project = sweep().environment("PIPE_LEARNING_RATE", "5e-4");
    project.pipe(&["plan", "p.yaml"]).exits(2).says(&format!("PIPE_LEARNING_RATE: {says}"));
    assert!(project.list("checkpoints").is_empty());
    // What the message says to type.
    let plan =
        sweep().pipe(&["plan", "p.yaml", "--set", "base.matrix.learning_rate=[0.0005]"]).succeeds();
    assert!(
        plan.stdout().contains("base@learning_rate=0.0005  run")
            && !plan.stdout().contains("0.001"),
        "{}",
        plan.stdout()
    );
    sweep().pipe(&["plan", "p.yaml", "base@learning_rate=0.001"]).succeeds();
}

#[test]
fn variables_of_other_programs_stop_no_command_and_are_never_printed() {
    let project = Project::with("epochs: 2 }", "epochs: 2, stage: base }")
        .environment("PIPE_NOTE", "a: b: hunter2")
        .environment("PIPE_TOKEN", "hunter2")
        .environment("PIPE_STAGE", "hunter2")
        .environment("PIPE_COMMIT", "hunter2")
        .environment("PIPE_A__B__C", "[hunter2");
    project.write(
        "p.yaml",
        project.read("p.yaml").replace(
            "    dataset: data\n",
            "    dataset: data\n    experiment_name: ${params.stage}\n",
        ),
    );
    let quiet = Project::new();
    quiet.write("p.yaml", project.read("p.yaml"));
    for arguments in [
        &["check", "p.yaml"][..],
        &["plan", "p.yaml"],
        &["status", "p.yaml"],
        &["graph", "p.yaml"],
        &["report", "p.yaml"],
    ] {
        let (ended, plain) = (project.pipe(arguments).succeeds(), quiet.pipe(arguments).succeeds());
        assert_eq!(
            (ended.stdout(), ended.stderr()),
            (plain.stdout(), plain.stderr()),
            "{arguments:?}"
        );
    }
    assert!(!project.read("report.html").contains("hunter2"));
}

#[test]
fn a_pipeline_inside_a_command_does_not_take_the_name_of_its_stage_for_a_parameter() {
    let project = Project::new();
    project.write("inner.yaml", "name: inner\nparams: { stage: mine }\nstages:\n  c: { kind: command, run: 'echo ${params.stage} > out.txt', outputs: [out.txt] }\n");
    let run = format!("{} run inner.yaml", env!("CARGO_BIN_EXE_pipe"));
    project.write(
        "p.yaml",
        format!("name: outer\nstages:\n  theirs: {{ kind: command, run: '{run}' }}\n"),
    );
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(project.read("out.txt"), "mine\n");
}

#[test]
fn the_name_of_a_data_set_keeps_its_case_where_it_is_a_parameter() {
    let project = Project::with("epochs: 2 }", "epochs: 2, dataset: data/Flowers }");
    project.write(
        "p.yaml",
        project
            .read("p.yaml")
            .replace("source: shapes", "source: image_folder\n    root: ${params.dataset}"),
    );
    project
        .pipe(&["run", "p.yaml", "data", "--dataset", "data/Trees", "--set", "data.classes=null"])
        .says("data/Trees");
    // A source has one spelling, and is found in any.
    Project::new()
        .pipe(&["check", "p.yaml", "--dataset", "Trees", "--set", "data.classes=null"])
        .succeeds();
}

#[test]
fn a_data_set_is_named_on_the_command_line_though_a_stage_is_called_dataset() {
    let project = Project::new();
    let text =
        TINY.replace("  data:\n", "  dataset:\n").replace("dataset: data\n", "dataset: dataset\n");
    project.write("p.yaml", text.replace("    classes: [circle, square]\n", ""));
    project
        .pipe(&["run", "p.yaml", "dataset", "--dataset", "trees"])
        .succeeds()
        .says("dataset: trees, 64 images");
}

#[test]
fn a_file_with_a_mark_before_its_text_is_read() {
    let project = Project::new();
    project.write("p.yaml", format!("\u{feff}{TINY}"));
    project.pipe(&["check", "p.yaml"]).succeeds().says("valid, 2 stages");
}

#[test]
fn a_doubt_about_a_shared_config_is_told_once() {
    let project = Project::new();
    project.write("c.yaml", "batch_size: 128\nlearning_rate: 0.5\nmodel: { dim: 16, mults: [1], depths: [1], heads: 1, window: 8 }\n");
    let stages: String = (1..4)
        .map(|i| format!("  d{i}: {{ kind: dataset, image_size: 8, num_images: {i}2 }}\n  t{i}: {{ kind: train, dataset: d{i}, config: c.yaml, device: cpu }}\n"))
        .collect();
    project.write("p.yaml", format!("name: x\nstages:\n{stages}"));
    for command in ["check", "plan", "status"] {
        let said = project.pipe(&[command, "p.yaml"]).succeeds().stderr();
        assert_eq!(said.matches("warning:").count(), 2, "{said}");
        assert!(said.contains("stage `t2` and 1 more likewise"), "{said}");
    }
}

#[test]
fn every_command_that_reads_a_pipeline_takes_the_same_settings() {
    let project = Project::new();
    let flags = [
        "--epochs",
        "3",
        "--batch-size",
        "8",
        "--learning-rate",
        "1e-4",
        "--device",
        "cpu",
        "--seed",
        "7",
        "--set",
        "base.ema.decay=0.5",
    ];
    for command in ["check", "graph", "plan", "status", "report"] {
        project.pipe(&[&[command, "p.yaml"][..], &flags].concat()).succeeds();
        let wrong = project.pipe(&[command, "p.yaml", "--epochs", "many"]).exits(2);
        wrong.says("--epochs many");
    }
    project.pipe(&["export", "argo", "p.yaml", "--epochs", "3"]).succeeds().says("--epochs=3");
    project
        .pipe(&["graph", "p.yaml", "--set", "base.matrix.seed=[1, 2]"])
        .succeeds()
        .says("base@seed=2");
    project.pipe(&["report", "--epochs", "3"]).exits(2).says("of which pipeline");
    project
        .environment("PIPE_BASE__SEED", "many")
        .pipe(&["check", "p.yaml"])
        .exits(2)
        .says("PIPE_BASE__SEED");
}

#[test]
fn a_plan_and_what_it_says_already_do_not_go_together() {
    let project = Project::new();
    project.pipe(&["plan", "p.yaml", "data", "--epochs", "3", "-o", "plan.json"]).succeeds();
    project.pipe(&["run", "--plan", "plan.json", "--dry-run"]).succeeds().says("data");
    for more in [&["--epochs", "3"][..], &["p.yaml"], &["--force"], &["--run-number", "1"]] {
        project
            .pipe(&[&["run", "--plan", "plan.json"][..], more].concat())
            .exits(2)
            .says("cannot be used with");
    }
}

#[test]
fn what_other_programs_call_so_is_pointed_to() {
    let project = Project::new();
    project.write("second.yaml", TINY);
    for arguments in [&["run"][..], &["run", "--epochs", "3"], &["plan"], &["status", "--json"]] {
        let ended = project.pipe(arguments).exits(2).says("name one of: p.yaml, second.yaml");
        assert!(!ended.stderr().contains("--plan"), "{}", ended.stderr());
    }
    std::fs::create_dir(project.path("empty")).unwrap();
    let mut command = project.command(&["run"]);
    let told = command.current_dir(project.path("empty")).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stderr).contains("`pipe init` makes a project"));
    project.pipe(&["--list-runs"]).exits(2).says("pipe runs");
    project.pipe(&["list-runs"]).exits(2).says("pipe runs");
    project.pipe(&["run", "p.yaml", "--device", "cuda"]).exits(2).says("did you mean `gpu`?");
    project
        .pipe(&["run", "p.yaml", "--devices", "2"])
        .exits(2)
        .says("write `[0, 1]` for 2 GPUs, `[2]` for GPU 2");
    project
        .pipe(&["run", "p.yaml", "--set", "lr=1e-3"])
        .exits(2)
        .says("did you mean `learning_rate`?");
    project.pipe(&["run", "p.yaml", "--run-number", "0"]).exits(2).says("0 is not in 1..");
    let lora = "  lora: { kind: lora, base: base, dataset: data, alpha: 8, lora: { rank: 4 } }\n";
    project.write("p.yaml", TINY.to_owned() + lora);
    project
        .pipe(&["check", "p.yaml"])
        .exits(2)
        .says("did you mean `lora.lora.lora_alpha`?")
        .says("did you mean `r`?");
    project.write(
        "p.yaml",
        TINY.replace("    batch_size: 16\n", "    batch_size: 16\n    optimizer: { lr: 1.0e-3 }\n"),
    );
    project
        .pipe(&["check", "p.yaml"])
        .exits(2)
        .says("did you mean `learning_rate`, a key of the stage itself?");
    project.pipe(&["schema", "train"]).succeeds();
}

#[test]
fn a_file_that_is_no_pipeline_is_not_repeated() {
    let project = Project::new();
    project.write("passwd", "root:x:0:0:hunter2:/root:/bin/sh\nmore:x:1:1:hunter2:/:/bin/sh\n");
    let ended = project.pipe(&["check", "passwd"]).exits(2).says("passwd:1:1: expected a mapping");
    assert!(!ended.stderr().contains("hunter2"), "{}", ended.stderr());
    let ended = project.pipe(&["check", "p.yaml", "--set", "base.config=passwd"]).exits(2);
    assert!(!ended.stderr().contains("hunter2"), "{}", ended.stderr());
}

#[test]
fn a_root_that_is_a_file_is_said_to_be_one() {
    let project = Project::with("source: shapes", "source: image_folder\n    root: images.txt");
    project.write("images.txt", "no folder");
    project.pipe(&["run", "p.yaml", "data"]).says("images.txt: it is a file");
}
