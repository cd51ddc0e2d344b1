//! Files of a project's state as somebody else wrote them: an index of a store, `metadata.json`, a
//! record. Whatever they say, nothing but paths of the state is written, changed or removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipe_engine::pipeline_file::{Scheme, StoreUrl};
use pipe_engine::state::Record;
use pipe_remote::{ConflictResolution, Project};
use pipe_runs::policy::CheckpointPolicy;
use pipe_runs::{Checkpoint, CheckpointManager, Metadata, Runs};
use pipe_upkeep::{clean, verify};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The pipeline, and what its stages keep.
const PIPELINE: &str = "p";
const RUN: &str = "project/runs/run_001";
const OUTPUT: &str = "out/best.ckpt";
/// Files that are a person's. Each must stay as it is.
const MINE: [&str; 9] = [
    "victim.txt",
    "epoch_001.ckpt",
    "project/p.yaml",
    "project/tools/x.py",
    "project/.git/hooks/post-checkout",
    "project/runs/notes.txt",
    "project/runs/run_001/mine.txt",
    "project/out/mine.ckpt",
    "project/.pipe/records/other/s.json",
];

/// `metadata.json` of a run, and a stage's record: as they are, and with each line of the data as a
/// path in them. The run is looked at, verified, cleaned, and opened to go on with it.
pub fn metadata(data: &[u8]) {
    let lines = lines(data);
    let listed = |path: &str| {
        let record = json!({
            "epoch": 1, "global_step": 1, "path": path, "metrics": {"train_loss": 1.0}, "bytes": 4,
            "saved_at": "2026-01-01T00:00:00Z", "digest": "sha256:1", "step_in_epoch": 0,
        });
        let checkpoints = Value::Array(vec![record.clone(); 3]);
        let run = json!({
            "schema_version": 1, "run_number": 1, "experiment_name": "e", "pipeline": PIPELINE, "stage": "s",
            "status": "interrupted", "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
            "version": "0", "device": "cpu", "seed": 1, "epochs": 9, "identity": "i", "manifest": {}, "settings": null,
            "dataset": {"source": "x", "digest": "", "classes": [], "train_images": 1, "validation_images": 0},
            "checkpoints": checkpoints, "best_checkpoint": record, "partial_checkpoint": record,
            "resumed_from": path, "history": [],
        });
        let output = json!({"path": path, "digest": "sha256:1", "bytes": 4});
        let record = json!({
            "schema_version": 2, "pipeline": PIPELINE, "stage": "s", "kind": "copy_best", "status": "completed",
            "action": "run", "reason": "", "started_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
            "runs": path, "made": {
                "identity": "i", "manifest": {}, "written_at": "2026-01-01T00:00:00Z", "outputs": [output], "inputs": [output],
            },
        });
        (run.to_string().into_bytes(), record.to_string().into_bytes())
    };
    let all = std::iter::once((data.to_vec(), data.to_vec()))
        .chain(lines.iter().map(|line| listed(line)));
    for (run, record) in all {
        in_sandbox(|project| {
            write(&project.join("runs/run_001/metadata.json"), &run);
            write(&project.join("runs/run_001/checkpoints/epoch_001.ckpt"), b"torn");
            write(&project.join(".pipe/records/p/s.json"), &record);
            go_on(project);
        });
    }
}

fn go_on(project: &Path) {
    let root = project.into();
    drop(Record::all(&root));
    let runs = Runs::at(root.disk(), project.join("runs"));
    drop(verify::verify(&root, std::slice::from_ref(&runs), &|_| false));
    for run in runs.list() {
        if let Ok(metadata) = run.current_metadata() {
            let _ = run.epochs_on_disk(&metadata);
            metadata
                .checkpoints
                .iter()
                .for_each(|record| drop(Checkpoint::open(&run.file_of(record))));
        }
        let policy = CheckpointPolicy { keep_last_n: Some(1), ..CheckpointPolicy::default() };
        if let Ok(mut keeper) = CheckpointManager::reopen(run, policy) {
            drop(keeper.newest_good());
            let _ = keeper.update(|metadata: &mut Metadata| metadata.epochs += 1);
        }
    }
    for piece in clean::garbage(&[runs]) {
        let _ = clean::remove(root.disk(), &piece);
    }
}

/// An index of a store: as it is, and as one that lists each line of the data as a path, each with
/// an object. It is fetched; then another one lists other contents, and another one nothing.
pub fn index(data: &[u8]) {
    let lines = lines(data);
    in_sandbox(|project| {
        let indexes = store(project).join("p/.pipe/index");
        write(&indexes.join("0000000001.json"), data);
        prepare(project, None);
        std::fs::remove_dir_all(store(project)).unwrap();
        let _ = std::fs::remove_dir_all(project.join(".pipe/store"));
        let mine: &[u8] = b"mine";
        for (generation, content) in [(1, &b"evil"[..]), (2, mine), (3, b"evil"), (4, b"")] {
            let sha256: String =
                Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
            write(&store(project).join("p/object"), content);
            let entry = json!({"sha256": sha256, "bytes": content.len(), "modified": 7, "object": "object"});
            let listed = if content.is_empty() { &[] } else { &lines[..] };
            let files: BTreeMap<&str, &Value> =
                listed.iter().map(|path| (path.as_str(), &entry)).collect();
            let index = json!({
                "schema_version": 1, "pipeline": PIPELINE, "line": "l", "generation": generation,
                "commit": format!("c{generation}"), "written_at": "2026-01-01T00:00:00Z", "written_by": "x",
                "files": files,
            });
            write(&indexes.join(format!("{generation:010}.json")), index.to_string().as_bytes());
            prepare(project, None);
            prepare(project, Some(ConflictResolution::Store));
        }
    });
}

fn prepare(root: &Path, take: Option<ConflictResolution>) {
    let prefix = store(root).display().to_string();
    let url = StoreUrl { scheme: Scheme::File, bucket: String::new(), prefix };
    let project = Project::new(&root.into(), PIPELINE, ["runs".into()], [OUTPUT.into()]);
    drop(pipe_remote::pull(&url, project, take, &|_, _| {}));
}

fn store(project: &Path) -> PathBuf {
    project.with_file_name("store")
}

/// Some of the lines of the data.
fn lines(data: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(data).lines().take(8).map(str::to_owned).collect()
}

/// Works in a project beside files of a person, and looks whether these are what they were.
fn in_sandbox(work: impl FnOnce(&Path)) {
    super::in_folder(|sandbox| {
        for path in MINE {
            write(&sandbox.join(path), b"mine");
        }
        work(&sandbox.join("project"));
        for path in MINE {
            assert_eq!(
                std::fs::read(sandbox.join(path)).ok().as_deref(),
                Some(&b"mine"[..]),
                "{path}"
            );
        }
        look(sandbox, sandbox);
    });
}

/// Every file must be a person's, or one that the state can have.
fn look(sandbox: &Path, folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let relative =
            path.strip_prefix(sandbox).unwrap().to_str().expect("no name but text is ever written");
        if relative == "store" {
            continue;
        }
        if path.is_dir() {
            look(sandbox, &path);
        } else {
            assert!(MINE.contains(&relative) || is_state(relative), "{relative:?} was written");
        }
    }
}

/// Told again here, in other words than those of the program.
fn is_state(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let plain = |name: &str| !name.starts_with('.') && !name.contains(['\\', '\0', '\u{1b}']);
    let [.., name] = parts[..] else { return false };
    match parts[..] {
        ["project", "out", "best.ckpt"] | ["project", ".pipe", "store", _] => true,
        ["project", ".pipe", "records", "p", name] => plain(name) && name.ends_with(".json"),
        ["project", ".pipe", "aside", ..] => plain(name),
        ["project", "runs", run, ..]
            if run.strip_prefix("run_").is_some_and(|n| n.parse::<u32>().is_ok()) =>
        {
            let inside = path.strip_prefix(RUN).is_some() || parts.len() > 3;
            let known =
                [".ckpt", ".png", ".json", ".jsonl", ".yaml", ".safetensors", ".lock", ".previous"];
            let ends = known.iter().any(|end| name.ends_with(end))
                || name.starts_with("events.out.tfevents.");
            inside && parts.len() <= 5 && parts[3..].iter().all(|part| plain(part)) && ends
        }
        _ => false,
    }
}

fn write(path: &Path, data: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, data).unwrap();
}
