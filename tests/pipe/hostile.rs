//! What comes from outside and means harm, or is merely broken: refused with a word, never a panic.

use crate::project::Project;

#[allow(dead_code, reason = "shared with the fuzz targets")]
#[path = "../../fuzz/targets.rs"]
mod targets;

#[test]
fn every_file_of_the_fuzzers_corpus_is_taken_or_refused() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::ALL {
        let files: Vec<_> =
            std::fs::read_dir(corpus.join(name)).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(!files.is_empty(), "{name}");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            target(&bytes);
            // Cut anywhere, too.
            for length in (0..bytes.len()).step_by(bytes.len() / 20 + 1) {
                target(&bytes[..length]);
            }
        }
    }
}

#[test]
fn a_bomb_of_aliases_and_a_deep_nest_are_refused_at_once() {
    let levels = (b'b'..=b'i').map(char::from).zip((b'a'..=b'h').map(char::from));
    let lists = levels
        .map(|(name, of)| format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 9].join(", ")));
    let bomb = format!(
        "a: &a [x, x, x, x, x, x, x, x, x]\n{}name: bomb\nstages: {{}}\n",
        lists.collect::<String>()
    );
    let deep = format!("name: deep\nstages: {}1{}\n", "{a: ".repeat(5000), "}".repeat(5000));
    for (text, says) in [(bomb, "repetition limit"), (deep, "recursion limit")] {
        let project = Project::new();
        project.write("p.yaml", text);
        let started = std::time::Instant::now();
        project.pipe(&["check", "p.yaml"]).exits(2).says(says);
        assert!(started.elapsed().as_secs() < 10);
    }
}

#[test]
fn stages_write_inside_the_project_alone() {
    for path in ["../best.ckpt", "/tmp/best.ckpt", "a/../../best.ckpt"] {
        let project = Project::new();
        let more = format!("  best:\n    kind: copy_best\n    from: base\n    to: {path}\n");
        project.write("p.yaml", crate::project::TINY.to_owned() + &more);
        project
            .pipe(&["check", "p.yaml"])
            .exits(2)
            .says("stages.best.to")
            .says("inside the project");
        let project = Project::new();
        project.write(
            "p.yaml",
            format!(
                "name: c\nstages:\n  c: {{ kind: command, run: 'true', outputs: ['{path}'] }}\n"
            ),
        );
        project.pipe(&["check", "p.yaml"]).exits(2).says("inside the project");
    }
}

#[test]
fn values_of_the_environment_are_written_down_nowhere() {
    let project = Project::new();
    let file = "name: c\nstages:\n  c: { kind: command, run: 'test -n \"$TOKEN\"', env: { TOKEN: hunter2-hunter2 } }\n";
    project.write("p.yaml", file);
    for arguments in
        [&["run", "p.yaml"][..], &["plan", "p.yaml", "--json"], &["status", "p.yaml", "--json"]]
    {
        let ended = project.pipe(arguments).succeeds();
        assert!(!(ended.stdout() + &ended.stderr()).contains("hunter2"), "{arguments:?}");
    }
    project.write("p.yaml", file.replace("hunter2-hunter2", "new-secret"));
    let plan = project.pipe(&["plan", "p.yaml"]).succeeds().says("another content of env.TOKEN");
    assert!(!plan.stdout().contains("secret"));
    let mut folders = vec![project.path(".pipe")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            assert!(!text.contains("hunter2"), "{}", path.display());
        }
    }
    assert!(files > 2);
}
