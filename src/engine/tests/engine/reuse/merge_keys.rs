//! `<<` and keys that begin with `x-`; config files in a list.

use serde_json::json;

use super::{firsts, warnings};
use crate::fake::Project;

const FILE: &str = "\
x-slow: &slow { learning_rate: 0.1, epochs: 7 }
x-small: &small
  <<: *slow
  epochs: 3
  checkpoint: { keep_last_n: 2 }
name: demo
stages:
  data: { kind: source }
  base:
    <<: *small
    kind: work
    dataset: data
  both:
    kind: work
    <<: [*slow, *small]
    learning_rate: 0.5
";

#[test]
fn what_is_written_wins_and_an_earlier_mapping_over_a_later_one() {
    let project = Project::new(FILE);
    let base = project.settings("base");
    assert_eq!((&base["epochs"], &base["learning_rate"]), (&json!(3), &json!(0.1)));
    let both = project.settings("both");
    assert_eq!((&both["epochs"], &both["learning_rate"]), (&json!(7), &json!(0.5)));
    assert_eq!(both["checkpoint"]["keep_last_n"], json!(2));
    assert!(warnings(&project).is_empty());
}

#[test]
fn an_error_is_shown_where_the_key_stands() {
    let project = Project::new(&FILE.replace("keep_last_n: 2", "keep_lst_n: 2"));
    assert_eq!(
        project.error(),
        "p.yaml:5:17: stages.base.checkpoint.keep_lst_n: unknown key\n  |\n5 |   checkpoint: { keep_lst_n: 2 }\n  |                 ^^^^^^^^^^\n  = did you mean `keep_last_n`?\n  = expected one of: keep_last_n, mode"
    );
    let project = Project::new(&FILE.replace("0.1, epochs: 7", "many, epochs: 7"));
    assert_eq!(
        firsts(&project),
        ["p.yaml:1:32: stages.base.learning_rate: expected a number, found text \"many\""],
        "what is written elsewhere wins in the other stage"
    );
    let project = Project::new(&FILE.replace("0.1, epochs: 7", "0.1, epochs: '${params.no}'"));
    assert_eq!(
        firsts(&project),
        ["p.yaml:1:45: stages.both.epochs: no parameter `no` under `params:`"]
    );
}

#[test]
fn what_is_no_mapping_cannot_be_merged() {
    let text = "name: x\nx-a: &a [1]\nstages:\n  base: { kind: work, <<: 3 }\n  more: { kind: work, <<: [{}, *a] }\n";
    assert_eq!(
        firsts(&Project::new(text)),
        [
            "p.yaml:2:6: stages.more.<<.1: expected a mapping, or a list of mappings, to merge, found a list",
            "p.yaml:4:27: stages.base.<<: expected a mapping, or a list of mappings, to merge, found number 3",
        ]
    );
    let twice = "name: x\nstages:\n  base:\n    kind: work\n    <<: {}\n    <<: {}\n";
    assert!(
        Project::new(twice).error().contains("`<<: [*first, *second]`"),
        "{}",
        Project::new(twice).error()
    );
}

#[test]
fn free_keys_hold_anything_and_mean_nothing() {
    let text = "x-note: !any { 1: '${params.none}', <<: 5, kind: [work] }\nname: x\nstages: { base: { kind: work } }\nx-: ~\n";
    assert!(warnings(&Project::new(text)).is_empty());
    // Only at the top, and only with the dash.
    let text = "name: x\nxa: 1\nstages: { base: { kind: work } }\n";
    assert_eq!(firsts(&Project::new(text)), ["p.yaml:2:1: xa: unknown key"]);
    let text = "name: x\nstages: { base: { kind: work, x-a: 1 } }\n";
    assert_eq!(firsts(&Project::new(text)), ["p.yaml:2:31: stages.base.x-a: unknown key"]);
}

#[test]
fn whole_sections_are_merged_in_the_order_of_the_file() {
    let text = "x-s: &s { one: { kind: work }, zero: { kind: source } }\nname: x\nstages:\n  two: { kind: work }\n  <<: *s\n  three: { kind: work, dataset: zero }\n";
    let graph = Project::new(text).load().unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = graph.pipeline.stages.iter().map(|stage| stage.id.as_str()).collect();
    assert_eq!(names, ["two", "one", "zero", "three"]);
}

#[test]
fn aliases_of_aliases_are_refused_as_before() {
    let mut text = "name: x\nx-0: &a0 { a: 1, b: 2, c: 3, d: 4 }\n".to_owned();
    for n in 1..40 {
        let alias = format!("*a{}", n - 1);
        text += &format!("x-{n}: &a{n} {{ a: {alias}, b: {alias}, c: {alias}, <<: {alias} }}\n");
    }
    text += "stages: { base: { kind: work, <<: *a39 } }\n";
    let error = Project::new(&text).error();
    assert!(error.contains("repetition limit"), "{error}");
    let part = text.replace("name: x\n", "");
    let project = Project::new("name: x\ninclude: { a: part.yaml }\n").file("part.yaml", &part);
    assert!(project.error().contains("repetition limit"), "{}", project.error());
}

#[test]
fn of_several_config_files_the_later_ones_win_and_the_stage_over_all() {
    let text = "name: x\nstages:\n  base: { kind: work, config: [a.yaml, b.yaml], checkpoint: { mode: max } }\n";
    let project = Project::new(text)
        .file("a.yaml", "x-c: &c { keep_last_n: 8, mode: min }\nepochs: 2\nlearning_rate: 0.5\ncheckpoint: *c\n")
        .file("b.yaml", "x-e: &e { epochs: 4 }\ntraining:\n  <<: *e\n");
    let base = project.settings("base");
    assert_eq!((&base["epochs"], &base["learning_rate"]), (&json!(4), &json!(0.5)));
    assert_eq!(base["checkpoint"], json!({"keep_last_n": 8, "mode": "max"}));

    let project = project.file("b.yaml", "x-e: &e { epocs: 4 }\ntraining:\n  <<: *e\n");
    assert_eq!(firsts(&project), ["b.yaml:1:11: training.epocs: unknown key"]);
    let project = Project::new(&text.replace("b.yaml", "c.yaml")).file("a.yaml", "epochs: 1\n");
    assert_eq!(
        firsts(&project),
        ["p.yaml:3:40: stages.base.config.1: failed to read the config file: c.yaml: no such file"]
    );
    let project = Project::new(&text.replace("b.yaml", "3")).file("a.yaml", "epochs: 1\n");
    assert_eq!(
        firsts(&project),
        [
            "p.yaml:3:40: stages.base.config.1: expected the path of a config file, or a list of such paths"
        ]
    );
}
