//! The engine on a scripted fake stage.

mod command;
mod data;
mod exec;
mod export;
mod fake;
mod files;
mod fresh;
mod plan;
mod random;
mod settings;
mod slurm;
mod spec;
