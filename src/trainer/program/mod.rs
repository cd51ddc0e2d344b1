//! `kind: trainer`: any training program under the policies of the built-in trainings.
//!
//! # The training contract
//!
//! The program finds `PIPE_JOB` in its environment, the path of a JSON file: [`Job`]. It connects
//! to the Unix socket that the file names, and writes one JSON object a line: [`Message`]. Each line
//! gets one line as its answer: [`Reply`]. docs/trainers.md is the contract as its users read it.
//!
//! | file | what it does |
//! |---|---|
//! | `kind`, `settings` | the stage kind and its settings |
//! | `stage` | what stands on disk, and a run from its opening to its end |
//! | `process` | the program from its start to its end, and what its end means |
//! | `job` | what the program is told |
//! | `message` | what the program says: read and checked, without a look at the disk |
//! | `tasks` | the program as several processes on the nodes of a Slurm job |
//! | `server` | the socket: connections, lines, the order of messages |
//! | `session` | what each message does to the run |
//!
//! # Who waits for whom
//!
//! Messages of all connections are carried out one at a time, by the thread of the stage. A program
//! waits for the reply to a line before it goes on, so that what floods the socket waits there. A
//! checkpoint's reply comes when the checkpoint stands.
//!
//! # How it ends
//!
//! | the program | the stage |
//! |---|---|
//! | exit 0 with the last epoch's checkpoint | completed |
//! | exit 0 after `finished` | completed before its last epoch; extends when there are to be more |
//! | exit 0 after `stop` | interrupted: a later run goes on |
//! | exit 0 otherwise | failed, with the epoch at which it ended |
//! | anything else | failed, by the kind that it told with `failure` |
//!
//! A message that breaks the contract ends the program and fails the stage. Checkpoints that stand
//! stay.

mod data;
mod job;
mod kind;
mod message;
mod process;
#[cfg(unix)]
mod server;
mod session;
mod settings;
mod stage;
#[cfg(unix)]
mod tasks;

pub use job::Job;
pub use kind::TrainerKind;
pub use message::{Message, Reply};
