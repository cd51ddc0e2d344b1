//! Files that include other files.

use pipe_core::ids::StageId;
use pipe_engine::graph::Targets;
use serde_json::json;

use super::{firsts, warnings};
use crate::fake::Project;

const PIPELINE: &str = "\
name: demo
include:
  small: { file: part.yaml, params: { epochs: 3, from: data } }
  large:
    file: part.yaml
    params: { epochs: '${params.epochs}', rate: 0.5, from: data }
params: { epochs: 30 }
policies: { checkpoint: { rare: { keep_last_n: 1 } } }
stages:
  data: { kind: source }
  all: { kind: gather, dataset: large_last, needs: small }
";

const PART: &str = "\
params: { epochs: , from: , rate: 0.25, half: '${params.rate}' }
policies: { checkpoint: { often: { keep_last_n: '${params.epochs}' } } }
stages:
  base: { kind: work, dataset: '${params.from}', epochs: '${params.epochs}', checkpoint: often }
  last: { kind: follow, dataset: base, needs: [base], learning_rate: '${params.half}', checkpoint: rare }
";

fn project() -> Project {
    Project::new(PIPELINE).file("part.yaml", PART)
}

fn part(from: &str, to: &str) -> Project {
    assert!(PART.contains(from));
    Project::new(PIPELINE).file("part.yaml", &PART.replace(from, to))
}

fn pipeline(from: &str, to: &str) -> Project {
    assert!(PIPELINE.contains(from));
    Project::new(&PIPELINE.replace(from, to)).file("part.yaml", PART)
}

#[test]
fn a_file_comes_in_twice_with_other_parameters() {
    let project = project();
    let graph = project.load().unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = graph.pipeline.stages.iter().map(|stage| stage.id.as_str()).collect();
    assert_eq!(names, ["small_base", "small_last", "large_base", "large_last", "data", "all"]);
    for (name, epochs, rate) in [("small", 3, 0.25), ("large", 30, 0.5)] {
        let base = project.settings(&format!("{name}_base"));
        assert_eq!((&base["epochs"], &base["dataset"]), (&json!(epochs), &json!("data")));
        assert_eq!(base["checkpoint"]["keep_last_n"], json!(epochs), "a policy of the file");
        let last = project.settings(&format!("{name}_last"));
        assert_eq!(last["dataset"], json!(format!("{name}_base")), "the sibling is meant");
        assert_eq!(last["learning_rate"], json!(rate));
        assert_eq!(last["checkpoint"]["keep_last_n"], json!(1), "a policy of the pipeline");
    }
    assert!(warnings(&project).is_empty(), "{:?}", warnings(&project));
}

#[test]
fn its_name_means_all_its_stages() {
    let graph = project().load().unwrap();
    let needs = |id: &str| {
        let stage = graph.stages().find(|stage| stage.id.as_str() == id).unwrap();
        stage.needs.iter().map(|(_, id)| id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(needs("all"), ["large_last", "small_base", "small_last"]);
    let until = vec!["small".to_owned()];
    let selection = graph.select(&Targets { until, from: Vec::new() }).unwrap();
    let mut stages: Vec<&str> = selection.stages.iter().map(StageId::as_str).collect();
    stages.sort_unstable();
    assert_eq!(stages, ["data", "small_base", "small_last"]);
    let both = pipeline("kind: gather, dataset: large_last", "kind: gather, dataset: large");
    assert_eq!(both.load().unwrap().dependencies(&StageId::new("all").unwrap()).len(), 4);
    assert_eq!(
        firsts(&pipeline("kind: gather, dataset: large_last", "kind: work, dataset: large")),
        [
            "p.yaml:11:31: stages.all.dataset: `large` is an included file; one of its stages is needed here"
        ]
    );
}

#[test]
fn settings_from_outside_go_by_the_names_of_the_pipeline() {
    let project = project().set("small_epochs=9").set("large_last.learning_rate=8");
    assert_eq!(project.settings("small_base")["epochs"], json!(9));
    assert_eq!(project.settings("large_base")["epochs"], json!(30));
    assert_eq!(project.settings("large_last")["learning_rate"], json!(8.0));
    let project = project.set("epochs=12").sweep("large_base.learning_rate=1,2");
    assert_eq!(project.settings("large_base@learning_rate=2")["epochs"], json!(12));
    let last = project.settings("large_last@learning_rate=2");
    assert_eq!(last["dataset"], json!("large_base@learning_rate=2"), "a branch inside the file");
}

#[test]
fn an_error_names_the_file_and_the_line_of_the_key() {
    assert_eq!(
        part("epochs: '${params.epochs}', c", "epocs: 5, c").error(),
        "part.yaml:4:50: stages.small_base.epocs: unknown key\n  |\n4 |   base: { kind: work, dataset: '${params.from}', epocs: 5, checkpoint: of...\n  |                                                  ^^^^^\n  = did you mean `epochs`?\n  = expected one of: dataset, learning_rate, epochs, ends, classes, content, checkpoint",
        "once, though it comes in twice"
    );
    assert_eq!(
        firsts(&part("dataset: base", "dataset: bse")),
        ["part.yaml:5:34: stages.small_last.dataset: no stage is called `bse`"]
    );
    assert_eq!(
        firsts(&part("${params.half}", "${params.haf}")),
        ["part.yaml:5:70: stages.small_last.learning_rate: no parameter `haf` under `params:`"]
    );
    assert_eq!(
        firsts(&part("half: '${params.rate}'", "half: '${params.rat}'")),
        ["part.yaml:1:47: params.half: no parameter `rat` under `params:`"]
    );
    assert_eq!(
        firsts(&part("checkpoint: often", "checkpoint: oftn")),
        [
            "part.yaml:4:90: stages.small_base.checkpoint: no policy `oftn` under `policies.checkpoint`"
        ]
    );
    assert_eq!(
        firsts(&part("keep_last_n: '${params.epochs}'", "keep_last: 3")),
        ["part.yaml:2:36: policies.checkpoint.small_often.keep_last: unknown key"]
    );
    // A value that was given is wrong where it is used, as with all parameters.
    assert_eq!(
        firsts(&pipeline("epochs: 3,", "epochs: many,")),
        [
            "part.yaml:2:49: policies.checkpoint.small_often.keep_last_n: expected a whole number, 0 or more, found text \"many\"",
            "part.yaml:4:58: stages.small_base.epochs: expected a whole number, 0 or more, found text \"many\""
        ]
    );
}

#[test]
fn what_is_wrong_with_an_inclusion_is_said_there() {
    for (from, to, said) in [
        ("epochs: 3, ", "", "p.yaml:3:3: include.small: missing parameter `epochs` of part.yaml"),
        (
            "epochs: 3",
            "epocs: 3",
            "p.yaml:3:3: include.small: missing parameter `epochs` of part.yaml\np.yaml:3:39: include.small.params.epocs: part.yaml has no parameter `epocs`",
        ),
        (
            "small: { file: part.yaml",
            "small: { fil: part.yaml",
            "p.yaml:3:3: include.small.file: missing key `file`\np.yaml:3:12: include.small.fil: unknown key",
        ),
        (
            "small: {",
            "s.m: {",
            "p.yaml:3:3: include.s.m: the name of an inclusion may hold letters, digits, `_` and `-`",
        ),
        (
            "small: { file: part.yaml",
            "small: { file: none.yaml",
            "p.yaml:3:18: include.small.file: failed to read the included file: none.yaml: no such file",
        ),
        (
            "small: { file: part.yaml",
            "small: { file: 'p${params.x}.yaml'",
            "p.yaml:3:18: include.small.file: no parameter is filled in here",
        ),
        (
            "data: { kind",
            "small_base: { kind",
            "p.yaml:10:3: stages.small_base: a stage of an included file has this name too",
        ),
        (
            "data: { kind",
            "small: { kind",
            "p.yaml:10:3: stages.small: an included file has this name too",
        ),
        (
            "params: { epochs: 30",
            "params: { small_rate: 1, epochs: 30",
            "p.yaml:7:11: params.small_rate: a parameter of an included file has this name too",
        ),
        (
            "rare: { keep_last_n: 1 }",
            "small_often: { keep_last_n: 1 }, rare: {}",
            "p.yaml:8:27: policies.checkpoint.small_often: a policy of an included file has this name too",
        ),
        ("name: demo\ninclude:", "name: demo\nx-i: &i { file: part.yaml }\ninclude: [", "p.yaml"),
    ] {
        let mut text = PIPELINE.replace(from, to);
        if to.ends_with('[') {
            text = "name: demo\ninclude: [part.yaml]\nstages: { data: { kind: source } }\n".into();
        }
        let errors = firsts(&Project::new(&text).file("part.yaml", PART)).join("\n");
        let said = if to.ends_with('[') {
            "p.yaml:2:10: include: expected a mapping (`key: value` lines), found a list"
        } else {
            said
        };
        assert!(errors.starts_with(said), "{to}: {errors}");
    }
    for (from, to, said) in [
        (
            "policies:",
            "store: s3://x\npolicies:",
            "part.yaml:2:1: store: `store` belongs into the pipeline that includes this file",
        ),
        ("policies:", "stags: {}\npolicies:", "part.yaml:2:1: stags: unknown key"),
    ] {
        assert_eq!(firsts(&part(from, to)), [said]);
    }
}

#[test]
fn files_in_a_circle_and_too_many_of_them_are_refused() {
    let project = Project::new("name: x\ninclude: { a: a.yaml }\n")
        .file("a.yaml", "include:\n  b: ./b.yaml\n")
        .file("b.yaml", "include: { c: { file: ../");
    let name = project.folder.path().file_name().unwrap().to_str().unwrap().to_owned();
    let project =
        project.file("b.yaml", &format!("include: {{ c: {{ file: ../{name}/a.yaml }} }}\n"));
    assert_eq!(
        firsts(&project),
        [format!(
            "./b.yaml:1:23: include.c.file: files include each other in a circle: a.yaml -> ./b.yaml -> ../{name}/a.yaml"
        )]
    );
    let mut deep = Project::new("name: x\ninclude: { a: f0.yaml }\n");
    for n in 0..12 {
        deep = deep.file(&format!("f{n}.yaml"), &format!("include: {{ a: f{}.yaml }}\n", n + 1));
    }
    let deep = deep.file("f12.yaml", "stages: { base: { kind: work } }\n");
    let said = "f7.yaml:1:12: include.a.file: more than 8 files include each other in a row";
    assert_eq!(firsts(&deep), [said]);
    // Each includes the next one sixteen times.
    let many = |next: &str| (0..16).map(|n| format!("  i{n}: {next}\n")).collect::<String>();
    let wide = Project::new(&format!("name: x\ninclude:\n{}", many("f1.yaml")))
        .file("f1.yaml", &format!("include:\n{}", many("f2.yaml")))
        .file("f2.yaml", &format!("include:\n{}", many("f3.yaml")))
        .file("f3.yaml", "stages: { base: { kind: work } }\n");
    let errors = firsts(&wide);
    let is_told = |error: &String| error.ends_with("a pipeline includes 256 files at most");
    assert!(!errors.is_empty() && errors.len() < 60 && errors.iter().all(is_told), "{errors:?}");
    let heavy = "name: x\ninclude: { a: f1.yaml, b: f1.yaml, c: f1.yaml, d: f1.yaml }\n";
    let large = "x".repeat(1 << 20);
    let heavy = Project::new(heavy)
        .file("f1.yaml", &format!("stages: {{ base: {{ kind: work, content: {large} }} }}\n"));
    let said = "p.yaml:2:48: include.d.file: what is included comes to more than 4 MB";
    assert_eq!(firsts(&heavy), [said]);
}

#[test]
fn included_files_include_others() {
    let project = Project::new("name: x\ninclude: { out: { file: a.yaml, params: { from: data } } }\nstages: { data: { kind: source }, last: { kind: gather, dataset: out_in_base, needs: [out_in, out] } }\n")
        .file("a.yaml", "params: { from: , epochs: 4 }\ninclude: { in: { file: b.yaml, params: { from: '${params.from}', n: '${params.epochs}' } } }\nstages:\n  data: { kind: source, epochs: 2 }\n  mine: { kind: work, dataset: data, needs: in_base }\n")
        .file("b.yaml", "params: { from: , n: 1 }\nstages: { base: { kind: work, dataset: '${params.from}', needs: mine2, epochs: '${params.n}' }, mine2: { kind: source } }\n");
    assert_eq!(project.settings("out_in_base")["dataset"], json!("data"), "the one that was given");
    assert_eq!(project.settings("out_in_base")["epochs"], json!(4));
    assert_eq!(project.settings("out_mine")["dataset"], json!("out_data"));
    assert_eq!(project.settings("last")["dataset"], json!("out_in_base"));
    let project = project.set("out_epochs=6");
    assert_eq!(project.settings("out_in_base")["epochs"], json!(6));
    let project = project.set("out_in_n=7");
    assert_eq!(project.settings("out_in_base")["epochs"], json!(7));
}

#[test]
fn what_nothing_uses_is_a_warning_by_the_name_in_the_file() {
    let project = part("rate: 0.25,", "rate: 0.25, more: 1,");
    let file = project.folder.path().join("p.yaml");
    std::fs::write(file, PIPELINE.replace("rate: 0.5, ", "")).unwrap();
    assert_eq!(
        warnings(&project),
        ["part.yaml:1:41: params.large_more: no stage uses this parameter"]
    );
}

#[test]
fn a_config_file_of_an_included_stage_has_the_parameters_of_the_file() {
    let project = part("epochs: '${params.epochs}', checkpoint: often", "config: c.yaml")
        .file("c.yaml", "epochs: '${params.epochs}'\ncheckpoint: often\n");
    assert_eq!(project.settings("small_base")["epochs"], json!(3));
    assert_eq!(project.settings("small_base")["checkpoint"]["keep_last_n"], json!(3));
    assert_eq!(project.settings("large_base")["epochs"], json!(30));
    let project = project.set("small_epochs=many");
    let error = project.error();
    assert!(
        error.contains("c.yaml:1:9: epochs: ")
            && error.contains("the value comes from --set small_epochs=many"),
        "{error}"
    );
}

#[test]
fn a_matrix_inside_is_referred_to_by_its_short_name() {
    let project = Project::new("name: x\ninclude: { a: part.yaml }\nstages: { last: { kind: gather, dataset: a_base } }\n")
        .file("part.yaml", "params: { rates: [1, 2] }\nstages:\n  base: { kind: work, matrix: { learning_rate: '${params.rates}' } }\n  all: { kind: gather, dataset: base }\n  one: { kind: follow, dataset: base@learning_rate=2, needs: [base@learning_rate=1] }\n");
    let graph = project.load().unwrap_or_else(|e| panic!("{e}"));
    let needs = |id: &str| {
        let stage = graph.stages().find(|stage| stage.id.as_str() == id).unwrap();
        stage.needs.iter().map(|(_, id)| id.to_string()).collect::<Vec<_>>()
    };
    let both = ["a_base@learning_rate=1", "a_base@learning_rate=2"];
    assert_eq!(needs("a_all"), both);
    assert_eq!(needs("last"), both);
    assert_eq!(needs("a_one"), [both[1], both[0]]);
    let graph =
        project.set("a_rates=[3]").set("a_one.dataset=a_all").set("a_one.needs=null").load();
    let graph = graph.unwrap_or_else(|e| panic!("{e}"));
    assert!(graph.stages().any(|stage| stage.id.as_str() == "a_base@learning_rate=3"));
}
