//! Writes checkpoints beside the training: the loop hands over a copy of the state and goes on,
//! while one thread digests, writes and waits for the disk. At most one copy is on its way; a
//! second one waits for the first.

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use pipe_engine::kind::{Failure, StageError};
use pipe_runs::{CheckpointManager, Saved};

/// What to do with the run's files; `None` if nothing was saved.
type Work<K> = Box<dyn FnOnce(&mut K) -> Result<Option<Saved>, StageError> + Send>;
type Done<K> = (K, Result<Option<Saved>, StageError>);

/// The thread that writes, and the manager of the files, which is on either side.
pub(super) struct CheckpointWriter<K = CheckpointManager> {
    /// With us while nothing is being written.
    manager: Option<K>,
    work: Sender<(K, Work<K>)>,
    done: Receiver<Done<K>>,
    thread: Option<JoinHandle<()>>,
}

impl<K: Send + 'static> CheckpointWriter<K> {
    pub fn start(manager: K) -> Result<Self, StageError> {
        let (work, works) = channel::<(K, Work<K>)>();
        let (dones, done) = channel();
        let thread =
            std::thread::Builder::new().name("checkpoint writer".into()).spawn(move || {
                for (mut manager, work) in works {
                    let result = work(&mut manager);
                    if dones.send((manager, result)).is_err() {
                        return;
                    }
                }
            });
        let thread = thread.map_err(|e| {
            StageError::new(
                Failure::Storage,
                format!("failed to start the thread that writes checkpoints: {e}"),
            )
        })?;
        Ok(Self { manager: Some(manager), work, done, thread: Some(thread) })
    }

    /// Begins to write. Only when nothing is being written: after [`wait`](Self::wait).
    pub fn begin(
        &mut self,
        work: impl FnOnce(&mut K) -> Result<Option<Saved>, StageError> + Send + 'static,
    ) {
        debug_assert!(self.manager.is_some(), "something is being written");
        if let Some(manager) = self.manager.take() {
            let _ = self.work.send((manager, Box::new(work)));
        }
    }

    /// What was written since this was last asked, if it is done. Does not wait.
    pub fn finished(&mut self) -> Result<Option<Saved>, StageError> {
        match self.manager {
            Some(_) => Ok(None),
            None => match self.done.try_recv() {
                Ok(done) => self.take(done),
                Err(TryRecvError::Empty) => Ok(None),
                Err(TryRecvError::Disconnected) => self.panicked(),
            },
        }
    }

    /// Waits for what is being written. An error is told once, by this or by
    /// [`finished`](Self::finished).
    pub fn wait(&mut self) -> Result<Option<Saved>, StageError> {
        match self.manager {
            Some(_) => Ok(None),
            None => match self.done.recv() {
                Ok(done) => self.take(done),
                Err(_) => self.panicked(),
            },
        }
    }

    fn take(&mut self, (manager, result): Done<K>) -> Result<Option<Saved>, StageError> {
        self.manager = Some(manager);
        result
    }

    /// The manager. Only when nothing is being written.
    pub fn manager(&mut self) -> Result<&mut K, StageError> {
        self.manager.as_mut().ok_or_else(writer_gone)
    }

    /// The manager for good.
    pub fn into_manager(self) -> Result<K, StageError> {
        self.manager.ok_or_else(writer_gone)
    }

    /// The thread ended with a panic, which goes on here: it is a bug that is reported with the
    /// stage's name.
    fn panicked(&mut self) -> Result<Option<Saved>, StageError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => resume_unwind(panic),
            _ => Err(writer_gone()),
        }
    }
}

fn writer_gone() -> StageError {
    StageError::new(Failure::Bug, "the thread that writes checkpoints is gone")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn saved(file: &str) -> Saved {
        Saved { file: file.into(), bytes: 1, seconds: 0.0, is_best: false }
    }

    #[test]
    fn work_goes_on_while_something_is_written() {
        let (open, gate) = sync_channel::<()>(0);
        let mut writer = CheckpointWriter::start(Vec::new()).unwrap();
        writer.begin(move |files: &mut Vec<&str>| {
            gate.recv().unwrap();
            files.push("a");
            Ok(Some(saved("a")))
        });
        assert_eq!(writer.finished().unwrap(), None, "it is still at it");
        assert!(writer.manager().is_err());
        open.send(()).unwrap();
        assert_eq!(writer.wait().unwrap(), Some(saved("a")));
        assert_eq!(writer.wait().unwrap(), None, "told once");
        assert_eq!(writer.into_manager().unwrap(), ["a"]);
    }

    #[test]
    fn an_error_is_told_once_and_the_files_come_back() {
        let mut writer = CheckpointWriter::start(0).unwrap();
        writer.begin(|_| Err(StageError::new(Failure::Storage, "the disk is full")));
        let told = loop {
            match writer.finished() {
                Ok(_) => std::thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert_eq!(told.message, "the disk is full");
        writer.wait().unwrap();
        assert_eq!(writer.into_manager().unwrap(), 0);
    }

    #[test]
    #[should_panic(expected = "a bug in the writer")]
    fn a_panic_goes_on_in_the_loop() {
        let mut writer = CheckpointWriter::start(0).unwrap();
        writer.begin(|_| panic!("a bug in the writer"));
        let _ = writer.wait();
    }
}
