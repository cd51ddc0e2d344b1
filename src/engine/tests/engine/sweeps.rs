//! `--sweep`: branches from the command line.

use pipe_engine::pipeline_file::Override;
use serde_json::{Value, json};

use crate::fake::Project;

const CHAIN: &str = "\
name: chain
params: { length: 3 }
stages:
  data: { kind: source }
  base: { kind: work, dataset: data, epochs: '${params.length}' }
  fine: { kind: follow, dataset: base }
  all: { kind: gather, dataset: fine }
  after: { kind: work, dataset: all, needs: base }
";

fn names(project: &Project) -> Vec<String> {
    let graph = project.load().unwrap_or_else(|e| panic!("{e}"));
    graph.pipeline.stages.iter().map(|stage| stage.id.to_string()).collect()
}

#[test]
fn every_value_has_a_branch_of_its_own_until_one_gathers_them() {
    let project = Project::new(CHAIN).sweep("base.learning_rate=1e-3,1e-4");
    assert_eq!(
        names(&project),
        [
            "data",
            "base@learning_rate=0.001",
            "base@learning_rate=0.0001",
            "fine@learning_rate=0.001",
            "fine@learning_rate=0.0001",
            "all",
            "after"
        ]
    );
    assert_eq!(project.settings("base@learning_rate=0.0001")["learning_rate"], json!(0.0001));
    let fine = project.settings("fine@learning_rate=0.0001");
    assert_eq!(fine["dataset"], json!("base@learning_rate=0.0001"));
    assert_eq!(fine["learning_rate"], json!(0.001), "its own stays as it was");
    let graph = project.load().unwrap();
    let needs = |stage: &str| {
        let stage = graph.stages().find(|s| s.id.as_str() == stage).unwrap();
        stage.needs.iter().map(|(_, id)| id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(needs("all"), ["fine@learning_rate=0.001", "fine@learning_rate=0.0001"]);
    assert_eq!(needs("after"), ["all", "base@learning_rate=0.001", "base@learning_rate=0.0001"]);
}

#[test]
fn a_sweep_is_what_a_matrix_in_the_file_would_be() {
    let swept = Project::new(CHAIN).sweep("base.learning_rate=1e-3,1e-4").load().unwrap();
    let written = CHAIN
        .replace("'${params.length}' }", "'${params.length}', matrix: { learning_rate: [1e-3, 1e-4] } }")
        .replace(
            "fine: { kind: follow, dataset: base }",
            "fine: { kind: follow, dataset: 'base@learning_rate=${matrix.learning_rate}', matrix: { learning_rate: [1e-3, 1e-4] } }",
        );
    let written = Project::new(&written);
    // There the matrix decides the rate of `fine` too.
    let manifest = |graph: &pipe_engine::graph::Graph, id: &str| {
        graph.stages().find(|s| s.id.as_str() == id).unwrap().manifest.clone()
    };
    let both = written.load().unwrap();
    for id in ["data", "base@learning_rate=0.001", "base@learning_rate=0.0001", "all", "after"] {
        assert_eq!(manifest(&swept, id), manifest(&both, id), "{id}");
    }
}

#[test]
fn a_key_without_a_stage_reaches_all_that_know_it_value_by_value() {
    let project = Project::new(CHAIN).sweep("learning_rate=1,2");
    // `data` knows it too, so that all of them are branches until they are gathered.
    assert_eq!(names(&project).len(), 2 + 2 + 2 + 2 + 2);
    let base = project.settings("base@learning_rate=2");
    assert_eq!(
        (&base["dataset"], &base["learning_rate"]),
        (&json!("data@learning_rate=2"), &json!(2.0))
    );
}

#[test]
fn sweeps_go_with_each_other_and_with_a_matrix() {
    let file = CHAIN
        .replace("'${params.length}' }", "'${params.length}', matrix: { learning_rate: [1, 2] } }");
    let file = file.replace("dataset: base }", "dataset: base@learning_rate=1 }");
    let both =
        Project::new(&file).sweep("base.content=a,b").sweep("base.checkpoint.keep_last_n=7,8");
    let all = names(&both);
    assert_eq!(all.iter().filter(|name| name.starts_with("base@")).count(), 8);
    let fine: Vec<&String> = all.iter().filter(|name| name.starts_with("fine@")).collect();
    assert_eq!(fine[0], "fine@checkpoint.keep_last_n=7,content=a");
    assert_eq!(fine.len(), 4, "the rate is the one that is named");
    assert_eq!(
        both.settings("fine@checkpoint.keep_last_n=8,content=b")["dataset"],
        json!("base@checkpoint.keep_last_n=8,content=b,learning_rate=1")
    );
    // A key that the matrix has takes other values.
    let other = Project::new(&file.replace("base@learning_rate=1 ", "base@learning_rate=5 "))
        .sweep("base.learning_rate=5");
    assert!(names(&other).contains(&"base@learning_rate=5".to_owned()));
    // Lists, mappings and seeds too.
    let list = CHAIN.replace(
        "'${params.length}' }",
        "'${params.length}', matrix: [{ content: a }, { content: b }] }",
    );
    let list = list.replace("dataset: base }", "dataset: base@content=a }");
    assert_eq!(
        names(&Project::new(&list).sweep("base.learning_rate=1,2"))
            .iter()
            .filter(|n| n.starts_with("base@"))
            .count(),
        4
    );
}

#[test]
fn values_are_read_as_yaml() {
    let project =
        Project::new(CHAIN).sweep("base.classes=[a, b],[c]").sweep("base.content=x, \"y, z\"");
    let classes: Vec<Value> = names(&project)
        .iter()
        .filter(|name| name.starts_with("base@"))
        .map(|name| json!([project.settings(name)["classes"], project.settings(name)["content"]]))
        .collect();
    assert_eq!(
        classes,
        [
            json!([["a", "b"], "x"]),
            json!([["a", "b"], "y, z"]),
            json!([["c"], "x"]),
            json!([["c"], "y, z"])
        ]
    );
    assert_eq!(names(&Project::new(CHAIN).sweep("base.epochs=[1, 2]")).len(), 7);
    for (text, said) in [
        ("base.epochs", "expected KEY=VALUE,VALUE"),
        ("base.epochs=", "expected values between commas"),
        ("base.epochs=1,~", "expected values between commas"),
        ("=1,2", "expected a key"),
    ] {
        let error = Override::several(text, format!("--sweep {text}")).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn what_cannot_be_swept_is_refused() {
    let error = |sweep: &str| Project::new(CHAIN).sweep(sweep).error();
    assert_eq!(
        error("length=1,2"),
        "--sweep length=1,2: a parameter cannot be swept\n  = settings of stages can: `--sweep STAGE.KEY=VALUE,VALUE`\n  = the parameter is that of `base.epochs`"
    );
    assert!(
        error("executor=local,slurm")
            .contains("--sweep executor=local,slurm: this cannot be swept")
    );
    assert!(error("base.epocs=1,2").starts_with("--sweep base.epocs=1,2: stage `base` has no setting `epocs`\n  = did you mean `epochs`?"), "{}", error("base.epocs=1,2"));
    assert!(error("epocs=1,2").starts_with("--sweep epocs=1,2: no parameter, stage or setting"));
    assert!(
        error("base.epochs=1,many").starts_with(
            "--sweep base.epochs=1,many: expected a whole number, 0 or more, found text \"many\""
        ),
        "{}",
        error("base.epochs=1,many")
    );
    assert!(error("base.epochs=1,1").contains("comes out more than once"));
    let twice = Project::new(CHAIN).sweep("base.epochs=1,2").sweep("fine.epochs=3,4").error();
    assert_eq!(
        twice,
        "--sweep fine.epochs=3,4: stage `fine` refers to `base`, which is swept over `epochs` too\n  = leave out this or --sweep base.epochs=1,2"
    );
    let set = Project::new(CHAIN).set("base.epochs=3").sweep("base.epochs=1,2").error();
    assert!(set.starts_with("--set base.epochs=3: stage `base` has a matrix over `epochs`, which decides it\n  = leave out this or --sweep base.epochs=1,2"), "{set}");
    let random = CHAIN.replace(
        "'${params.length}' }",
        "1, matrix: { random: { learning_rate: { uniform: [0, 1] }, n: 2 } } }",
    );
    let random = Project::new(&random).sweep("base.learning_rate=1,2").error();
    assert!(
        random.contains(
            "--sweep base.learning_rate=1,2: stage `base` has a matrix over `learning_rate`"
        ),
        "{random}"
    );
}

/// Where what follows is written in the file with the values, it stays.
#[test]
fn a_branch_that_is_named_is_taken_as_it_is() {
    let file = CHAIN.replace(
        "fine: { kind: follow, dataset: base }",
        "fine: { kind: follow, dataset: 'base@epochs=2' }",
    );
    let project = Project::new(&file).sweep("base.epochs=1,2");
    assert!(names(&project).contains(&"fine".to_owned()));
    assert_eq!(project.settings("fine")["dataset"], json!("base@epochs=2"));
}

#[test]
fn members_that_would_write_one_file_are_told_how_each_gets_its_own() {
    let file =
        "name: p\nstages:\n  a: { kind: command, run: x, outputs: [out/a.txt], env: { N: '1' } }\n";
    let error = Project::new(file).sweep("a.env.N=1,2").error();
    let own = "`outputs: [out/a_${matrix.env.N}.txt]`, or --set 'a.outputs=[out/a_${matrix.env.N}.txt]' beside --sweep";
    assert!(error.contains(&format!("give each a file of its own: {own}")), "{error}");
    // Values of a matrix that are in the name already stay.
    let file = "name: p\nstages:\n  a:\n    kind: command\n    run: x\n    \
                outputs: ['out/${matrix.env.N}.txt']\n    env: { N: '1', M: '1' }\n    \
                matrix: { env.N: ['1', '2'] }\n";
    let error = Project::new(file).sweep("a.env.M=3,4").error();
    assert!(error.contains("`outputs: [out/${matrix.env.N}_${matrix.env.M}.txt]`"), "{error}");
}
