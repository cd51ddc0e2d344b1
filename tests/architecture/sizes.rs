//! A function fits a screen, and a file holds one idea.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sources::{block, root, without_comments};

/// The most lines of a function, from `fn` to its closing brace.
const FUNCTION: usize = 80;

/// The most lines of a file.
const FILE: usize = 400;

/// What is longer: how its name ends (a file, or a file and a function in it), its lines, which must
/// not grow, and why.
const EXCEPTIONS: [(&str, usize, &str); 5] = [
    ("kernels/fused/attention.rs: backward", 102, KERNEL),
    ("src/engine/tests/engine/exec.rs", 462, TESTS),
    ("src/engine/tests/engine/plan.rs: every_action_has_its_reason", 95, TESTS),
    ("src/engine/tests/engine/settings.rs", 403, TESTS),
    ("src/engine/tests/engine/slurm.rs", 417, TESTS),
];

const KERNEL: &str = "a kernel follows one derivation, its checks follow the kernels";
const TESTS: &str = "tests of one subject: the cases follow one another";

/// A file or a function that is longer than it should be.
struct Long {
    /// `src/x.rs`, or `src/x.rs: name`.
    name: String,
    lines: usize,
    bound: usize,
}

fn long_ones(path: &Path) -> Vec<Long> {
    let text = fs::read_to_string(path).unwrap();
    let name = path.strip_prefix(root()).unwrap().display().to_string();
    let functions = functions(&without_comments(&text));
    let functions = functions.into_iter().map(|(function, lines)| Long {
        name: format!("{name}: {function}"),
        lines,
        bound: FUNCTION,
    });
    let file = Long { name: name.clone(), lines: text.lines().count(), bound: FILE };
    functions.chain([file]).filter(|one| one.lines > one.bound).collect()
}

/// Name and lines of each function with a body.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let is_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name = code[at + 3..].split(|c: char| !c.is_alphanumeric() && c != '_').next();
        let Some(name) = name.filter(|name| !name.is_empty() && !is_word) else { continue };
        let body = body(&code[at..]);
        if let Some(body) = body {
            let end = at + body + block(&code[at + body..]);
            found.push((name.to_owned(), code[at..end].lines().count()));
        }
    }
    found
}

/// Where the body of a function begins, unless a `;` ends its signature.
fn body(code: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn functions_and_files_are_short() {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    files.sort();
    let long: Vec<Long> = files.iter().flat_map(|path| long_ones(path)).collect();
    let mut wrong = Vec::new();
    for Long { name, lines, bound } in &long {
        let exception = EXCEPTIONS.iter().find(|(end, ..)| name.ends_with(end));
        let (allowed, why) = exception.map_or((*bound, ""), |(_, lines, why)| (*lines, *why));
        if *lines > allowed {
            wrong.push(format!("{name} has {lines} lines, {allowed} are allowed {why}"));
        }
    }
    for (end, ..) in EXCEPTIONS {
        if !long.iter().any(|one| one.name.ends_with(end)) {
            wrong.push(format!("{end} is short now: take it out of EXCEPTIONS"));
        }
    }
    assert!(files.len() > 100 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lines_of_functions_are_counted() {
    let code = "fn a() {}\nfn b(\n  of: [u8; 2],\n) -> T {\n  match x { y => {} }\n}\nfn c();\n";
    let counted = functions(code);
    assert_eq!(counted, [("a".to_owned(), 1), ("b".to_owned(), 5)]);
}
