//! The program as its users run it: every test starts the real binary in a folder of its own.

mod adapters;
mod bench;
mod chain;
mod conventions;
mod data;
mod devices;
mod docs;
mod errors;
mod export;
mod files;
mod fresh;
mod gpu;
mod graph;
mod hostile;
mod init;
mod interchange;
mod messages;
mod project;
mod report;
mod resume;
mod runs;
mod shipped;
mod signals;
mod slurm;
mod store;
mod wgpu;
