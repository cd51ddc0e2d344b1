//! What `pipe check` says to files that are wrong or doubtful, to the letter:
//! `tests/messages/NAME.yaml` is the file, `NAME.txt` the answer. `PIPE_TEST_BLESS=1` writes the
//! answers anew; read the difference before you keep it.

use crate::project::{Project, root, yaml_files};

/// Files that are refused; the table is to have so many at least.
const BAD: usize = 40;

#[test]
fn every_bad_file_has_its_message() {
    let bless = std::env::var_os("PIPE_TEST_BLESS").is_some();
    let project = Project::new();
    let folder = root().join("tests/messages");
    let (files, configs): (Vec<_>, Vec<_>) =
        yaml_files("tests/messages").into_iter().partition(|file| file.parent() == Some(&folder));
    for config in configs {
        let name = config.file_name().unwrap().to_str().unwrap();
        project.write(&format!("configs/{name}"), std::fs::read(&config).unwrap());
    }
    let (mut bad, mut wrong) = (0, Vec::new());
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        project.write(name, std::fs::read(&file).unwrap());
        let doubtful = name.starts_with("warning_");
        let ended = project.pipe(&["check", name]).exits(if doubtful { 0 } else { 2 });
        bad += usize::from(!doubtful);
        let said = ended.stderr() + &ended.stdout();
        let expected = file.with_extension("txt");
        if bless {
            std::fs::write(&expected, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        if said != expected {
            wrong.push(format!("--- {name}: expected\n{expected}--- {name}: said\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(bad >= BAD, "only {bad} bad files");
}
