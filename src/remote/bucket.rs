//! Requests to a store, one after the other: the newest index, a new one, objects by key.
//! The thread that calls waits; tokio runs only meanwhile.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use pipe_core::names;
use pipe_engine::pipeline_file::StoreUrl;
use pipe_fs::{Disk, sync};
use tokio::runtime::{Builder, Runtime};

use crate::backend::{Backend, open};
use crate::error::{RemoteError, RemoteErrorKind};
use crate::http::RequestCount;
use crate::index::Index;

/// Where the indexes are, beside the objects.
const INDEXES: &str = ".pipe/index";

/// Objects of a list that are read. Of the indexes there are a few at a time.
const MAX_LISTED_INDEXES: usize = 20_000;
const MAX_LISTED_OBJECTS: usize = 1_000_000;
/// A list of empty pages need not have an end, either.
const LIST_TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of an index. One of a hundred thousand files takes 25 MB.
const MAX_INDEX_BYTES: usize = 32 << 20;

/// The part of a store that one pipeline has for itself.
pub(crate) struct Bucket {
    runtime: Runtime,
    pub(crate) store: Arc<dyn ObjectStore>,
    own_prefix: Path,
    /// Where earlier versions had the pipeline, if that is elsewhere. Names in other scripts could
    /// share it.
    legacy_prefix: Option<Path>,
    /// Which of both the pipeline has, once the store was asked.
    resolved: OnceLock<Path>,
    pipeline: String,
    /// As the user wrote it, for messages.
    pub(crate) url: String,
    hint: Option<String>,
    /// The folder of a store that leaves it to us to sync files, and how that is done.
    unsynced: Option<(Disk, PathBuf)>,
    pub(crate) requests: RequestCount,
}

/// The outcome of putting an index.
pub(crate) enum IndexPut {
    /// It is the newest. These, by number, are older.
    Stored(Vec<u64>),
    /// Somebody else has put one with its number, or a higher one.
    Conflict,
}

impl Bucket {
    pub fn open(disk: &Disk, url: &StoreUrl, pipeline: &str) -> Result<Self, RemoteError> {
        Self::with_backend(open(disk, url)?, url.to_string(), pipeline)
    }

    pub fn with_backend(
        backend: Backend,
        url: String,
        pipeline: &str,
    ) -> Result<Self, RemoteError> {
        let runtime = Builder::new_current_thread().enable_time().max_blocking_threads(8).build();
        let runtime =
            runtime.map_err(|e| RemoteError::local(format!("failed to start a runtime: {e}")))?;
        let below = |name: String| Path::from(format!("{}/{name}", backend.prefix));
        let (own_prefix, legacy_prefix) =
            (below(names::of_pipeline(pipeline)), below(names::plain_name(pipeline)));
        let legacy_prefix =
            Some(legacy_prefix).filter(|legacy_prefix| *legacy_prefix != own_prefix);
        let resolved = if legacy_prefix.is_none() {
            OnceLock::from(own_prefix.clone())
        } else {
            OnceLock::new()
        };
        let pipeline = pipeline.to_owned();
        let Backend { store, hint, unsynced, requests, .. } = backend;
        Ok(Self {
            runtime,
            store,
            own_prefix,
            legacy_prefix,
            resolved,
            pipeline,
            url,
            hint,
            unsynced,
            requests,
        })
    }

    /// Finds out where the pipeline is in the store. What an earlier version put there stays where
    /// it is.
    pub(crate) fn resolve_prefix(&self) -> Result<(), RemoteError> {
        let Some(legacy_prefix) =
            self.legacy_prefix.as_ref().filter(|_| self.resolved.get().is_none())
        else {
            return Ok(());
        };
        let is_in = |folder: &Path| -> Result<bool, RemoteError> {
            for _ in 0..10 {
                let Some(&newest) = self.generations_in(folder)?.last() else { return Ok(false) };
                if let Some((_, index)) = self.any_index(folder, newest)? {
                    return Ok(index.pipeline == self.pipeline);
                }
            }
            Ok(true)
        };
        let place = if !is_in(&self.own_prefix)? && is_in(legacy_prefix)? {
            legacy_prefix
        } else {
            &self.own_prefix
        };
        let _ = self.resolved.set(place.clone());
        Ok(())
    }

    fn prefix(&self) -> &Path {
        self.resolved.get().unwrap_or(&self.own_prefix)
    }

    /// Waits for an answer.
    pub(crate) fn block_on<T>(&self, answer: impl Future<Output = T>) -> T {
        self.runtime.block_on(answer)
    }

    /// Makes an object durable that was put, where the store does not.
    pub(crate) fn make_durable(&self, at: &Path) -> Result<(), RemoteError> {
        let Some((disk, folder)) = &self.unsynced else { return Ok(()) };
        Ok(sync::contents(disk, &[folder.join(at.as_ref())])?)
    }

    pub(crate) fn error(&self, doing: &str, error: &Error) -> RemoteError {
        RemoteError::of(&self.url, doing, error, self.hint.as_deref())
    }

    pub(crate) fn damaged(&self, message: impl std::fmt::Display) -> RemoteError {
        RemoteError::new(RemoteErrorKind::Damaged, format!("store {}: {message}", self.url))
    }

    pub(crate) fn at(&self, key: &str) -> Path {
        below(self.prefix(), key)
    }

    fn index_at(&self, generation: u64) -> Path {
        self.at(&self.index_key(generation))
    }

    /// The newest index; none if there never was one.
    pub fn newest(&self) -> Result<Option<Index>, RemoteError> {
        self.resolve_prefix()?;
        // Between the list and the reading a newer one may have taken its place.
        for _ in 0..10 {
            let Some(&newest) = self.generations()?.last() else { return Ok(None) };
            if let Some(index) = self.index(newest)? {
                return Ok(Some(index));
            }
        }
        let text = format!("store {}: its index changes faster than it can be read", self.url);
        Err(RemoteError::new(RemoteErrorKind::Transient, text))
    }

    fn index(&self, generation: u64) -> Result<Option<Index>, RemoteError> {
        let Some((at, index)) = self.any_index(self.prefix(), generation)? else { return Ok(None) };
        if index.pipeline == self.pipeline && index.generation == generation {
            Ok(Some(index))
        } else {
            Err(RemoteError::new(
                RemoteErrorKind::Setting,
                format!(
                    "store {}: its index {at} has the state of pipeline {:?}; give this one another prefix, or another name",
                    self.url, index.pipeline
                ),
            ))
        }
    }

    /// An index, whosever it is, and where it is.
    fn any_index(
        &self,
        prefix: &Path,
        generation: u64,
    ) -> Result<Option<(Path, Index)>, RemoteError> {
        let at = below(prefix, &self.index_key(generation));
        let read = self.block_on(async { self.store.get(&at).await?.bytes().await });
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.error("read the index", &error)),
        };
        if bytes.len() > MAX_INDEX_BYTES {
            return Err(self.damaged(format!("the index {at} is {} MB long", bytes.len() >> 20)));
        }
        let index = Index::from_bytes(&bytes);
        let index = index.map_err(|why| self.damaged(format!("the index {at}: {why}")))?;
        Ok(Some((at, index)))
    }

    /// The numbers of the indexes, in order.
    fn generations(&self) -> Result<Vec<u64>, RemoteError> {
        self.generations_in(self.prefix())
    }

    fn generations_in(&self, prefix: &Path) -> Result<Vec<u64>, RemoteError> {
        let folder = below(prefix, INDEXES);
        let number = |path: &Path| path.filename()?.strip_suffix(".json")?.parse().ok();
        let listed = self.list(&folder, MAX_LISTED_INDEXES, "list the indexes", |found| {
            number(&found.location)
        })?;
        let mut all: Vec<u64> = listed.into_iter().flatten().collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Puts an index under its number, which must be free.
    pub fn create(&self, index: &Index) -> Result<IndexPut, RemoteError> {
        let at = self.index_at(index.generation);
        let payload = || PutPayload::from(index.to_text().into_bytes());
        let put = self.block_on(self.store.put_opts(&at, payload(), PutMode::Create.into()));
        match put {
            Ok(_) => {}
            // An answer that was lost makes it look as if somebody else had put it.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                match self.index(index.generation)? {
                    Some(there) if there.commit == index.commit => {}
                    _ => return Ok(IndexPut::Conflict),
                }
            }
            Err(error) if lacks_conditional_put(&error) || lacks_hard_links(&error) => {
                if self.generations()?.last().is_some_and(|newest| *newest >= index.generation) {
                    return Ok(IndexPut::Conflict);
                }
                let put = self.block_on(self.store.put(&at, payload()));
                put.map_err(|e| self.error("put the index", &e))?;
            }
            Err(error) => return Err(self.error("put the index", &error)),
        }
        self.make_durable(&at)?;
        let mut all = self.generations()?;
        // Ours was free only because it is so old that it had been removed.
        if all.last().is_some_and(|newest| *newest > index.generation) {
            self.remove([self.index_key(index.generation)]);
            return Ok(IndexPut::Conflict);
        }
        all.retain(|generation| *generation < index.generation);
        Ok(IndexPut::Stored(all))
    }

    pub fn index_key(&self, generation: u64) -> String {
        format!("{INDEXES}/{generation:010}.json")
    }

    /// The bytes of an object; none if it is not there.
    pub fn size(&self, key: &str) -> Result<Option<u64>, RemoteError> {
        match self.block_on(self.store.head(&self.at(key))) {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error(&format!("look at {key}"), &error)),
        }
    }

    /// All objects but the indexes, and when each was put.
    pub fn objects(&self) -> Result<Vec<(Path, DateTime<Utc>)>, RemoteError> {
        let indexes = self.at(INDEXES);
        let kept = |found: ObjectMeta| {
            (!found.location.prefix_matches(&indexes))
                .then_some((found.location, found.last_modified))
        };
        let listed = self.list(self.prefix(), MAX_LISTED_OBJECTS, "list the objects", kept)?;
        Ok(listed.into_iter().flatten().collect())
    }

    /// What is below a folder, as far as a list has an end.
    fn list<T>(
        &self,
        folder: &Path,
        most: usize,
        doing: &str,
        kept: impl Fn(ObjectMeta) -> T,
    ) -> Result<Vec<T>, RemoteError> {
        let listed =
            self.store.list(Some(folder)).take(most + 1).map_ok(kept).try_collect::<Vec<T>>();
        let listed = self.block_on(async { tokio::time::timeout(LIST_TIMEOUT, listed).await });
        let listed =
            listed.map_err(|_| self.endless(doing, "is not at its end after ten minutes"))?;
        let listed = listed.map_err(|e| self.error(doing, &e))?;
        if listed.len() > most {
            Err(self.endless(doing, &format!("names more than {most} objects")))
        } else {
            Ok(listed)
        }
    }

    fn endless(&self, doing: &str, why: &str) -> RemoteError {
        self.damaged(format!("failed to {doing}: the list {why}"))
    }

    /// Removes objects that nothing lists any more. What stays behind takes room and is no error.
    pub fn remove(&self, keys: impl IntoIterator<Item = String>) {
        self.remove_at(keys.into_iter().map(|key| self.at(&key)).collect());
    }

    pub fn remove_at(&self, all: Vec<Path>) {
        if all.is_empty() {
            return;
        }
        let all: Vec<_> = all.into_iter().map(Ok).collect();
        let removed = self.store.delete_stream(futures_util::stream::iter(all).boxed());
        for result in self.block_on(removed.collect::<Vec<_>>()) {
            if let Err(error) = result
                && !matches!(error, Error::NotFound { .. })
            {
                tracing::debug!("{}", self.error("remove an object", &error));
            }
        }
    }
}

fn below(prefix: &Path, key: &str) -> Path {
    prefix.parts().chain(Path::from(key).parts()).collect()
}

/// Whether a store cannot put under a condition. Then the number is looked for first, which two at
/// the same moment can get past.
fn lacks_conditional_put(error: &Error) -> bool {
    matches!(error, Error::NotImplemented { .. })
        || error.to_string().contains("<Code>NotImplemented</Code>")
}

/// Whether a folder is on a file system without hard links, which are how a file is put under the
/// condition that there is none yet. That somebody else puts one at the same moment is then not
/// noticed, and said once.
fn lacks_hard_links(error: &Error) -> bool {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    let refused = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        use io::ErrorKind::{
            CrossesDevices, InvalidInput, PermissionDenied, TooManyLinks, Unsupported,
        };
        [CrossesDevices, InvalidInput, PermissionDenied, TooManyLinks, Unsupported]
            .contains(&cause.kind())
    });
    static WARNED: AtomicBool = AtomicBool::new(false);
    if refused && !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "the store's folder has no hard links ({error}): two machines that put the same pipeline's state there at the \
             same moment would not notice each other, and one's would be lost; let only one run it at a time"
        );
    }
    refused
}
