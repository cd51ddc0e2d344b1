//! A child process with a process group of its own: its output becomes events, a wish to stop
//! reaches all that it started, and all that it started ends with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use pipe_core::failure::{Failure, StageError};
use pipe_core::progress::Event;
use pipe_core::secret;

use super::output::Lines;
use super::process_tree::{LeftRunning, ProcessTree};
use super::{Program, signals};
use crate::kind::RunContext;
use crate::pipeline_file::environment;
use crate::policy::Span;

/// Time between the request to stop and the end by force.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// Time in which a signal that the program got is heard here too.
const HEARING: Duration = Duration::from_millis(500);
/// What is printed in the moment of the end is waited for so long.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(200);
/// How often is looked for those that lost their parent and have ended.
const BETWEEN_REAPING: Duration = Duration::from_secs(1);
/// Lines of output that an error repeats, and characters of each.
const TAIL: usize = 5;
const TAIL_WIDTH: usize = 1000;
/// Characters of the program that messages repeat.
const PROGRAM_WIDTH: usize = 400;

/// A program, and how it is started and ended.
pub struct Launch<'a> {
    pub program: &'a Program,
    /// Another program that starts it elsewhere, if there is one.
    pub starter: Option<&'a Starter<'a>>,
    /// Where it is started.
    pub folder: &'a Path,
    /// Variables besides those of this process.
    pub env: &'a BTreeMap<String, String>,
    /// Time between the request to stop and the end by force.
    pub grace: Duration,
    /// Whether the request to stop goes to all that the program started, and not to it alone.
    pub tells_all: bool,
    /// Raised when it is to end although nobody asked the stage to stop.
    pub cancelled: &'a AtomicBool,
}

/// A program that starts the stage's own on other machines. It is asked to end it by the end of its
/// stdin, and sees to the time until the end by force itself; a signal makes it end all at once.
pub struct Starter<'a> {
    /// The words before those of the stage's program.
    pub words: Vec<String>,
    /// Hears each line of output.
    pub hear: &'a (dyn Fn(&str) + Sync),
}

/// A starter has so much longer than its program to end.
const STARTER_GRACE: Duration = Duration::from_secs(10);

/// The program as the system starts it, by its starter if it has one.
fn started_command(launch: &Launch) -> Result<Command, StageError> {
    let own = match launch.program {
        Program::Shell(line) if !launch.tells_all && is_one_command(line) => {
            command_of(&Program::Shell(format!("exec {line}")))?
        }
        program => command_of(program)?,
    };
    let Some((first, rest)) = launch.starter.and_then(|starter| starter.words.split_first()) else {
        return Ok(own);
    };
    let mut command = Command::new(first);
    command.args(rest).arg(own.get_program()).args(own.get_args());
    Ok(command)
}

/// Whether a line for the shell is a program and its arguments, so that the shell can become it. It
/// is the first process that is told to stop, and many shells stay one of their own.
fn is_one_command(line: &str) -> bool {
    const BUILT_IN: [&str; 18] = [
        ".", ":", "!", "case", "cd", "eval", "exec", "exit", "export", "for", "if", "read", "set",
        "trap", "ulimit", "umask", "until", "while",
    ];
    let first = line.split_whitespace().next().unwrap_or_default();
    !first.is_empty()
        && !first.contains('=')
        && !BUILT_IN.contains(&first)
        && !line.contains([';', '&', '|', '(', ')', '{', '}', '`', '\n', '#'])
        && cfg!(unix)
}

/// The program as the system starts it.
pub(super) fn command_of(program: &Program) -> Result<Command, StageError> {
    match program {
        Program::Shell(line) => {
            let mut shell = if cfg!(windows) { Command::new("cmd") } else { Command::new("sh") };
            shell.arg(if cfg!(windows) { "/C" } else { "-c" }).arg(line);
            Ok(shell)
        }
        Program::Arguments(list) => {
            let (first, rest) =
                list.split_first().ok_or_else(|| failed("nothing to run".into()))?;
            let mut command = Command::new(first);
            command.args(rest);
            Ok(command)
        }
    }
}

/// Tells each line until the program has ended. Returns how, and whether it was asked to stop: told
/// first, ended by force after a time.
fn wait(
    (context, launch): (&RunContext, &Launch),
    child: &mut Child,
    family: &ProcessTree,
    lines: &Lines,
    tell: &mut impl FnMut(String),
) -> Result<(ExitStatus, bool), StageError> {
    let mut asked: Option<Instant> = None;
    let (mut stdin, mut told) = (child.stdin.take(), false);
    let mut closed = false;
    let mut reaped = Instant::now();
    loop {
        match lines.next(Duration::from_millis(20)) {
            Ok(line) => tell(line),
            // It is about to end, so at first without a wait.
            Err(RecvTimeoutError::Disconnected) if !closed => closed = true,
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(1)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(status) =
            child.try_wait().map_err(|e| failed(format!("failed to wait: {e}")))?
        {
            return Ok((status, asked.is_some()));
        }
        let is_to_end =
            context.stop.requested().is_some() || launch.cancelled.load(Ordering::Relaxed);
        match asked {
            None if is_to_end => {
                if context.stop.requested().is_some() || launch.starter.is_none() {
                    ask(launch, family, &mut stdin);
                } else {
                    // Nothing that it would do yet counts.
                    family.signal_leader();
                }
                asked = Some(Instant::now());
            }
            Some(at) => force(context, launch, family, (at.elapsed(), &mut told)),
            None => {}
        }
        if reaped.elapsed() > BETWEEN_REAPING {
            family.reap();
            reaped = Instant::now();
        }
    }
}

/// Asks a program to end.
fn ask(launch: &Launch, family: &ProcessTree, stdin: &mut Option<ChildStdin>) {
    if launch.starter.is_some() {
        stdin.take();
    } else if launch.tells_all {
        family.signal(false);
    } else {
        family.signal_leader();
    }
}

/// Ends a program by force once its time is over. A starter is told once before, so that it ends
/// what it started elsewhere.
fn force(
    context: &RunContext,
    launch: &Launch,
    family: &ProcessTree,
    (since, told): (Duration, &mut bool),
) {
    let Some(_) = launch.starter else {
        if since > launch.grace {
            if !*told {
                let text = format!("the program did not end within {}: killed", Span(launch.grace));
                context.event(Event::Warning { text });
                *told = true;
            }
            family.signal(true);
        }
        return;
    };
    let late = since.saturating_sub(launch.grace);
    if late > 2 * STARTER_GRACE {
        family.signal(true);
    } else if late > STARTER_GRACE && !*told {
        family.signal_leader();
        *told = true;
    }
}

/// Why a program did not end well.
pub struct LaunchError {
    pub error: StageError,
    /// Whether it crashed: a signal ended it that nobody here had sent, or an exit code says the
    /// same of what it started.
    pub is_crash: bool,
}

impl From<StageError> for LaunchError {
    fn from(error: StageError) -> Self {
        Self { error, is_crash: false }
    }
}

impl From<LaunchError> for StageError {
    fn from(ended: LaunchError) -> Self {
        ended.error
    }
}

/// Runs a program to its end: its lines on stdout and stderr become messages, and all that it
/// started ends with it.
///
/// # Errors
/// It could not be started, ended badly, or was stopped.
pub fn launch(context: &RunContext, launch: &Launch) -> Result<(), LaunchError> {
    let Launch { program, folder, env, starter, .. } = *launch;
    let mut command = started_command(launch)?;
    let shown = secret::mask(&program.shown()).split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = shortened(&shown, PROGRAM_WIDTH);
    command
        .current_dir(folder)
        .envs(env)
        .stdin(if starter.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.env(environment::STAGE, context.stage.as_str());
    let started = ProcessTree::start(&mut command, Some(context.lock));
    let (mut child, family) =
        started.map_err(|e| failed(format!("failed to start `{shown}`: {e}")))?;
    context.lock.note(&format!("pid {}: {shown}", child.id()));

    let lines = Lines::new();
    if let Some(out) = child.stdout.take() {
        lines.listen(out);
    }
    if let Some(out) = child.stderr.take() {
        lines.listen(out);
    }
    let lines = lines.sealed();
    let mut tail: Vec<String> = Vec::new();
    let mut tell = |line: String| {
        if let Some(starter) = starter {
            (starter.hear)(&line);
        }
        let line = secret::mask(&line).into_owned();
        if tail.len() == TAIL {
            tail.remove(0);
        }
        tail.push(shortened(&line, TAIL_WIDTH));
        context.event(Event::Output { line });
    };
    let (status, asked) = wait((context, launch), &mut child, &family, &lines, &mut tell)?;
    let told = asked || (!status.success() && was_told(status, context));
    // What it left running goes, too. Meanwhile its output is read on: somebody may wait for that
    // to end.
    let left = std::thread::scope(|scope| {
        let finishing = scope.spawn(|| family.finish(told));
        while !finishing.is_finished() {
            match lines.next(Duration::from_millis(5)) {
                Ok(line) => tell(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        finishing.join().unwrap_or_default()
    });
    family.reap();
    // What somebody still holds open is not waited for.
    lines.drain(LAST_WORDS, &mut tell);
    tell_of(context, &shown, left);
    match (status.success(), context.stop.requested(), told) {
        (false, Some(signal), true) => {
            let text = format!("`{shown}` was stopped by {}", signal.name());
            Err(StageError::new(Failure::Interrupted(signal), text).into())
        }
        (true, ..) => Ok(()),
        (false, ..) => {
            let said =
                if tail.is_empty() { String::new() } else { format!(":\n  {}", tail.join("\n  ")) };
            let error = failed(format!("`{shown}` {}{said}", how(status)));
            Err(LaunchError { error, is_crash: !asked && is_by_signal(status) })
        }
    }
}

fn failed(message: String) -> StageError {
    StageError::new(Failure::Command, message)
}

/// The beginning of a text that is too long for a message.
pub(super) fn shortened(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Says what a program left running: it ends with its stage.
fn tell_of(context: &RunContext, shown: &str, left: LeftRunning) {
    let warn =
        |text: String| context.event(Event::Warning { text: secret::mask(&text).into_owned() });
    if !left.ended.is_empty() {
        let names = left.ended.join(", ");
        warn(format!("`{shown}` left processes running, which were ended with the stage: {names}"));
    }
    if !left.stays.is_empty() {
        let names = left.stays.join(", ");
        warn(format!("`{shown}` left processes running that could not be ended: {names}"));
    }
}

/// Whether the wish to stop is why the program ended. Schedulers tell all processes of a job at
/// once: this one may hear it a moment later than the program did.
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

/// Whether a signal ended the program, or what it ran: then the exit code is that of shells.
fn is_by_signal(status: ExitStatus) -> bool {
    status.code().is_none_or(|code| signals::of_shell(code).is_some())
}

pub(super) fn how(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("was ended by {}", signals::words(signal));
    }
    let Some(code) = status.code() else { return "ended".to_owned() };
    match signals::of_shell(code) {
        Some(words) => format!("ended with exit code {code} ({words})"),
        None => format!("ended with exit code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_becomes_a_single_command_and_no_other_line() {
        for line in ["sh train.sh", "python train.py --rate \"$RATE\" > log 2>/dev/null"] {
            assert!(is_one_command(line), "{line}");
        }
        for line in [
            "",
            "cd x && python train.py",
            "RATE=1 python train.py",
            "a; b",
            "a | b",
            "if true",
            "(a)",
        ] {
            assert!(!is_one_command(line), "{line}");
        }
    }
}
