//! A pipeline that is not typed, or not as a path: the project's only one, a name of one of its.

use crate::project::{Ended, Project, TINY};

/// A project with the tiny pipeline in `pipelines/`.
fn project() -> Project {
    let project = Project::new();
    std::fs::remove_file(project.path("p.yaml")).unwrap();
    project.write("pipelines/tiny.yaml", TINY);
    std::fs::create_dir_all(project.path(".pipe")).unwrap();
    project
}

#[track_caller]
fn in_folder(project: &Project, folder: &str, arguments: &[&str]) -> Ended {
    std::fs::create_dir_all(project.path(folder)).unwrap();
    let mut command = project.command(arguments);
    command.current_dir(project.path(folder));
    Ended::of(command, arguments)
}

#[test]
fn the_only_pipeline_of_a_project_need_not_be_named() {
    let project = project();
    project.pipe(&["plan"]).succeeds().says("base  run");
    project.pipe(&["check"]).succeeds().says("pipelines/tiny.yaml: valid");
    project.pipe(&["graph"]).succeeds().says("base  train  <- data");
    project.pipe(&["data"]).succeeds().says("= 2 classes");
    project.pipe(&["cancel"]).succeeds().says("no job is left");
    project.pipe(&["export", "argo"]).succeeds().says("pipelines/tiny.yaml");
    project.pipe(&["run", "--dry-run", "--epochs", "1"]).succeeds();
    let said = in_folder(&project, "pipelines", &["run", "--epochs", "1"]).succeeds().stdout();
    assert!(said.contains("next: "), "{said}");
    assert_eq!(project.list("checkpoints/base_training"), ["run_001"]);
    project.pipe(&["run", "--epochs", "1"]).succeeds().says("everything is up to date");
    in_folder(&project, "deep/er", &["status"]).succeeds().says("done");
    // A folder stands for the pipeline of its project.
    let beside = tempfile::tempdir().unwrap();
    let mut command = project.command(&["plan", &project.path("").display().to_string()]);
    command.current_dir(beside.path());
    Ended::of(command, &["plan"]).succeeds().says("base  extend 1 -> 2");
}

#[test]
fn what_goes_on_names_the_file_that_was_found() {
    let project = project();
    project.pipe(&["plan", "-o", "plan.json", "--epochs", "1"]).succeeds();
    let plan: serde_json::Value = serde_json::from_str(&project.read("plan.json")).unwrap();
    assert_eq!(plan["asked"]["file"], "pipelines/tiny.yaml");
    for with in ["tiny", "--from=base", "--until=base"] {
        let said = project.pipe(&["run", "--plan", "plan.json", with]).exits(2);
        said.says("cannot be used with");
    }
    project.pipe(&["run", "--plan", "plan.json"]).succeeds();
}

#[test]
fn of_several_one_is_to_be_named_and_of_none_it_says_how_to_begin() {
    let project = project();
    // One with a mistake in it is one, too; a file of another program is none.
    project.write("broken.yaml", "name: broken\nstages:\n  data: [\n");
    project.write("compose.yaml", "services: {}\n");
    for command in ["run", "plan", "status", "graph", "data", "cancel"] {
        let ended = project.pipe(&[command]).exits(2).says("which of 2 pipelines is meant?");
        ended.says("= name one of: broken.yaml, pipelines/tiny.yaml");
    }
    project.pipe(&["check"]).exits(2).says("pipelines/tiny.yaml: valid").says("broken.yaml:");
    project.pipe(&["check", "tiny"]).succeeds();
    let empty = Project::new();
    std::fs::remove_file(empty.path("p.yaml")).unwrap();
    for command in ["run", "plan", "status", "graph", "data", "cancel", "check"] {
        empty.pipe(&[command]).exits(2).says("there is no pipeline file here; `pipe init` makes");
    }
    empty.pipe(&["plan", "."]).exits(2);
    empty.write("folder/notes.txt", "");
    empty.pipe(&["plan", "folder"]).exits(2).says("there is no pipeline file in folder");
}

#[test]
fn a_name_is_found_and_a_slip_is_told() {
    let project = project();
    project.write("other.yml", TINY.replace("name: tiny", "name: other"));
    for name in ["tiny", "tiny.yaml", "pipelines/tiny", "pipelines/tiny.yaml", "other"] {
        project.pipe(&["plan", name, "base"]).succeeds().says("base  run");
        in_folder(&project, "deep", &["plan", name]).succeeds();
    }
    project.pipe(&["report", "tiny"]).succeeds();
    for (wrong, near) in [("tyny", "pipelines/tiny.yaml"), ("othr.yaml", "other.yml")] {
        let ended = project.pipe(&["run", wrong]).exits(2).says(": no such file");
        ended.says(&format!("did you mean `{near}`?"));
    }
    project.pipe(&["run", "base"]).exits(2).says("it is a stage of other.yml");
    project.pipe(&["run", "zebra"]).exits(2).says("the pipelines here: other.yml, pipelines/tiny");
    project.pipe(&["run", "pipelines/tyny.yaml"]).exits(2).says("`pipelines/tiny.yaml`?");
    // A file that is there is meant, whatever else has its name.
    project.write("tiny", TINY.replace("  base:", "  nearer:"));
    project.pipe(&["plan", "tiny"]).succeeds().says("nearer");
}

/// A project without a pipeline.
fn empty() -> Project {
    let project = Project::new();
    std::fs::remove_file(project.path("p.yaml")).unwrap();
    project
}

#[test]
fn a_name_of_a_project_below_is_led_there() {
    let above = empty();
    above.pipe(&["init", "shapes"]).succeeds();
    let ended = above.pipe(&["run", "base_training"]).exits(2);
    ended.says("it is in shapes: go there first, such as with cd shapes");
    above.pipe(&["run", "diffit"]).exits(2).says("`pipe init --template diffit` puts it");
    above.pipe(&["run", "="]).exits(2).says("`--set KEY=VALUE`");
}

#[test]
fn a_pipeline_with_a_mistake_is_one_and_its_mistake_is_told() {
    for (text, told) in [
        (TINY.replace("name: tiny\n", ""), "a.yaml:1:1: name: missing key"),
        (TINY.replace("    kind: dataset", "   kind: dataset\n     x: 1"), "a.yaml:"),
        (TINY.replace("stages:", "stage:"), "a.yaml:"),
        ("name: [\n".to_owned(), "a.yaml:"),
    ] {
        let project = empty();
        project.write("pipelines/a.yaml", &text);
        project.pipe(&["check"]).exits(2).says(told);
        project.pipe(&["run"]).exits(2).says(told);
        project.write("pipelines/b.yaml", TINY);
        project.pipe(&["check"]).exits(2).says(told).says("b.yaml: valid");
        project.pipe(&["run"]).exits(2).says("which of 2 pipelines");
    }
    // A part that a pipeline includes is none, and neither is what another program reads.
    let project = empty();
    project.write("pipelines/part.yaml", TINY.replace("name: tiny\n", ""));
    project.write(
        "pipelines/a.yaml",
        "name: whole\ninclude:\n  one: { file: pipelines/part.yaml }\nstages: {}\n",
    );
    project.write("compose.yaml", "name: site\nservices: {}\n");
    project.write(
        "pipelines/schema.yaml",
        format!(
            "# yaml-language-server: $schema=../schemas/include.schema.json\n{}",
            TINY.replace("name: tiny\n", "")
        ),
    );
    project.pipe(&["check"]).succeeds().says("pipelines/a.yaml: valid, 2 stages");
    project.write("c.pipe.yaml", "stages: {}\n");
    project.pipe(&["check"]).exits(2).says("c.pipe.yaml:1:1: name: missing key");
}

#[test]
fn a_run_stands_for_its_best_checkpoint() {
    let project = project();
    project.pipe(&["run", "-q"]).succeeds();
    let best = "checkpoints/base_training/run_001/checkpoints/best.ckpt";
    let header = project.pipe(&["ckpt", "show", best, "--json"]).succeeds().stdout();
    for name in ["1", "base/1", "base_training/run_001"] {
        assert_eq!(project.pipe(&["ckpt", "show", name, "--json"]).succeeds().stdout(), header);
    }
    project.pipe(&["ckpt", "verify", "1", best]).succeeds().says("1: good").says("best.ckpt: good");
    project.pipe(&["ckpt", "probe", "1"]).succeeds();
    project.pipe(&["lora", "layers", "1"]).succeeds().says("Rank");
    project.pipe(&["ckpt", "show", "7"]).exits(2).says("there is no run 7");
    // Files that are typed beside it are those of the folder where it is typed.
    let line = ["ckpt", "export", "1", "--weights-only", "-o", "weights.ckpt"];
    in_folder(&project, "deep", &line).succeeds();
    assert!(project.path("deep/weights.ckpt").is_file());
    in_folder(&project, "deep", &line).exits(2).says("weights.ckpt exists");
    in_folder(&project, "deep", &["ckpt", "export", "1", "--hub", "model"]).succeeds();
    assert!(project.path("deep/model/config.json").is_file());
    in_folder(&project, "deep", &["ckpt", "verify", "1", "weights.ckpt"]).succeeds();
    // A file of that name is meant before a run.
    std::fs::copy(project.path(best), project.path("deep/2")).unwrap();
    in_folder(&project, "deep", &["ckpt", "show", "2"]).succeeds();
}
