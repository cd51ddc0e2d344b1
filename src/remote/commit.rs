//! One push of the mirror: first the objects, then the index that lists them. Then objects that no
//! index lists any more are removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use object_store::path::Path;

use crate::bucket::{Bucket, IndexPut};
use crate::digest;
use crate::error::{RemoteError, RemoteErrorKind};
use crate::index::{Entry, Index, nonce};
use crate::pending_changes::{Change, NumberedChange};
use crate::project::Project;
use crate::snapshot::{FileId, OpenSnapshot, Snapshot};
use crate::sync_plan::is_unchanged_since;
use crate::sync_state::{self, SyncState, is_within};

/// How long another process of the folder may take for its commit.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an uploaded object may wait for its index. After that it may have been removed as an
/// orphan.
const REUSE_WINDOW: Duration = Duration::from_secs(24 * 3600);
/// Objects of this age that no index lists are orphans of a process that was killed.
const ORPHAN_AGE: chrono::TimeDelta = chrono::TimeDelta::days(7);

/// Commits changes of a folder to its store.
pub(crate) struct Committer {
    pub bucket: Bucket,
    pub project: Project,
    /// The index that is in the store, as far as this process knows.
    pub base: Index,
    /// Contents that were uploaded and are in no index yet, by digest: when, and as which file.
    uploaded: HashMap<String, (Instant, String, Entry)>,
    /// Bytes of objects that were uploaded.
    pub sent: u64,
    /// Digests of contents that were read.
    digests: HashMap<(FileId, u64, u64), String>,
}

/// A change of the index.
type IndexEdit = (String, Option<Entry>);

/// Contents that the store has, by digest, each with its file.
type KnownContents = BTreeMap<String, (String, Entry)>;

impl Committer {
    pub fn new(bucket: Bucket, project: Project, base: Index) -> Self {
        Self { bucket, project, base, uploaded: HashMap::new(), sent: 0, digests: HashMap::new() }
    }

    /// Brings these changes into the store, all or none. `sent` is called with bytes as they
    /// arrive.
    pub fn push(
        &mut self,
        changes: &[NumberedChange],
        sent: &dyn Fn(u64),
    ) -> Result<(), RemoteError> {
        self.bucket.resolve_prefix()?;
        self.uploaded.retain(|_, (since, ..)| since.elapsed() < REUSE_WINDOW);
        // So that another name of a file is not put again.
        let listed = self.base.files.iter();
        let put = self.uploaded.values().map(|(_, path, entry)| (path, entry));
        let mut known: KnownContents = listed
            .chain(put)
            .map(|(path, entry)| (entry.sha256.clone(), (path.clone(), entry.clone())))
            .collect();
        let mut edits: Vec<IndexEdit> = Vec::with_capacity(changes.len());
        for (_, path, change) in changes {
            let entry = match change {
                Change::Delete => None,
                Change::Upload(snapshot) => {
                    Some(self.ensure_object(path, snapshot, &mut known, sent)?)
                }
            };
            edits.push((path.clone(), entry));
        }
        self.commit(&edits)
    }

    /// Makes sure that the store has an object with this content, and gives the file's entry.
    fn ensure_object(
        &mut self,
        path: &str,
        snapshot: &Snapshot,
        known: &mut KnownContents,
        sent: &dyn Fn(u64),
    ) -> Result<Entry, RemoteError> {
        let reading = |e: std::io::Error| RemoteError::local(format!("failed to read {path}: {e}"));
        let content = snapshot.open().map_err(reading)?;
        let file = snapshot.file_key();
        let remembered = file.as_ref().and_then(|file| self.digests.get(file)).cloned();
        let sha256 = match (remembered, &content) {
            (Some(digest), _) => digest,
            (None, OpenSnapshot::Bytes(bytes)) => digest::of_bytes(bytes),
            (None, OpenSnapshot::File(file)) => {
                digest::of_file(file, snapshot.bytes).map_err(reading)?
            }
        };
        if let (Some(file), OpenSnapshot::File(_)) = (file, &content) {
            self.digests.insert(file, sha256.clone());
        }
        let Entry { nonce, object, .. } = match known.get(&sha256) {
            Some((owner, entry)) => {
                sent(snapshot.bytes);
                // The same content under the same name keeps its object. Under another name it
                // refers to that object.
                let object = entry.key(owner);
                if owner == path {
                    entry.clone()
                } else {
                    Entry { nonce: String::new(), object: Some(object), ..entry.clone() }
                }
            }
            None => {
                let entry = Entry {
                    sha256: sha256.clone(),
                    bytes: snapshot.bytes,
                    modified: 0,
                    nonce: nonce(),
                    object: None,
                };
                let key = entry.key(path);
                match &content {
                    OpenSnapshot::Bytes(bytes) => {
                        self.bucket.put_bytes(&key, bytes.to_vec())?;
                        sent(snapshot.bytes);
                    }
                    OpenSnapshot::File(file) => {
                        self.bucket.put_file(&key, file, snapshot.bytes, &sha256, sent)?
                    }
                }
                self.sent += snapshot.bytes;
                self.uploaded
                    .insert(sha256.clone(), (Instant::now(), path.to_owned(), entry.clone()));
                known.insert(sha256.clone(), (path.to_owned(), entry.clone()));
                entry
            }
        };
        Ok(Entry { sha256, bytes: snapshot.bytes, modified: snapshot.modified, nonce, object })
    }

    /// Puts the next index, and removes what it does not list.
    fn commit(&mut self, edits: &[IndexEdit]) -> Result<(), RemoteError> {
        let root = self.project.root.clone();
        let _lock = sync_state::lock(&root, &self.project.pipeline, LOCK_TIMEOUT)?;
        let state = SyncState::load(&root, &self.project.pipeline, &self.bucket.url);
        self.refresh_base(state.as_ref())?;
        let mut files = self.base.files.clone();
        for (path, entry) in edits {
            match entry {
                Some(entry) => drop(files.insert(path.clone(), entry.clone())),
                None => files.retain(|other, _| !is_within(other, path)),
            }
        }
        let (mut removed, mut repaired) =
            state.map(|state| (state.removed, state.repaired)).unwrap_or_default();
        // What stands in its place now was meant.
        let is_edited = |path: &String| edits.iter().any(|(edited, _)| is_within(path, edited));
        repaired.retain(|path, _| files.contains_key(path) && !is_edited(path));
        removed.retain(|gone| files.keys().any(|path| is_within(path, gone)));
        if files == self.base.files && self.base.generation > 0 {
            return Ok(());
        }
        let listed = self.base.objects();
        let put: BTreeSet<String> =
            self.uploaded.values().map(|(_, path, entry)| entry.key(path)).collect();
        let is_there = |key: &String| listed.contains_key(key) || put.contains(key);
        let next = self.base.next(files);
        if let Some(key) = next.objects().keys().find(|key| !is_there(key)) {
            // Another process of this folder has given it up since. It is put again the next time.
            return Err(RemoteError::new(
                RemoteErrorKind::Transient,
                format!("{key} is not there any more"),
            ));
        }
        let remembered = |index: &Index, instead_of: Option<String>| SyncState {
            instead_of,
            removed: removed.clone(),
            repaired: repaired.clone(),
            ..SyncState::new(&self.bucket.url, index.clone())
        };
        remembered(&next, Some(self.base.commit.clone())).save(&root)?;
        // If no answer comes, the next commit finds out from this record whether the index is
        // there.
        let older = match self.bucket.create(&next)? {
            IndexPut::Stored(older) => older,
            IndexPut::Conflict => {
                remembered(&self.base, None).save(&root)?;
                return Err(self.taken_over(self.bucket.newest()?));
            }
        };
        remembered(&next, None).save(&root)?;
        let now = next.objects();
        self.uploaded.retain(|_, (_, path, entry)| !now.contains_key(&entry.key(path)));
        let old = std::mem::replace(&mut self.base, next);
        let given_up = old.objects().into_keys().filter(|key| !now.contains_key(key));
        let indexes = older.into_iter().map(|generation| self.bucket.index_key(generation));
        self.bucket.remove(indexes.chain(given_up));
        Ok(())
    }

    /// Takes over what other processes of this folder have committed, and finds out what became of
    /// an index whose upload was not answered.
    fn refresh_base(&mut self, state: Option<&SyncState>) -> Result<(), RemoteError> {
        let Some(state) = state else { return Ok(()) };
        if state.instead_of.is_some() {
            match self.bucket.newest()? {
                Some(there) if is_unchanged_since(state, &there) => self.base = there,
                // It was the first one, and never arrived.
                None if state.index.generation == 1 => {}
                there => return Err(self.taken_over(there)),
            }
        } else if state.index.lineage == self.base.lineage || self.base.generation == 0 {
            if state.index.generation >= self.base.generation {
                self.base = state.index.clone();
            }
        } else {
            return Err(self.taken_over(Some(state.index.clone())));
        }
        Ok(())
    }

    fn taken_over(&self, there: Option<Index>) -> RemoteError {
        let url = &self.bucket.url;
        let text = match there {
            Some(there) => format!(
                "store {url}: continued by {}; nothing more of this run goes there, and all that this folder has stays. \
                 Two trainings each need a store of their own",
                there.origin()
            ),
            None => format!(
                "store {url}: it was emptied while this run went on; nothing more goes there"
            ),
        };
        RemoteError::new(RemoteErrorKind::TakenOver, text)
    }

    /// Removes objects that killed processes uploaded and no index lists.
    pub fn remove_orphans(&self) {
        let Ok(objects) = self.bucket.objects() else { return };
        let Ok(Some(newest)) = self.bucket.newest() else { return };
        let listed: BTreeSet<Path> =
            newest.objects().keys().map(|key| self.bucket.at(key)).collect();
        let now = chrono::Utc::now();
        let left =
            objects.into_iter().filter(|(at, put)| now - *put > ORPHAN_AGE && !listed.contains(at));
        self.bucket.remove_at(left.map(|(at, _)| at).collect());
    }
}
