//! Every file of a project's state against what was noted of it: runs and their checkpoints, records and what their stages
//! made. Reads all bytes and changes nothing. What a process holds at the moment is left out.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::checkpoint::{Checkpoint, file_digest_like};
use super::found::{checkpoint_files, file_id};
use super::record::{self, Record, record_is_held};
use super::{Metadata, Run, Runs};

/// Something that is not as it was noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub path: PathBuf,
    pub what: String,
    /// What a person can do about it.
    pub advice: &'static str,
}

/// What came of looking at everything.
#[derive(Debug, Default)]
pub struct Verified {
    /// Files that are as they were noted, further names of one not counted.
    pub good: u64,
    /// Bytes of those.
    pub bytes: u64,
    pub damaged: Vec<Damage>,
    /// What was left out, and who has it.
    pub left_out: Vec<String>,
    seen: HashSet<(u64, u64)>,
}

const CHECKPOINT: &str =
    "remove it, and the run goes on from an older one; or begin a new run with `--force`";
const GONE: &str = "the run goes on from an older one; or begin a new run with `--force`";
const METADATA: &str = "bring the file back; a run without it is left alone";
const PREVIOUS: &str = "its previous version is used; the next training in the run writes it anew";
const BASE: &str = "copy the base model there again: the LoRA checkpoints of the run need it";
const RECORD: &str = "the stage counts as never run; `pipe run` looks at what it made, and writes it anew";
const OUTPUT: &str = "`pipe run` makes it again";

/// Looks at the runs in `folders`, and at the records of the project in `root` and the files that they name.
pub fn verify(root: &Path, folders: &[Runs]) -> Verified {
    let mut all = Verified::default();
    folders.iter().flat_map(Runs::list).for_each(|run| all.run(&run));
    for path in record::files(root) {
        all.record(root, &path);
    }
    all
}

impl Verified {
    fn damage(&mut self, path: &Path, what: impl Into<String>, advice: &'static str) {
        self.damaged.push(Damage { path: path.to_owned(), what: what.into(), advice });
    }

    /// Whether the file was not looked at under another name.
    fn is_new(&mut self, path: &Path) -> bool {
        file_id(path).is_none_or(|id| self.seen.insert(id))
    }

    fn note_good(&mut self, path: &Path) {
        self.good += 1;
        self.bytes += std::fs::metadata(path).map_or(0, |m| m.len());
    }

    fn run(&mut self, run: &Run) {
        if let Some(holder) = run.holder() {
            self.left_out.push(format!("{}: {} trains in it", run.folder.display(), holder.0));
            return;
        }
        let path = run.metadata_path();
        let metadata = match (run.metadata(), Metadata::read(&path)) {
            (Ok(metadata), Ok(_)) => {
                self.note_good(&path);
                Some(metadata)
            }
            (Ok(metadata), Err(_)) => {
                self.damage(&path, "it is damaged or missing", PREVIOUS);
                Some(metadata)
            }
            (Err(_), _) if !run.is_begun() && run.is_empty() => None,
            (Err(error), _) => {
                self.damage(&path, error.to_string(), METADATA);
                None
            }
        };
        let listed = metadata.iter().flat_map(|m| {
            let epochs = m.checkpoints.iter().map(|c| (run.file_of(c), &c.digest));
            let partial = m.partial_checkpoint.iter().map(|p| (run.folder.join(&p.path), &p.digest));
            epochs.chain(partial)
        });
        for (path, digest) in listed {
            if path.is_file() {
                self.checkpoint(&path, Some(digest), CHECKPOINT);
            } else {
                self.damage(&path, "its run lists it, and it is not there", GONE);
            }
        }
        let others = checkpoint_files(run).into_iter().map(|(_, path)| path);
        for path in others.chain([run.best(), run.last()]).filter(|path| path.exists()) {
            self.checkpoint(&path, None, CHECKPOINT);
        }
        let base = run.folder.join("base_model.ckpt");
        if base.exists() {
            self.checkpoint(&base, None, BASE);
        }
    }

    fn checkpoint(&mut self, path: &Path, noted: Option<&str>, advice: &'static str) {
        if !self.is_new(path) {
            return;
        }
        let file = Checkpoint::open(path).and_then(|file| file.verify().map(|()| file));
        let same = |found: &str, noted: &str| {
            found == noted || file_digest_like(path, noted).is_ok_and(|digest| digest == noted)
        };
        match (file, noted) {
            (Err(error), _) => self.damage(path, error.message, advice),
            (Ok(file), Some(noted)) if !same(file.head_digest(), noted) => {
                self.damage(path, "it is a good checkpoint, and not the one that its run noted", advice);
            }
            _ => self.note_good(path),
        }
    }

    fn record(&mut self, root: &Path, path: &Path) {
        let record = match Record::whole(path) {
            Ok(record) => record,
            Err(why) => return self.damage(path, why, RECORD),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if record_is_held(root, &record.pipeline, &name) {
            self.left_out.push(format!("stage {} of {}: it is running", record.stage, record.pipeline));
            return;
        }
        self.note_good(path);
        for output in record.made.iter().flat_map(|made| &made.outputs) {
            let file = root.join(&output.path);
            let whose = format!("stage {} of {}", record.stage, record.pipeline);
            match file_digest_like(&file, &output.digest) {
                Ok(digest) if digest == output.digest => {
                    if self.is_new(&file) {
                        self.note_good(&file);
                    }
                }
                Ok(_) => self.damage(&file, format!("it is not what {whose} made"), OUTPUT),
                Err(error) => self.damage(&file, format!("{whose} made it: {error}"), OUTPUT),
            }
        }
    }
}
