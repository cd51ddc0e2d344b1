//! Has the disk take in the beginning of a long file while the rest of it is being written.

use std::fs::File;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::sync;

/// So many bytes are waited for before the disk is asked to take them in.
const PIECE: u64 = 4 << 20;

/// A thread that syncs a file again and again. Its errors must be asked for: the system tells each
/// only once.
#[derive(Default)]
pub(super) struct Writeback {
    /// Bytes since the thread was last told.
    waiting: u64,
    thread: Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>,
}

impl Writeback {
    /// So many more bytes were written to `file`, which must be the same in each call.
    pub fn wrote(&mut self, file: &File, bytes: usize) {
        self.waiting += bytes as u64;
        if self.waiting < PIECE {
            return;
        }
        self.waiting = 0;
        if !sync::keeps_files() {
            return;
        }
        if self.thread.is_none() {
            // Without a thread all is left to the sync at the end.
            self.thread = file.try_clone().ok().and_then(start);
        }
        if let Some((more, _)) = &self.thread {
            let _ = more.try_send(()); // one that waits already is enough
        }
    }

    /// Waits for the thread.
    pub fn finish(self) -> io::Result<()> {
        let Some((more, thread)) = self.thread else { return Ok(()) };
        drop(more);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn start(file: File) -> Option<(SyncSender<()>, JoinHandle<io::Result<()>>)> {
    let (more, wanted) = sync_channel(1);
    let work = move || wanted.iter().try_for_each(|()| file.sync_data());
    Some((more, std::thread::Builder::new().name("writeback".into()).spawn(work).ok()?))
}
