//! Folders, a store between them, and what a person does with both.

mod damage;
mod faulty;
mod killed;
mod two;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use faulty::Faulty;
use pipe_fs::{ProjectRoot, atomic};
use serde_json::json;

use crate::backend::Backend;
use crate::bucket::Bucket;
use crate::commit::Committer;
use crate::error::RemoteError;
use crate::pending_changes::{Change, PendingChanges};
use crate::project::Project;
use crate::pull::{ConflictResolution, WorkingCopy, pull_from};
use crate::snapshot::Snapshot;

const PIPELINE: &str = "p";
const RUN: &str = "runs/run_001";
/// A file of so many bytes goes in parts.
const LARGE: usize = 300 << 10;

/// A project's folder with a store.
struct TestProject {
    _folder: tempfile::TempDir,
    root: ProjectRoot,
    store: Arc<Faulty>,
    changes: PendingChanges,
}

/// The files of a folder, but for what it remembers of the store.
type Files = BTreeMap<String, Vec<u8>>;

impl TestProject {
    fn new(store: &Arc<Faulty>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            root: folder.path().into(),
            _folder: folder,
            store: store.clone(),
            changes: PendingChanges::default(),
        }
    }

    fn root(&self) -> &ProjectRoot {
        &self.root
    }

    fn project(&self) -> Project {
        let outputs = ["out/best.ckpt".into(), "z/best.ckpt".into()];
        Project::new(self.root(), PIPELINE, ["runs".into()], outputs)
    }

    fn bucket(&self) -> Bucket {
        let backend = Backend {
            store: self.store.clone(),
            prefix: "base".into(),
            hint: None,
            unsynced: None,
            requests: Default::default(),
        };
        Bucket::with_backend(backend, "memory://store".into(), PIPELINE).unwrap()
    }

    fn pull(&self, resolution: Option<ConflictResolution>) -> Result<WorkingCopy, RemoteError> {
        pull_from(self.bucket(), self.project(), resolution, &|_, _| {})
    }

    /// Starts to mirror, with what is not in the store yet among the changes.
    fn start(&mut self) -> Result<Committer, RemoteError> {
        self.start_resolving(None)
    }

    fn start_resolving(
        &mut self,
        resolution: Option<ConflictResolution>,
    ) -> Result<Committer, RemoteError> {
        let WorkingCopy { bucket, project, base, upload, delete_remote, .. } =
            self.pull(resolution)?;
        self.changes = PendingChanges::default();
        delete_remote.into_iter().for_each(|path| self.changes.record(path, Change::Delete));
        upload.iter().for_each(|path| self.record(path));
        Ok(Committer::new(bucket, project, base))
    }

    fn record(&mut self, path: &str) {
        self.changes.record(
            path.to_owned(),
            Change::Upload(Snapshot::of(&self.root().join(path)).unwrap()),
        );
    }

    fn write(&mut self, path: &str, content: &[u8]) {
        let target = self.root().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        atomic::write(self.root().disk(), &target, |out| out.write_all(content)).unwrap();
        self.record(path);
    }

    fn link(&mut self, existing: &str, path: &str) {
        let target = self.root().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        atomic::link(self.root().disk(), &self.root().join(existing), &target).unwrap();
        self.record(path);
    }

    fn remove(&mut self, path: &str) {
        std::fs::remove_file(self.root().join(path)).unwrap();
        self.changes.record(path.to_owned(), Change::Delete);
    }

    /// Brings all changes over; those of a step that fails stay.
    fn push(&mut self, committer: &mut Committer) -> Result<(), RemoteError> {
        let all = self.changes.take();
        let brought = committer.push(&all, &|_| {});
        if brought.is_err() {
            self.changes.restore(all);
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
        if path.is_dir() {
            collect(root, &path, files)
        } else {
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(relative, std::fs::read(&path).unwrap());
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
