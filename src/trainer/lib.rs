//! Trainings as stages, whoever trains: which numbered run a training belongs to, how it is opened,
//! gone on with, extended and ended; and `kind: trainer`, any program of the user's under the same
//! policies.
//!
//! Knows no model and no images.
//!
//! # Where things are
//!
//! | | |
//! |---|---|
//! | [`Training`] | begin here: what a training is as its runs know it, and what stands on disk for it |
//! | [`RunSelection`], [`run_match`] | which run is meant, and what is different where none fits |
//! | [`StoppingRules`] | when a training ends before its last epoch |
//! | [`TimeLimits`] | how long a training is that is to end in time |
//! | [`aside`] | a part of a run that is done once more, elsewhere |
//! | [`artifacts`] | what trainings hand to other stages: checkpoints |
//! | [`program`] | `kind: trainer` and the training contract |

// What comes from outside must not be able to end the program.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

pub mod artifacts;
pub mod aside;
mod branching;
mod budget;
pub mod epoch_places;
pub mod follow_state;
pub mod following;
mod forecast;
mod later;
mod length;
mod opening;
pub mod program;
mod relocated_runs;
mod run_catalog;
pub mod run_match;
mod selection;
mod stopping;
#[cfg(test)]
mod stopping_tests;
mod training;

pub use branching::Branch;
pub use budget::{EpochTime, HORIZON, IN_TIME, PlannedLength, TimeLimits, planned_epochs};
pub use forecast::{epoch_seconds, note_memory, peak_memory};
pub use later::{later_key, later_setting};
pub use length::UNLIMITED;
pub use opening::write_config;
pub use selection::RunSelection;
pub use stopping::{
    Ending, StoppingRules, TotalEpochs, Trained, finished_early, lint_mode, lint_patience,
    note_ending,
};
pub use training::{Changeable, Training, shown};
