//! Limits of the system: open files.

use std::process::Command;

use crate::results::{Options, Results, ensure};
use crate::state::{RUN, chain, goes_on, nothing_reported_is_missing, text, undisturbed};

pub fn section(_: &Options, results: &mut Results) {
    let expected = undisturbed();
    // From fewer than the program's own start takes to plenty.
    let limits: Vec<u32> = (4..40).collect();
    results.each("too many open files", &limits, |limit| {
        let project = chain();
        let own = project.command(&RUN);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$PIPE\" run p.yaml --log json")]);
        command.env("PIPE", own.get_program()).current_dir(project.path(""));
        let output = command.output().map_err(|e| e.to_string())?;
        let said = text(&output.stderr);
        // With fewer than it takes to start at all, the system says so.
        let clear =
            said.contains("open files") || said.contains("error while loading shared libraries");
        let bug = said.contains("bug in this program") || said.contains("panicked");
        ensure(output.status.success() || (clear && !bug), || {
            format!("{}: {said}", output.status)
        })?;
        nothing_reported_is_missing(&project, &output.stderr)?;
        goes_on(&project, &expected)
    });
}
