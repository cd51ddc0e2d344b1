//! A program beside the stages, which is told of an event: the event on its standard input, a time
//! limit for it and all that it starts, no lock.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use pipe_core::secret;

use super::Program;
use super::output::Lines;
use super::process::{LAST_WORDS, command_of, how, shortened};
use super::process_tree::ProcessTree;
use crate::pipeline_file::environment;

/// Time between the request to end and the end by force.
const GRACE: Duration = Duration::from_secs(1);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// What it left running is looked for so often.
const BETWEEN_SCANS: Duration = Duration::from_millis(100);
/// Characters of its last line that an error repeats.
const LINE_WIDTH: usize = 300;

/// A program, and what it is told.
pub(crate) struct HookProgram<'a> {
    pub program: &'a Program,
    /// Where it is started.
    pub folder: &'a Path,
    /// What it finds on its standard input.
    pub input: String,
    pub variables: BTreeMap<String, String>,
    pub limit: Duration,
}

impl HookProgram<'_> {
    /// Runs it to its end, or to its limit; `tell` gets what it prints, line by line.
    ///
    /// # Errors
    ///
    /// Why it did not end well, in words.
    pub fn run(&self, mut tell: impl FnMut(&str)) -> Result<(), String> {
        let until = Instant::now().checked_add(self.limit);
        let is_over = || until.is_some_and(|until| Instant::now() >= until);
        let mut command = command_of(self.program).map_err(|error| error.message)?;
        command.current_dir(self.folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Those of a hook around this program are not its own.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(environment::is_of_hooks) {
                command.env_remove(name);
            }
        }
        command.env_remove(environment::STAGE).envs(&self.variables);
        let started = ProcessTree::start(&mut command, None);
        let (mut child, family) = started.map_err(|e| format!("failed to start: {e}"))?;
        feed(&mut child, self.input.clone());
        let lines = Lines::new();
        if let Some(out) = child.stdout.take() {
            lines.listen(out);
        }
        if let Some(out) = child.stderr.take() {
            lines.listen(out);
        }
        let lines = lines.sealed();
        let mut last = String::new();
        let mut hear = |line: String| {
            tell(&line);
            if !line.trim().is_empty() {
                last = line;
            }
        };
        let status = wait(&mut child, &lines, &mut hear, is_over);
        // What it left running has the rest of its time.
        let is_left = status.is_ok() && is_left(&family, &lines, &mut hear, is_over);
        let status = match status {
            Ok(status) if !is_left => Ok(status),
            ended => {
                end(&mut child, &family, &lines, &mut hear);
                ended
            }
        };
        family.reap();
        lines.drain(LAST_WORDS, &mut hear);
        let last = shortened(secret::mask(&last).trim(), LINE_WIDTH);
        let said = if last.is_empty() { last } else { format!(": {last}") };
        match status {
            Err(error) => Err(error.unwrap_or_else(|| format!("{}{said}", self.ended()))),
            Ok(status) if !status.success() => Err(format!("{}{said}", how(status))),
            Ok(_) if is_left => Err(format!("what it left running {}", self.ended())),
            Ok(_) => Ok(()),
        }
    }

    fn ended(&self) -> String {
        format!("was ended after {}, its time limit", humantime::format_duration(self.limit))
    }
}

/// Hands over what it is told. It need not read it.
fn feed(child: &mut Child, text: String) {
    let Some(mut input) = child.stdin.take() else { return };
    let write = move || {
        let _ = input.write_all(text.as_bytes());
    };
    if let Err(error) = std::thread::Builder::new().spawn(write) {
        tracing::debug!("a hook is not told anything: {error}");
    }
}

/// Waits for the end of the program itself. Fails without words where the time is over.
fn wait(
    child: &mut Child,
    lines: &Lines,
    hear: &mut impl FnMut(String),
    is_over: impl Fn() -> bool,
) -> Result<ExitStatus, Option<String>> {
    let mut closed = false;
    loop {
        match lines.next(BETWEEN_LOOKS) {
            Ok(line) => hear(line),
            // It is about to end, so at first without a wait.
            Err(RecvTimeoutError::Disconnected) if !closed => closed = true,
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(1)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if is_over() => return Err(None),
            Ok(None) => {}
            Err(error) => return Err(Some(format!("failed to wait: {error}"))),
        }
    }
}

/// Whether anything that it started runs on when the time is over.
fn is_left(
    family: &ProcessTree,
    lines: &Lines,
    hear: &mut impl FnMut(String),
    is_over: impl Fn() -> bool,
) -> bool {
    while !family.names().is_empty() {
        if is_over() {
            return true;
        }
        let scanned = Instant::now();
        while scanned.elapsed() < BETWEEN_SCANS {
            match lines.next(BETWEEN_LOOKS) {
                Ok(line) => hear(line),
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(BETWEEN_LOOKS),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
    false
}

/// Ends the program and all below it: told first, by force after [`GRACE`].
fn end(child: &mut Child, family: &ProcessTree, lines: &Lines, hear: &mut impl FnMut(String)) {
    family.signal(false);
    let until = Instant::now() + GRACE;
    let is_over = || Instant::now() >= until;
    if wait(child, lines, hear, is_over).is_err() || is_left(family, lines, hear, is_over) {
        family.signal(true);
        let _ = child.kill();
        let _ = child.wait();
        let stays = family.finish(true).stays;
        if !stays.is_empty() {
            tracing::warn!("a hook left processes that could not be ended: {}", stays.join(", "));
        }
    }
}
