//! The engine on a scripted fake stage.

mod exec;
mod fake;
mod plan;
mod spec;
