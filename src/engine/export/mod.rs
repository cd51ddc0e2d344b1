//! A pipeline as other programs that run graphs have it. Pure: a graph in, a typed file out.

pub mod argo;
mod names;
mod workflow;

pub use workflow::Workflow;
