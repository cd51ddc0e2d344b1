//! Combinations, lists, what is included and excluded.

use serde_json::{Value, json};

use super::{load, marks, members, names, project};
use crate::fake::Project;

#[test]
fn a_list_has_a_member_of_each_mapping_named_by_what_differs() {
    let list = "[{ rate: 0.1, seed: 1, optimizer: { name: adam } }, { rate: 0.1, seed: 2, optimizer.decay: 0.5 }]";
    let both = members(&project(list));
    assert_eq!(both[0].0, "optimizer.name=adam,seed=1");
    assert_eq!(both[1].0, "optimizer.decay=0.5,seed=2");
    assert_eq!(both[0].1["optimizer"], json!({"name": "adam", "decay": 0.0, "betas": []}));
    assert_eq!(both[1].1["optimizer"]["decay"], json!(0.5));
    assert!(both.iter().all(|(_, settings)| settings["rate"] == json!(0.1)));
    assert_eq!(names("[{ rate: 0.1, seed: 1 }]"), ["rate=0.1,seed=1"], "one alone says it all");
    assert_eq!(names("[{ rate: 0.1 }, { rate: 0.1, seed: 1 }]"), ["rate=0.1", "seed=1"]);
}

#[test]
fn values_may_be_mappings_and_lists() {
    let values =
        "{ optimizer: [{ name: adam, decay: 0.1 }, { name: sgd, decay: 0.1 }], rate: [1, 2] }";
    assert_eq!(
        names(values),
        [
            "optimizer.name=adam,rate=1",
            "optimizer.name=adam,rate=2",
            "optimizer.name=sgd,rate=1",
            "optimizer.name=sgd,rate=2"
        ]
    );
    let betas = members(&project("{ optimizer.betas: [[0.9, 0.99], [0.9, 0.95]] }"));
    assert_eq!(betas[0].0, "optimizer.betas=0.9-0.99");
    assert_eq!(betas[1].1["optimizer"]["betas"], json!([0.9, 0.95]));
    let digests = names("{ optimizer: [{ name: adam }, { name: adam, decay: 1 }] }");
    assert_eq!(digests[1], "optimizer.decay=1");
    let digest = digests[0].strip_prefix("optimizer=").unwrap();
    assert!(digest.len() == 8 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{digest}");
    let long = format!("[{{ optimizer.name: {} }}, {{ rate: 1 }}]", "x".repeat(100));
    assert_eq!(names(&long)[0].len(), 8, "a long name is a digest");
}

#[test]
fn values_inside_a_mapping_can_be_put_anywhere() {
    let text = "name: x\nstages:\n  base:\n    kind: command\n    matrix: { o: [{ name: a, n: 1 }, { name: b, n: 1 }] }\n    run: 'echo ${matrix.o.name}'\n";
    let both = members(&Project::new(text));
    assert_eq!(both[1].0, "o.name=b");
    assert_eq!(both[1].1["run"], json!("echo b"));
}

#[test]
fn exclude_takes_combinations_away() {
    let matrix = |exclude: &str| format!("{{ rate: [1, 2], seed: [1, 2], exclude: {exclude} }}");
    assert_eq!(
        names(&matrix("[{ rate: 1, seed: 2 }]")),
        ["rate=1,seed=1", "rate=2,seed=1", "rate=2,seed=2"]
    );
    assert_eq!(names(&matrix("[{ rate: 1.0 }]")), ["rate=2,seed=1", "rate=2,seed=2"]);
    marks(
        &matrix("[{ rat: 1 }]"),
        "rat:",
        "stages.base.matrix.exclude.0.rat: the matrix has no such key",
    );
    marks(
        &matrix("[{ rate: 1 }, { rate: 2 }]"),
        "exclude",
        "stages.base.matrix.exclude: nothing is left",
    );
    let graph = load(&project(&matrix("[{ rate: 3 }]"))).unwrap();
    let warnings: Vec<String> = graph.pipeline.warnings.iter().map(|w| w.to_string()).collect();
    assert_eq!(warnings.len(), 1);
    let said = "p.yaml:5:53: stages.base.matrix.exclude.0: no combination has these values";
    assert!(warnings[0].starts_with(said), "{}", warnings[0]);
}

#[test]
fn include_adds_to_what_it_fits_and_else_a_member() {
    let include = "{ rate: [1, 2], include: [{ seed: 7 }, { rate: 2, seed: 8, optimizer.decay: 0.5 }, { rate: 3, seed: 9 }] }";
    let all = members(&project(include));
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["rate=1", "rate=2", "rate=3,seed=9"]);
    let of = |key: &str| all.iter().map(|(_, settings)| settings[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("rate"), [json!(1.0), json!(2.0), json!(3.0)]);
    assert_eq!(of("seed"), [json!(7), json!(8), json!(9)], "what was added can be added over");
    assert_eq!(all[1].1["optimizer"]["decay"], json!(0.5));
    // What was taken away can be brought back with more.
    let back = "{ rate: [1, 2], exclude: [{ rate: 2 }], include: [{ rate: 2, seed: 5 }] }";
    assert_eq!(self::names(back), ["rate=1", "rate=2,seed=5"]);
    assert_eq!(self::names("{ include: [{ rate: 1 }, { rate: 2 }] }"), ["rate=1", "rate=2"]);
}

/// GitHub's own example of `include`.
#[test]
fn include_means_what_it_means_elsewhere() {
    let text = "name: x\nstages:\n  base:\n    kind: command\n    run: ['${matrix.fruit}', '${matrix.animal}', '${matrix.color}', '${matrix.shape}']\n    matrix:\n      fruit: [apple, pear]\n      animal: [cat, dog]\n      include:\n        - { color: green }\n        - { color: pink, animal: cat }\n        - { fruit: apple, shape: circle }\n        - { fruit: pear, shape: square }\n        - { fruit: banana, color: red, shape: oval, animal: cow }\n";
    let runs: Vec<Value> =
        members(&Project::new(text)).iter().map(|(_, settings)| settings["run"].clone()).collect();
    assert_eq!(
        runs,
        [
            json!(["apple", "cat", "pink", "circle"]),
            json!(["pear", "cat", "pink", "square"]),
            json!(["apple", "dog", "green", "circle"]),
            json!(["pear", "dog", "green", "square"]),
            json!(["banana", "cow", "red", "oval"]),
        ]
    );
}

#[test]
fn words_with_lists_of_plain_values_are_keys_as_all_others() {
    let text = "name: x\nstages:\n  base:\n    kind: command\n    matrix: { include: [a, b], seeds: [1], random: [x], exclude: [1] }\n    run: 'echo ${matrix.include} ${matrix.seeds} ${matrix.random} ${matrix.exclude}'\n";
    let both = members(&Project::new(text));
    assert_eq!(both[1].0, "exclude=1,include=b,random=x,seeds=1");
    assert_eq!(both[1].1["run"], json!("echo b 1 x 1"));
}
