//! Trainings with several values of a setting, as a person asks for them: from the command line, and
//! over seeds.

use serde_json::Value;

use crate::project::{Project, TINY};

/// The names of a pipeline's stages with these arguments.
fn stages(project: &Project, arguments: &[&str]) -> Vec<String> {
    let arguments = [&["plan", "p.yaml", "--json"], arguments].concat();
    let plan = project.pipe(&arguments).succeeds().stdout();
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let name = |step: &Value| step["stage"].as_str().unwrap().to_owned();
    plan["steps"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn a_setting_is_swept_from_the_command_line() {
    let project = Project::new();
    let copy = "  best: { kind: select_best, over: base, by: train_loss }\n";
    project.write("p.yaml", TINY.to_owned() + copy);
    let both = ["data", "base@learning_rate=0.001", "base@learning_rate=0.0001", "best"];
    for sweep in ["learning_rate=1e-3,1e-4", "base.learning_rate=1e-3,1e-4"] {
        assert_eq!(stages(&project, &["--sweep", sweep]), both, "{sweep}");
    }
    let run = ["run", "p.yaml", "--sweep", "learning_rate=1e-3,1e-4"];
    project.pipe(&run).succeeds();
    project.pipe(&run).succeeds().says("everything is up to date");
    assert_eq!(project.list("checkpoints/base_training"), ["run_001", "run_002"]);
    // Without it the pipeline is what it was, and one of the runs is that training.
    assert_eq!(stages(&project, &[]), ["data", "base", "best"]);
    let wrong = project.pipe(&["check", "p.yaml", "--sweep", "learning_rat=1,2"]).exits(2);
    wrong.says("--sweep learning_rat=1,2").says("learning_rate");
}

#[test]
fn trainings_that_differ_in_the_seed_have_a_mean_and_a_spread() {
    let project = Project::with("kind: train\n", "kind: train\n    matrix: { seeds: 3 }\n");
    let names = stages(&project, &[]);
    assert_eq!(names, ["data", "base@seed=42", "base@seed=43", "base@seed=44"]);
    project.pipe(&["run", "p.yaml"]).succeeds();
    let best = |run: &str| {
        let metadata = project.metadata(&format!("checkpoints/base_training/{run}"));
        metadata["best_checkpoint"]["metrics"]["train_loss"].as_f64().unwrap()
    };
    let found = ["run_001", "run_002", "run_003"].map(best);
    let mean = found.iter().sum::<f64>() / 3.0;
    let spread = (found.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    let compared = project.pipe(&["runs", "compare", "1", "2", "3", "--json"]).succeeds().stdout();
    let compared: Value = serde_json::from_str(&compared).unwrap();
    let told = &compared["over seeds"][0]["results"]["best train_loss"];
    assert!((told["mean"].as_f64().unwrap() - mean).abs() < 1e-12, "{compared:#}");
    assert!((told["spread"].as_f64().unwrap() - spread).abs() < 1e-12, "{compared:#}");
    assert_eq!(told["n"], 3);
    project.pipe(&["runs", "compare", "1", "2", "3"]).succeeds().says("(mean of 3)");
}

#[test]
fn drawn_members_stay_when_there_are_more_of_them() {
    let drawn = |n: u32| {
        let random = format!(
            "kind: train\n    matrix: {{ random: {{ learning_rate: {{ log_uniform: [1e-5, 1e-2] }}, n: {n} }} }}\n"
        );
        stages(&Project::with("kind: train\n", &random), &[])
    };
    let (few, many) = (drawn(3), drawn(9));
    assert_eq!((few.len(), many.len()), (4, 10));
    assert!(few.iter().all(|name| many.contains(name)), "{few:?} {many:?}");
    for name in &many[1..] {
        let rate: f64 = name.split_once("learning_rate=").unwrap().1.parse().unwrap();
        assert!((1e-5..=1e-2).contains(&rate), "{name}");
    }
}

/// The files that `sample` stages write, as the graph knows them.
fn pictures(project: &Project, arguments: &[&str]) -> Vec<String> {
    project.pipe(&[&["run", "p.yaml", "-q"], arguments].concat()).succeeds();
    project.list("drawn")
}

#[test]
fn branches_of_the_command_line_write_files_of_their_own() {
    let project = Project::new();
    let picture = "  picture: { kind: sample, from: base, to: drawn/base.png, n: 2, steps: 2, device: cpu }\n";
    project.write("p.yaml", TINY.to_owned() + picture);
    let rates = ["--sweep", "base.learning_rate=1e-3,1e-4"];
    assert_eq!(pictures(&project, &rates), ["base_0.0001.png", "base_0.001.png"]);
    let again = project.pipe(&[&["run", "p.yaml"], &rates[..]].concat()).succeeds();
    again.says("everything is up to date");
    // Named otherwise, they are called so.
    let named = ["--set", "picture.to=drawn/rate_${matrix.learning_rate}.png"];
    let drawn = pictures(&project, &[rates, named].concat());
    assert!(drawn.contains(&"rate_0.001.png".to_owned()) && drawn.len() == 4, "{drawn:?}");
    // With two sweeps both values are in the name.
    let both = [&rates[..], &["--sweep", "base.batch_size=8,16"]].concat();
    let drawn = pictures(&project, &both);
    assert!(drawn.contains(&"base_0.0001_8.png".to_owned()) && drawn.len() == 8, "{drawn:?}");
    // A matrix in the file says so itself, and another stage's file is not taken.
    let other =
        "  other: { kind: sample, from: base, to: drawn/base.png, n: 2, steps: 2, device: cpu }\n";
    project.write("p.yaml", TINY.to_owned() + picture + other);
    let shared = "drawn/base.png is written by stage";
    project.pipe(&[&["check", "p.yaml"], &rates[..]].concat()).exits(2).says(shared);
}

#[test]
fn what_begins_with_a_member_of_a_matrix_is_swept_with_it() {
    let project = Project::new();
    let tuned = "\
  tuned:
    kind: train
    init: base
    dataset: data
    epochs: 1
    model: { dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }
    checkpoint: { base_dir: checkpoints/tuned }
";
    project.write("p.yaml", format!("{TINY}{}", tuned.replacen("tuned:", "  tuned:", 1)));
    let sweep = ["--sweep", "base.learning_rate=1e-3,1e-4", "--epochs", "1"];
    let line = |command: &'static str| [&[command, "p.yaml"], &sweep[..]].concat();
    project.pipe(&line("graph")[..4]).succeeds().says("base@learning_rate=0.001");
    project.pipe(&line("run")).succeeds();
    assert_eq!(project.list("checkpoints/tuned"), ["run_001", "run_002"]);
    project.pipe(&line("run")).succeeds().says("everything is up to date");
    // Written out, it is a stage too, and waited for.
    let member = "init: 'base@learning_rate=0.001'";
    let text = TINY.replace(
        "    dataset: data\n",
        "    dataset: data\n    matrix: { learning_rate: [0.001, 0.0001] }\n",
    );
    project.write(
        "q.yaml",
        format!("{text}{}", tuned.replacen("tuned:", "  tuned:", 1).replace("init: base", member)),
    );
    project
        .pipe(&["graph", "q.yaml"])
        .succeeds()
        .says("tuned                      train  <- data, base@learning_rate=0.001");
    project
        .pipe(&["check", "q.yaml", "--set", "tuned.init=base@learning_rate=0.5"])
        .exits(2)
        .says("no stage is called");
}

#[test]
fn a_file_that_a_sweep_names_anew_is_not_read_by_its_old_name() {
    let project = Project::new();
    let further = "  best: { kind: copy_best, from: base, to: best.ckpt }\n  \
                   size: { kind: command, run: 'wc -c best.ckpt > size.txt', inputs: [best.ckpt], outputs: [size.txt] }\n";
    project.write("p.yaml", format!("{TINY}{further}"));
    project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds();
    let sweep = ["run", "p.yaml", "--epochs", "1", "--sweep", "base.learning_rate=1e-2,1e-4"];
    let refused = project.pipe(&sweep).exits(2);
    refused
        .says("best.ckpt would have another name for each value of --sweep")
        .says("stages.size.inputs");
    // A pattern means those that there are.
    let text = project.read("p.yaml").replace("inputs: [best.ckpt]", "inputs: ['best*.ckpt']");
    project.write("p.yaml", text);
    project.pipe(&sweep).succeeds().says("size");
}
