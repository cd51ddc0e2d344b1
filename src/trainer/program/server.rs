//! The socket of a training: connections and their lines, one message at a time.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;
use std::time::Duration;

use super::message::Reply;

/// A line is not longer; a program that says more at once breaks the contract.
pub(super) const LONGEST_LINE: usize = 1 << 20;
/// Connections at a time.
const CONNECTIONS: usize = 64;
/// How often is looked whether a program that says nothing has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A line that waits for its answer.
pub(super) struct Said {
    pub line: Result<String, String>,
    reply: Sender<Reply>,
}

impl Said {
    pub fn answer(self, reply: Reply) {
        // Whoever asked may be gone.
        let _ = self.reply.send(reply);
    }
}

/// Listens while a program runs.
pub(super) struct Server {
    said: Receiver<Said>,
}

impl Server {
    /// Listens at a path until `is_over` is raised and all that was said before is heard.
    ///
    /// # Errors
    /// The system's.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        path: &Path,
        is_over: &'scope AtomicBool,
    ) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let (say, said) = sync_channel(CONNECTIONS);
        std::thread::Builder::new().name("trainer socket".into()).spawn_scoped(
            scope,
            move || {
                loop {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            let say = say.clone();
                            let hear = move || drop(hear(stream, &say, is_over));
                            // Without a thread for it the connection is closed, which its program hears.
                            let _ = std::thread::Builder::new().spawn_scoped(scope, hear);
                        }
                        Err(_) if is_over.load(Ordering::Relaxed) => break,
                        Err(_) => std::thread::sleep(LOOK),
                    }
                }
            },
        )?;
        Ok(Self { said })
    }

    /// The next line; `None` if there is none for a moment.
    ///
    /// # Errors
    /// There will be none any more.
    pub fn next(&self, wait: Duration) -> Result<Option<Said>, ()> {
        match self.said.recv_timeout(wait) {
            Ok(said) => Ok(Some(said)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(()),
        }
    }
}

/// Hands the lines of one connection on, each when the one before it is answered.
fn hear(mut stream: UnixStream, say: &SyncSender<Said>, is_over: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LOOK))?;
    // One that never reads its answers is given up.
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let (mut buffer, mut piece) = (Vec::new(), [0; 8192]);
    loop {
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let line = match end {
            Some(end) => {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                match String::from_utf8(line) {
                    Ok(line) if line.trim().is_empty() => continue,
                    line => line.map_err(|_| "a line that is not UTF-8".to_owned()),
                }
            }
            None if buffer.len() > LONGEST_LINE => {
                buffer.clear();
                Err(format!("a line of more than {LONGEST_LINE} bytes"))
            }
            None => match stream.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    buffer.extend_from_slice(&piece[..read]);
                    continue;
                }
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                {
                    if is_over.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            },
        };
        let (reply, answer) = channel();
        if say.send(Said { line, reply }).is_err() {
            return Ok(());
        }
        let Ok(answer) = answer.recv() else { return Ok(()) };
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        stream.write_all(text.as_bytes())?;
    }
}
