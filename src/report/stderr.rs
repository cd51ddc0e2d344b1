//! Lines on stderr that never stop the work: if nobody reads them, or nobody can, they are lost and
//! the training goes on.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel,
};
use std::time::Duration;

use pipe_core::{secret, untrusted_text};

use super::style;

/// Pieces that wait for a slow reader; the next ones are dropped.
const QUEUE_LENGTH: usize = 4096;
/// How long the end waits for a reader that has stopped reading.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes that wait, at most, and how many there are.
const MAX_QUEUED_BYTES: usize = 8 << 20;
static QUEUED_BYTES: AtomicUsize = AtomicUsize::new(0);
/// Pieces that are out.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

enum Chunk {
    Text(Vec<u8>),
    /// Says when all before it is out.
    Flush(std::sync::mpsc::Sender<()>),
}

fn queue() -> &'static SyncSender<Chunk> {
    static QUEUE: OnceLock<SyncSender<Chunk>> = OnceLock::new();
    QUEUE.get_or_init(|| {
        let (sender, chunks) = sync_channel(QUEUE_LENGTH);
        // Without the thread every piece is dropped, which is what this is for.
        let _ = std::thread::Builder::new().name("stderr".into()).spawn(move || write_all(&chunks));
        sender
    })
}

fn write_all(chunks: &Receiver<Chunk>) {
    for chunk in chunks {
        match chunk {
            Chunk::Text(text) => {
                let _ = io::stderr().write_all(&text);
                QUEUED_BYTES.fetch_sub(text.len(), Ordering::Relaxed);
                WRITTEN.fetch_add(1, Ordering::Relaxed);
            }
            Chunk::Flush(done) => drop(done.send(())),
        }
    }
}

/// Writes a line, sooner or later.
pub fn line(text: impl AsRef<str>) {
    write(format!("{}\n", sanitized(text.as_ref())).into_bytes());
}

/// A text as it may reach stderr, whoever wrote it: without secrets, and without anything that a
/// terminal would obey.
pub fn sanitized(text: &str) -> String {
    untrusted_text::escape_control(&secret::mask(text), style::colours()).into_owned()
}

/// Writes bytes, sooner or later.
fn write(bytes: Vec<u8>) {
    let length = bytes.len();
    if QUEUED_BYTES.fetch_add(length, Ordering::Relaxed) > MAX_QUEUED_BYTES {
        QUEUED_BYTES.fetch_sub(length, Ordering::Relaxed);
        return;
    }
    // Full: its reader has stopped reading. Closed: there is no thread.
    if queue().try_send(Chunk::Text(bytes)).is_err() {
        QUEUED_BYTES.fetch_sub(length, Ordering::Relaxed);
    }
}

/// Waits until everything is out, or its reader has stopped reading.
pub fn flush() {
    let (done, is_out) = channel();
    let mut waiting = Some(Chunk::Flush(done));
    loop {
        let before = WRITTEN.load(Ordering::Relaxed);
        match waiting.take().map(|chunk| queue().try_send(chunk)) {
            Some(Err(TrySendError::Full(chunk))) => waiting = Some(chunk),
            Some(Err(TrySendError::Disconnected(_))) => return,
            Some(Ok(())) | None => {}
        }
        match is_out.recv_timeout(FLUSH_TIMEOUT) {
            Err(RecvTimeoutError::Timeout) if WRITTEN.load(Ordering::Relaxed) > before => {}
            _ => return,
        }
    }
}

/// For libraries that write by themselves.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(sanitized(&String::from_utf8_lossy(bytes)).into_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
