//! Tries to lose something: ends the program at every change of the disk, fills the disk, damages
//! files, starts it twice, cuts the power. Prints a table of what was tried, survived and lost; any
//! loss fails.
//!
//!     cargo test --release --test fault_injection
//!     cargo test --release --test fault_injection -- --rounds 2000 crashes

mod again;
mod beside;
mod crash;
mod damage;
mod disk;
mod faults;
mod history;
mod limits;
mod moved;
mod power;
mod program;
#[allow(dead_code, reason = "shared with tests/pipe")]
#[path = "../pipe/project.rs"]
mod project;
mod results;
mod several;
mod signals;
mod state;
mod stored;
#[allow(dead_code, reason = "shared with tests/pipe")]
#[path = "../pipe/training_program.rs"]
mod training_program;

use results::{Options, Results};

type Section = fn(&Options, &mut Results);

const SECTIONS: [(&str, Section); 13] = [
    ("crashes", crash::section),
    ("beside", beside::section),
    ("disk", disk::section),
    ("damage", damage::section),
    ("several", several::section),
    ("signals", signals::section),
    ("limits", limits::section),
    ("stored", stored::section),
    ("program", program::section),
    ("again", again::section),
    ("history", history::section),
    ("moved", moved::section),
    // Last, since it has its files in memory from then on.
    ("power", power::section),
];

fn main() {
    if faults::is_program() {
        return faults::run_program();
    }
    if std::env::args().nth(1).as_deref() == Some("program")
        && std::env::var_os("PIPE_JOB").is_some()
    {
        return training_program::run();
    }
    project::use_program(faults::program());
    let options = Options::parse();
    let mut results = Results::new(&options);
    for (name, section) in SECTIONS {
        if options.wants(name) {
            section(&options, &mut results);
        }
    }
    std::process::exit(results.conclude());
}
