//! Folders, a store between them, and what a person does with both.

mod damage;
mod faulty;
mod killed;
mod two;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pipe_engine::store::atomic;
use serde_json::json;

use crate::bucket::Bucket;
use crate::changes::{Change, Changes};
use crate::commit::Committer;
use crate::error::RemoteError;
use crate::folder::Project;
use crate::open::Opened;
use crate::pin::Pin;
use crate::start::{Prepared, Take, prepare_with};
use faulty::Faulty;

const PIPELINE: &str = "p";
const RUN: &str = "runs/run_001";
/// A file of so many bytes goes in parts.
const LARGE: usize = 300 << 10;

/// A project's folder with a store.
struct Place {
    folder: tempfile::TempDir,
    store: Arc<Faulty>,
    changes: Changes,
}

/// The files of a folder, but for what it remembers of the store.
type Files = BTreeMap<String, Vec<u8>>;

impl Place {
    fn new(store: &Arc<Faulty>) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            store: store.clone(),
            changes: Changes::default(),
        }
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn project(&self) -> Project {
        let outputs = ["out/best.ckpt".into(), "z/best.ckpt".into()];
        Project::new(self.root(), PIPELINE, ["runs".into()], outputs)
    }

    fn bucket(&self) -> Bucket {
        let opened =
            Opened { store: self.store.clone(), prefix: "base".into(), hint: None, unsynced: None };
        Bucket::over(opened, "memory://store".into(), PIPELINE).unwrap()
    }

    fn prepare(&self, take: Option<Take>) -> Result<Prepared, RemoteError> {
        prepare_with(self.bucket(), self.project(), take, &|_, _| {})
    }

    /// Starts to mirror, with what is not in the store yet among the changes.
    fn start(&mut self) -> Result<Committer, RemoteError> {
        self.start_taking(None)
    }

    fn start_taking(&mut self, take: Option<Take>) -> Result<Committer, RemoteError> {
        let Prepared { bucket, project, base, put, gone, .. } = self.prepare(take)?;
        self.changes = Changes::default();
        gone.into_iter().for_each(|path| self.changes.note(path, Change::Gone));
        put.iter().for_each(|path| self.note(path));
        Ok(Committer::new(bucket, project, base))
    }

    fn note(&mut self, path: &str) {
        self.changes.note(path.to_owned(), Change::Put(Pin::of(&self.root().join(path)).unwrap()));
    }

    fn write(&mut self, path: &str, content: &[u8]) {
        let target = self.root().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        atomic::write(&target, |out| out.write_all(content)).unwrap();
        self.note(path);
    }

    fn link(&mut self, existing: &str, path: &str) {
        let target = self.root().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        atomic::link(&self.root().join(existing), &target).unwrap();
        self.note(path);
    }

    fn remove(&mut self, path: &str) {
        std::fs::remove_file(self.root().join(path)).unwrap();
        self.changes.note(path.to_owned(), Change::Gone);
    }

    /// Brings all changes over; those of a step that fails stay.
    fn bring(&mut self, committer: &mut Committer) -> Result<(), RemoteError> {
        let all = self.changes.take();
        let brought = committer.bring(&all, &|_| {});
        if brought.is_err() {
            self.changes.put_back(all);
        }
        brought
    }

    fn files(&self) -> Files {
        let mut files = Files::new();
        collect(self.root(), self.root(), &mut files);
        files
            .retain(|path, _| !path.starts_with(".pipe/store") && !path.starts_with(".pipe/aside"));
        files
    }

    /// An epoch of a training: a checkpoint, its other names, the metadata, and what is given up.
    fn epoch(&mut self, epoch: usize, size: usize) {
        let checkpoint = format!("{RUN}/checkpoints/epoch_{epoch:03}.ckpt");
        self.write(&checkpoint, &content(epoch, size));
        self.link(&checkpoint, &format!("{RUN}/checkpoints/last.ckpt"));
        self.write(&format!("{RUN}/metadata.json"), metadata(epoch).as_bytes());
        if epoch > 1 {
            self.remove(&format!("{RUN}/checkpoints/epoch_{:03}.ckpt", epoch - 1));
        }
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Files) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => collect(root, &path, files),
            false => {
                let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(relative, std::fs::read(&path).unwrap());
            }
        }
    }
}

/// Bytes that differ from epoch to epoch.
fn content(epoch: usize, size: usize) -> Vec<u8> {
    (0..size).map(|i| (i.wrapping_mul(31) ^ (i >> 13) ^ epoch) as u8).collect()
}

/// As much metadata as makes a folder a run of the pipeline.
fn metadata(epoch: usize) -> String {
    let dataset = json!({"source": "x", "digest": "", "classes": [], "train_images": 1, "validation_images": 0});
    json!({
        "schema_version": 1, "run_number": 1, "experiment_name": "e", "pipeline": PIPELINE, "stage": "base",
        "status": "running", "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "version": "0",
        "device": "cpu", "seed": 1, "epochs": epoch, "identity": "i", "manifest": {}, "settings": null,
        "dataset": dataset, "checkpoints": [], "best_checkpoint": null, "history": [],
    })
    .to_string()
}
