//! Programs that may crash or hang: a driver that does is a finding, and not the end of the command.

use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a program ended that was waited for.
pub struct Ended {
    /// `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    /// The last line that it wrote to stderr.
    pub last_words: String,
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started, or did not end in time and was ended.
pub fn run(program: &str, arguments: &[&str], at_most: Duration) -> std::io::Result<Ended> {
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .spawn()?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > at_most {
            child.kill()?;
            child.wait()?;
            let text = format!("it did not end within {} s", at_most.as_secs());
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let read = |file: &mut std::fs::File| {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let told = read(&mut err)?;
    let last_words = told.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Ok(Ended {
        code: status.code(),
        stdout: read(&mut out)?,
        last_words: last_words.trim().to_owned(),
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_hangs_or_is_not_there_is_told_apart() {
        let soon = Duration::from_millis(200);
        let ended = run("sh", &["-c", "echo a; echo b >&2; echo >&2; exit 3"], soon * 50).unwrap();
        assert_eq!(
            (ended.code, ended.stdout.as_str(), ended.last_words.as_str()),
            (Some(3), "a\n", "b")
        );
        let crashed = run("sh", &["-c", "kill -SEGV $$"], soon * 50).unwrap();
        assert_eq!(crashed.code, None);
        let hung = run("sleep", &["60"], soon).err().unwrap();
        assert_eq!(hung.kind(), std::io::ErrorKind::TimedOut);
        assert!(run("/no/such/program", &[], soon).is_err());
    }
}
