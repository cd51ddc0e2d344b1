//! Every file of a project's state against what was noted of it: runs and their checkpoints,
//! records and what their stages made. Reads all bytes and changes nothing. What a process holds at
//! the moment is left out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use pipe_engine::state::{Record, record_files, record_is_held, record_lock};
use pipe_fs::{ProjectRoot, STATE_FOLDER, checksummed_json, copy, file_id};
use pipe_runs::checkpoint::{Checkpoint, file_digest_like};
use pipe_runs::found::checkpoint_files;
use pipe_runs::{CheckpointPath, CheckpointRecord, Metadata, Run, Runs};
use serde_json::Value;

use crate::nobodys::Known;
use crate::snapshots;

/// Something that is not as it was noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub path: PathBuf,
    pub what: String,
    /// What becomes of it.
    pub advice: &'static str,
    pub owner: Owner,
}

/// Whose a file is: whoever repairs it needs the lock of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    Run(Run),
    /// Whoever has this lock file.
    Lock(PathBuf),
}

/// What came of looking at everything.
#[derive(Debug, Default)]
pub struct Verified {
    /// Files that are as they were noted, further names of one not counted.
    pub good: u64,
    /// Bytes of those.
    pub bytes: u64,
    pub damaged: Vec<Damage>,
    /// Good files outside of a run's checkpoints that are further names of one of them: a program
    /// that changes one in its place changes the run's too. Earlier versions made them so.
    pub shared: Vec<Damage>,
    /// What was left out, and who has it.
    pub left_out: Vec<String>,
    /// Folders among the runs that are none of them.
    pub nobodys: Vec<PathBuf>,
    /// Every file that was looked at, with what is wrong with it.
    seen: HashMap<(u64, u64), Option<String>>,
}

const CHECKPOINT: &str =
    "without it the run goes on from an older one, and the best is the best of what is left";
const GONE: &str = "the run goes on from an older one, and the best is the best of what is left";
const SNAPSHOT: &str = "without it averages are made of the snapshots that are left";
const LINK: &str = "its name is given to the run's checkpoint again";
const METADATA: &str =
    "without it nobody knows what the run is; its checkpoints stay good in its folder";
const PREVIOUS: &str = "its previous version is used";
const SPARE: &str = "the next change of the run's metadata writes it anew";
/// Of a LoRA run.
pub const BASE: &str = "without it `pipe run` copies the base model again, if the stage still has the same; else nothing can be \
     done with the run but to remove it";
const RECORD: &str =
    "the stage counts as never run; `pipe run` looks at what it made, and writes it anew";
const OUTPUT: &str = "without it `pipe run` makes it again";
const UNMADE: &str = "no pipeline has the stage any more, and nothing makes it again";
const STATE: &str = "without it the program looks at the files themselves";
const SHARED: &str = "it becomes a file of its own";

/// Looks at the runs in `folders`, and at the records of the project in `root` and the files that
/// they name. `is_gone`: whether the stage of a record is in its pipeline no more.
pub fn verify(root: &ProjectRoot, folders: &[Runs], is_gone: &dyn Fn(&Record) -> bool) -> Verified {
    let mut all = Verified::default();
    let runs = folders.iter().flat_map(Runs::list);
    let runs = runs.map(|run| (run.clone(), run.metadata().ok())).collect();
    let known = Known { records: Record::all(root), runs };
    for (run, _) in &known.runs {
        match run.holder() {
            None if known.is_nobodys(run) => all.nobodys.push(run.folder.clone()),
            _ => all.run(run),
        }
    }
    let newest = newest_makers(root);
    for path in record_files(root) {
        all.record(root, &path, &newest, is_gone);
    }
    let state = root.join(STATE_FOLDER);
    for path in json_files(&state.join("store")) {
        all.state(&path, path.with_extension("lock"));
    }
    for folder in entries(&state.join("slurm")) {
        json_files(&folder).iter().for_each(|path| all.state(path, folder.join("submit.lock")));
    }
    all
}

/// What is in a folder, in order.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let is_json = |path: &PathBuf| path.extension().is_some_and(|e| e == "json");
    entries(folder).into_iter().filter(is_json).collect()
}

impl Verified {
    fn damage(
        &mut self,
        path: &Path,
        what: impl Into<String>,
        advice: &'static str,
        owner: &Owner,
    ) {
        let (path, owner) = (path.to_owned(), owner.clone());
        self.damaged.push(Damage { path, what: what.into(), advice, owner });
    }

    /// Notes what became of looking at a file, if it was not looked at under another name.
    fn look(&mut self, path: &Path, check: impl FnOnce() -> Option<String>) -> Option<String> {
        let id = file_id(path);
        if let Some(found) = id.and_then(|id| self.seen.get(&id)) {
            return found.clone();
        }
        let wrong = check();
        if wrong.is_none() {
            self.good += 1;
            self.bytes += std::fs::metadata(path).map_or(0, |m| m.len());
        }
        id.map(|id| self.seen.insert(id, wrong.clone()));
        wrong
    }

    fn was_seen(&self, path: &Path) -> bool {
        file_id(path).is_some_and(|id| self.seen.contains_key(&id))
    }

    fn run(&mut self, run: &Run) {
        if let Some(holder) = run.holder() {
            self.left_out.push(format!("{}: {} trains in it", run.folder.display(), holder.0));
            return;
        }
        let owner = Owner::Run(run.clone());
        let metadata = self.metadata(run, &owner);
        for (own, path, digest) in metadata.iter().flat_map(|m| listed(run, m)) {
            if !path.exists() {
                self.damage(&own, "its run lists it, and it is not there", GONE, &owner);
                continue;
            }
            if own != path {
                let other = path.file_name().unwrap_or_default().to_string_lossy();
                self.damage(&own, format!("it stands as {other} only"), LINK, &owner);
            }
            self.checkpoint(&path, Some(&digest), CHECKPOINT, &owner);
        }
        for (_, path) in checkpoint_files(run) {
            if !self.was_seen(&path) {
                self.checkpoint(&path, None, CHECKPOINT, &owner);
            }
        }
        let links = [run.best(), run.last()].into_iter().zip(metadata.iter().flat_map(|m| {
            let last = m.checkpoints.last().map(|c| &c.digest);
            [
                m.best_checkpoint.as_ref().map(|c| &c.digest),
                m.partial_checkpoint.as_ref().map(|p| &p.digest).or(last),
            ]
        }));
        let is_folder = |c: &CheckpointRecord| run.folder.join(&c.path).is_dir();
        let has_folders = metadata.iter().any(|m| m.checkpoints.iter().any(is_folder));
        for (path, noted) in links {
            match noted {
                // A store has no link to a folder, and earlier versions took none out of an archive.
                Some(_) if !path.exists() && has_folders => {}
                Some(_) if !path.exists() => self.damage(&path, "it is not there", LINK, &owner),
                // A further name of a file that was looked at needs no second look.
                _ if !path.exists() || self.was_seen(&path) => {}
                _ => self.checkpoint(&path, None, LINK, &owner),
            }
        }
        self.snapshots(run, metadata.as_ref(), &owner);
        let base = run.folder.join("base_model.ckpt");
        if base.exists() {
            let is_shared = self.was_seen(&base);
            self.checkpoint(&base, None, BASE, &owner);
            self.shared(&base, is_shared, &owner);
        }
    }

    fn snapshots(&mut self, run: &Run, metadata: Option<&Metadata>, owner: &Owner) {
        for path in snapshots::found(run) {
            if let Some(wrong) = self.look(&path, || snapshots::wrong(&path)) {
                self.damage(&path, wrong, SNAPSHOT, owner);
            }
        }
        for path in metadata.iter().flat_map(|metadata| snapshots::missing(run, metadata)) {
            self.damage(&path, "the run made it, and it is not there", SNAPSHOT, owner);
        }
    }

    fn metadata(&mut self, run: &Run, owner: &Owner) -> Option<Metadata> {
        let path = run.metadata_path();
        let previous = pipe_runs::metadata::previous(&path);
        match (run.metadata(), Metadata::read(&path)) {
            (Ok(metadata), Ok(_)) => {
                self.look(&path, || None);
                if previous.exists()
                    && let Some(wrong) = self
                        .look(&previous, || Metadata::read(&previous).err().map(|e| e.to_string()))
                {
                    self.damage(&previous, wrong, SPARE, owner);
                }
                Some(metadata)
            }
            (Ok(metadata), Err(_)) => {
                self.damage(&path, "it is damaged or missing", PREVIOUS, owner);
                Some(metadata)
            }
            (Err(_), _) if !run.is_started() && run.is_empty() => None,
            (Err(error), _) => {
                self.damage(&path, error.to_string(), METADATA, owner);
                None
            }
        }
    }

    fn checkpoint(
        &mut self,
        path: &Path,
        noted: Option<&str>,
        advice: &'static str,
        owner: &Owner,
    ) {
        let same = |found: &str, noted: &str| {
            found == noted || file_digest_like(path, noted).is_ok_and(|digest| digest == noted)
        };
        let wrong =
            self.look(path, || match Checkpoint::open(path).and_then(|f| f.verify().map(|()| f)) {
                Err(error) => Some(error.message),
                Ok(file) if noted.is_some_and(|noted| !same(file.head_digest(), noted)) => {
                    Some("it is a good checkpoint, and not the one that its run noted".to_owned())
                }
                Ok(_) => None,
            });
        if let Some(wrong) = wrong {
            self.damage(path, wrong, advice, owner);
        }
    }

    /// Notes a file that `is_shared` with a run, if anybody can write to it.
    fn shared(&mut self, path: &Path, is_shared: bool, owner: &Owner) {
        if is_shared && copy::is_writable_link(path) && self.damaged.iter().all(|d| d.path != path)
        {
            let what =
                "it is a further name of a run's file: who changes one changes both".to_owned();
            let (path, owner) = (path.to_owned(), owner.clone());
            self.shared.push(Damage { path, what, advice: SHARED, owner });
        }
    }

    /// `newest`: see [`newest_makers`].
    fn record(
        &mut self,
        root: &ProjectRoot,
        path: &Path,
        newest: &HashMap<String, DateTime<Utc>>,
        is_gone: &dyn Fn(&Record) -> bool,
    ) {
        let owner = Owner::Lock(record_lock(path));
        let record = match Record::whole(path) {
            Ok(record) => record,
            Err(why) => return self.damage(path, why, RECORD, &owner),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if record_is_held(root, &record.pipeline, &name) {
            self.left_out
                .push(format!("stage {} of {}: it is running", record.stage, record.pipeline));
            return;
        }
        self.look(path, || None);
        let is_gone = is_gone(&record);
        let advice = if is_gone { UNMADE } else { OUTPUT };
        let made = record.made.iter().flat_map(|made| made.outputs.iter().map(move |o| (o, made)));
        for (output, made) in made {
            // What another stage made since in its place is that one's, and what the stage was at
            // when it was stopped is what the next run looks at.
            let is_anothers =
                newest.get(&output.path).is_some_and(|newest| *newest > made.written_at);
            let is_unfinished =
                record.places.iter().any(|place| Path::new(&output.path).starts_with(place));
            if is_anothers || is_unfinished {
                continue;
            }
            let file = root.join(&output.path);
            let whose = format!("stage {} of {}", record.stage, record.pipeline);
            match file_digest_like(&file, &output.digest) {
                Ok(digest) if digest == output.digest => {
                    let is_shared = self.was_seen(&file);
                    self.look(&file, || None);
                    self.shared(&file, is_shared, &owner);
                }
                Ok(_) => self.damage(&file, format!("it is not what {whose} made"), advice, &owner),
                // Somebody wanted neither of them any more.
                Err(_) if is_gone && !file.exists() => self.left_out.push(format!(
                    "{}: it is not there, and {whose}, which made it, is in no pipeline any more",
                    output.path
                )),
                Err(error) => {
                    self.damage(&file, format!("{whose} made it: {error}"), advice, &owner)
                }
            }
        }
    }

    /// A file of the engine's own notes besides the records.
    fn state(&mut self, path: &Path, lock: PathBuf) {
        let read = || match std::fs::read(path) {
            Ok(bytes) => checksummed_json::from_bytes::<Value>(&bytes).err(),
            Err(error) => Some(error.to_string()),
        };
        if let Some(wrong) = self.look(path, read) {
            self.damage(path, wrong, STATE, &Owner::Lock(lock));
        }
    }
}

/// When each file was made that a record lists, by the last stage that made it: after a stage was
/// renamed, its former record lists what the new one has written since.
fn newest_makers(root: &ProjectRoot) -> HashMap<String, DateTime<Utc>> {
    let mut newest: HashMap<String, DateTime<Utc>> = HashMap::new();
    for made in Record::all(root).iter().filter_map(|record| record.made.as_ref()) {
        for output in &made.outputs {
            let at = newest.entry(output.path.clone()).or_insert(made.written_at);
            *at = made.written_at.max(*at);
        }
    }
    newest
}

/// The checkpoints that a run lists: under which name, as which file they stand, their digest.
fn listed(run: &Run, metadata: &Metadata) -> Vec<(PathBuf, PathBuf, String)> {
    let own = |path: &CheckpointPath| run.folder.join(path);
    let epoch = |c: &CheckpointRecord| (own(&c.path), run.file_of(c), c.digest.clone());
    let epochs = metadata.checkpoints.iter().map(epoch);
    let partial = metadata.partial_checkpoint.iter();
    epochs.chain(partial.map(|p| (own(&p.path), own(&p.path), p.digest.clone()))).collect()
}
