//! A file that is being written: the disk takes in its beginning while the rest is written.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::disk::Disk;
use crate::{fault, sync};

/// A file that is being written. Every write of bytes passes a point.
pub(crate) struct FaultyFile<'a> {
    file: File,
    path: &'a Path,
    disk: &'a Disk,
    writeback: Writeback,
}

impl<'a> FaultyFile<'a> {
    pub fn new(disk: &'a Disk, file: File, path: &'a Path) -> Self {
        Self { file, path, disk, writeback: Writeback::default() }
    }

    /// Shares the blocks of a file, if the file system can. Nothing was written before.
    pub fn shares_blocks_of(&self, source: &File) -> bool {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            rustix::fs::ioctl_ficlone(&self.file, source).is_ok()
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            let _ = source;
            false
        }
    }

    /// Makes what was written durable.
    pub fn sync(self) -> io::Result<()> {
        self.writeback.finish()?;
        sync::file(self.disk, &self.file, self.path)
    }
}

impl Write for FaultyFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = fault::write(self.disk, &self.file, self.path, bytes)?;
        self.writeback.wrote(self.disk, &self.file, written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for FaultyFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// So many bytes are waited for before the disk is asked to take them in.
const PIECE: u64 = 4 << 20;

/// A thread that syncs a file again and again. Its errors must be asked for: the system tells each
/// only once.
#[derive(Default)]
struct Writeback {
    /// Bytes since the thread was last told.
    waiting: u64,
    thread: Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>,
}

impl Writeback {
    /// So many more bytes were written to `file`, which must be the same in each call.
    fn wrote(&mut self, disk: &Disk, file: &File, bytes: usize) {
        self.waiting += bytes as u64;
        if self.waiting < PIECE {
            return;
        }
        self.waiting = 0;
        if !sync::keeps_files(disk) {
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
    fn finish(self) -> io::Result<()> {
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
