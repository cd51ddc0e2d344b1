//! The floor that everything stands on: names, failures, messages about what people wrote,
//! fingerprints, events, the wish to stop.
//!
//! Opens no file and starts no program. Knows nothing of stages, runs or training but their names.
//!
//! A message about a pipeline file names the place, shows the line, and says what to write:
//!
//! ```
//! use pipe_core::error::SpecError;
//! use pipe_core::source::{Part, Source};
//!
//! let file = Source::new("greet.yaml", "stages:\n  hello: { kind: comand }\n");
//! let key: Vec<String> = ["stages", "hello", "kind"].map(String::from).into();
//! let error = SpecError::on(&file, key, Part::Value, "unknown kind `comand`")
//!     .candidates("comand", ["command", "dataset", "train"]);
//! assert_eq!(
//!     error.to_string(),
//!     "\
//! greet.yaml:2:18: stages.hello.kind: unknown kind `comand`
//!   |
//! 2 |   hello: { kind: comand }
//!   |                  ^^^^^^
//!   = did you mean `command`?
//!   = expected one of: command, dataset, train"
//! );
//! ```
//!
//! # Where things are
//!
//! | module | |
//! |---|---|
//! | [`ids`], [`names`] | the name of a stage, and what files are called after it |
//! | [`error`], [`source`] | messages about what people wrote, and where in a file it stands |
//! | [`failure`] | how a stage fails, which decides whether it is tried again, and the exit code |
//! | [`fingerprint`], [`digest`] | settings by key, and their digest |
//! | [`progress`] | events of running stages, and who listens to them |
//! | [`stop`] | the wish to stop, as a signal or a time limit says it |
//! | [`secret`], [`untrusted_text`] | what may not be shown, and what may not be shown as it is |
//! | [`shell`] | commands that a person can paste |
//! | [`number_text`] | numbers, and what is counted, in a line of text |
//! | [`parallel`], [`threads`] | work on all cores; stacks |

// What comes from outside must not be able to end the program.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

pub mod digest;
pub mod error;
mod excerpt;
pub mod failure;
pub mod fingerprint;
pub mod ids;
pub mod names;
pub mod number_text;
pub mod parallel;
mod position;
pub mod progress;
pub mod rng;
pub mod secret;
pub mod shell;
pub mod source;
mod status;
pub mod stop;
pub mod threads;
pub mod untrusted_text;
mod yaml_slips;

pub use status::Status;
