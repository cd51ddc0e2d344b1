//! The program as its users run it: every test starts the real binary in a folder of its own.

mod adapters;
mod advice;
mod averages;
mod belonging;
mod bench;
mod budgets;
mod chain;
mod changed_settings;
mod children;
mod content;
mod conventions;
mod copies;
mod damage;
mod data;
mod devices;
mod docs;
mod doctor;
mod errors;
mod export;
mod files;
mod fine_tuning;
mod foreign;
mod fresh;
mod golden;
mod gpu;
#[cfg(unix)]
mod gpu_day;
mod graph;
mod hooks;
mod hostile;
mod images;
mod init;
mod interchange;
mod library;
mod live;
mod look;
mod looks;
mod lora_conv;
mod lora_layers;
mod messages;
mod metrics;
#[cfg(unix)]
mod nodes;
mod page;
mod pictures;
mod place;
mod project;
mod recipes;
mod refused;
mod repair;
mod report;
mod resume;
mod run_archive;
mod runs;
mod secrets;
mod settings;
mod shipped;
mod signals;
mod slurm;
mod standing;
mod start_file;
mod stopping;
mod store;
mod synced;
mod thin;
mod told;
#[cfg(unix)]
mod trainer;
#[cfg(unix)]
mod training_failures;
#[cfg(unix)]
mod training_program;
mod ui;
mod unet;
mod untouched;
mod wgpu;
