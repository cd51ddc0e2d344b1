//! Carries a plan out: looks at what there is, begins stages when what they need is there, several
//! at once if asked, tries again where a policy says so, and writes down what happened.

mod aside;
mod attempt;
mod execution;
mod executor;
mod journal;
mod next;
mod priority;
mod rounds;
mod scheduler;
pub mod slurm;
mod stage_log;
mod upstream;

pub use crate::upstream::RunsElsewhere;
pub use aside::run_aside;
pub use execution::{Execution, InspectedStage, Summary, inspect, inspect_for_display, planned};
pub use executor::{Executor, ExecutorError, LocalExecutor};
pub use journal::Journal;
pub use next::next;
pub(crate) use priority::{by_priority, taken};
pub use rounds::Round;
pub use scheduler::execute;
