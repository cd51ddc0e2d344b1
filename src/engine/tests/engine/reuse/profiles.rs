//! Profiles: layers over the file that are chosen by name.

use pipe_engine::pipeline_file::{ExecutorKind, Override};
use serde_json::json;

use super::firsts;
use crate::fake::Project;

const FILE: &str = "\
name: demo
params: { epochs: 3, rate: 0.5 }
executor: { kind: local, partition: short, cpus: 2 }
profiles:
  cluster:
    params: { epochs: 90 }
    executor: slurm
    stages:
      base: { checkpoint: { keep_last_n: 9 }, slurm: { time: 2h } }
  long:
    params: { epochs: 300 }
    executor: { partition: long }
    store: file:///mnt/nas
  nothing:
stages:
  data: { kind: source }
  base:
    kind: work
    dataset: data
    epochs: ${params.epochs}
    learning_rate: ${params.rate}
    checkpoint: { mode: max }
";

fn chosen(text: &str, names: &[&str]) -> Project {
    let mut project = Project::new(text);
    project.sets.extend(names.iter().map(|name| Override::profile(name)));
    project
}

#[test]
fn a_profile_lies_over_the_file_and_settings_over_it() {
    let plain = chosen(FILE, &[]);
    assert_eq!(plain.settings("base")["epochs"], json!(3));
    let project = chosen(FILE, &["cluster"]);
    let base = project.settings("base");
    assert_eq!((&base["epochs"], &base["learning_rate"]), (&json!(90), &json!(0.5)));
    assert_eq!(base["checkpoint"], json!({"keep_last_n": 9, "mode": "max"}));
    let executor = project.load().unwrap().pipeline.executor;
    assert_eq!(executor.kind, ExecutorKind::Slurm);
    assert_eq!(executor.slurm.partition.unwrap().as_str(), "short", "the block stays");

    let both = chosen(FILE, &["cluster", "long", "nothing"]);
    assert_eq!(both.settings("base")["epochs"], json!(300), "the later one wins");
    let pipeline = both.load().unwrap().pipeline;
    assert_eq!(pipeline.executor.kind, ExecutorKind::Slurm);
    assert_eq!(pipeline.executor.slurm.partition.unwrap().as_str(), "long");
    assert_eq!(pipeline.store.unwrap().to_string(), "file:///mnt/nas");
    assert_eq!(chosen(FILE, &["long", "cluster"]).settings("base")["epochs"], json!(90));

    let set = chosen(FILE, &["cluster"]).set("epochs=7").set("base.checkpoint.keep_last_n=1");
    assert_eq!(set.settings("base")["epochs"], json!(7));
    assert_eq!(set.settings("base")["checkpoint"], json!({"keep_last_n": 1, "mode": "max"}));
    let by_variable = chosen(FILE, &["cluster"]).variable("PIPE_EPOCHS", "8");
    assert_eq!(by_variable.settings("base")["epochs"], json!(8));
}

#[test]
fn the_variable_chooses_where_the_command_line_does_not() {
    let by_variable = chosen(FILE, &[]).variable("PIPE_PROFILE", "cluster, long");
    assert_eq!(by_variable.settings("base")["epochs"], json!(300));
    let typed = chosen(FILE, &["cluster"]).variable("PIPE_PROFILE", "long");
    assert_eq!(typed.settings("base")["epochs"], json!(90));
    let unknown = chosen(FILE, &[]).variable("PIPE_PROFILE", "clutser").error();
    assert!(unknown.starts_with("PIPE_PROFILE: no profile has that name\n"), "{unknown}");
    assert!(!unknown.contains("clutser"), "{unknown}");
    // It is a setting like others where the file has no profiles.
    let file = "name: x\nparams: { profile: a }\nstages: { base: { kind: work, content: '${params.profile}' } }\n";
    let project = chosen(file, &[]).variable("PIPE_PROFILE", "b");
    assert_eq!(project.settings("base")["content"], json!("b"));
    assert!(
        chosen(FILE.split("profiles:").next().unwrap(), &[])
            .variable("PIPE_PROFILE", "b")
            .load()
            .is_err()
    );
}

#[test]
fn what_is_wrong_is_shown_in_the_profile() {
    let error = chosen(FILE, &["clster"]).error();
    assert_eq!(
        error,
        "--profile clster: no profile is called `clster`\n  = did you mean `cluster`?\n  = expected one of: cluster, long, nothing"
    );
    let none = "name: x\nstages: { base: { kind: work } }\n";
    assert_eq!(
        chosen(none, &["a"]).error(),
        "--profile a: no profile is called `a`\n  = p.yaml has no `profiles:`"
    );
    for (from, to, names, said) in [
        // The form of all of them is looked at.
        ("    store:", "    stor:", &[][..], "p.yaml:13:5: profiles.long.stor: unknown key"),
        (
            "params: { epochs: 90 }",
            "params: { epocs: 90 }",
            &[],
            "p.yaml:6:15: profiles.cluster.params.epocs: no parameter is called `epocs`: a profile changes what the file has",
        ),
        (
            "      base: {",
            "      bse: {",
            &[],
            "p.yaml:9:7: profiles.cluster.stages.bse: no stage is called `bse`: a profile changes what the file has",
        ),
        (
            "  nothing:",
            "  nothing: 3",
            &[],
            "p.yaml:14:12: profiles.nothing: expected a mapping (`key: value` lines), found number 3",
        ),
        // What is in them only where they are chosen.
        (
            "keep_last_n: 9",
            "keep_lst_n: 9",
            &["cluster"],
            "p.yaml:9:29: stages.base.checkpoint.keep_lst_n: unknown key",
        ),
        (
            "epochs: 90",
            "epochs: many",
            &["cluster"],
            "p.yaml:20:13: stages.base.epochs: expected a whole number, 0 or more, found text \"many\"",
        ),
        (
            "epochs: 90",
            "epochs: '${params.no}'",
            &["cluster"],
            "p.yaml:6:23: params.epochs: no parameter `no` under `params:`",
        ),
        (
            "executor: slurm",
            "executor: slrm",
            &["cluster"],
            "p.yaml:7:15: executor.kind: unknown value `slrm`",
        ),
        (
            "partition: long",
            "partiton: long",
            &["long"],
            "p.yaml:12:17: executor.partiton: unknown key",
        ),
        (
            "file:///mnt",
            "fil:///mnt",
            &["long"],
            "p.yaml:13:12: store: unknown kind of store `fil`",
        ),
    ] {
        assert!(FILE.contains(from), "{from}");
        let project = chosen(&FILE.replace(from, to), names);
        assert_eq!(firsts(&project), [said], "{to}");
        if !names.is_empty() {
            assert!(chosen(&FILE.replace(from, to), &[]).load().is_ok(), "{to}");
        }
    }
}

#[test]
fn a_profile_reaches_what_is_included_and_merges_keys() {
    let text = "\
name: x
include: { small: part.yaml }
profiles:
  long: { params: { small_epochs: 40 }, stages: { small_base: &o { learning_rate: 9 }, other: { <<: *o, epochs: 8 } } }
stages: { other: { kind: work } }
";
    let mut project = Project::new(text).file(
        "part.yaml",
        "params: { epochs: 4 }\nstages: { base: { kind: work, epochs: '${params.epochs}' } }\n",
    );
    assert_eq!(project.settings("small_base")["epochs"], json!(4));
    project.sets.push(Override::profile("long"));
    let base = project.settings("small_base");
    assert_eq!((&base["epochs"], &base["learning_rate"]), (&json!(40), &json!(9.0)));
    assert_eq!(project.settings("other")["learning_rate"], json!(9.0));
    let project = project.file("p.yaml", &text.replace("learning_rate: 9", "lerning_rate: 9"));
    assert_eq!(firsts(&project), ["p.yaml:4:68: stages.small_base.lerning_rate: unknown key"],);
}
