//! What other programs and later versions rely on, to the letter: plans and identities of the
//! shipped pipelines, and the files that a run leaves (records, metadata, headers, events,
//! figures). `PIPE_TEST_BLESS=1` writes `tests/golden/` anew; a difference there is a change of a
//! format, and old projects must still go on.
//!
//! Values that differ from run to run or from processor to processor are replaced by what they are:
//! `<time>`, `<digest>`, `<number>`, `<text>`. Identities of stages whose inputs are known before
//! they run stay as they are.

use std::path::Path;

use pipe_runs::Checkpoint;
use serde_json::{Map, Value};

use crate::project::{Project, root, yaml_files};

/// Every kind of stage that leaves files.
const CHAIN: &str = "\
name: chain
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 16 }
  base:
    kind: train
    dataset: data
    epochs: 2
    batch_size: 4
    model: { dim: 16, mults: [1], depths: [1], heads: 2, window: 4 }
    device: cpu
    log_every_n_steps: 2
  best: { kind: copy_best, from: base, to: best.ckpt }
  lora: { kind: lora, base: best, dataset: data, epochs: 1, batch_size: 4, device: cpu, lora: { r: 2 } }
  note: { kind: command, run: 'ls best.ckpt > note.txt', inputs: [best.ckpt], outputs: [note.txt] }
  draw: { kind: sample, from: lora, to: samples.png, n: 2, steps: 2, device: cpu }
";

const BASE: &str = "checkpoints/base_training/run_001";
const LORA: &str = "checkpoints/lora/run_001";

#[test]
fn plans_and_identities_of_the_shipped_pipelines_stay() {
    let project = Project::new();
    for folder in ["pipelines", "configs"] {
        for file in yaml_files(folder) {
            let relative = file.strip_prefix(root()).unwrap().display().to_string();
            project.write(&relative, std::fs::read(&file).unwrap());
        }
    }
    for number in 0..20_u8 {
        let class = if number % 2 == 0 { "cats" } else { "dogs" };
        project.write(&format!("data/my_images/{class}/{number}.bmp"), bitmap(number));
    }
    let mut wrong = Vec::new();
    for file in yaml_files("pipelines") {
        let relative = file.strip_prefix(root()).unwrap().display().to_string();
        let plan = project.pipe(&["plan", &relative, "--json"]).succeeds().stdout();
        let mut plan: Value = serde_json::from_str(&plan).unwrap();
        // It tells of times and of the disk.
        plan.as_object_mut().unwrap().remove("forecast");
        let name = format!("plan_{}.json", file.file_stem().unwrap().to_str().unwrap());
        wrong.extend(differs(&name, &pretty(&plan)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_files_of_a_run_keep_their_form() {
    let project = Project::new();
    project.write("p.yaml", CHAIN);
    project.pipe(&["run", "p.yaml"]).succeeds();
    let json = |path: &str| -> Value { serde_json::from_str(&project.read(path)).unwrap() };
    let mut wrong = Vec::new();
    for stage in ["data", "base", "best", "lora", "note", "draw"] {
        let record = masked(json(&format!(".pipe/records/chain/{stage}.json")), "");
        wrong.extend(differs(&format!("record_{stage}.json"), &pretty(&record)));
    }
    for (run, name) in [(BASE, "base"), (LORA, "lora")] {
        let metadata = masked(json(&format!("{run}/metadata.json")), "");
        wrong.extend(differs(&format!("metadata_{name}.json"), &pretty(&metadata)));
        let header = header(&project.path(&format!("{run}/checkpoints/last.ckpt")));
        wrong.extend(differs(&format!("header_{name}.json"), &pretty(&header)));
        let metrics = lines(&project.read(&format!("{run}/logs/metrics.jsonl")));
        wrong.extend(differs(&format!("metrics_{name}.jsonl"), &metrics));
    }
    let adapter = masked(json(&format!("{LORA}/adapter/adapter_config.json")), "");
    wrong.extend(differs("adapter_config.json", &pretty(&adapter)));
    // When a checkpoint is told of depends on how fast the disk is; which events there are, and
    // their keys, do not.
    let mut events: Vec<String> =
        lines(&project.read(".pipe/events.jsonl")).lines().map(str::to_owned).collect();
    events.sort();
    wrong.extend(differs("events.jsonl", &(events.join("\n") + "\n")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An image of 8 x 8 pixels, each of this brightness: a Windows bitmap (BITMAPINFOHEADER, 24 bits a
/// pixel).
fn bitmap(brightness: u8) -> Vec<u8> {
    const PIXELS: u32 = 8 * 8 * 3;
    let sizes = [54 + PIXELS, 0, 54, 40, 8, 8, 1 | 24 << 16, 0, PIXELS, 2835, 2835, 0, 0];
    let head = b"BM".iter().copied().chain(sizes.iter().flat_map(|size| size.to_le_bytes()));
    head.chain(std::iter::repeat_n(brightness, PIXELS as usize)).collect()
}

/// The header of a checkpoint as it stands in the file: metadata, and each tensor's type and shape.
fn header(path: &Path) -> Value {
    Checkpoint::open(path).and_then(|file| file.verify()).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    // The values are JSON of their own, as text.
    let Some(Value::Object(metadata)) = header.get_mut("__metadata__") else {
        panic!("no metadata")
    };
    for value in metadata.values_mut() {
        if let Some(parsed) =
            value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok())
        {
            *value = parsed;
        }
    }
    for (name, tensor) in &mut header {
        if name != "__metadata__" {
            tensor.as_object_mut().unwrap().remove("data_offsets");
        }
    }
    masked(Value::Object(header), "")
}

fn lines(text: &str) -> String {
    let line = |line: &str| format!("{}\n", masked(serde_json::from_str(line).unwrap(), ""));
    text.lines().map(line).collect()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// Keys of numbers and texts that say when, how long, where or by whom.
const OWN: [&str; 14] = [
    "pid",
    "modified",
    "bytes",
    "peak_memory",
    "seconds",
    "epoch_seconds",
    "images_per_second",
    "data_wait",
    "blocked",
    "host",
    "git_commit",
    "checksum",
    "message",
    "summary",
];

/// Keys of settings and positions, whose values stay whatever they are.
const KEPT: [&str; 4] = ["settings", "manifest", "model_config", "scheduler_state_dict"];

fn masked(value: Value, key: &str) -> Value {
    let what = |text: &str| Value::String(text.to_owned());
    match value {
        Value::Object(map) => {
            // Where a file's times do not tell yet whether it is still the same, and where the
            // system does not tell what a process takes, these are left out.
            let sometimes = |key: &str| {
                ["changed", "inode", "cpu_percent", "memory_bytes", "gpu_memory_bytes"]
                    .contains(&key)
            };
            let each = |(key, value): (String, Value)| {
                let kept = KEPT.contains(&key.as_str());
                let value = if kept { without_digests(value) } else { masked(value, &key) };
                (key, value)
            };
            Value::Object(map.into_iter().filter(|(key, _)| !sometimes(key)).map(each).collect())
        }
        Value::Array(list) => {
            Value::Array(list.into_iter().map(|item| masked(item, key)).collect())
        }
        Value::Number(number) if OWN.contains(&key) || !(number.is_u64() || number.is_i64()) => {
            what("<number>")
        }
        // The program's, not that of a format.
        Value::String(_) if OWN.contains(&key) || key == "version" => what("<text>"),
        Value::String(text) if chrono::DateTime::parse_from_rfc3339(&text).is_ok() => {
            what("<time>")
        }
        other => without_digests(other),
    }
}

/// Digests depend on what was trained, and so on the processor.
fn without_digests(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().map(|(key, value)| (key, without_digests(value))).collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_digests).collect()),
        Value::String(text) => {
            let digits = text.rsplit(':').next().unwrap_or_default();
            let is_digest = digits.len() >= 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let kind = text.len() - digits.len();
            Value::String(if is_digest { format!("{}<digest>", &text[..kind]) } else { text })
        }
        other => other,
    }
}

/// What is wrong with a golden file's content, if anything.
fn differs(name: &str, found: &str) -> Option<String> {
    let path = root().join("tests/golden").join(name);
    if std::env::var_os("PIPE_TEST_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    (expected != found)
        .then(|| format!("--- {name}: expected\n{expected}--- {name}: found\n{found}"))
}
