//! A pipeline as an Argo Workflow: the whole text, and what of a stage changes it.

use std::path::Path;

use pipe_engine::export::argo::{Options, workflow};
use pipe_engine::graph::Targets;
use serde_yaml::Value;

use crate::fake::Project;

const SWEEP: &str = "\
name: My Sweep
stages:
  data: { kind: source }
  base:
    kind: work
    dataset: data
    matrix: { learning_rate: [0.001, 0.0001] }
    resources: { gpu: 1 }
    retry: { max: 3, backoff: 5m }
  best: { kind: gather, dataset: base }
";

fn options() -> Options {
    Options {
        image: "example/pipe:1".into(),
        volume_claim: "trainings".into(),
        mount: "/project".into(),
        namespace: None,
        service_account: None,
        gpu_resource: "nvidia.com/gpu".into(),
        grace: 300,
        jobs: None,
    }
}

fn export(
    pipeline: &str,
    until: &[&str],
    settings: &[&str],
    options: &Options,
) -> Result<String, String> {
    let graph = Project::new(pipeline).load().unwrap_or_else(|e| panic!("{e}"));
    let until = until.iter().map(|stage| stage.to_string()).collect();
    let selection = graph.select(&Targets { until, from: Vec::new() }).unwrap();
    let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    let made = workflow(&graph, &selection, Path::new("p.yaml"), &settings, options);
    made.map(|workflow| workflow.to_yaml()).map_err(|e| e.to_string())
}

fn tree(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

#[test]
fn the_whole_text() {
    let text = export(SWEEP, &[], &["--epochs", "10", "--set", "base.seed=7"], &options()).unwrap();
    assert_eq!(text, include_str!("export.yaml"), "\n{text}");
}

#[test]
fn the_cluster_is_described_by_options() {
    let options = Options {
        mount: "/work".into(),
        namespace: Some("ml".into()),
        service_account: Some("trainer".into()),
        gpu_resource: "amd.com/gpu".into(),
        grace: 900,
        jobs: Some(4),
        ..options()
    };
    let made = tree(&export(SWEEP, &[], &[], &options).unwrap());
    let spec = &made["spec"];
    assert_eq!(made["metadata"]["namespace"], "ml");
    assert_eq!((&spec["serviceAccountName"], &spec["parallelism"]), (&"trainer".into(), &4.into()));
    assert_eq!(spec["podSpecPatch"], r#"{"terminationGracePeriodSeconds":900}"#);
    let gpu = &spec["templates"][2]["container"];
    assert_eq!(gpu["resources"]["limits"]["amd.com/gpu"], "1");
    assert_eq!(
        (&gpu["workingDir"], &gpu["volumeMounts"][0]["mountPath"]),
        (&"/work".into(), &"/work".into())
    );
}

#[test]
fn only_what_is_meant_is_exported() {
    let made = tree(&export(SWEEP, &["data"], &[], &options()).unwrap());
    let tasks = made["spec"]["templates"][0]["dag"]["tasks"].as_sequence().unwrap();
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0]["name"], "data");
}

#[test]
fn policies_become_a_retry_strategy() {
    let strategy = |keys: &str| {
        let text = format!("name: one\nstages:\n  base: {{ kind: work, {keys} }}\n");
        let made = tree(&export(&text, &[], &[], &options()).unwrap());
        let [dag, template] = [0, 1].map(|i| made["spec"]["templates"][i].clone());
        let strategy = &template["retryStrategy"];
        let text = |key: &Value| key.as_str().unwrap().to_owned();
        let killed = text(&strategy["expression"]).contains("137");
        (killed, text(&strategy["backoff"]["duration"]), dag["dag"]["failFast"].as_bool().unwrap())
    };
    assert_eq!(strategy("epochs: 1"), (false, "120s".into(), true));
    assert_eq!(strategy("retry: { max: 2, backoff: 10m }"), (true, "600s".into(), true));
    assert_eq!(strategy("retry: { max: 2, on: [command] }"), (false, "120s".into(), true));
    assert_eq!(strategy("on_failure: continue"), (false, "120s".into(), false));
}

#[test]
fn a_thousand_stages_share_a_template() {
    let rates: Vec<String> = (1..=1000).map(|i| format!("{i}.0e-5")).collect();
    let text = format!(
        "name: many\nstages:\n  base: {{ kind: work, matrix: {{ learning_rate: [{}] }} }}\n",
        rates.join(", ")
    );
    let text = export(&text, &[], &[], &options()).unwrap();
    let made = tree(&text);
    assert_eq!(made["spec"]["templates"].as_sequence().unwrap().len(), 2);
    assert_eq!(made["spec"]["templates"][0]["dag"]["tasks"].as_sequence().unwrap().len(), 1000);
    // A resource may have about 1.5 MB, and what Argo notes of each task comes to it.
    assert!(text.len() < 300_000, "{} bytes", text.len());
}

#[test]
fn what_argo_would_fill_in_and_what_is_not_mounted_is_refused() {
    let refused =
        |settings: &[&str], options: Options| export(SWEEP, &[], settings, &options).unwrap_err();
    assert!(refused(&["--set", "name={{x}}"], options()).contains("Argo would fill in"));
    assert!(
        refused(&[], Options { mount: "project".into(), ..options() }).contains("no absolute path")
    );
    let graph = Project::new(SWEEP).load().unwrap_or_else(|e| panic!("{e}"));
    let selection = graph.select(&Targets::default()).unwrap();
    for file in ["/p.yaml", "../p.yaml"] {
        let refused = workflow(&graph, &selection, Path::new(file), &[], &options()).unwrap_err();
        assert!(refused.to_string().contains("must lie in the project"), "{refused}");
    }
}
