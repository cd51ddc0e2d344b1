//! What a program prints, line by line. However much it is and however long a line, it takes the
//! same memory.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use pipe_core::secret;

/// Bytes of a line that are shown.
pub(super) const LONGEST_LINE: usize = 1 << 16;
/// What stands behind a line that was longer.
pub(super) const CUT: &str = " … (the rest of this line is left out)";
/// Lines that wait to be told; a program that is faster waits.
const WAITING: usize = 64;

/// Reads a program's output in threads of their own.
pub(super) struct Lines {
    sender: Option<SyncSender<String>>,
    lines: Receiver<String>,
    given_up: Arc<AtomicBool>,
}

impl Lines {
    pub fn new() -> Self {
        let (sender, lines) = sync_channel(WAITING);
        Self { sender: Some(sender), lines, given_up: Arc::default() }
    }

    pub fn listen(&self, out: impl Read + Send + 'static) {
        let Some(sender) = self.sender.clone() else { return };
        let given_up = self.given_up.clone();
        std::thread::spawn(move || {
            let told =
                |line: String| sender.send(line).is_ok() && !given_up.load(Ordering::Relaxed);
            read(BufReader::with_capacity(LONGEST_LINE, out), told, || {
                given_up.load(Ordering::Relaxed)
            });
        });
    }

    /// Nothing more is to be listened to, so that the last one to end is the end.
    pub fn sealed(mut self) -> Self {
        self.sender = None;
        self
    }

    pub fn next(&self, wait: Duration) -> Result<String, RecvTimeoutError> {
        self.lines.recv_timeout(wait)
    }

    /// Tells what is there, for a while at most: somebody may hold the other end open for ever, or
    /// print for ever.
    pub fn drain(self, time: Duration, mut tell: impl FnMut(String)) {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if !left.is_zero() => tell(line),
                _ => break,
            }
        }
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// Calls `tell` with each line until the end, or until it says `false`. A carriage return begins
/// the line anew, as on a terminal.
fn read(mut out: impl BufRead, mut tell: impl FnMut(String) -> bool, given_up: impl Fn() -> bool) {
    let mut line = Vec::new();
    let (mut is_cut, mut returned) = (false, false);
    loop {
        let piece = match out.fill_buf() {
            Ok([]) => break,
            Ok(piece) => piece,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        if given_up() {
            return;
        }
        let end = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let text = &piece[..end.unwrap_or(piece.len())];
        if !text.is_empty() && returned {
            line.clear();
            (is_cut, returned) = (false, false);
        }
        let mut good = true;
        if !is_cut {
            let room = LONGEST_LINE - line.len();
            line.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() > room {
                is_cut = true;
                // Told now: its end may never come.
                good = tell(cut(&line));
                line.clear();
            }
        }
        let used = end.map_or(text.len(), |end| end + 1);
        let last = end.and_then(|end| piece.get(end)).copied();
        out.consume(used);
        match last {
            Some(b'\n') => {
                if !is_cut {
                    good = tell(String::from_utf8_lossy(&line).into_owned());
                }
                line.clear();
                (is_cut, returned) = (false, false);
            }
            Some(_) => returned = true,
            None => {}
        }
        if !good {
            return;
        }
    }
    if !line.is_empty() && !is_cut {
        tell(String::from_utf8_lossy(&line).into_owned());
    }
}

/// The beginning of a line. A secret that the cut went through is not begun.
fn cut(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let whole = secret::without_half(&text);
    format!("{whole}{CUT}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], capacity: usize) -> Vec<String> {
        let mut found = Vec::new();
        let tell = |line| {
            found.push(line);
            true
        };
        read(BufReader::with_capacity(capacity, text), tell, || false);
        found
    }

    #[test]
    fn lines_come_whole_whatever_the_pieces() {
        for capacity in [1, 2, 3, 7, 64] {
            assert_eq!(
                lines(b"one\ntwo\r\n\nfour", capacity),
                ["one", "two", "", "four"],
                "{capacity}"
            );
            assert_eq!(lines(b" 1%\r 2%\r100%\nnext\n", capacity), ["100%", "next"], "{capacity}");
            assert_eq!(lines(b"\r\n\r\r\na\r", capacity), ["", "", "a"], "{capacity}");
            assert_eq!(lines(b"a\xffb\n", capacity), ["a\u{fffd}b"], "{capacity}");
        }
    }

    #[test]
    fn a_long_line_is_cut_with_a_mark_and_not_split() {
        for (length, capacity) in
            [(LONGEST_LINE + 1, 1000), (LONGEST_LINE + 1, LONGEST_LINE), (5 * LONGEST_LINE, 4096)]
        {
            let text = format!("{}\nnext\n", "x".repeat(length));
            let found = lines(text.as_bytes(), capacity);
            assert_eq!(found.len(), 2, "{length}");
            assert_eq!(found[0], format!("{}{CUT}", "x".repeat(LONGEST_LINE)));
            assert_eq!(found[1], "next");
        }
        let text = format!("{}\n", "x".repeat(LONGEST_LINE));
        assert_eq!(lines(text.as_bytes(), 4096), [text.trim_end()]);
    }
}
