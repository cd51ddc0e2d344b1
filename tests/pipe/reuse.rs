//! Pipelines that are put together of pieces, as a person types their commands.

use serde_json::Value;

use crate::advice::{after, typed};
use crate::project::{Project, TINY};

/// The training of the tiny pipeline, in a file that others include.
const PART: &str = "\
x-model: &model { dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }
params: { dataset: , epochs: 1, to: }
policies: { checkpoint: { often: { keep_last_n: 2 } } }
stages:
  base:
    kind: train
    dataset: ${params.dataset}
    epochs: ${params.epochs}
    batch_size: 16
    model: { <<: *model, window: 4 }
    device: cpu
    checkpoint: often
  best: { kind: copy_best, from: base, to: '${params.to}' }
";

const PIECES: &str = "\
name: pieces
params: { epochs: 1 }
include:
  one: { file: parts/train.yaml, params: { dataset: data, epochs: '${params.epochs}', to: one.ckpt } }
  two: { file: parts/train.yaml, params: { dataset: data, epochs: 2, to: two.ckpt } }
profiles:
  fast: { params: { epochs: 2 }, stages: { two_base: { seed: 7 } } }
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 64 }
";

const WRITTEN_OUT: &str = "\
name: pieces
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 64 }
  one_base: { kind: train, dataset: data, epochs: ONE, batch_size: 16, model: { dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }, device: cpu, checkpoint: { keep_last_n: 2 } }
  one_best: { kind: copy_best, from: one_base, to: one.ckpt }
  two_base: { kind: train, dataset: data, epochs: 2, seed: SEED, batch_size: 16, model: { dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }, device: cpu, checkpoint: { keep_last_n: 2 } }
  two_best: { kind: copy_best, from: two_base, to: two.ckpt }
";

fn pieces() -> Project {
    let project = Project::new();
    project.write("p.yaml", PIECES);
    project.write("parts/train.yaml", PART);
    project
}

fn plan(project: &Project, arguments: &[&str]) -> Value {
    let text = project.pipe(&[&["plan", "--json"], arguments].concat()).succeeds().stdout();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_is_done_with_pieces_is_done_for_the_same_written_out() {
    let project = pieces();
    for (profile, one, seed) in [(&[][..], "1", "42"), (&["--profile", "fast"], "2", "7")] {
        project.write("w.yaml", WRITTEN_OUT.replace("ONE", one).replace("SEED", seed));
        let run = [&["run", "p.yaml"], profile].concat();
        project.pipe(&run).succeeds();
        project.pipe(&run).succeeds().says("everything is up to date");
        project.pipe(&["run", "w.yaml"]).succeeds().says("everything is up to date");
    }
    // Without the profile it is the first pipeline again, whose runs are there.
    let actions = plan(&project, &["p.yaml"]);
    let of_trainings = actions["steps"].as_array().unwrap().iter();
    let of_trainings =
        of_trainings.filter(|step| step["stage"].as_str().unwrap().ends_with("_base"));
    assert!(of_trainings.clone().all(|step| step["action"] != "run"), "{actions:#}");
    let runs = project.list("checkpoints/base_training");
    let config = format!("checkpoints/base_training/{}/config.yaml", runs[0]);
    project.pipe(&["run", &config, "--dry-run"]).succeeds();
}

#[test]
fn a_profile_is_in_what_is_printed_planned_and_exported() {
    let project = pieces();
    let given = ["p.yaml", "--profile", "fast", "--set", "two_base.learning_rate=0.002"];
    project.pipe(&[&["plan"], &given[..], &["-o", "plan.json"]].concat()).succeeds();
    let file: Value =
        serde_json::from_str(&std::fs::read_to_string(project.path("plan.json")).unwrap()).unwrap();
    assert_eq!(file["asked"]["profile"], serde_json::json!(["fast"]));
    project.pipe(&["run", "--plan", "plan.json"]).succeeds();
    project.pipe(&[&["run"], &given[..]].concat()).succeeds().says("everything is up to date");
    // The plan is done by now; the command that makes a new one repeats the profile.
    let said = project.pipe(&["run", "--plan", "plan.json"]).exits(2).stderr();
    let again = after(&said, "make a new one: ");
    assert!(again.contains(" --profile fast --set "), "{again}");
    typed(&project, "", &again);
    project.pipe(&["run", "--plan", "plan.json"]).succeeds();

    let exported = project.pipe(&[&["export", "argo"], &given[..]].concat()).succeeds().stdout();
    assert!(exported.contains("--profile=fast"), "{exported}");
    // A workflow runs without this environment.
    let project = project.environment("PIPE_PROFILE", "fast");
    let exported = project.pipe(&["export", "argo", "p.yaml"]).succeeds().stdout();
    assert!(!exported.contains("profile"), "{exported}");
}

#[test]
fn the_variable_is_in_what_is_printed() {
    let project = pieces().environment("PIPE_PROFILE", "fast");
    project.pipe(&["plan", "p.yaml", "one_base", "-o", "plan.json"]).succeeds();
    project.pipe(&["run", "p.yaml", "one_base"]).succeeds();
    let said = project.pipe(&["run", "--plan", "plan.json"]).exits(2).stderr();
    let again = after(&said, "make a new one: ");
    assert!(again.starts_with("PIPE_PROFILE=fast pipe plan"), "{again}");
    let run = project.pipe(&["run", "p.yaml", "one_base", "--profile", "fast"]).succeeds();
    run.says("everything is up to date");
    // In a pipeline without profiles it is for nobody.
    project.write("p.yaml", TINY);
    project.pipe(&["check", "p.yaml"]).succeeds();
}

#[test]
fn every_command_that_reads_a_pipeline_takes_a_profile() {
    let project = pieces();
    for command in ["check", "plan", "status", "graph"] {
        project.pipe(&[command, "p.yaml", "--profile", "fast"]).succeeds();
        let refused = project.pipe(&[command, "p.yaml", "--profile", "fats"]).exits(2);
        refused.says("no profile is called `fats`").says("did you mean `fast`?");
    }
    project.write("p.yaml", PIECES.replace("epochs: 2 }, s", "epochs: two }, s"));
    project.pipe(&["check", "p.yaml"]).succeeds();
    let refused = project.pipe(&["check", "p.yaml", "--profile", "fast"]).exits(2);
    refused.says("parts/train.yaml:8:13: stages.one_base.epochs");
    project.write("p.yaml", PIECES.replace("seed: 7", "sed: 7"));
    let refused = project.pipe(&["check", "p.yaml", "--profile", "fast"]).exits(2);
    refused.says("p.yaml:7:56: stages.two_base.sed: unknown key").says("did you mean `seed`?");
}
