//! The metrics of a program: when they are up to date, and what is refused.

use pipe_engine::kind::Failure;

use crate::exec::run;
use crate::fake::Project;

// model.txt -> quality -> out/scores.json
const QUALITY: &str = "\
name: chain
stages:
  quality:
    kind: command
    run: 'cp model.txt out/scores.json'
    inputs: [model.txt]
    metrics: out/scores.json
";

fn quality() -> Project {
    Project::new(QUALITY).file("model.txt", "{\"fid\": 12.5, \"kid\": 3}")
}

#[test]
fn metrics_are_an_output_that_is_made_again() {
    let project = quality();
    let ran = run(&project, false);
    let summary = &ran.summary.finished[0].1;
    assert_eq!(summary, "out/scores.json: fid=12.5000 kid=3.0000", "{:?}", ran.summary.failed);
    let ran = run(&project, false);
    assert_eq!(ran.planned, ["quality skip"]);
    assert_eq!(ran.reasons, ["up to date, fid=12.5000 kid=3.0000"]);

    let project = project.file("out/scores.json", "{\"fid\": 1}");
    let ran = run(&project, false);
    assert_eq!(ran.reasons, ["out/scores.json was changed since it was made"]);
    assert_eq!(run(&project, false).reasons, ["up to date, fid=12.5000 kid=3.0000"]);

    let project = project.file("model.txt", "{\"fid\": 7}");
    let ran = run(&project, false);
    assert_eq!(ran.reasons, ["another content of model.txt"]);
    assert_eq!(ran.summary.finished[0].1, "out/scores.json: fid=7.0000");

    std::fs::remove_file(project.folder.path().join("out/scores.json")).unwrap();
    assert_eq!(run(&project, false).reasons, ["out/scores.json is not there"]);
    assert_eq!(run(&project, false).planned, ["quality skip"]);
}

#[test]
fn metrics_may_be_one_of_the_outputs_or_inside_of_one() {
    for outputs in ["[out/scores.json]", "[out]", "[./out/scores.json]"] {
        let file = format!("{QUALITY}    outputs: {outputs}\n");
        let project = Project::new(&file).file("model.txt", "{\"fid\": 1}");
        let ran = run(&project, false);
        assert_eq!(ran.summary.finished.len(), 1, "{outputs}: {:?}", ran.summary.failed);
        assert_eq!(run(&project, false).planned, ["quality skip"], "{outputs}");
    }
}

#[test]
fn what_reads_the_file_waits_for_it() {
    let reader =
        "  read: { kind: command, run: 'cat out/scores.json', inputs: [out/scores.json] }\n";
    let head = "name: chain\nstages:\n";
    let file = QUALITY.replace(head, &format!("{head}{reader}"));
    let project = Project::new(&file).file("model.txt", "{\"fid\": 1}");
    assert_eq!(run(&project, false).planned, ["quality run", "read run"]);
    let taken = format!("{file}  other: {{ kind: command, run: x, outputs: [out/scores.json] }}\n");
    let error = Project::new(&taken).error();
    assert!(error.contains("out/scores.json is written by stage `quality` too"), "{error}");
}

#[test]
fn wrong_forms_fail_with_file_and_key_and_leave_no_record_of_success() {
    let cases = [
        (
            "{\"a\": 1, \"fid\": \"12\"}",
            "metrics: out/scores.json: \"fid\" is text; expected a number",
        ),
        ("{\"scores\": {\"fid\": 12}}", "metrics: out/scores.json: \"scores\" is an object"),
        ("{\"fid\": NaN}", "metrics: out/scores.json: \"fid\" is NaN"),
        ("fid: 12", "metrics: out/scores.json: expected"),
        ("", "metrics: out/scores.json: it is empty"),
    ];
    for (text, expected) in cases {
        let project = quality().file("model.txt", text);
        for _ in 0..2 {
            let ran = run(&project, false);
            let (stage, error) = &ran.summary.failed[0];
            assert_eq!((stage.as_str(), error.failure), ("quality", Failure::Command));
            assert!(error.message.contains(expected), "{text}: {}", error.message);
        }
    }
}

#[test]
fn a_file_that_is_not_written_or_is_from_before_is_refused() {
    let lazy = QUALITY.replace("cp model.txt out/scores.json", "test -e model.txt");
    let failed = |project: Project| run(&project, false).summary.failed[0].1.message.clone();
    let project = || Project::new(&lazy).file("model.txt", "{}");
    let said = failed(project());
    assert_eq!(said, "it ended well and did not write out/scores.json, one of its outputs");
    let old = project();
    std::fs::create_dir(old.folder.path().join("out")).unwrap();
    let said = failed(old.file("out/scores.json", "{\"fid\": 1}"));
    assert!(said.contains("did not write out/scores.json, which is there from before"), "{said}");
}

#[test]
fn paths_outside_are_refused() {
    for path in ["../scores.json", "/tmp/scores.json", "."] {
        let error =
            Project::new(&QUALITY.replace("out/scores.json\n", &format!("{path}\n"))).error();
        assert!(error.contains("stages.quality.metrics: expected the path of a file"), "{error}");
    }
}
