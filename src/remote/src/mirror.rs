//! The thread that keeps a store as new as the folder while a pipeline runs. It hears of every
//! change at once, waits until things are quiet, and brings all of it over in one step; the
//! training never waits for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pipe_engine::stop::Stop;
use pipe_engine::store::watch::{self, FileEvent, Listener};

use crate::changes::{Change, Changes};
use crate::commit::Committer;
use crate::error::{Kind, RemoteError};
use crate::folder::Project;
use crate::pin::Pin;
use crate::start::Prepared;

/// A change is brought over when nothing else has changed for so long, or after so long at the
/// latest.
const QUIET: Duration = Duration::from_millis(if cfg!(feature = "faults") { 2 } else { 300 });
const LATEST: Duration = Duration::from_secs(2);
/// After a failure that lasted: first so long, then twice as long, up to this.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_AT_MOST: Duration = Duration::from_secs(300);
/// How long the end waits after somebody asked to stop.
const AFTER_STOP: Duration = Duration::from_secs(60);

/// Something that whoever looks on should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It does not work now; the training goes on, and it is tried again.
    Trouble(RemoteError),
    /// It works again.
    Over,
    /// It has ended, and the training goes on without.
    Ended(RemoteError),
}

/// A mirror at work.
pub struct Mirror {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    url: String,
}

/// What a mirror did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Report {
    /// Steps: an index each.
    pub steps: u64,
    pub files: u64,
    pub bytes: u64,
    /// How long those who changed the folder waited for it.
    pub waited: Duration,
}

struct Shared {
    project: Project,
    state: Mutex<State>,
    wake: Condvar,
    /// Bytes of the step that is under way which are not there yet.
    left: AtomicU64,
    waited: AtomicU64,
}

#[derive(Default)]
struct State {
    changes: Changes,
    /// Files that grow, and how long each was when it was last brought over.
    logs: BTreeMap<String, (PathBuf, u64)>,
    first: Option<Instant>,
    last: Option<Instant>,
    closing: bool,
    report: Report,
    /// What the last try met.
    trouble: Option<RemoteError>,
    ended: Option<Result<(), RemoteError>>,
}

impl Mirror {
    /// Starts with what the store lacks. `tell` is called by the mirror's thread.
    pub fn start(
        prepared: Prepared,
        tell: impl Fn(Notice) + Send + 'static,
    ) -> Result<Self, RemoteError> {
        let Prepared { bucket, project, base, put, gone, .. } = prepared;
        let shared = Arc::new(Shared {
            project: project.clone(),
            state: Mutex::default(),
            wake: Condvar::new(),
            left: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        });
        gone.into_iter().for_each(|path| shared.note(path, |_| Some(Change::Gone)));
        put.into_iter()
            .for_each(|path| shared.note(path.clone(), |root| pinned(&root.join(&path))));
        let url = bucket.url.clone();
        let worker = Worker {
            shared: shared.clone(),
            committer: Committer::new(bucket, project, base),
            tell: Box::new(tell),
        };
        let thread = std::thread::Builder::new().name("mirror".into()).spawn(move || worker.run());
        let thread =
            thread.map_err(|e| RemoteError::local(format!("failed to start a thread: {e}")))?;
        Ok(Self { shared, thread: Some(thread), url })
    }

    /// Lets it hear of every change that this process makes from now on.
    pub fn listen(&self) {
        watch::listen(self.shared.clone());
    }

    #[cfg(test)]
    pub(crate) fn hear(&self, news: FileEvent) {
        self.shared.hear(news);
    }

    /// Waits until all is over there, and ends. `waiting` is told, again and again, of the files
    /// and bytes that are left.
    ///
    /// # Errors
    /// What is left could not be brought over, or not in the time that is left after a wish to
    /// stop.
    pub fn finish(
        mut self,
        stop: &Stop,
        waiting: &mut dyn FnMut(usize, u64),
    ) -> Result<Report, RemoteError> {
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
            let (files, bytes) = state.changes.waiting();
            let left = bytes + self.shared.left.load(Ordering::Relaxed);
            drop(state);
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished)
                && self.shared.state().ended.is_none()
            {
                break Err(RemoteError::local("the mirror's thread is gone"));
            }
            if stop.requested().is_some() {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + AFTER_STOP);
                if Instant::now() >= deadline {
                    let text = format!(
                        "{:.1} MB were left after {} s",
                        left as f64 / 1e6,
                        AFTER_STOP.as_secs()
                    );
                    // The thread is at it until the process ends.
                    self.thread = None;
                    break Err(RemoteError::new(Kind::Passing, text));
                }
            }
            waiting(files, left);
        };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let mut report = self.shared.state().report;
        report.waited = Duration::from_nanos(self.shared.waited.load(Ordering::Relaxed));
        match ended {
            Ok(()) => Ok(report),
            Err(error) if error.kind == Kind::Continued => Err(error),
            Err(error) => {
                let text = format!(
                    "store {}: it does not have all yet: {}\n  = what this folder has is whole; the same command brings the rest over",
                    self.url, error.message
                );
                // Whatever it was: the work is done, and only the store is behind.
                Err(RemoteError::new(Kind::Passing, text))
            }
        }
    }
}

fn pinned(path: &std::path::Path) -> Option<Change> {
    match Pin::of(path) {
        Ok(pin) => Some(Change::Put(pin)),
        // Gone again already, and whoever did that says so.
        Err(error) => {
            tracing::debug!("{}: {error}", path.display());
            None
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, path: String, change: impl FnOnce(&std::path::Path) -> Option<Change>) {
        let Some(change) = change(&self.project.root) else { return };
        let now = Instant::now();
        let mut state = self.state();
        if state.ended.is_some() {
            return;
        }
        if let Change::Gone = change {
            state.logs.retain(|log, _| !crate::state::is_within(log, &path));
        }
        state.changes.note(path, change);
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
                FileEvent::Written(_) => self.note(relative, |_| pinned(path)),
                FileEvent::Removed(_) => self.note(relative, |_| Some(Change::Gone)),
                FileEvent::Grows(_) => {
                    self.state().logs.entry(relative).or_insert_with(|| (path.to_owned(), 0));
                }
            }
        }
        let waited = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited.fetch_add(waited, Ordering::Relaxed);
    }
}

struct Worker {
    shared: Arc<Shared>,
    committer: Committer,
    tell: Box<dyn Fn(Notice) + Send>,
}

impl Worker {
    fn run(mut self) {
        let mut swept = false;
        let mut wait = AGAIN;
        let mut not_before = None;
        let ended = loop {
            let closing = self.wait_for_work(not_before);
            match self.step() {
                Ok(true) => {
                    not_before = None;
                    wait = AGAIN;
                    self.is_well();
                }
                Ok(false) if closing => break Ok(()),
                Ok(false) => self.is_well(),
                Err(error) if error.kind == Kind::Continued => {
                    (self.tell)(Notice::Ended(error.clone()));
                    break Err(error);
                }
                // At the end one whole try must do, and it has its own patience.
                Err(error) if closing => break Err(error),
                Err(error) => {
                    let first = self.shared.state().trouble.replace(error.clone()).is_none();
                    if first {
                        (self.tell)(Notice::Trouble(error));
                    }
                    not_before = Some(Instant::now() + wait);
                    wait = (2 * wait).min(AGAIN_AT_MOST);
                }
            }
            if !swept && !closing {
                swept = true;
                self.committer.sweep();
            }
        };
        self.shared.state().ended = Some(ended);
        self.shared.wake.notify_all();
    }

    fn is_well(&self) {
        if self.shared.state().trouble.take().is_some() {
            (self.tell)(Notice::Over);
        }
    }

    /// Waits until it is time for a step: whether it is to be the last.
    fn wait_for_work(&self, not_before: Option<Instant>) -> bool {
        let mut state = self.shared.state();
        loop {
            if state.closing {
                return true;
            }
            let now = Instant::now();
            let due = match (state.first, state.last) {
                (Some(first), Some(last)) if !state.changes.is_empty() => {
                    let due = (last + QUIET).min(first + LATEST);
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

    /// Brings over all that has changed up to now. `false`: nothing has.
    fn step(&mut self) -> Result<bool, RemoteError> {
        let (changes, bytes, grown) = {
            let mut state = self.shared.state();
            // Those that grow are taken as long as they are now: all before the other changes is in
            // them.
            let mut grown = Vec::new();
            let State { logs, changes, .. } = &mut *state;
            for (path, (file, length)) in logs {
                if let Ok(pin) = Pin::of(file)
                    && pin.bytes != *length
                {
                    grown.push((path.clone(), pin.bytes));
                    changes.note(path.clone(), Change::Put(pin));
                }
            }
            (state.first, state.last) = (None, None);
            let (_, bytes) = state.changes.waiting();
            (state.changes.take(), bytes, grown)
        };
        if changes.is_empty() {
            return Ok(false);
        }
        let left = &self.shared.left;
        left.store(bytes, Ordering::Relaxed);
        let sent = |bytes: u64| {
            let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |l| {
                Some(l.saturating_sub(bytes))
            });
        };
        let brought = self.committer.bring(&changes, &sent);
        left.store(0, Ordering::Relaxed);
        let mut state = self.shared.state();
        match brought {
            Ok(()) => {
                for (path, length) in grown {
                    if let Some(log) = state.logs.get_mut(&path) {
                        log.1 = length;
                    }
                }
                state.report.steps += 1;
                state.report.files += changes.len() as u64;
                state.report.bytes = self.committer.sent;
                Ok(true)
            }
            Err(error) => {
                state.changes.put_back(changes);
                let now = Instant::now();
                (state.first, state.last) = (Some(now), Some(now));
                Err(error)
            }
        }
    }
}
