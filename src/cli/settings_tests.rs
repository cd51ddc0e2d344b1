//! Every key of every stage kind: a value in the file, on the command line and in the environment
//! comes to the same, and what is wrong with it is told in a person's words.

use std::path::Path;

use pipe_engine::pipeline_file::{self, Override, environment};
use serde_json::{Map, Value, json};

const PIPELINE: &str = "
name: all
stages:
  data: { kind: dataset }
  base: { kind: train, dataset: data }
  best: { kind: copy_best, from: base, to: best.ckpt }
  lora: { kind: lora, base: best, dataset: data }
  image: { kind: sample, from: lora, to: image.png }
  quality: { kind: evaluate, from: lora, dataset: data, to: quality, metrics: [fid] }
  many: { kind: train, dataset: data, matrix: { seed: [1, 2] } }
  winner: { kind: select_best, over: many }
  had: { kind: checkpoint, file: models/base.safetensors }
  program: { kind: command, run: 'true' }
  own: { kind: trainer, run: 'true', epochs: 2 }
";

/// Words of the language and the libraries that this is written in.
const NOT_FOR_PEOPLE: [&str; 16] = [
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "usize",
    "i64",
    "i128",
    "f32 ",
    "f64",
    "invalid type",
    "variant",
    "untagged",
    "struct",
    "sequence",
    "tuple",
];

/// All paths of named keys below a node of a schema.
fn paths(root: &Value, node: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    if let Some(other) =
        node["$ref"].as_str().and_then(|text| root.pointer(text.strip_prefix('#')?))
    {
        paths(root, other, path, found);
    }
    for key in ["anyOf", "oneOf"] {
        node[key].as_array().into_iter().flatten().for_each(|node| paths(root, node, path, found));
    }
    for (key, inner) in node["properties"].as_object().into_iter().flatten() {
        path.push(key.clone());
        found.push(path.clone());
        paths(root, inner, path, found);
        path.pop();
    }
}

fn load(folder: &Path, pipeline: &Value, overrides: &[Override]) -> Result<Vec<Value>, String> {
    std::fs::write(folder.join("p.yaml"), serde_yaml::to_string(pipeline).unwrap()).unwrap();
    let loaded = pipeline_file::load(
        folder,
        Path::new("p.yaml"),
        &crate::kinds(&crate::Architectures::builtin()),
        overrides,
    );
    loaded.map(|p| p.stages.iter().map(|s| s.stage.settings()).collect()).map_err(|e| e.to_string())
}

/// The pipeline with a value laid over one of its stages.
fn with(pipeline: &Value, stage: &str, path: &[String], value: &Value) -> Value {
    let mut pipeline = pipeline.clone();
    let mut at = &mut pipeline["stages"][stage];
    for key in path {
        if at[key].is_null() {
            at[key] = Value::Object(Map::new());
        }
        at = &mut at[key];
    }
    *at = value.clone();
    pipeline
}

#[test]
fn a_value_comes_to_the_same_wherever_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline: Value = serde_yaml::from_str(PIPELINE).unwrap();
    let plain = load(folder.path(), &pipeline, &[]).unwrap();
    let values = [
        json!(1),
        json!(2.0),
        json!(0.25),
        json!("hunter2"),
        json!([0, 1]),
        json!(1e30),
        json!({"hunter2": -1}),
    ];
    let (mut taken, mut refused, mut turn) = (0, 0, 0);
    for kind in crate::kinds(&crate::Architectures::builtin()) {
        let stages = pipeline["stages"].as_object().unwrap();
        let stage = stages.iter().find(|(_, body)| body["kind"] == kind.name()).unwrap().0;
        let schema = kind.schema().to_value();
        let mut all = Vec::new();
        paths(&schema, &schema, &mut Vec::new(), &mut all);
        assert!(!all.is_empty());
        for path in all {
            // Three of the values for each key, in turn.
            for _ in 0..3 {
                turn += 1;
                let value = &values[turn % values.len()];
                let key = path.join(".");
                let file = load(folder.path(), &with(&pipeline, stage, &path, value), &[]);
                let text = format!("{stage}.{key}={value}");
                let set = Override::parse(&text, format!("--set {text}")).unwrap();
                let set = load(folder.path(), &pipeline, &[set]);
                let name = format!("PIPE_{}__{}", stage, path.join("__")).to_uppercase();
                let variable =
                    environment::among([(name.clone().into(), value.to_string().into())]);
                let variable = load(folder.path(), &pipeline, &variable);
                assert_eq!(file.as_ref().ok(), set.as_ref().ok(), "{text}: {file:?} {set:?}");
                assert_eq!(
                    file.as_ref().ok(),
                    variable.as_ref().ok(),
                    "{text}: {file:?} {variable:?}"
                );
                match (file, set, variable) {
                    (Err(file), Err(set), Err(variable)) => {
                        refused += 1;
                        for error in [&file, &set] {
                            let words = NOT_FOR_PEOPLE.iter().find(|word| error.contains(*word));
                            assert_eq!(words, None, "{text}: {error}");
                        }
                        assert!(
                            variable.contains(&name) && !variable.contains("hunter2"),
                            "{text}: {variable}"
                        );
                    }
                    (settings, ..) => taken += usize::from(settings.unwrap() != plain),
                }
            }
        }
    }
    assert!(taken > 50 && refused > 50, "{taken} and {refused}");
}
