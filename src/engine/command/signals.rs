//! Ends of programs by a signal, in words.

/// The signals that end programs without their wish, by their numbers on this system, with what
/// mostly sends them.
#[cfg(unix)]
const MEANINGS: [(rustix::process::Signal, &str, &str); 14] = {
    use rustix::process::Signal;
    [
        (Signal::HUP, "SIGHUP", ""),
        (Signal::INT, "SIGINT", ""),
        (Signal::QUIT, "SIGQUIT", ""),
        (Signal::ILL, "SIGILL", "an instruction that this processor does not have"),
        (Signal::ABORT, "SIGABRT", "it gave up by itself"),
        (Signal::BUS, "SIGBUS", "a file or device went away while it was read"),
        (Signal::FPE, "SIGFPE", "a division by zero or the like"),
        (Signal::KILL, "SIGKILL", "by `kill -9`, or by the system for want of memory"),
        (Signal::SEGV, "SIGSEGV", "a fault in the program"),
        (Signal::PIPE, "SIGPIPE", "nobody read what it wrote"),
        (Signal::TERM, "SIGTERM", ""),
        (Signal::XCPU, "SIGXCPU", "its limit of processor time is reached: `ulimit -t`"),
        (Signal::XFSZ, "SIGXFSZ", "a file grew longer than its limit allows: `ulimit -f`"),
        (Signal::SYS, "SIGSYS", "a call of the system that it may not make"),
    ]
};

/// A signal with its number and what it means.
#[cfg(unix)]
pub(super) fn words(signal: i32) -> String {
    match MEANINGS.iter().find(|(known, ..)| known.as_raw() == signal) {
        Some((_, name, "")) => format!("signal {signal} ({name})"),
        Some((_, name, meaning)) => format!("signal {signal} ({name}: {meaning})"),
        None => format!("signal {signal}"),
    }
}

/// What a shell's exit code says of the signal that ended what it ran, if it is one.
pub(super) fn of_shell(code: i32) -> Option<String> {
    #[cfg(unix)]
    return code.checked_sub(128).and_then(|signal| {
        let known = MEANINGS.iter().any(|(known, ..)| known.as_raw() == signal);
        known.then(|| words(signal))
    });
    #[cfg(not(unix))]
    return Some(code).filter(|_| false).map(|_| String::new());
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn an_end_by_a_signal_has_words() {
        let limit = rustix::process::Signal::XFSZ.as_raw();
        assert!(words(limit).contains("ulimit -f"), "{}", words(limit));
        assert_eq!(of_shell(128 + limit), Some(words(limit)));
        assert_eq!(words(15), "signal 15 (SIGTERM)");
        assert_eq!((of_shell(1), of_shell(128), of_shell(255)), (None, None, None));
    }
}
