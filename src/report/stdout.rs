//! Lines on stdout: results, for people and programs.

use std::io::{self, ErrorKind, IsTerminal, Write};

use pipe_core::{secret, untrusted_text};

use super::style;

/// Prints to stdout; a closed pipe (`pipe runs | head`) ends the program quietly. Whoever wrote
/// what is printed, it holds no secrets, and nothing that a terminal would obey.
macro_rules! say {
    ($($piece:tt)*) => { $crate::report::stdout::line(&format!($($piece)*)) };
}
pub(crate) use say;

/// Prints a text, whoever wrote it: without secrets, and without anything that a terminal would
/// obey.
pub fn line(text: &str) {
    exit_on_error(try_line(text));
}

/// The same where a stdout that is closed changes nothing.
pub fn try_line(text: &str) -> io::Result<()> {
    let colours = style::stdout_colours();
    writeln!(
        io::stdout(),
        "{}",
        untrusted_text::escape_control(&secret::mask_learned(text), colours)
    )
}

/// Prints a file that somebody asked for as it is, such as one that another program is to read.
pub fn document(text: &str) {
    if io::stdout().is_terminal() {
        exit_on_error(writeln!(io::stdout(), "{}", untrusted_text::escape_control(text, false)))
    } else {
        exit_on_error(writeln!(io::stdout(), "{text}"))
    }
}

/// A closed pipe ends the program quietly.
fn exit_on_error(written: io::Result<()>) {
    if let Err(error) = written {
        if error.kind() != ErrorKind::BrokenPipe {
            let _ = writeln!(io::stderr(), "error: failed to write to stdout: {error}");
        }
        std::process::exit(1);
    }
}
