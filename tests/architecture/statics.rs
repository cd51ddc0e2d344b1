//! What a process has once is a hidden road between floors: whoever is not handed it cannot see
//! that it is there. So each `static` has a reason, and stands in this list.

use crate::sources::crates;

/// Data sources, which are constants of their modules.
const CONSTANTS: &str = "src/data/sources/";

/// Statics by file and name, and why there is one for the whole process.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("it never changes", &["allocator.rs ALLOCATOR"]),
    (
        "it is the same whenever it is worked out",
        &["font.rs NARROW", "font.rs WIDE", "version.rs LONG"],
    ),
    (
        "a warning is given once",
        &["bucket.rs WARNED", "checksummed_json.rs WARNED", "lockless.rs WARNED", "sync.rs WARNED"],
    ),
    (
        "a name must be unlike every other of the process",
        &["temporary.rs COUNT", "index.rs COUNT", "process_tree.rs COUNT"],
    ),
    ("faults are those of a whole process, which tests disturb", &["fault.rs INSTALLED"]),
    (
        "stdin, stderr and the current folder are the process's",
        &[
            "message.rs FORMAT",
            "project.rs STARTED",
            "source.rs GIVEN",
            "stderr.rs QUEUE",
            "stderr.rs QUEUED_BYTES",
            "stderr.rs WRITTEN",
            "style.rs COLOURS",
        ],
    ),
    (
        "a process has one log, which its calls of wgpu are counted in",
        &["log.rs READ_BACKS", "log.rs SUBMITS"],
    ),
    ("whatever the process prints is masked, panics too", &["secret.rs LEARNED", "secret.rs OPEN"]),
    (
        "the process reaps all of its children, and has so many open files",
        &["process_tree.rs RUNNING", "snapshot.rs OPEN_FILES"],
    ),
    (
        "a driver is asked, and a GPU opened, once a process; its panics come to the process's hook",
        &["adapters.rs FOUND", "failure.rs LAST", "failure.rs ONCE", "open.rs OPENED"],
    ),
];

/// The names of the statics in code.
fn statics(code: &str) -> Vec<String> {
    let words: Vec<&str> = code
        .split(|c: char| c.is_whitespace() || ":;{}()".contains(c))
        .filter(|w| !w.is_empty())
        .collect();
    let named = |pair: &[&str]| match pair {
        ["static", "mut" | "ref", ..] => Some("a `static mut`".to_owned()),
        ["static", name] => Some((*name).to_owned()),
        ["thread_local!", _] => Some("a `thread_local!`".to_owned()),
        _ => None,
    };
    words.windows(2).filter_map(named).collect()
}

#[test]
fn what_a_process_has_once_has_a_reason() {
    let mut found = Vec::new();
    let crates = crates();
    let sources = crates.iter().flat_map(|of| of.modules.values());
    for source in sources.filter(|source| !source.path.starts_with(CONSTANTS)) {
        let file = source.path.rsplit('/').next().unwrap_or_default();
        found.extend(
            statics(&source.code)
                .into_iter()
                .map(|name| (format!("{file} {name}"), source.path.clone())),
        );
    }
    let allowed: Vec<&str> = ALLOWED.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    let new: Vec<String> = found
        .iter()
        .filter(|(name, _)| !allowed.contains(&name.as_str()))
        .map(|(name, path)| format!("{path}: {name}"))
        .collect();
    assert!(
        new.is_empty(),
        "hand it in, as `pipe_fs::Disk` is, or say in ALLOWED why the process has one:\n{}",
        new.join("\n")
    );
    let gone: Vec<&&str> =
        allowed.iter().filter(|name| found.iter().all(|(other, _)| other != *name)).collect();
    assert!(gone.is_empty(), "no longer there: {gone:?}");
}

#[test]
fn statics_are_found_and_lifetimes_are_none() {
    let code = "pub(crate) static A: Mutex<&'static str> = B;\nfn f() -> &'static str {\n static C: u8 = 0; }";
    assert_eq!(statics(code), ["A", "C"]);
    assert_eq!(statics("thread_local! { static D: Cell<u8> }"), ["a `thread_local!`", "D"]);
}
