//! Random values and seeds.

use serde_json::{Value, json};

use super::{load, marks, members, names, project, refused};
use crate::fake::Project;

#[test]
fn what_is_random_stays_when_more_is_drawn() {
    let matrix = |n: usize, more: &str| {
        format!("{{ random: {{ rate: {{ log_uniform: [1e-5, 1e-2] }}, n: {n}{more} }} }}")
    };
    let (few, many) = (members(&project(&matrix(4, ""))), members(&project(&matrix(40, ""))));
    assert_eq!(few, many[..4]);
    assert_eq!(many.len(), 40);
    for (name, settings) in &many {
        let rate = settings["rate"].as_f64().unwrap();
        assert!((1e-5..=1e-2).contains(&rate), "{rate}");
        assert_eq!(*name, format!("rate={}", json!(rate)), "a name holds all of the value");
        assert!(name.len() < 16, "{name}");
    }
    // Another key changes nothing for this one.
    let with_seeds = members(&project(&matrix(4, ", seed: { integers: [1, 1000000] }")));
    let rates =
        |all: &[(String, Value)]| all.iter().map(|(_, s)| s["rate"].clone()).collect::<Vec<_>>();
    assert_eq!(rates(&with_seeds), rates(&few));
    let seeds: std::collections::BTreeSet<u64> =
        with_seeds.iter().map(|(_, s)| s["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds.len(), 4);
    assert_ne!(rates(&members(&project(&matrix(4, ", seed: 1")))), rates(&few));
}

#[test]
fn the_pipelines_seed_decides_what_is_drawn() {
    let text = |params: &str| {
        format!(
            "name: x\n{params}stages:\n  base: {{ kind: seeded, matrix: {{ random: {{ rate: {{ uniform: [0, 1] }}, n: 3 }} }} }}\n"
        )
    };
    let drawn = |params: &str, set: Option<&str>| {
        let project = Project::new(&text(params));
        members(&set.into_iter().fold(project, Project::set))
    };
    assert_eq!(drawn("", None), drawn("params: { seed: 42 }\n", None));
    assert_ne!(drawn("", None), drawn("params: { seed: 7 }\n", None));
    assert_eq!(
        drawn("params: { seed: 7 }\n", None),
        drawn("params: { seed: 1 }\n", Some("seed=7"))
    );
    assert_eq!(drawn("", Some("base.matrix.random.n=2")), drawn("", None)[..2]);
    let other = drawn("", Some("base.matrix.random.rate={choice: [3, 4, 5]}"));
    assert_eq!(other.len(), 3, "a way to draw takes the place of another");
}

#[test]
fn what_is_drawn_is_never_the_same_twice() {
    let matrix = |n: usize| {
        format!(
            "{{ random: {{ rate: {{ choice: [1, 2, 3] }}, seed: {{ integers: [1, 3] }}, n: {n} }} }}"
        )
    };
    let all: std::collections::BTreeSet<String> = names(&matrix(9)).into_iter().collect();
    assert_eq!(all.len(), 9);
    assert_eq!(names(&matrix(5)), names(&matrix(9))[..5]);
    marks(&matrix(10), "10", "stages.base.matrix.random.n: only 9 different ones came out");
    let mappings = members(&project(
        "{ random: { optimizer: { choice: [{ name: a }, { name: b }] }, n: 2 } }",
    ));
    let names: std::collections::BTreeSet<&str> =
        mappings.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(Vec::from_iter(names), ["optimizer.name=a", "optimizer.name=b"]);
}

#[test]
fn what_is_random_goes_with_lists_of_values() {
    let both = names("{ seed: [1, 2], random: { rate: { uniform: [0, 1] }, n: 2 } }");
    assert_eq!(both.len(), 4);
    let rate = |name: &String| name.split(',').next().unwrap().to_owned();
    assert_eq!((rate(&both[0]), rate(&both[1])), (rate(&both[2]), rate(&both[3])));
    marks(
        "{ rate: [1, 2], random: { rate: { uniform: [0, 1] }, n: 2 } }",
        "rate: {",
        "stages.base.matrix.random.rate: `rate` has a list of values in the matrix already",
    );
}

#[test]
fn seeds_follow_that_of_the_stage() {
    let seeds = |project: &Project| {
        let all = members(project);
        assert!(all.iter().all(|(name, s)| name.contains(&format!("seed={}", s["seed"]))));
        all.iter().map(|(_, s)| s["seed"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(seeds(&project("{ seeds: 3 }")), [42, 43, 44], "the default of the kind");
    assert_eq!(seeds(&project("{ seeds: 2, rate: [1, 2] }")), [42, 43, 42, 43]);
    assert_eq!(names("{ include: [{ rate: 1 }, { rate: 2 }], seeds: 2 }").len(), 4);
    let own = |more: &str| {
        Project::new(&format!(
            "name: x\nparams: {{ s: 7 }}\nstages:\n  base: {{ kind: seeded, {more}, matrix: {{ seeds: 2 }} }}\n"
        ))
    };
    assert_eq!(seeds(&own("seed: 5")), [5, 6]);
    assert_eq!(seeds(&own("seed: '${params.s}'")), [7, 8]);
    assert_eq!(seeds(&own("config: c.yaml").file("c.yaml", "training: { seed: 9 }\n")), [9, 10]);
    assert_eq!(
        seeds(&project("[{ rate: 1 }, { rate: 2 }]").set("base.matrix.seeds=2")),
        [42, 43, 42, 43]
    );
    assert_eq!(seeds(&project("{ seeds: 2 }").set("base.matrix.seeds=4")), [42, 43, 44, 45]);
    let error = refused(project("{ seeds: 2 }").set("seed=3"));
    assert_eq!(
        error,
        "--set seed=3: stage `base` has a matrix over `seed`, which decides it\n  = without `seeds` of it: --set base.matrix.seeds=null"
    );
    assert!(load(&project("{ seeds: 2 }").set("base.matrix.seeds=null").set("seed=3")).is_ok());
    marks(
        "{ seeds: 0 }",
        "0 }",
        "stages.base.matrix.seeds: expected a whole number between 1 and 100000: how many seeds",
    );
    marks(
        "{ seeds: 2, seed: [1] }",
        "seeds",
        "stages.base.matrix.seeds: `seed` is in the matrix already",
    );
}
