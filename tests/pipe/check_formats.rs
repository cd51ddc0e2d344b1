//! `pipe check --format`: what is wrong with pipeline files, for programs.

use serde_json::Value;

use crate::project::{Project, TINY};

/// One mistake at a known place.
fn wrong() -> Project {
    Project::with("batch_size: 16", "batch_sise: 16")
}

#[test]
fn json_names_file_line_column_and_key() {
    let project = wrong();
    project.write("q.yaml", TINY);
    let said = project.pipe(&["check", "p.yaml", "q.yaml", "--format", "json"]).exits(2);
    assert_eq!(said.stderr(), "");
    let found: Value = serde_json::from_str(&said.stdout()).unwrap();
    assert_eq!(found["valid"], serde_json::json!([{"file": "q.yaml", "stages": 2}]));
    let [finding] = &found["findings"].as_array().unwrap()[..] else { panic!("{found}") };
    let line = TINY.lines().position(|line| line.contains("batch_size")).unwrap() + 1;
    assert_eq!(finding["level"], "error");
    assert_eq!((&finding["file"], &finding["line"]), (&"p.yaml".into(), &line.into()));
    assert_eq!(
        (&finding["column"], &finding["key"]),
        (&5.into(), &"stages.base.batch_sise".into())
    );
    assert!(
        finding["notes"][0].as_str().unwrap().contains("did you mean `batch_size`?"),
        "{finding}"
    );
    let good = project.pipe(&["check", "q.yaml", "--format", "json"]).succeeds();
    let good: Value = serde_json::from_str(&good.stdout()).unwrap();
    assert_eq!(good["findings"], serde_json::json!([]));
}

#[test]
fn a_file_that_is_none_is_a_finding_too() {
    let project = Project::new();
    let said = project.pipe(&["check", "other.yaml", "--format", "json"]).exits(2);
    let found: Value = serde_json::from_str(&said.stdout()).unwrap();
    assert!(found["findings"][0]["message"].as_str().unwrap().contains("other.yaml"), "{found}");
}

#[test]
fn github_gets_a_workflow_command_for_each_mistake() {
    let project = wrong();
    let said = project.pipe(&["check", "--format", "github"]).exits(2).stdout();
    let line = TINY.lines().position(|line| line.contains("batch_size")).unwrap() + 1;
    let begin = format!("::error file=p.yaml,line={line},col=5,title=stages.base.batch_sise::");
    assert!(said.starts_with(&begin) && said.contains("%0Adid you mean"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
}

/// The hook of pre-commit calls what there is, for files that are pipelines.
#[test]
fn the_hook_of_pre_commit_calls_check() {
    let hooks =
        std::fs::read_to_string(crate::project::root().join(".pre-commit-hooks.yaml")).unwrap();
    let hooks: Vec<serde_yaml::Value> = serde_yaml::from_str(&hooks).unwrap();
    assert_eq!(hooks[0]["entry"].as_str(), Some("pipe check"));
    let files = hooks[0]["files"].as_str().unwrap();
    assert_eq!(files, r"(^|/)pipelines/[^/]+\.ya?ml$|\.pipe\.ya?ml$");
    let project = Project::new();
    project.write("pipelines/a.yaml", TINY);
    project.write("b.pipe.yaml", TINY);
    project.pipe(&["check", "pipelines/a.yaml", "b.pipe.yaml"]).succeeds();
}
