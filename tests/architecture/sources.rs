//! The crates of `src/` as text: their modules, and which module names which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module's path in its crate; empty for the crate itself.
pub type Module = Vec<String>;

/// A crate without its tests.
pub struct Crate {
    /// Its folder in `src/`, or `program`.
    pub name: String,
    pub modules: BTreeMap<Module, Source>,
}

/// The file of a module.
pub struct Source {
    /// From the project's folder.
    pub path: String,
    /// Without comments, texts and tests.
    pub code: String,
    /// What a name means that the file gives on: `pub use child::Name`.
    exports: BTreeMap<String, Vec<String>>,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program, and each folder of `src/` that is a crate.
pub fn crates() -> Vec<Crate> {
    let mut all = vec![Crate::read("program", &root().join("src"), &members())];
    for folder in members() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let inside = folder.join("src");
        all.push(Crate::read(&name, if inside.is_dir() { &inside } else { &folder }, &[]));
    }
    all
}

/// Folders of `src/` with a `Cargo.toml`, in order.
pub fn members() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("src")).unwrap();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.join("Cargo.toml").is_file());
    all.sort();
    all
}

impl Crate {
    fn read(name: &str, folder: &Path, without: &[PathBuf]) -> Self {
        let mut files = Vec::new();
        collect(folder, without, &mut files);
        let mut modules = BTreeMap::new();
        let mut tests: Vec<Module> = Vec::new();
        for file in files {
            let module = module(file.strip_prefix(folder).unwrap());
            let text = std::fs::read_to_string(&file).unwrap();
            let code = without_comments(&text);
            let (code, test_files) = without_tests(&code);
            tests
                .extend(test_files.into_iter().map(|child| [module.clone(), vec![child]].concat()));
            let path = file.strip_prefix(root()).unwrap().display().to_string();
            let exports = exports(&code);
            modules.insert(module, Source { path, code, exports });
        }
        modules.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        Self { name: name.to_owned(), modules }
    }

    /// The other modules that a module names, in `use` and elsewhere. What a module only gives on
    /// counts as the module that it comes from.
    pub fn imports(&self, module: &Module) -> BTreeSet<Module> {
        let code = &self.modules[module].code;
        let mut found = BTreeSet::new();
        for path in paths(code) {
            let first = path[0].as_str();
            let is_child =
                self.modules.contains_key(&[module.clone(), vec![first.into()]].concat());
            if ["crate", "self", "super"].contains(&first) || is_child {
                found.extend(self.resolve(module, &path, 0));
            }
        }
        found.remove(module);
        found
    }

    /// The module in which the thing is that a path names.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let mut at = from.clone();
        let mut rest = path;
        while let Some((segment, after)) = rest.split_first() {
            match segment.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()),
                name => {
                    let child = [at.clone(), vec![name.to_owned()]].concat();
                    if !self.modules.contains_key(&child) {
                        break;
                    }
                    at = child;
                }
            }
            rest = after;
        }
        let exported = rest.first().and_then(|name| self.modules.get(&at)?.exports.get(name));
        match exported.filter(|_| depth < 8) {
            Some(path) => self.resolve(&at, path, depth + 1).or(Some(at)),
            None => self.modules.contains_key(&at).then_some(at),
        }
    }
}

/// Rust files below a folder, without programs of their own: tests, benches, fuzz targets.
fn collect(folder: &Path, without: &[PathBuf], files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_other = path.ends_with("tests") || path.ends_with("benches");
        if path.is_dir() && !is_other && !without.contains(&path) {
            collect(&path, without, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

fn module(path: &Path) -> Module {
    let mut parts: Module =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let is_folder = parts.last().is_some_and(|last| last == "mod");
    let is_root = parts.len() == 1 && ["lib", "main"].contains(&parts[0].as_str());
    if is_folder || is_root {
        parts.pop();
    }
    parts
}

/// The code alone: comments are gone, texts and characters are empty. Lines stay lines.
pub fn without_comments(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let at = |i: usize| bytes.get(i).copied().unwrap_or('\0');
    let (mut code, mut i) = (String::new(), 0);
    while i < bytes.len() {
        let hashes = (i + 1..).take_while(|&n| at(n) == '#').count();
        let is_word = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_');
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < bytes.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            'r' if !is_word && at(i + 1 + hashes) == '"' => {
                let end = format!("\"{}", "#".repeat(hashes));
                let rest: String = bytes[i + 2 + hashes..].iter().collect();
                let length = rest.find(&end).map_or(rest.len(), |n| rest[..n].chars().count());
                let start = i;
                i += 2 + hashes + length + end.len();
                code.push('"');
                code.extend((start..i).map(at).filter(|c| *c == '\n'));
                code.push('"');
            }
            '"' => {
                let start = i;
                i += 1;
                while i < bytes.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
                code.push('"');
                code.extend((start..i).map(at).filter(|c| *c == '\n'));
                code.push('"');
            }
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while at(i) != '\'' && i < bytes.len() {
                    i += 1;
                }
                i += 1;
                code.push_str("''");
            }
            '\'' if at(i + 2) == '\'' => {
                i += 3;
                code.push_str("''");
            }
            other => {
                code.push(other);
                i += 1;
            }
        }
    }
    code
}

/// Code without the modules that are there for tests, and the names of those that are files.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let (mut kept, mut files, mut rest) = (String::new(), Vec::new(), code);
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, after) = rest.split_at(at);
        kept.push_str(before);
        let after = after.trim_start_matches("#[cfg(test)]");
        let words: Vec<&str> = after.split_whitespace().take(3).collect();
        rest = after;
        match words.as_slice() {
            ["mod", name, ..] if name.ends_with(';') => files.push(name.trim_matches(';').into()),
            ["mod", _, "{", ..] => rest = &after[block(after)..],
            _ => {}
        }
    }
    kept.push_str(rest);
    (kept, files)
}

/// Where the first block in braces ends.
pub fn block(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Every path of at least two segments, with those of `use` trees written out.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("::") {
        let start = rest[..at].rfind(|c: char| !is_word(c)).map_or(0, |before| before + 1);
        let is_inside = rest[..start].ends_with("::");
        let mut end = at;
        if start < at && !is_inside {
            end = start + tree(&rest[start..], &mut Vec::new(), &mut found);
        }
        rest = &rest[end.max(at + 2).min(rest.len())..];
    }
    found
}

/// Reads one path or tree from the beginning of the code: how long it is.
fn tree(code: &str, above: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = above.len();
    let mut at = 0;
    loop {
        let word = code[at..].find(|c: char| !is_word(c)).unwrap_or(code.len() - at);
        above.push(code[at..at + word].to_owned());
        at += word;
        if !code[at..].starts_with("::") {
            break;
        }
        at += 2;
        if code[at..].starts_with('{') {
            at += 1;
            loop {
                at += code[at..].find(|c: char| !c.is_whitespace() && c != ',').unwrap_or(0);
                if at >= code.len() || code[at..].starts_with('}') {
                    at += 1;
                    break;
                }
                let length = tree(&code[at..], above, found);
                // What follows a name: `as other`.
                at += length.max(1);
                at += code[at..].find([',', '}']).unwrap_or(0);
            }
            above.truncate(depth);
            return at.min(code.len());
        }
        if !code[at..].starts_with(is_word) {
            break;
        }
    }
    if above.len() > 1 {
        found.push(above.clone());
    }
    above.truncate(depth);
    at
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Names that a module gives on, with the paths that it has them from.
fn exports(code: &str) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for (at, _) in code.match_indices("use ") {
        let line = &code[code[..at].rfind(['\n', ';', '}']).map_or(0, |n| n + 1)..at];
        let statement = code[at + 4..].split(';').next().unwrap_or_default();
        if line.trim_start().starts_with("pub") {
            for path in paths(&format!("{statement};")) {
                all.insert(path.last().unwrap().clone(), path);
            }
        }
    }
    all
}

#[test]
fn what_code_says_is_read_from_it() {
    let text =
        "use super::{a::{self, B}, c as d}; // crate::x\nlet e = crate::f::G::new(\"h::i\");";
    let found: Vec<String> =
        paths(&without_comments(text)).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["super::a::self", "super::a::B", "super::c", "crate::f::G::new"]);
    let (code, files) =
        without_tests("fn a() {}\n#[cfg(test)]\nmod b;\n#[cfg(test)]\nmod c { { } }\nfn d() {}");
    assert!(code.contains("fn d") && !code.contains("mod c"), "{code}");
    assert_eq!(files, ["b"]);
    assert_eq!(
        without_comments("let a = '\\''; let b: &'c str = r#\"\"d\"\"#;"),
        "let a = ''; let b: &'c str = \"\";"
    );
}
