//! Diagnostics of the libraries and of our own code, on stderr. `PIPE_LOG` sets the filter, as
//! `RUST_LOG` does elsewhere.

use pipe_engine::pipeline_file::environment;
use tracing_subscriber::EnvFilter;

use super::{LogFormat, Output, stderr};

pub fn init(output: &Output) {
    let level = match (output.quiet, output.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "pipe=info,pipe_engine=info,pipe_train=info,warn",
        _ => "pipe=debug,pipe_engine=debug,pipe_train=debug,info",
    };
    let filter =
        EnvFilter::try_from_env(environment::LOG).unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| stderr::Stderr)
        .log_internal_errors(false);
    match output.log {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_target(false).without_time().init(),
    }
}
