//! What was found, and what to do about it.

use serde::Serialize;

/// Commands of this program that are told to be typed.
pub mod commands {
    pub const DEVICES: &str = "pipe devices";
    pub const MAKE_ROOM: &str = "pipe gc";
    pub const ON_CPU: &str = "pipe run PIPELINE --device cpu";
    pub const SMALL_BATCH: &str = "pipe run PIPELINE --batch-size 8";
    pub const PACKAGE: &str = "pipe python";
}

/// Has the loader say what it does with each driver.
pub const DEBUG_LOADER: &str = "VK_LOADER_DEBUG=error,warn,driver pipe devices";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Something is slower or less than it could be.
    Warning,
    /// Something does not work.
    Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about: loader, drivers, gpu, disk.
    pub subject: &'static str,
    pub verdict: Verdict,
    pub text: String,
    /// What to type.
    pub remedy: Option<String>,
}

impl Finding {
    pub fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Ok, text: text.into(), remedy: None }
    }

    pub fn warning(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, ..Self::ok(subject, text) }
    }

    pub fn problem(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Problem, ..Self::ok(subject, text) }
    }

    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// A line, and one more for what to type.
    pub fn lines(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
        };
        let line = format!("{verdict:<8} {:<8} {}", self.subject, self.text);
        match &self.remedy {
            Some(remedy) => format!("{line}\n{:<17} -> {remedy}", ""),
            None => line,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_understands_what_it_tells_to_type() {
        use clap::Parser;
        let debug = DEBUG_LOADER.split_once(' ').unwrap().1;
        for line in [
            commands::DEVICES,
            commands::MAKE_ROOM,
            commands::ON_CPU,
            commands::SMALL_BATCH,
            commands::PACKAGE,
            debug,
        ] {
            let parsed = crate::cli::Arguments::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.err().unwrap());
        }
    }

    #[test]
    fn a_finding_is_a_line_and_a_remedy_one_more() {
        assert_eq!(Finding::ok("disk", "fine").lines(), "ok       disk     fine");
        let problem = Finding::problem("loader", "none").with_remedy("apt-get install it");
        assert_eq!(
            problem.lines(),
            "problem  loader   none\n                  -> apt-get install it"
        );
    }
}
