//! One step of the mirror: the objects first, then the index that lists them, then what no index lists any more goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use object_store::path::Path;

use crate::bucket::{Bucket, Put};
use crate::changes::{Change, Numbered};
use crate::compare::is_ours;
use crate::digest;
use crate::error::{Kind, RemoteError};
use crate::folder::Project;
use crate::index::{Entry, Index, key};
use crate::pin::{FileId, Opened, Pin};
use crate::state::{self, State, is_within};

/// How long other processes of the folder may take to put theirs.
const PATIENCE: Duration = Duration::from_secs(60);
/// An object that was put this long ago and is in no index yet may have been swept away.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// Objects of this age that no index lists were left by a process that was killed.
const LEFTOVER: chrono::TimeDelta = chrono::TimeDelta::days(7);

/// Brings changes into a store.
pub(crate) struct Committer {
    pub bucket: Bucket,
    pub project: Project,
    /// The index that is in the store, as far as this process knows.
    pub base: Index,
    /// Objects that were put and are in no index yet.
    put: HashMap<String, Instant>,
    /// Digests of contents that were read.
    digests: HashMap<(FileId, u64, u64), String>,
}

/// A change of the index.
type Edit = (String, Option<Entry>);

impl Committer {
    pub fn new(bucket: Bucket, project: Project, base: Index) -> Self {
        Self { bucket, project, base, put: HashMap::new(), digests: HashMap::new() }
    }

    /// Brings these changes into the store, all or none. `sent` is told of bytes that are there.
    pub fn bring(&mut self, changes: &[Numbered], sent: &dyn Fn(u64)) -> Result<(), RemoteError> {
        self.put.retain(|_, since| since.elapsed() < FRESH);
        // Contents that are there, by digest, so that another name of a file is not put again.
        let mut known: BTreeMap<String, String> =
            self.base.files.iter().map(|(path, entry)| (entry.sha256.clone(), entry.key(path))).collect();
        let mut edits: Vec<Edit> = Vec::with_capacity(changes.len());
        for (_, path, change) in changes {
            let entry = match change {
                Change::Gone => None,
                Change::Put(pin) => Some(self.object(path, pin, &mut known, sent)?),
            };
            edits.push((path.clone(), entry));
        }
        self.commit(&edits)
    }

    /// Makes sure that a content is there as an object.
    fn object(
        &mut self,
        path: &str,
        pin: &Pin,
        known: &mut BTreeMap<String, String>,
        sent: &dyn Fn(u64),
    ) -> Result<Entry, RemoteError> {
        let reading = |e: std::io::Error| RemoteError::local(format!("failed to read {path}: {e}"));
        let content = pin.open().map_err(reading)?;
        let mark = pin.mark();
        let remembered = mark.as_ref().and_then(|mark| self.digests.get(mark)).cloned();
        let sha256 = match (remembered, &content) {
            (Some(digest), _) => digest,
            (None, Opened::Bytes(bytes)) => digest::of_bytes(bytes),
            (None, Opened::File(file)) => digest::of_file(file, pin.bytes).map_err(reading)?,
        };
        if let (Some(mark), Opened::File(_)) = (mark, &content) {
            self.digests.insert(mark, sha256.clone());
        }
        let own = key(path, &sha256);
        let key = known.entry(sha256.clone()).or_insert_with(|| own.clone()).clone();
        let listed =
            self.base.files.iter().any(|(path, entry)| entry.sha256 == sha256 && entry.key(path) == key);
        if !listed && !self.put.contains_key(&key) {
            match &content {
                Opened::Bytes(bytes) => {
                    self.bucket.put_bytes(&key, bytes)?;
                    sent(pin.bytes);
                }
                Opened::File(file) => self.bucket.put_file(&key, file, pin.bytes, &sha256, sent)?,
            }
            self.put.insert(key.clone(), Instant::now());
        } else {
            sent(pin.bytes);
        }
        Ok(Entry { sha256, bytes: pin.bytes, modified: pin.modified, object: (key != own).then_some(key) })
    }

    /// Puts the next index, and removes what it does not list.
    fn commit(&mut self, edits: &[Edit]) -> Result<(), RemoteError> {
        let root: PathBuf = self.project.root.clone();
        let _lock = state::lock(&root, &self.project.pipeline, PATIENCE)?;
        let state = State::load(&root, &self.project.pipeline, &self.bucket.url);
        self.catch_up(state.as_ref())?;
        let mut files = self.base.files.clone();
        for (path, entry) in edits {
            match entry {
                Some(entry) => drop(files.insert(path.clone(), entry.clone())),
                None => files.retain(|other, _| !is_within(other, path)),
            }
        }
        let mut removed = state.map(|state| state.removed).unwrap_or_default();
        removed.retain(|gone| files.keys().any(|path| is_within(path, gone)));
        if files == self.base.files && self.base.generation > 0 {
            return Ok(());
        }
        let listed = self.base.objects();
        let is_there = |key: &String| listed.contains_key(key) || self.put.contains_key(key);
        let next = self.base.next(files);
        if let Some(key) = next.objects().keys().find(|key| !is_there(key)) {
            // Another process of this folder has given it up since. It is put again the next time.
            return Err(RemoteError::new(Kind::Passing, format!("{key} is not there any more")));
        }
        let old = std::mem::replace(&mut self.base, next);
        let remembered = |index: &Index, instead_of: Option<String>| State {
            instead_of,
            removed: removed.clone(),
            ..State::of(&self.bucket.url, index.clone())
        };
        remembered(&self.base, Some(old.commit.clone())).save(&root)?;
        let older = match self.bucket.create(&self.base) {
            Ok(Put::Done(older)) => older,
            Ok(Put::Taken) => {
                remembered(&old, None).save(&root)?;
                self.base = old;
                return Err(self.continued(self.bucket.newest()?));
            }
            // Whether it is there is found out the next time, from what was noted.
            Err(error) => {
                self.base = old;
                return Err(error);
            }
        };
        remembered(&self.base, None).save(&root)?;
        let now = self.base.objects();
        self.put.retain(|key, _| !now.contains_key(key));
        let given_up = old.objects().into_keys().filter(|key| !now.contains_key(key));
        let indexes = older.into_iter().map(|generation| self.bucket.index_key(generation));
        self.bucket.remove(indexes.chain(given_up));
        Ok(())
    }

    /// Takes in what other processes of this folder have put, and what became of an index whose putting was not answered.
    fn catch_up(&mut self, state: Option<&State>) -> Result<(), RemoteError> {
        let Some(state) = state else { return Ok(()) };
        if state.instead_of.is_some() {
            match self.bucket.newest()? {
                Some(there) if is_ours(state, &there) => self.base = there,
                // It was the first one, and never arrived.
                None if state.index.generation == 1 => {}
                there => return Err(self.continued(there)),
            }
        } else if state.index.line == self.base.line || self.base.generation == 0 {
            if state.index.generation >= self.base.generation {
                self.base = state.index.clone();
            }
        } else {
            return Err(self.continued(Some(state.index.clone())));
        }
        Ok(())
    }

    fn continued(&self, there: Option<Index>) -> RemoteError {
        let url = &self.bucket.url;
        let text = match there {
            Some(there) => format!(
                "store {url}: continued by {}; nothing more of this run goes there, and all that this folder has stays. \
                 Two trainings each need a store of their own",
                there.origin()
            ),
            None => format!("store {url}: it was emptied while this run went on; nothing more goes there"),
        };
        RemoteError::new(Kind::Continued, text)
    }

    /// Removes what processes that were killed have put and never listed.
    pub fn sweep(&self) {
        let Ok(objects) = self.bucket.objects() else { return };
        let Ok(Some(newest)) = self.bucket.newest() else { return };
        let listed: BTreeSet<Path> = newest.objects().keys().map(|key| self.bucket.at(key)).collect();
        let now = chrono::Utc::now();
        let left = objects.into_iter().filter(|(at, put)| now - *put > LEFTOVER && !listed.contains(at));
        self.bucket.remove_at(left.map(|(at, _)| at).collect());
    }
}
