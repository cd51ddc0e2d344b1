//! The engine on a scripted fake stage.

mod command;
mod data;
mod exec;
mod export;
mod fake;
#[cfg(unix)]
mod files;
mod forecast;
mod fresh;
mod halving;
#[cfg(unix)]
mod hooks;
mod matrix;
mod metrics;
mod plan;
mod random;
mod reuse;
mod settings;
mod slurm;
mod spec;
mod streaming;
mod sweeps;
mod two_sessions;
