//! What a person asks of a training that is under way, whoever trains: a checkpoint now, a picture
//! now.
//!
//! An empty file in the run's folder says it. So it reaches a training on another machine that
//! shares the file system, too. The training takes the file away when it begins with it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pipe_fs::atomic::{self, WriteError};

use super::Run;

/// A training looks for requests so seldom that it costs nothing.
const LOOK: Duration = Duration::from_millis(200);

/// What is asked of a training that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveRequest {
    /// A checkpoint of the state that the training is in.
    Checkpoint,
    /// An image grid, or what else a program shows of its model.
    Sample,
}

impl LiveRequest {
    pub(crate) const ALL: [Self; 2] = [Self::Checkpoint, Self::Sample];

    pub(crate) fn file_name(self) -> &'static str {
        match self {
            LiveRequest::Checkpoint => "save.request",
            LiveRequest::Sample => "sample.request",
        }
    }

    fn path(self, run: &Run) -> PathBuf {
        run.folder.join(self.file_name())
    }
}

impl Run {
    /// Asks whoever trains the run. Asking again before it is heard changes nothing.
    ///
    /// # Errors
    /// The run's folder cannot be written.
    pub fn ask(&self, request: LiveRequest) -> Result<(), WriteError> {
        atomic::write(self.disk(), &request.path(self), |_| Ok(()))
    }

    /// The files of requests that nobody has heard.
    pub fn requests(&self) -> Vec<PathBuf> {
        let all = LiveRequest::ALL.map(|request| request.path(self));
        all.into_iter().filter(|path| path.exists()).collect()
    }

    /// Takes a request away, and says whether there was one.
    ///
    /// # Errors
    /// It stands, and cannot be removed.
    pub fn take_request(&self, request: LiveRequest) -> Result<bool, WriteError> {
        let path = request.path(self);
        if !path.exists() {
            return Ok(false);
        }
        atomic::remove(self.disk(), &path)?;
        Ok(true)
    }
}

/// The requests to one training, looked for while it is under way.
#[derive(Debug)]
pub struct LiveRequests {
    run: Run,
    looked: [Option<Instant>; 2],
}

impl LiveRequests {
    /// Those to the training of that run.
    pub fn to(run: &Run) -> Self {
        Self { run: run.clone(), looked: [None; 2] }
    }

    /// Whether this is asked now: once for each request. Looks at the disk five times a second at
    /// most.
    ///
    /// # Errors
    /// A request stands, and cannot be taken away.
    pub fn take(&mut self, request: LiveRequest) -> Result<bool, WriteError> {
        let looked = &mut self.looked[request as usize];
        if looked.is_some_and(|at| at.elapsed() < LOOK) {
            return Ok(false);
        }
        *looked = Some(Instant::now());
        self.run.take_request(request)
    }
}

#[cfg(test)]
mod tests {
    use pipe_fs::Disk;

    use super::*;
    use crate::Runs;

    #[test]
    fn a_request_is_taken_once_and_by_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let run = Runs::at(&Disk::default(), folder.path()).create().unwrap();
        let looked = || LiveRequests::to(&run);
        assert!(!looked().take(LiveRequest::Checkpoint).unwrap());
        run.ask(LiveRequest::Checkpoint).unwrap();
        run.ask(LiveRequest::Checkpoint).unwrap();
        assert!(!looked().take(LiveRequest::Sample).unwrap());
        assert!(looked().take(LiveRequest::Checkpoint).unwrap());
        assert!(!looked().take(LiveRequest::Checkpoint).unwrap());
    }

    #[test]
    fn the_disk_is_looked_at_seldom() {
        let folder = tempfile::tempdir().unwrap();
        let run = Runs::at(&Disk::default(), folder.path()).create().unwrap();
        let mut requests = LiveRequests::to(&run);
        assert!(!requests.take(LiveRequest::Sample).unwrap());
        run.ask(LiveRequest::Sample).unwrap();
        assert!(!requests.take(LiveRequest::Sample).unwrap());
        std::thread::sleep(LOOK);
        assert!(requests.take(LiveRequest::Sample).unwrap());
    }
}
