//! The disk is full, or refuses: at each change in turn, from one change on, and for real on a
//! small disk of its own.

use std::process::{Command, Stdio};

use crate::project::Project;
use crate::results::{Options, Results, ensure};
use crate::state::{
    RUN, State, chain, changes, files, goes_on, nothing_reported_is_missing, run_with, text,
    undisturbed,
};

pub fn section(options: &Options, results: &mut Results) {
    let expected = undisturbed();
    let last = changes();
    let some = options.some_of(last);
    results.each("one change meets a full disk", &some, |at| {
        refused(&format!("full@{at}"), &expected)
    });
    results.each("the disk is full from one change on", &some, |at| {
        refused(&format!("full@{at}+"), &expected)
    });
    results.each("one change is not permitted", &some, |at| {
        refused(&format!("denied@{at}"), &expected)
    });
    real(options, results, &expected);
}

/// Runs into a refusal, then goes on without it.
fn refused(fault: &str, expected: &State) -> Result<(), String> {
    let project = chain();
    let output = run_with(&project, fault);
    let said = text(&output.stderr);
    ends_with_an_error(output.status.code(), &said)?;
    nothing_reported_is_missing(&project, &output.stderr)?;
    nothing_temporary(&project)?;
    goes_on(&project, expected)
}

/// It may also go well: what cannot be told to a log is a warning.
fn ends_with_an_error(code: Option<i32>, said: &str) -> Result<(), String> {
    let clear = ["make room", "must be writable"].iter().any(|hint| said.contains(hint));
    ensure(code == Some(0) || (code == Some(1) && clear), || format!("ended with {code:?}: {said}"))
}

fn nothing_temporary(project: &Project) -> Result<(), String> {
    let left =
        files(&project.path("")).into_iter().find(|path| path.to_string_lossy().contains(".tmp-"));
    left.map_or(Ok(()), |path| Err(format!("{} was left", path.display())))
}

/// A disk of a few hundred kilobytes, and a folder that cannot be written, in a mount namespace.
fn real(options: &Options, results: &mut Results, expected: &State) {
    let mut mount = Command::new("unshare");
    mount
        .args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let can = mount.status().is_ok_and(|status| status.success());
    let (small, fixed) = ("a disk too small for the training", "a folder that is not writable");
    if !can {
        results.skip(small, "this machine lets nobody mount a disk");
        return results.skip(fixed, "this machine lets nobody mount a disk");
    }
    // Sizes at which it ends in different places, up to one that suffices.
    let sizes: Vec<usize> = (1..=options.rounds.min(40)).map(|n| 40 * n).collect();
    results.each(small, &sizes, |kib| {
        let project = chain();
        let script = format!(
            "mkdir small && mount -t tmpfs -o size={kib}k none small && cd small && cp ../p.yaml . || exit 99
             \"$PIPE\" run p.yaml --log json; code=$?
             cp -a . ../copy; exit $code"
        );
        let output = inside(&project, &script)?;
        ends_with_an_error(output.status.code(), &text(&output.stderr))?;
        let copy = chain();
        for file in files(&project.path("copy")) {
            let name = file.strip_prefix(project.path("copy")).unwrap().to_string_lossy().into_owned();
            copy.write(&name, std::fs::read(&file).unwrap());
        }
        nothing_reported_is_missing(&copy, &output.stderr)?;
        nothing_temporary(&copy)?;
        goes_on(&copy, expected)
    });
    results.one(fixed, || {
        let project = chain();
        let script = "mount --bind . . && mount -o remount,bind,ro . && cd \"$PWD\" || exit 99
                      \"$PIPE\" plan p.yaml || exit 98
                      \"$PIPE\" run p.yaml --log json";
        let output = inside(&project, script)?;
        ensure(output.status.code() == Some(1), || text(&output.stderr))?;
        ends_with_an_error(output.status.code(), &text(&output.stderr))?;
        goes_on(&project, expected)
    });
}

fn inside(project: &Project, script: &str) -> Result<std::process::Output, String> {
    let own = project.command(&RUN);
    let mut command = Command::new("unshare");
    command
        .args(["-rm", "sh", "-c", script])
        .env("PIPE", own.get_program())
        .current_dir(project.path(""));
    let output = command.output().map_err(|e| e.to_string())?;
    ensure(!matches!(output.status.code(), Some(98 | 99)), || text(&output.stderr))?;
    Ok(output)
}
