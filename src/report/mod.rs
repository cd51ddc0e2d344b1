//! How things are shown to people and programs. Knows no command and nothing of `cli`, which calls
//! it.

pub mod dataset;
pub mod json;
pub mod log;
pub mod message;
pub mod narrator;
mod output;
pub mod page;
pub mod progress_line;
mod reporter;
pub mod stage_status;
pub mod stderr;
pub mod stdout;
pub mod style;
pub mod table;
pub mod terminal;

pub use output::{LogFormat, Output};
pub use reporter::Reporter;

/// The reporter that the command line asks for. `concurrent`: stages run at once, so each line says
/// whose it is.
pub fn reporter(output: &Output, concurrent: bool) -> Box<dyn Reporter> {
    match output.log {
        LogFormat::Json => Box::new(json::JsonLines),
        LogFormat::Text => {
            Box::new(terminal::Terminal::new(output.quiet, output.verbose > 0, concurrent))
        }
    }
}
