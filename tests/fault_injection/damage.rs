//! Files that were altered: a byte flipped, a piece cut off or zeroed, nothing left. Found, never
//! believed, never a panic.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::crash::Random;
use crate::project::Project;
use crate::results::{Options, Results, ensure};
use crate::state::{
    RUN, State, chain, changes, content, files, nothing_reported_is_missing, run_with, state, text,
    undisturbed,
};

pub fn section(options: &Options, results: &mut Results) {
    let expected = undisturbed();
    let last = changes();
    // What a training leaves in the middle, and a finished one.
    for (what, share) in [
        ("a file damaged early on", 0.3),
        ("a file damaged later", 0.6),
        ("a file damaged at the end", 2.0),
    ] {
        let at = (last as f64 * share) as usize;
        let before = chain();
        let reported = run_with(&before, &format!("kill@{at}"));
        let rounds: Vec<u64> = (0..options.rounds as u64).collect();
        results.each(what, &rounds, |round| {
            let project = copy(&before);
            let mut random =
                Random(0x2545_f491_4f6c_dd1d ^ (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let harm = damage(&project, &mut random);
            look(&project).map_err(|e| format!("{harm}: {e}"))?;
            let output = project.command(&RUN).output().map_err(|e| e.to_string())?;
            let said = text(&output.stderr);
            let wrong = |e: String| format!("{harm}: {e}\n{said}");
            sane(output.status.code(), &said).map_err(&wrong)?;
            if output.status.code() == Some(0) {
                return good(&project, &harm, &expected).map_err(&wrong);
            }
            // It went no further than it can: the message names the file, and what was saved before
            // is there.
            let name = harm.path.file_name().unwrap().to_string_lossy().into_owned();
            ensure(
                said.contains(&name) || said.contains(".ckpt") || said.contains("adapter"),
                || wrong("no name".into()),
            )?;
            ensure(!harm.is_state(), || wrong("the engine's own notes stopped it".into()))?;
            if harm.path.extension().is_some_and(|e| e == "ckpt") {
                return Ok(());
            }
            nothing_reported_is_missing(&project, &reported.stderr).map_err(&wrong)
        });
    }
}

/// What was done to which file, and to its other names.
struct Harm {
    path: PathBuf,
    what: String,
    names: Vec<PathBuf>,
}

impl Harm {
    fn is_state(&self) -> bool {
        let path = self.path.to_string_lossy();
        path.contains(".pipe") || path.contains("metadata.json") || path.contains("logs/")
    }
}

impl std::fmt::Display for Harm {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

fn damage(project: &Project, random: &mut Random) -> Harm {
    let root = project.path("");
    let all: Vec<PathBuf> =
        files(&root).into_iter().filter(|path| !path.ends_with("p.yaml")).collect();
    let path = all[random.below(all.len() as u64) as usize].clone();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = random.below(bytes.len() as u64) as usize;
    let to = (at + 1 + random.below(200) as usize).min(bytes.len());
    let what = match random.below(5) {
        _ if bytes.is_empty() => "it was empty".to_owned(),
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            format!("a bit of byte {at} flipped")
        }
        2 => {
            bytes.truncate(at);
            format!("cut to {at} bytes")
        }
        3 => {
            bytes[at..to].fill(0);
            format!("bytes {at} to {to} zeroed")
        }
        _ => {
            bytes[at..to].iter_mut().for_each(|b| *b = random.below(256) as u8);
            format!("bytes {at} to {to} at random")
        }
    };
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    let names = all.iter().filter(|other| inode(other) == inode(&path)).cloned().collect();
    // In place, so that every name of the file shows the damage.
    std::fs::write(&path, bytes).unwrap();
    Harm { path, what, names }
}

/// The commands that only look say something, and nothing is a bug.
fn look(project: &Project) -> Result<(), String> {
    for arguments in [&["status", "p.yaml"][..], &["plan", "p.yaml"], &["runs"]] {
        let output = project.command(arguments).output().map_err(|e| e.to_string())?;
        sane(output.status.code(), &text(&output.stderr))?;
    }
    Ok(())
}

fn sane(code: Option<i32>, said: &str) -> Result<(), String> {
    let bug = said.contains("bug in this program") || said.contains("panicked");
    ensure(matches!(code, Some(0..=2)) && !bug, || format!("ended with {code:?}"))
}

/// Everything is as it would be without the damage, or what is not can be told from good.
fn good(project: &Project, harm: &Harm, expected: &State) -> Result<(), String> {
    let root = project.path("");
    let harmed: Vec<String> = harm
        .names
        .iter()
        .map(|p| p.strip_prefix(&root).unwrap().to_string_lossy().into_owned())
        .collect();
    // A damaged file that nobody needs any more stays as it is; its digest tells. It must not stop
    // the comparison.
    for name in &harmed {
        let path = project.path(name);
        if path.exists() && content(&path).is_err() {
            std::fs::remove_file(path).unwrap();
        }
    }
    if harmed.len() > 1 && harmed.iter().any(|name| name.ends_with("metadata.json")) {
        // Killed between two names of one file, and damaged: two faults at once. The training
        // begins anew beside it.
        return Ok(());
    }
    let found = state(project)?;
    for (name, content) in expected {
        // What a finished training wrote for people is not read again.
        let unread = harmed.contains(name);
        match found.get(name) {
            Some(other) if other == content => {}
            _ if unread => {}
            other => return Err(format!("{name}: {other:?}\n  expected {content}")),
        }
    }
    Ok(())
}

/// A copy in which files with two names have two names.
fn copy(from: &Project) -> Project {
    let project = chain();
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(format!("{}/.", from.path("").display()))
        .arg(project.path(""))
        .status();
    assert!(status.unwrap().success());
    project
}
