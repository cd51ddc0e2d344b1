//! With a store: the process ends, as by SIGKILL, at a change of the disk; the same machine goes
//! on, or another one that has nothing but the store.

use std::os::unix::process::ExitStatusExt;

use crate::project::Project;
use crate::results::{Options, Results, ensure};
use crate::state::{
    chain_with, changes_of, goes_on, nothing_reported_is_missing, run_with, text, undisturbed,
};

pub fn section(options: &Options, results: &mut Results) {
    let expected = undisturbed();
    let last = changes_of(&Nas::new().machine());
    let some = options.some_of(last);
    results.each(
        "killed at a change of the disk, and another machine goes on from the store",
        &some,
        |at| {
            let nas = Nas::new();
            let first = nas.machine();
            killed(&first, *at)?;
            drop(first);
            goes_on(&nas.machine(), &expected)
        },
    );
    results.each(
        "killed at a change of the disk, and goes on in step with its store",
        &some,
        |at| {
            let nas = Nas::new();
            let first = nas.machine();
            killed(&first, *at)?;
            goes_on(&first, &expected)?;
            // What is there is what is here.
            goes_on(&nas.machine(), &expected)
        },
    );
    results.each("killed while it fetches, and again while it goes on", &some, |at| {
        let nas = Nas::new();
        killed(&nas.machine(), *at)?;
        let second = nas.machine();
        let _ = run_with(&second, &format!("kill@{}", 1 + at * 7919 % 60));
        goes_on(&second, &expected)
    });
}

struct Nas(tempfile::TempDir);

impl Nas {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn machine(&self) -> Project {
        let url = format!("file://{}", self.0.path().join("store").display());
        chain_with(Project::new().environment("PIPE_STORE", url))
    }
}

fn killed(project: &Project, at: usize) -> Result<(), String> {
    let output = run_with(project, &format!("kill@{at}"));
    // The mirror's own changes come when they come, so the last ones are not always reached.
    ensure(output.status.signal() == Some(9) || output.status.success(), || {
        format!("it was to be killed, and ended with {}: {}", output.status, text(&output.stderr))
    })?;
    nothing_reported_is_missing(project, &output.stderr)
}
