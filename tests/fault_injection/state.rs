//! The workload, and what it leaves behind, without what differs from run to run (times, process
//! ids).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pipe_runs::Checkpoint;
use serde_json::Value;

use crate::project::Project;
use crate::results::ensure;

/// Every kind of stage that writes, with saves inside epochs, removals, links and pictures.
pub const CHAIN: &str = "\
name: chain
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 16 }
  base:
    kind: train
    dataset: data
    epochs: 3
    batch_size: 4
    model: { dim: 16, mults: [1], depths: [1], heads: 2, window: 4 }
    device: cpu
    log_every_n_steps: 1
    sample_every_n_epochs: 3
    checkpoint: { save_every_n_steps: 2, keep_last_n: 1 }
  best: { kind: copy_best, from: base, to: best.ckpt }
  lora: { kind: lora, base: best, dataset: data, epochs: 2, batch_size: 4, device: cpu, lora: { r: 2 } }
  note: { kind: command, run: 'ls best.ckpt > note.txt', inputs: [best.ckpt], outputs: [note.txt] }
  quality:
    kind: evaluate
    from: best
    dataset: data
    to: quality
    metrics: [nearest]
    seeds: 0-2
    steps: 1
    batch_size: 2
    device: cpu
";

/// Optimizer steps of an epoch of the base.
const STEPS: u64 = 4;

pub const RUN: [&str; 2] = ["run", "p.yaml"];

/// A store in the project's folder has this name.
pub const STORE: &str = "nas";

/// A project with the workload.
pub fn chain() -> Project {
    chain_with(Project::new())
}

/// The workload in this project.
pub fn chain_with(project: Project) -> Project {
    project.write("p.yaml", CHAIN);
    project
}

/// Runs the workload with a fault; what it reports comes as JSON lines on stderr.
pub fn run_with(project: &Project, fault: &str) -> Output {
    faulty(project, fault).output().unwrap()
}

/// A command that runs the workload with a fault.
pub fn faulty(project: &Project, fault: &str) -> Command {
    let mut command = project.command(&["run", "p.yaml", "--log", "json"]);
    command.env("BURN_PIPE_FAULT", fault).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How many changes of the disk the workload makes.
pub fn changes() -> usize {
    changes_of(&chain())
}

/// The same, in this project.
pub fn changes_of(project: &Project) -> usize {
    let log = project.path("changes.log");
    let mut command = project.command(&RUN);
    command.env("BURN_PIPE_FAULT_LOG", &log).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success(), "the workload fails without a fault");
    std::fs::read_to_string(log).unwrap().lines().count()
}

/// Path to content, for every file that counts.
pub type State = BTreeMap<String, String>;

/// The state that an undisturbed run leaves.
pub fn undisturbed() -> State {
    let project = chain();
    project.pipe(&RUN).succeeds();
    let state = state(&project).unwrap();
    assert!(state.len() > 15, "{:?}", state.keys());
    state
}

/// Reads what stands in the project's folder. A temporary file is an error.
pub fn state(project: &Project) -> Result<State, String> {
    let root = project.path("");
    let mut state = State::new();
    for path in files(&root) {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        // A store that stands here has another order, and what is in the cache is worked out again.
        let is_cache =
            name.starts_with(".pipe/cache/") && !name.starts_with(".pipe/cache/unpacked/");
        if is_cache || name.starts_with(STORE) {
            continue;
        }
        ensure(!name.contains(".tmp-"), || format!("{name} was left"))?;
        let volatile = [".lock", "events.jsonl", ".previous"].iter().any(|end| name.ends_with(end));
        // What a folder remembers of its store is its own.
        if !volatile && !name.contains("tfevents") && !name.starts_with(".pipe/store/") {
            let content = content(&path).map_err(|e| format!("{name}: {e}"))?;
            state.insert(name, content);
        }
    }
    Ok(state)
}

/// All files under a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()))
        } else {
            found.push(entry.path())
        }
    }
    found.sort();
    found
}

/// What counts of a file's content; an error if it cannot be read as what it is.
pub fn content(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let json = || serde_json::from_slice::<Value>(&bytes).map_err(|e| e.to_string());
    let name = path.file_name().unwrap().to_string_lossy();
    if name.ends_with(".ckpt") {
        Checkpoint::open(path).and_then(|c| c.verify()).map_err(|e| e.to_string())?;
    }
    let of_program = Checkpoint::open(path).is_ok_and(|c| c.is_of_program());
    if (name.ends_with(".ckpt") && !of_program) || name.ends_with(".safetensors") {
        return tensors(&bytes);
    }
    if name.ends_with(".ckpt.json") {
        let header = json()?;
        let fixed = ["epoch", "global_step", "metrics"].map(|key| header["header"][key].clone());
        return Ok(format!("{fixed:?} {}", header["files"]));
    }
    if path.to_string_lossy().contains("/pictures/") {
        // Its text names the checkpoint's digest, which has the checkpoint's time in it.
        return Ok(digest(&pixels(&bytes)?));
    }
    if path.to_string_lossy().contains("/each_checkpoint/") {
        let results = json()?;
        let all = results["checkpoints"].as_array().cloned().unwrap_or_default();
        let fixed = all.iter().map(|c| format!("{} {}", c["epoch"], c["metrics"]));
        return Ok(fixed.collect::<Vec<_>>().join("\n"));
    }
    if path.to_string_lossy().contains("/records/") {
        let record = json()?;
        return Ok(format!("{} {} {}", record["kind"], record["status"], record["progress"]));
    }
    Ok(match &*name {
        "metadata.json" => {
            let metadata = json()?;
            let each = |key: &str, of: &[&str]| -> Vec<Value> {
                let list = metadata[key].as_array().cloned().unwrap_or_default();
                list.iter().map(|e| of.iter().map(|k| e[k].clone()).collect()).collect()
            };
            let history = each("history", &["epoch", "global_step", "metrics", "learning_rate"]);
            let checkpoints = each("checkpoints", &["epoch", "global_step", "path", "metrics"]);
            let best = &metadata["best_checkpoint"]["epoch"];
            format!(
                "{} {best} {history:?} {checkpoints:?} {}",
                metadata["status"], metadata["partial_checkpoint"]
            )
        }
        "metrics.jsonl" => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines = text.lines().map(|line| {
                let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
                let keys = ["step", "epoch", "train_loss_step", "train_loss", "learning_rate"];
                Ok(keys.iter().map(|k| value[k].to_string()).collect::<Vec<_>>().join(" "))
            });
            lines.collect::<Result<Vec<_>, String>>()?.join("\n")
        }
        _ => digest(&bytes),
    })
}

/// The tensors and the header, without when it was saved and digests over that.
fn tensors(bytes: &[u8]) -> Result<String, String> {
    let (_, header) = safetensors::SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let tensors = safetensors::SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let mut tensors: Vec<String> = tensors
        .tensors()
        .iter()
        .map(|(name, view)| format!("{name} {}", digest(view.data())))
        .collect();
    tensors.sort();
    let about: BTreeMap<_, _> = header.metadata().clone().unwrap_or_default().into_iter().collect();
    // What is made from a base's file names that file's digest, which has the base's time in it.
    let fixed = |key: &str| {
        !key.contains("saved_at") && !key.contains("digest") && !key.contains("identity")
    };
    let about: Vec<_> = about.into_iter().filter(|(key, _)| fixed(key)).collect();
    Ok(format!("{about:?} {tensors:?}"))
}

/// The pixels of a PNG, as they are packed: the content of its IDAT chunks.
fn pixels(png: &[u8]) -> Result<Vec<u8>, String> {
    let (mut at, mut found) = (8, Vec::new());
    while at + 12 <= png.len() {
        let length = u32::from_be_bytes(png[at..at + 4].try_into().unwrap()) as usize;
        let data = png.get(at + 8..at + 8 + length).ok_or("half of a picture")?;
        if &png[at + 4..at + 8] == b"IDAT" {
            found.extend_from_slice(data);
        }
        at += 12 + length;
    }
    let ends = png.ends_with(b"IEND\xae\x42\x60\x82") && !found.is_empty();
    ends.then_some(found).ok_or_else(|| "half of a picture".to_owned())
}

fn digest(bytes: &[u8]) -> String {
    // FNV-1a (Fowler, Noll, Vo): tells contents apart, and is all that is needed here.
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{} bytes, {hash:016x}", bytes.len())
}

/// Fails unless the project stands as the undisturbed one does.
pub fn same(project: &Project, expected: &State) -> Result<(), String> {
    let found = state(project)?;
    for (name, content) in expected {
        match found.get(name) {
            None => return Err(format!("{name} is missing")),
            Some(other) if other != content => {
                let line =
                    |text: &str, number| text.lines().nth(number).unwrap_or("its end").to_owned();
                let differs = |number: &usize| line(other, *number) != line(content, *number);
                let first = (0..).find(differs).unwrap_or(0);
                let (found, expected) = (line(other, first), line(content, first));
                return Err(format!("{name} differs:\n  {found}\n  expected {expected}"));
            }
            Some(_) => {}
        }
    }
    match found.keys().find(|name| !expected.contains_key(*name)) {
        Some(name) => Err(format!("{name} should not be there")),
        None => Ok(()),
    }
}

/// Runs the workload to its end without a fault, and compares.
pub fn goes_on(project: &Project, expected: &State) -> Result<(), String> {
    goes_on_with(project, &RUN, expected)
}

/// The same with this command.
pub fn goes_on_with(project: &Project, arguments: &[&str], expected: &State) -> Result<(), String> {
    let output = project.command(arguments).output().unwrap();
    ensure(output.status.success(), || {
        format!("the next run: {}: {}", output.status, text(&output.stderr))
    })?;
    same(project, expected)?;
    let output = project.command(arguments).output().unwrap();
    ensure(text(&output.stdout).contains("everything is up to date"), || {
        format!("the run after that: {}{}", text(&output.stdout), text(&output.stderr))
    })
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What was reported as saved stands, or something newer does.
pub fn nothing_reported_is_missing(project: &Project, reported: &[u8]) -> Result<(), String> {
    let mut directories: BTreeMap<String, String> = BTreeMap::new();
    let mut newest: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for line in text(reported).lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let of = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        match event["event"].as_str() {
            Some("run_opened") => drop(directories.insert(of("stage"), of("directory"))),
            Some("saved") => {
                let step = step_of(&of("file")).ok_or_else(|| format!("what is {line}?"))?;
                newest.insert(directories[&of("stage")].clone(), (step, of("file")));
            }
            _ => {}
        }
    }
    for (directory, (step, file)) in newest {
        let folder = project.path(&directory).join("checkpoints");
        let good = |path: &PathBuf| Checkpoint::open(path).and_then(|c| c.verify()).is_ok();
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let found = entries.map(|entry| entry.path()).filter(good);
        let best = found.filter_map(|path| step_of(&path.file_name()?.to_string_lossy())).max();
        ensure(best >= Some(step), || {
            format!("{file} was reported as saved, and the newest is {best:?}")
        })?;
    }
    Ok(())
}

/// Optimizer steps of a checkpoint file.
fn step_of(file: &str) -> Option<u64> {
    let number =
        |prefix: &str| file.strip_prefix(prefix)?.strip_suffix(".ckpt")?.parse::<u64>().ok();
    number("epoch_").map(|epoch| epoch * STEPS).or_else(|| number("step_"))
}
