//! The thread that keeps a store as new as the folder while a pipeline runs. It hears of every
//! change at once, waits until nothing changes for a moment, and pushes everything in one step. The
//! training never waits for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pipe_core::stop::Stop;
use pipe_fs::watch::{FileEvent, Listener};

use crate::commit::Committer;
use crate::error::{RemoteError, RemoteErrorKind};
use crate::http::RequestCount;
use crate::pending_changes::{Change, PendingChanges};
use crate::project::Project;
use crate::pull::WorkingCopy;
use crate::snapshot::Snapshot;

/// A change is pushed when nothing else has changed for this long, and at the latest after
/// `MAX_DELAY`.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// The same where tests disturb the program, which then pushes while it works.
const DEBOUNCE_IN_TESTS: Duration = Duration::from_millis(2);
const MAX_DELAY: Duration = Duration::from_secs(2);
/// The wait after a failure. It doubles with each further one, up to `MAX_RETRY_DELAY`.
const RETRY_DELAY: Duration = Duration::from_secs(5);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(300);
/// How long `finish` goes on pushing after a request to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

fn debounce() -> Duration {
    if pipe_fs::fault::are_installed() { DEBOUNCE_IN_TESTS } else { DEBOUNCE }
}

/// What a user should hear of the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorEvent {
    /// A push failed. The training goes on, and the push is tried again.
    Failing(RemoteError),
    /// A push succeeded after failures.
    Recovered,
    /// The mirror has given up. The training goes on without it.
    Ended(RemoteError),
}

/// A running mirror.
pub struct Mirror {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    url: String,
}

/// What a mirror did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MirrorStats {
    /// Pushes, each with an index of its own.
    pub steps: u64,
    pub files: u64,
    pub bytes: u64,
    /// Requests to the store, those before the mirror began too.
    pub requests: u64,
    /// Time that the threads which change the folder spent in the listener.
    pub blocked: Duration,
}

struct Shared {
    project: Project,
    state: Mutex<MirrorState>,
    wake: Condvar,
    /// Bytes of the current push that are not in the store yet.
    bytes_left: AtomicU64,
    blocked: AtomicU64,
    requests: RequestCount,
}

#[derive(Default)]
struct MirrorState {
    changes: PendingChanges,
    /// Files that grow, with the length of each at the last push.
    logs: BTreeMap<String, (PathBuf, u64)>,
    first: Option<Instant>,
    last: Option<Instant>,
    closing: bool,
    stats: MirrorStats,
    /// Why the last push failed, until one succeeds.
    last_error: Option<RemoteError>,
    ended: Option<Result<(), RemoteError>>,
}

impl Mirror {
    /// Starts the thread, with what the store lacks as the first changes. `notify` is called by
    /// that thread.
    pub fn start(
        working_copy: WorkingCopy,
        notify: impl Fn(MirrorEvent) + Send + 'static,
    ) -> Result<Self, RemoteError> {
        let WorkingCopy { bucket, project, base, upload, delete_remote, .. } = working_copy;
        let shared = Arc::new(Shared {
            project: project.clone(),
            state: Mutex::default(),
            wake: Condvar::new(),
            bytes_left: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            requests: bucket.requests.clone(),
        });
        delete_remote.into_iter().for_each(|path| shared.record(path, |_| Some(Change::Delete)));
        upload
            .into_iter()
            .for_each(|path| shared.record(path.clone(), |root| take_snapshot(&root.join(&path))));
        let url = bucket.url.clone();
        let worker = Worker {
            shared: shared.clone(),
            committer: Committer::new(bucket, project, base),
            notify: Box::new(notify),
        };
        let thread = std::thread::Builder::new().name("mirror".into()).spawn(move || worker.run());
        let thread =
            thread.map_err(|e| RemoteError::local(format!("failed to start a thread: {e}")))?;
        Ok(Self { shared, thread: Some(thread), url })
    }

    /// Who has to hear of every change of the folder from now on.
    pub fn listener(&self) -> Arc<dyn Listener> {
        self.shared.clone()
    }

    #[cfg(test)]
    pub(crate) fn hear(&self, news: FileEvent) {
        self.shared.hear(news);
    }

    /// Pushes what is left, and ends. `waiting` is called several times a second with the number of
    /// files and bytes that are left.
    ///
    /// # Errors
    /// The last push failed, or took longer than a request to stop allows.
    pub fn finish(
        mut self,
        stop: &Stop,
        waiting: &mut dyn FnMut(usize, u64),
    ) -> Result<MirrorStats, RemoteError> {
        self.shared.state().closing = true;
        self.shared.wake.notify_all();
        let mut deadline = None;
        let ended = loop {
            let state = self.shared.state();
            if let Some(ended) = &state.ended {
                break ended.clone();
            }
            let (state, _) = self
                .shared
                .wake
                .wait_timeout(state, Duration::from_millis(100))
                .unwrap_or_else(PoisonError::into_inner);
            if state.ended.is_some() {
                continue;
            }
            let (files, bytes) = state.changes.pending();
            let bytes_left = bytes + self.shared.bytes_left.load(Ordering::Relaxed);
            drop(state);
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished)
                && self.shared.state().ended.is_none()
            {
                break Err(RemoteError::local("the mirror's thread is gone"));
            }
            if stop.requested().is_some() {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + STOP_TIMEOUT);
                if Instant::now() >= deadline {
                    let text = format!(
                        "{:.1} MB were left after {} s",
                        bytes_left as f64 / 1e6,
                        STOP_TIMEOUT.as_secs()
                    );
                    // The thread is at it until the process ends.
                    self.thread = None;
                    break Err(RemoteError::new(RemoteErrorKind::Transient, text));
                }
            }
            waiting(files, bytes_left);
        };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let mut stats = self.shared.state().stats;
        stats.blocked = Duration::from_nanos(self.shared.blocked.load(Ordering::Relaxed));
        stats.requests = self.shared.requests.load(Ordering::Relaxed);
        match ended {
            Ok(()) => Ok(stats),
            Err(error) if error.kind == RemoteErrorKind::TakenOver => Err(error),
            Err(error) => {
                let text = format!(
                    "store {}: it does not have all yet: {}\n  = what this folder has is whole; the same command brings the rest over",
                    self.url, error.message
                );
                // Whatever it was: the work is done, and only the store is behind.
                Err(RemoteError::new(RemoteErrorKind::Transient, text))
            }
        }
    }
}

fn take_snapshot(path: &std::path::Path) -> Option<Change> {
    match Snapshot::of(path) {
        Ok(snapshot) => Some(Change::Upload(snapshot)),
        // Gone again already, and whoever did that says so.
        Err(error) => {
            tracing::debug!("{}: {error}", path.display());
            None
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, MirrorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, path: String, change: impl FnOnce(&std::path::Path) -> Option<Change>) {
        let Some(change) = change(&self.project.root) else { return };
        let now = Instant::now();
        let mut state = self.state();
        if state.ended.is_some() {
            return;
        }
        if let Change::Delete = change {
            state.logs.retain(|log, _| !crate::sync_state::is_within(log, &path));
        }
        state.changes.record(path, change);
        state.first.get_or_insert(now);
        state.last = Some(now);
        drop(state);
        self.wake.notify_all();
    }
}

impl Listener for Shared {
    fn hear(&self, news: FileEvent) {
        let began = Instant::now();
        let (FileEvent::Written(path) | FileEvent::Grows(path) | FileEvent::Removed(path)) = news;
        if let Some(relative) = self.project.relative(path) {
            match news {
                FileEvent::Written(_) => self.record(relative, |_| take_snapshot(path)),
                FileEvent::Removed(_) => self.record(relative, |_| Some(Change::Delete)),
                FileEvent::Grows(_) => {
                    self.state().logs.entry(relative).or_insert_with(|| (path.to_owned(), 0));
                }
            }
        }
        let blocked = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.blocked.fetch_add(blocked, Ordering::Relaxed);
    }
}

struct Worker {
    shared: Arc<Shared>,
    committer: Committer,
    notify: Box<dyn Fn(MirrorEvent) + Send>,
}

impl Worker {
    fn run(mut self) {
        let mut orphans_removed = false;
        let mut wait = RETRY_DELAY;
        let mut not_before = None;
        let ended = loop {
            let closing = self.wait_for_work(not_before);
            match self.step() {
                Ok(true) => {
                    not_before = None;
                    wait = RETRY_DELAY;
                    self.report_recovery();
                }
                Ok(false) if closing => break Ok(()),
                Ok(false) => self.report_recovery(),
                Err(error) if error.kind == RemoteErrorKind::TakenOver => {
                    (self.notify)(MirrorEvent::Ended(error.clone()));
                    break Err(error);
                }
                // At the end one whole try must do, and it has its own patience.
                Err(error) if closing => break Err(error),
                Err(error) => {
                    let first = self.shared.state().last_error.replace(error.clone()).is_none();
                    if first {
                        (self.notify)(MirrorEvent::Failing(error));
                    }
                    not_before = Some(Instant::now() + wait);
                    wait = (2 * wait).min(MAX_RETRY_DELAY);
                }
            }
            if !orphans_removed && !closing {
                orphans_removed = true;
                self.committer.remove_orphans();
            }
        };
        self.shared.state().ended = Some(ended);
        self.shared.wake.notify_all();
    }

    fn report_recovery(&self) {
        if self.shared.state().last_error.take().is_some() {
            (self.notify)(MirrorEvent::Recovered);
        }
    }

    /// Waits until it is time for a push. True if it is the last one.
    fn wait_for_work(&self, not_before: Option<Instant>) -> bool {
        let mut state = self.shared.state();
        loop {
            if state.closing {
                return true;
            }
            let now = Instant::now();
            let due = match (state.first, state.last) {
                (Some(first), Some(last)) if !state.changes.is_empty() => {
                    let due = (last + debounce()).min(first + MAX_DELAY);
                    Some(not_before.map_or(due, |not_before| due.max(not_before)))
                }
                _ => None,
            };
            if due.is_some_and(|due| due <= now) {
                return false;
            }
            let time = due.map_or(Duration::from_secs(3600), |due| due - now);
            (state, _) =
                self.shared.wake.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Pushes all that has changed up to now. False if nothing has.
    fn step(&mut self) -> Result<bool, RemoteError> {
        let (changes, bytes, grown) = {
            let mut state = self.shared.state();
            // Those that grow are taken as long as they are now: all before the other changes is in
            // them.
            let mut grown = Vec::new();
            let MirrorState { logs, changes, .. } = &mut *state;
            for (path, (file, length)) in logs {
                if let Ok(snapshot) = Snapshot::of(file)
                    && snapshot.bytes != *length
                {
                    grown.push((path.clone(), snapshot.bytes));
                    changes.record(path.clone(), Change::Upload(snapshot));
                }
            }
            (state.first, state.last) = (None, None);
            let (_, bytes) = state.changes.pending();
            (state.changes.take(), bytes, grown)
        };
        if changes.is_empty() {
            return Ok(false);
        }
        let bytes_left = &self.shared.bytes_left;
        bytes_left.store(bytes, Ordering::Relaxed);
        let sent = |bytes: u64| {
            let _ = bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |l| {
                Some(l.saturating_sub(bytes))
            });
        };
        let brought = self.committer.push(&changes, &sent);
        bytes_left.store(0, Ordering::Relaxed);
        let mut state = self.shared.state();
        match brought {
            Ok(()) => {
                for (path, length) in grown {
                    if let Some(log) = state.logs.get_mut(&path) {
                        log.1 = length;
                    }
                }
                state.stats.steps += 1;
                state.stats.files += changes.len() as u64;
                state.stats.bytes = self.committer.sent;
                Ok(true)
            }
            Err(error) => {
                state.changes.restore(changes);
                let now = Instant::now();
                (state.first, state.last) = (Some(now), Some(now));
                Err(error)
            }
        }
    }
}
