//! Imports go down only: between crates, and from the commands to what shows their results.

use crate::sources::{crates, members, root};

/// Each crate's floor. It imports crates of lower floors alone.
const FLOORS: [(&str, usize); 10] = [
    ("core", 0),
    ("fs", 1),
    ("runs", 2),
    ("data", 2),
    ("engine", 2),
    ("models", 3),
    ("remote", 3),
    ("upkeep", 3),
    ("trainer", 3),
    ("train", 4),
];

fn floor(name: &str) -> usize {
    let found = FLOORS.iter().find(|(crate_name, _)| *crate_name == name);
    found.unwrap_or_else(|| panic!("src/{name} has no floor: give it one in FLOORS")).1
}

/// The crates of `src/` that a `Cargo.toml` names among its dependencies, those of tests too.
fn dependencies(manifest: &str, names: &[(String, String)]) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies");
        }
        let key = line.split(['.', '=', ' ']).next().unwrap_or_default();
        found.extend(
            names.iter().filter(|(package, _)| inside && package == key).map(|n| n.1.clone()),
        );
    }
    found
}

/// The package in a `Cargo.toml`.
fn package(manifest: &str) -> String {
    let line = manifest.lines().find_map(|line| line.strip_prefix("name = \""));
    line.and_then(|rest| rest.strip_suffix('"')).expect("a name").to_owned()
}

#[test]
fn crates_import_lower_floors_alone() {
    let manifests: Vec<(String, String)> = members()
        .iter()
        .map(|folder| {
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(folder.join("Cargo.toml")).unwrap())
        })
        .collect();
    let names: Vec<(String, String)> =
        manifests.iter().map(|(name, text)| (package(text), name.clone())).collect();
    let mut edges = 0;
    for (name, text) in &manifests {
        for other in dependencies(text, &names) {
            edges += 1;
            assert!(floor(&other) < floor(name), "src/{name} must not import src/{other}");
        }
    }
    let program = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(edges > 0 && !dependencies(&program, &names).is_empty(), "no crate imports another");
}

#[test]
fn what_shows_results_knows_no_command() {
    let program = crates().remove(0);
    let mut seen = 0;
    for (module, source) in
        program.modules.iter().filter(|(module, _)| module[..].starts_with(&["report".into()]))
    {
        let above: Vec<String> = program
            .imports(module)
            .into_iter()
            .filter(|other| other.is_empty() || other[0] == "cli")
            .map(|other| other.join("::"))
            .collect();
        assert!(above.is_empty(), "{} imports {}", source.path, above.join(", "));
        seen += 1;
    }
    assert!(seen > 5, "src/report has {seen} files");
}
