//! A child process with a process group of its own: its output becomes events, and a wish to stop reaches all that it
//! started.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::Program;
use crate::kind::{Failure, RunContext, StageError};
use crate::progress::Event;
use crate::spec::environment;

/// Time between the request to stop and the end by force.
const GRACE: Duration = Duration::from_secs(10);
/// Time in which a signal that the program got is heard here too.
const HEARING: Duration = Duration::from_millis(500);
/// Lines of output that an error repeats.
const TAIL: usize = 5;
/// Longer lines are cut.
const LONGEST_LINE: u64 = 1 << 16;

/// Runs the program to its end. Its lines on stdout and stderr become messages.
pub(super) fn run(
    context: &RunContext,
    program: &Program,
    folder: &Path,
    env: &BTreeMap<String, String>,
) -> Result<(), StageError> {
    let mut command = match program {
        Program::Shell(line) => {
            let mut shell = if cfg!(windows) { Command::new("cmd") } else { Command::new("sh") };
            shell.arg(if cfg!(windows) { "/C" } else { "-c" }).arg(line);
            shell
        }
        Program::Arguments(list) => {
            let (first, rest) = list.split_first().ok_or_else(|| failed("nothing to run".into()))?;
            let mut command = Command::new(first);
            command.args(rest);
            command
        }
    };
    let shown = program.shown();
    command.current_dir(folder).envs(env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env(environment::STAGE, context.stage.as_str());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let spawned = command.spawn();
    let mut child = spawned.map_err(|e| failed(format!("failed to start `{shown}`: {e}")))?;

    let (lines, heard) = channel();
    if let Some(out) = child.stdout.take() {
        listen(out, lines.clone());
    }
    if let Some(out) = child.stderr.take() {
        listen(out, lines.clone());
    }
    drop(lines);
    let mut tail: Vec<String> = Vec::new();
    let mut tell = |line: String| {
        if tail.len() == TAIL {
            tail.remove(0);
        }
        tail.push(line.clone());
        context.event(Event::Output { line });
    };
    let mut asked: Option<Instant> = None;
    let mut closed = false;
    let status = loop {
        match heard.recv_timeout(Duration::from_millis(20)) {
            Ok(line) => tell(line),
            // It is about to end, so at first without a wait.
            Err(RecvTimeoutError::Disconnected) if !closed => closed = true,
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(1)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(status) = child.try_wait().map_err(|e| failed(format!("failed to wait: {e}")))? {
            break status;
        }
        match (context.stop.requested(), asked) {
            (Some(_), None) => {
                end(&mut child, false);
                asked = Some(Instant::now());
            }
            (_, Some(at)) if at.elapsed() > GRACE => end(&mut child, true),
            _ => {}
        }
    };
    if asked.is_some() {
        // What it left running of its group goes too.
        end(&mut child, true);
    }
    // What a child of it still holds open is not waited for.
    let until = Instant::now() + Duration::from_millis(200);
    while let Ok(line) = heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
        tell(line);
    }
    let told = asked.is_some() || (!status.success() && was_told(status, context));
    match (status.success(), context.stop.requested(), told) {
        (false, Some(signal), true) => {
            let text = format!("`{shown}` was stopped by {}", signal.name());
            Err(StageError::new(Failure::Interrupted(signal), text))
        }
        (true, ..) => Ok(()),
        (false, ..) => {
            let said = match tail.is_empty() {
                true => String::new(),
                false => format!(":\n  {}", tail.join("\n  ")),
            };
            Err(failed(format!("`{shown}` {}{said}", how(status))))
        }
    }
}

fn failed(message: String) -> StageError {
    StageError::new(Failure::Command, message)
}

/// Whether the wish to stop is why the program ended. Schedulers tell all processes of a job at once: this one may hear it a
/// moment later than the program did.
fn was_told(status: ExitStatus, context: &RunContext) -> bool {
    const SIGTERM: i32 = 15;
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal: Option<i32> = None;
    // As shells say it of what they ran.
    let terminated = signal == Some(SIGTERM) || status.code() == Some(128 + SIGTERM);
    context.stop.requested().is_some() || (terminated && !context.stop.sleep(HEARING))
}

fn how(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("was ended by signal {signal}");
    }
    status.code().map_or_else(|| "ended".to_owned(), |code| format!("ended with exit code {code}"))
}

/// Reads lines in a thread of its own until the other end closes.
fn listen(out: impl Read + Send + 'static, lines: Sender<String>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(out);
        loop {
            let mut line = Vec::new();
            match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    if lines.send(text.trim_end_matches(['\n', '\r']).to_owned()).is_err() {
                        return;
                    }
                }
            }
        }
    });
}

/// Asks the process group to end, or ends it.
#[cfg(unix)]
fn end(child: &mut Child, by_force: bool) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let signal = if by_force { Signal::KILL } else { Signal::TERM };
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, signal);
    }
}

#[cfg(not(unix))]
fn end(child: &mut Child, _: bool) {
    let _ = child.kill();
}
