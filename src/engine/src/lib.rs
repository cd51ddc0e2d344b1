//! The engine of `pipe`: pipeline files, the graph, plans, runs and checkpoints.
//!
//! Knows nothing of burn, models or images. Stages reach it only through a trait, so that its tests run on a
//! scripted fake stage and compile in seconds.

pub mod command;
pub mod error;
pub mod events;
pub mod exec;
pub mod graph;
pub mod identity;
pub mod kind;
mod parallel;
pub mod plan;
pub mod policy;
pub mod progress;
pub mod schema;
pub mod source;
pub mod spec;
pub mod stop;
pub mod store;
