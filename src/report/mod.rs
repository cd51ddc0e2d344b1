//! How things are shown to people and programs.

pub mod dataset;
pub mod json;
pub mod log;
pub mod message;
pub mod page;
pub mod progress_line;
pub mod stderr;
pub mod stdout;
pub mod style;
pub mod table;
pub mod terminal;

use pipe_engine::progress::EventListener;

use crate::cli::{LogFormat, Output};

/// A report that can be closed, so that a progress bar leaves no half line.
pub trait Reporter: EventListener {
    fn finish(&self) {}
}

/// The reporter that the command line asks for. `several`: stages run at once, so each line says
/// whose it is.
pub fn reporter(output: &Output, concurrent: bool) -> Box<dyn Reporter> {
    match output.log {
        LogFormat::Json => Box::new(json::JsonLines),
        LogFormat::Text => {
            Box::new(terminal::Terminal::new(output.quiet, output.verbose > 0, concurrent))
        }
    }
}
