//! What hooks are yet to be told: a lane for each stage, in which one hook runs at a time and in
//! order, and threads that are there as long as something waits.
//!
//! A lane is bounded whatever the hooks do. Of the best checkpoints only the newest waits. Of the
//! epochs [`BACKLOG`] wait for each hook, then the oldest is left out. When the stage has ended,
//! its waiting epochs have the time limit of their hook once more, all together.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pipe_core::ids::StageId;

use super::message::Message;
use crate::policy::{Hook, HookEvent};

/// Epochs of a stage that wait for one hook.
pub(super) const BACKLOG: usize = 16;
/// Hooks that run at the same time, of all stages.
const AT_ONCE: usize = 16;

/// A hook that is to be told something. Without a stage it is about the pipeline.
#[derive(Clone)]
pub(super) struct Job<'a> {
    pub stage: Option<StageId>,
    pub event: HookEvent,
    pub hook: &'a Hook,
    pub message: Message,
}

#[derive(Default)]
pub(super) struct Queue<'a> {
    lanes: Mutex<Lanes<'a>>,
    idle: Condvar,
}

#[derive(Default)]
struct Lanes<'a> {
    of: HashMap<Option<StageId>, Lane<'a>>,
    /// Those in which something waits and nothing runs.
    ready: VecDeque<Option<StageId>>,
    workers: usize,
}

#[derive(Default)]
struct Lane<'a> {
    waiting: VecDeque<Job<'a>>,
    /// It is in the queue of lanes, or a hook of it runs.
    is_active: bool,
    /// When its stage ended.
    ended: Option<Instant>,
    left_out: usize,
}

/// What came of putting a job into the queue.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pushed {
    /// A further thread is to [`work`](Queue::work).
    pub wants_worker: bool,
    /// It is the first time that an epoch of the stage is left out.
    pub leaves_out: bool,
}

impl<'a> Queue<'a> {
    fn lanes(&self) -> MutexGuard<'_, Lanes<'a>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, job: Job<'a>) -> Pushed {
        let mut lanes = self.lanes();
        let lanes = &mut *lanes;
        let key = job.stage.clone();
        let lane = lanes.of.entry(key.clone()).or_default();
        let leaves_out = lane.make_room(&job);
        lane.waiting.push_back(job);
        if !lane.is_active {
            lane.is_active = true;
            lanes.ready.push_back(key);
        }
        let wants_worker = lanes.workers < AT_ONCE && !lanes.ready.is_empty();
        lanes.workers += usize::from(wants_worker);
        Pushed { wants_worker, leaves_out }
    }

    /// The stage tells nothing more for now.
    pub fn end(&self, stage: &StageId) {
        if let Some(lane) = self.lanes().of.get_mut(&Some(stage.clone())) {
            lane.ended = Some(Instant::now());
        }
    }

    /// Carries out what waits, until nothing does.
    pub fn work(&self, run: impl Fn(&Job<'a>)) {
        while let Some(job) = self.next() {
            run(&job);
            let mut lanes = self.lanes();
            let lanes = &mut *lanes;
            let Some(lane) = lanes.of.get_mut(&job.stage) else { continue };
            lane.is_active = !lane.waiting.is_empty();
            if lane.is_active {
                lanes.ready.push_back(job.stage);
            }
        }
    }

    /// What is next; a worker that gets nothing is counted as gone.
    fn next(&self) -> Option<Job<'a>> {
        let mut lanes = self.lanes();
        let lanes = &mut *lanes;
        while let Some(key) = lanes.ready.pop_front() {
            let Some(lane) = lanes.of.get_mut(&key) else { continue };
            match lane.pop() {
                Some(job) => return Some(job),
                None => lane.is_active = false,
            }
        }
        lanes.workers -= 1;
        self.idle.notify_all();
        None
    }

    /// A worker could not be started. Where there is none, what waits is taken out.
    pub fn worker_failed(&self) -> Vec<Job<'a>> {
        let mut lanes = self.lanes();
        lanes.workers -= 1;
        if lanes.workers > 0 {
            return Vec::new();
        }
        lanes.ready.clear();
        self.idle.notify_all();
        let lanes = lanes.of.values_mut().flat_map(|lane| {
            lane.is_active = false;
            lane.waiting.drain(..)
        });
        lanes.collect()
    }

    /// Waits until nothing waits and nothing runs. Returns how many epochs of each stage were left
    /// out.
    pub fn wait(&self) -> Vec<(StageId, usize)> {
        let mut lanes = self.lanes();
        while lanes.workers > 0 {
            lanes = self.idle.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
        let left_out = lanes.of.drain().filter(|(_, lane)| lane.left_out > 0);
        left_out.filter_map(|(stage, lane)| Some((stage?, lane.left_out))).collect()
    }
}

impl<'a> Lane<'a> {
    /// Takes out what the new job replaces, or what waits too long. Says whether it is the first
    /// epoch that is left out.
    fn make_room(&mut self, job: &Job<'a>) -> bool {
        let event = job.event;
        let is_alike = |other: &Job<'a>| other.event == event && std::ptr::eq(other.hook, job.hook);
        match event {
            HookEvent::NewBest => self.waiting.retain(|other| !is_alike(other)),
            HookEvent::EpochEnd => {
                self.ended = None;
                if self.waiting.iter().filter(|other| is_alike(other)).count() == BACKLOG
                    && let Some(oldest) = self.waiting.iter().position(is_alike)
                {
                    self.waiting.remove(oldest);
                    self.left_out += 1;
                    return self.left_out == 1;
                }
            }
            HookEvent::Failure | HookEvent::End => {}
        }
        false
    }

    /// The next job, without epochs that have waited too long after the stage's end.
    fn pop(&mut self) -> Option<Job<'a>> {
        while let Some(job) = self.waiting.pop_front() {
            let is_late = job.event == HookEvent::EpochEnd
                && self.ended.is_some_and(|at| at.elapsed() >= job.hook.timeout());
            if !is_late {
                return Some(job);
            }
            self.left_out += 1;
        }
        None
    }
}
