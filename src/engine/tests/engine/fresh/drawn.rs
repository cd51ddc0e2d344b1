//! Drawn pipelines, and drawn edits of them and of their files.

use std::path::Path;

use super::world::Program;
use crate::random::Random;

/// A pipeline that can be edited.
#[derive(Clone)]
pub struct Drawn {
    stages: Vec<Stage>,
}

#[derive(Clone)]
enum Stage {
    Command { program: Program, needs: Vec<usize> },
    Train { rates: Vec<usize>, epochs: usize, needs: Vec<usize> },
    Choose { over: usize },
    Copy { from: usize },
}

const SOURCES: [&str; 5] = ["src/a.txt", "src/b.txt", "src/c.csv", "more/a.txt", "more/deep/b.txt"];

impl Drawn {
    pub fn new(random: &mut Random) -> Self {
        let mut stages: Vec<Stage> = Vec::new();
        for i in 0..2 + random.below(6) {
            let is = |wanted: fn(&Stage) -> bool| -> Vec<usize> {
                (0..i).filter(|&j| wanted(&stages[j])).collect()
            };
            let single = is(|s| match s {
                Stage::Train { rates, .. } => rates.len() == 1,
                Stage::Choose { .. } => true,
                _ => false,
            });
            let many = is(|s| matches!(s, Stage::Train { .. }));
            let needs = (0..i).filter(|_| random.below(6) == 0).collect();
            stages.push(match random.below(8) {
                0 => Stage::Train {
                    rates: (0..1 + random.below(3)).collect(),
                    epochs: 1 + random.below(3),
                    needs,
                },
                1 if !many.is_empty() => Stage::Choose { over: many[random.below(many.len())] },
                2 | 3 if !single.is_empty() => {
                    Stage::Copy { from: single[random.below(single.len())] }
                }
                _ => Stage::Command { program: program(random, i, &stages), needs },
            });
        }
        Self { stages }
    }

    /// The pipeline file. The order of stages in it means nothing.
    pub fn to_yaml(&self, random: &mut Random) -> String {
        let mut lines: Vec<String> =
            self.stages.iter().enumerate().map(|(i, stage)| line(i, stage)).collect();
        for at in (1..lines.len()).rev() {
            lines.swap(at, random.below(at + 1));
        }
        format!("name: drawn\nstages:\n{}", lines.concat())
    }

    /// Files that stages make, and folders of them.
    pub fn outputs(&self) -> Vec<String> {
        self.stages.iter().enumerate().flat_map(|(i, stage)| written(i, stage)).collect()
    }

    /// Changes a setting of a stage, and says so.
    fn edit_setting(&mut self, random: &mut Random) -> String {
        let at = random.below(self.stages.len());
        match &mut self.stages[at] {
            Stage::Command { program, .. } => program.salt += 1,
            Stage::Train { rates, .. } if random.below(2) == 0 => rates[0] += 10,
            Stage::Train { epochs, .. } => *epochs += 1,
            Stage::Choose { .. } | Stage::Copy { .. } => {}
        }
        format!("settings of s{at}")
    }

    /// Changes a setting or a file, and says which.
    pub fn edit(&mut self, random: &mut Random, root: &Path) -> String {
        let source = SOURCES[random.below(SOURCES.len())];
        let outputs = self.outputs();
        match random.below(10) {
            0..=2 => self.edit_setting(random),
            3 | 4 => {
                std::fs::write(root.join(source), random.below(4).to_string()).unwrap();
                format!("content of {source}")
            }
            5 => {
                let path = ["src/new.txt", "src/new.csv", "more/deep/new.txt"][random.below(3)];
                std::fs::write(root.join(path), random.below(4).to_string()).unwrap();
                format!("new file {path}")
            }
            6 => {
                for path in ["src/new.txt", "src/new.csv", "more/deep/new.txt"] {
                    let _ = std::fs::remove_file(root.join(path));
                }
                "new files gone".to_owned()
            }
            _ if outputs.is_empty() => "nothing".to_owned(),
            7 | 8 => {
                let path = &outputs[random.below(outputs.len())];
                let _ = std::fs::remove_file(root.join(path));
                let _ = std::fs::remove_dir_all(root.join(path));
                format!("{path} deleted")
            }
            _ => {
                let mut path = outputs[random.below(outputs.len())].clone();
                if root.join(&path).is_dir() {
                    path += "/0.txt";
                }
                alter(&root.join(&path), random.below(2) == 0);
                format!("{path} altered")
            }
        }
    }
}

/// The files that a project has before anything runs.
pub fn sources(root: &Path) {
    for (i, path) in SOURCES.iter().enumerate() {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), i.to_string()).unwrap();
    }
}

/// Another content; of the same size and time if `hidden`.
fn alter(path: &Path, hidden: bool) {
    let Ok(old) = std::fs::read(path) else { return };
    let time = std::fs::metadata(path).unwrap().modified().unwrap();
    let new: Vec<u8> = old.iter().map(|byte| byte ^ 1).chain((!hidden).then_some(b'.')).collect();
    std::fs::write(path, new).unwrap();
    if hidden {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
}

fn program(random: &mut Random, i: usize, before: &[Stage]) -> Program {
    let mut reads: Vec<String> = Vec::new();
    for (j, stage) in before.iter().enumerate() {
        for path in written(j, stage) {
            match random.below(4) {
                0 => reads.push(path),
                1 if path.contains("folder") => reads.push(format!("{path}/*.txt")),
                _ => {}
            }
        }
    }
    let sources = ["src/a.txt", "src/b.txt", "src/*.txt", "src", "more"];
    reads.extend((0..random.below(3)).map(|_| sources[random.below(sources.len())].to_owned()));
    let names = ["x.txt", "out/y.txt", "folder"];
    let writes: Vec<String> = names
        .iter()
        .filter(|_| random.below(2) == 0)
        .map(|name| format!("made{i}/{name}"))
        .collect();
    let writes = if writes.is_empty() { vec![format!("made{i}.txt")] } else { writes };
    Program { salt: i, coarse: random.below(2) == 0, reads, writes }
}

fn written(i: usize, stage: &Stage) -> Vec<String> {
    match stage {
        Stage::Command { program, .. } => program.writes.clone(),
        Stage::Copy { .. } => vec![format!("copies/{i}.ckpt")],
        Stage::Train { .. } | Stage::Choose { .. } => Vec::new(),
    }
}

/// A stage as the file has it.
fn line(i: usize, stage: &Stage) -> String {
    let list =
        |needs: &[usize]| needs.iter().map(|j| format!("s{j}")).collect::<Vec<_>>().join(", ");
    let body = match stage {
        Stage::Command { program, needs } => format!(
            "kind: command, run: '{}', inputs: {:?}, outputs: {:?}, needs: [{}]",
            serde_json::to_string(program).unwrap(),
            program.reads,
            program.writes,
            list(needs)
        ),
        Stage::Train { rates, epochs, needs } if rates.len() == 1 => {
            format!("kind: train, rate: {}, epochs: {epochs}, needs: [{}]", rates[0], list(needs))
        }
        Stage::Train { rates, epochs, needs } => {
            format!(
                "kind: train, matrix: {{ rate: {rates:?} }}, epochs: {epochs}, needs: [{}]",
                list(needs)
            )
        }
        Stage::Choose { over } => format!("kind: choose, over: s{over}"),
        Stage::Copy { from } => format!("kind: copy, from: s{from}, to: copies/{i}.ckpt"),
    };
    format!("  s{i}: {{ {body} }}\n")
}
