//! Pipeline files: layers, parameters, and what bad ones are told.

use serde_json::json;

use crate::fake::Project;

const BASE: &str = "\
name: demo
params: { epochs: 7, word: hello }
policies:
  checkpoint:
    often: { keep_last_n: 9 }
stages:
  data:
    kind: source
  base:
    kind: work
    dataset: data
    epochs: ${params.epochs}
    checkpoint: often
";

#[test]
fn layers_from_defaults_to_the_command_line() {
    let with_config = BASE.replace("    checkpoint: often\n", "    config: c.yaml\n");
    let config = "training:\n  learning_rate: 0.5\n  epochs: 3\n  checkpoint: { keep_last_n: 4, mode: max }\n";
    let project = Project::new(&with_config).file("c.yaml", config);
    let base = project.settings("base");
    assert_eq!(base["learning_rate"], json!(0.5), "config over defaults");
    assert_eq!(base["epochs"], json!(7), "pipeline over config, type kept");
    assert_eq!(base["checkpoint"], json!({"keep_last_n": 4, "mode": "max"}));
    let project = project.set("base.checkpoint.keep_last_n=1").set("epochs=20");
    let base = project.settings("base");
    assert_eq!(base["epochs"], json!(20), "a parameter's name sets the parameter");
    assert_eq!(base["checkpoint"], json!({"keep_last_n": 1, "mode": "max"}), "mappings are merged");
}

#[test]
fn a_key_without_stage_reaches_every_stage_that_knows_it() {
    let project = Project::new(BASE).set("learning_rate=0.25");
    assert_eq!(project.settings("base")["learning_rate"], json!(0.25));
    assert_eq!(project.settings("data")["learning_rate"], json!(0.25));
}

#[test]
fn a_policy_stands_where_its_name_stands() {
    assert_eq!(Project::new(BASE).settings("base")["checkpoint"]["keep_last_n"], json!(9));
}

/// What stands before `<<` is replaced in the good file by what stands behind it; the message must
/// be this one.
#[track_caller]
fn bad(from: &str, to: &str, message: &str) {
    assert!(BASE.contains(from), "the good file has no {from:?}");
    assert_eq!(Project::new(&BASE.replacen(from, to, 1)).error(), message);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    bad(
        "    epochs: $",
        "    epocs: $",
        "p.yaml:12:5: stages.base.epocs: unknown key\n   |\n12 |     epocs: ${params.epochs}\n   |     ^^^^^\n  = did you mean `epochs`?\n  = expected one of: dataset, learning_rate, epochs, ends, classes, content, checkpoint",
    );
}

#[test]
fn an_unknown_key_in_a_policy_is_shown_where_the_policy_stands() {
    bad(
        "keep_last_n: 9",
        "keep_last: 9",
        "p.yaml:5:14: policies.checkpoint.often.keep_last: unknown key\n  |\n5 |     often: { keep_last: 9 }\n  |              ^^^^^^^^^\n  = did you mean `keep_last_n`?\n  = expected one of: keep_last_n, mode",
    );
}

#[test]
fn all_that_is_wrong_is_said_at_once_and_nothing_that_follows_from_it() {
    let text = "\
name: x
policies:
  checkpoint:
    often: { keep_lst_n: 9 }
    never: { mode: min }
stages:
  data: { kind: source, colour: red }
  base:
    kind: work
    dataset: [data]
    epochs: many
    learning_rate: ${params.rate}
    checkpoint: often
    timeout: 3 parsecs
    needs: [dta]
  other: { kind: work, dataset: dta, epocs: 3 }
  third: { kind: wrok }
";
    let error = Project::new(text).error();
    let firsts: Vec<&str> = error.lines().filter(|l| l.starts_with("p.yaml:")).collect();
    assert_eq!(
        firsts,
        [
            "p.yaml:4:14: policies.checkpoint.often.keep_lst_n: unknown key",
            "p.yaml:7:25: stages.data.colour: unknown key",
            "p.yaml:10:14: stages.base.dataset: expected text, found a list",
            "p.yaml:11:13: stages.base.epochs: expected a whole number, 0 or more, found text \"many\"",
            "p.yaml:12:20: stages.base.learning_rate: no parameter `rate` under `params:`",
            "p.yaml:14:14: stages.base.timeout: expected a time such as `10s`, `5m` or `2h 30m`, found text \"3 parsecs\"",
            "p.yaml:15:13: stages.base.needs.0: no stage is called `dta`",
            "p.yaml:16:33: stages.other.dataset: no stage is called `dta`",
            "p.yaml:16:38: stages.other.epocs: unknown key",
            "p.yaml:17:18: stages.third.kind: unknown kind `wrok`",
        ],
        "{error}"
    );
}

#[test]
fn what_nothing_uses_is_a_warning() {
    let text = "\
name: x
params: { used: 1, unused: 2, in_policy: 3 }
policies:
  checkpoint:
    often: { keep_last_n: '${params.in_policy}' }
    rare: { keep_last_n: 1 }
  timeout: { short: 1m }
stages:
  data: { kind: source }
  base: { kind: work, dataset: data, epochs: '${params.used}', checkpoint: often }
";
    let graph = Project::new(text).load().unwrap();
    let warnings: Vec<String> = graph.pipeline.warnings.iter().map(|w| w.to_string()).collect();
    let firsts: Vec<&str> = warnings.iter().filter_map(|w| w.lines().next()).collect();
    assert_eq!(
        firsts,
        [
            "p.yaml:2:20: params.unused: no stage uses this parameter",
            "p.yaml:6:5: policies.checkpoint.rare: no stage uses this policy",
            "p.yaml:7:14: policies.timeout.short: no stage uses this policy",
        ]
    );
}

#[test]
fn a_wrong_type_says_what_is_expected() {
    bad(
        "epochs: ${params.epochs}",
        "epochs: many",
        "p.yaml:12:13: stages.base.epochs: expected a whole number, 0 or more, found text \"many\"\n   |\n12 |     epochs: many\n   |             ^^^^",
    );
}

#[test]
fn a_value_that_makes_no_sense_is_shown_too() {
    bad(
        "epochs: ${params.epochs}",
        "epochs: 0",
        "p.yaml:12:13: stages.base.epochs: expected at least 1\n   |\n12 |     epochs: 0\n   |             ^",
    );
}

#[test]
fn an_unknown_variant_lists_the_valid_ones() {
    bad(
        "{ keep_last_n: 9 }",
        "{ mode: mni }",
        "p.yaml:5:20: policies.checkpoint.often.mode: unknown value `mni`\n  |\n5 |     often: { mode: mni }\n  |                    ^^^\n  = did you mean `min`?\n  = expected one of: min, max",
    );
}

#[test]
fn unknown_names_are_found_everywhere() {
    bad(
        "dataset: data",
        "dataset: dta",
        "p.yaml:11:14: stages.base.dataset: no stage is called `dta`\n   |\n11 |     dataset: dta\n   |              ^^^\n  = did you mean `data`?\n  = expected one of: data, base",
    );
    bad(
        "kind: work",
        "kind: wrok",
        "p.yaml:10:11: stages.base.kind: unknown kind `wrok`\n   |\n10 |     kind: wrok\n   |           ^^^^\n  = did you mean `work`?\n  = expected one of: command, follow, gather, source, work",
    );
    bad(
        "checkpoint: often\n",
        "checkpoint: oftn\n",
        "p.yaml:13:17: stages.base.checkpoint: no policy `oftn` under `policies.checkpoint`\n   |\n13 |     checkpoint: oftn\n   |                 ^^^^\n  = did you mean `often`?\n  = expected one of: often",
    );
    bad(
        "${params.epochs}",
        "${params.epoch}",
        "p.yaml:12:13: stages.base.epochs: no parameter `epoch` under `params:`\n   |\n12 |     epochs: ${params.epoch}\n   |             ^^^^^^^^^^^^^^^\n  = did you mean `epochs`?\n  = expected one of: epochs, word",
    );
    bad(
        "params: {",
        "parms: {",
        "p.yaml:2:1: parms: unknown key\n  |\n2 | parms: { epochs: 7, word: hello }\n  | ^^^^^\n  = did you mean `params`?\n  = expected one of: name, include, params, policies, profiles, executor, store, fsync, on, budget, until, stages",
    );
}

#[test]
fn a_cycle_is_printed_as_a_way_round() {
    let text = "name: x\nstages:\n  a: { kind: work, dataset: c }\n  b: { kind: work, needs: [a] }\n  c: { kind: work, dataset: b }\n";
    assert_eq!(
        Project::new(text).error(),
        "p.yaml:3:29: stages.a.dataset: stages need each other in a circle: a -> c -> b -> a\n  |\n3 |   a: { kind: work, dataset: c }\n  |                             ^\n  = a stage can only need stages that do not need it"
    );
    let own = "name: x\nstages:\n  a: { kind: work, needs: a }\n";
    assert!(Project::new(own).error().contains("a -> a"), "{}", Project::new(own).error());
}

#[test]
fn a_reference_takes_every_stage_that_makes_what_it_wants() {
    let stages = "\
name: x
stages:
  notes: { kind: command, run: 'true' }
  a: { kind: source }
  b: { kind: work, dataset: WANTED }
";
    let error = |wanted: &str| Project::new(&stages.replace("WANTED", wanted)).error();
    assert_eq!(
        error("notes"),
        "p.yaml:5:29: stages.b.dataset: stage `notes` makes files; expected one that makes an epoch count\n  |\n5 |   b: { kind: work, dataset: notes }\n  |                             ^^^^^\n  = expected one of: a"
    );
    let alone = stages.replace("  a: { kind: source }\n", "").replace("WANTED", "notes");
    let error = Project::new(&alone).error();
    let said = "\n  = stages of these kinds make one: follow, gather, source, work";
    assert!(error.ends_with(said), "{error}");
    // A kind that is misspelt has its own error, and no other one follows from it.
    let misspelt = stages.replace("kind: source", "kind: sourc").replace("WANTED", "a");
    let error = Project::new(&misspelt).error();
    assert_eq!(error.matches("p.yaml:").count(), 1, "{error}");
}

#[test]
fn files_that_are_missing_or_no_yaml() {
    let missing = Project::new(&BASE.replace("checkpoint: often\n", "config: configs/no.yaml\n"));
    assert_eq!(
        missing.error(),
        "p.yaml:13:13: stages.base.config: failed to read the config file: configs/no.yaml: no such file\n   |\n13 |     config: configs/no.yaml\n   |             ^^^^^^^^^^^^^^^\n  = the path is relative to the project's folder"
    );
    let error = Project::new("name: [x\nstages: {}\n").error();
    assert!(error.starts_with("p.yaml:2:"), "{error}");
    let error = Project::new("name: x\nname: y\nstages: {}\n").error();
    assert!(error.contains("duplicate"), "{error}");
    let error = Project::new("just text").error();
    assert!(error.contains("expected a mapping"), "{error}");
    assert!(Project::new("name: x\n").error().contains("at least one stage"));
}

#[test]
fn overrides_that_mean_nothing_are_refused() {
    let error = Project::new(BASE).set("epocs=3").error();
    assert!(
        error.starts_with(
            "--set epocs=3: no parameter, stage or setting is called `epocs`\n  = did you mean `epochs`?"
        ),
        "{error}"
    );
    let error = Project::new(BASE).set("base.epochs=many").error();
    assert_eq!(
        error,
        "--set base.epochs=many: expected a whole number, 0 or more, found text \"many\"\n  = setting: base.epochs"
    );
}

#[test]
fn the_config_file_is_blamed_for_its_own_keys() {
    let project = Project::new(&BASE.replace("checkpoint: often\n", "config: c.yaml\n"));
    let project = project.file("c.yaml", "training:\n  learning_rate: fast\n");
    assert_eq!(
        project.error(),
        "c.yaml:2:18: training.learning_rate: expected a number, found text \"fast\"\n  |\n2 |   learning_rate: fast\n  |                  ^^^^"
    );
}
