//! What the project ships: every YAML file is valid, and `schemas/` is what the types say.

use std::process::Command;

use crate::project::{root, yaml_files};

fn pipe(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pipe"))
        .current_dir(root())
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_pipeline_is_valid() {
    let files = yaml_files("pipelines");
    assert!(files.len() >= 4);
    for file in files {
        let (valid, text) = pipe(&["check", file.to_str().unwrap()]);
        assert!(valid, "{text}");
        let schema = "# yaml-language-server: $schema=../schemas/pipeline.schema.json\n";
        assert!(std::fs::read_to_string(&file).unwrap().starts_with(schema), "{}", file.display());
    }
}

/// Another program's reading of `schemas/`: what is shipped is valid, so are the examples in the
/// schemas, and what `pipe check` refuses for its form is refused there too.
#[test]
fn an_independent_validator_agrees_with_the_schemas() {
    let Ok(python) = std::env::var("PIPE_TEST_PYTHON") else {
        eprintln!("skipped: PIPE_TEST_PYTHON is not set");
        return;
    };
    let output = Command::new(python)
        .arg("tests/pipe/validate_yaml.py")
        .current_dir(root())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let files = yaml_files("pipelines").len() + yaml_files("configs").len();
    assert!(text.contains(&format!("{files} files are valid")), "{text}");
}

#[test]
fn every_config_is_valid() {
    for file in yaml_files("configs") {
        let relative = file.strip_prefix(root()).unwrap().display().to_string();
        let folder = tempfile::tempdir().unwrap();
        let pipeline = format!(
            "name: x\nstages:\n  data: {{ kind: dataset }}\n  base: {{ kind: train, dataset: data, config: {relative} }}\n"
        );
        let path = folder.path().join("p.yaml");
        std::fs::write(&path, pipeline).unwrap();
        let (valid, text) = pipe(&["check", path.to_str().unwrap()]);
        assert!(valid, "{relative}: {text}");
    }
}

#[test]
fn the_schemas_are_what_the_types_say() {
    let shipped: Vec<String> = std::fs::read_dir(root().join("schemas"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let names: Vec<&str> =
        shipped.iter().map(|file| file.strip_suffix(".schema.json").unwrap()).collect();
    // What the program names when it is asked for one that is not there.
    let (_, listed) = pipe(&["schema", "no_such_schema"]);
    let listed = listed.split("expected one of: ").nth(1).expect("it lists the schemas");
    let mut listed: Vec<&str> = listed.trim().split(", ").collect();
    let mut names = names;
    listed.sort_unstable();
    names.sort_unstable();
    assert_eq!(names, listed, "schemas/ holds another list");
    for name in names {
        let (ok, text) = pipe(&["schema", name]);
        assert!(ok, "{text}");
        let file = format!("schemas/{name}.schema.json");
        let shipped = std::fs::read_to_string(root().join(&file)).unwrap_or_default();
        assert!(shipped == text, "{file} has drifted: pipe schema {name} > {file}");
    }
}

#[test]
fn the_program_describes_itself() {
    let (ok, text) = pipe(&["--help"]);
    assert!(ok && text.contains("Exit codes"), "{text}");
    let (ok, text) = pipe(&["devices"]);
    assert!(ok && text.contains("cpu"), "{text}");
    let (ok, text) = pipe(&["graph", "pipelines/base_training.yaml"]);
    assert!(ok && text.contains("base     train  <- data"), "{text}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(pipe(&["completions", shell]).0);
    }
}

#[test]
fn what_is_released_has_one_version_and_actions_that_cannot_be_moved() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    for (name, key) in [
        ("pyproject.toml", "version = \""),
        ("python/pyproject.toml", "version = \""),
        ("CITATION.cff", "version: "),
    ] {
        let text = read(name);
        let version = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        assert_eq!(version.trim_end_matches('"'), env!("CARGO_PKG_VERSION"), "{name}");
    }
    for name in [".github/workflows/ci.yml", ".github/workflows/release.yml"] {
        for line in read(name).lines().filter_map(|line| line.split_once("uses: ")) {
            let commit = line.1.split_once('@').map(|(_, at)| at.split(' ').next().unwrap());
            let is_commit = |at: &str| at.len() == 40 && at.chars().all(|c| c.is_ascii_hexdigit());
            assert!(commit.is_some_and(is_commit), "{name}: {}", line.1);
        }
    }
}
