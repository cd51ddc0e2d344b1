//! What the stages of a test do in the place of programs, and what is written down about each time
//! that one runs.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Mutex;

use pipe_engine::kind::{Failure, RunContext, StageError};
use serde::{Deserialize, Serialize};

/// What the stages of one project share.
#[derive(Default)]
pub struct World {
    /// Stages that fail.
    pub failing: Mutex<BTreeSet<String>>,
    /// Stages that ran since this was last emptied.
    pub ran: Mutex<Vec<String>>,
    /// Stages that ran although nothing that they read or made had changed.
    pub in_vain: Mutex<Vec<String>>,
    last: Mutex<BTreeMap<String, Last>>,
}

/// How a stage last ended well: what it read, and its files as it left them.
#[derive(Default)]
struct Last {
    read: String,
    made: BTreeMap<String, Option<String>>,
    outputs: Vec<String>,
}

/// A program, as it stands in the key `run`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    pub salt: usize,
    /// Its result tells little of what it read: other inputs often give the same.
    pub coarse: bool,
    pub reads: Vec<String>,
    pub writes: Vec<String>,
}

impl World {
    /// A stage begins: `read` stands for all that it reads. Fails where it is to fail.
    pub fn begins(&self, c: &RunContext, read: &str, outputs: &[String]) -> Result<(), StageError> {
        let stage = c.stage.to_string();
        let mut last = self.last.lock().unwrap();
        let before = last.remove(&stage);
        let intact = |before: &Last| files(&c.root, &before.outputs) == before.made;
        if before.is_some_and(|before| before.read == read && intact(&before)) {
            self.in_vain.lock().unwrap().push(stage.clone());
        }
        self.ran.lock().unwrap().push(stage.clone());
        if self.failing.lock().unwrap().contains(&stage) {
            return Err(StageError::new(Failure::Command, "scripted failure"));
        }
        let (read, outputs) = (read.to_owned(), outputs.to_vec());
        last.insert(stage, Last { read, made: BTreeMap::new(), outputs });
        Ok(())
    }

    /// A stage writes one of its files, and all that it will ever write there.
    pub fn writes(&self, c: &RunContext, path: &str, content: &str) {
        let whole = c.root.join(path);
        std::fs::create_dir_all(whole.parent().unwrap()).unwrap();
        std::fs::write(whole, content).unwrap();
        let mut last = self.last.lock().unwrap();
        let last = last.get_mut(c.stage.as_str()).unwrap();
        last.made = files(&c.root, &last.outputs);
    }

    /// Carries out what stands in the key `run` of a command.
    pub fn program(&self, c: &RunContext, line: &str) -> Result<(), StageError> {
        let program: Program = serde_json::from_str(line).unwrap();
        let read = files(&c.root, &program.reads);
        let whole = hash(&read);
        self.begins(c, &format!("{line} {whole:x}"), &program.writes)?;
        let value = hash(&(program.salt, if program.coarse { whole % 3 } else { whole }));
        for path in &program.writes {
            let content = format!("{:x}", hash(&(value, path)));
            if !path.contains("folder") {
                self.writes(c, path, &content);
                continue;
            }
            // Another number of files each time, without what was there.
            let _ = std::fs::remove_dir_all(c.root.join(path));
            for part in 0..1 + value % 3 {
                self.writes(c, &format!("{path}/{part}.txt"), &content);
            }
        }
        Ok(())
    }
}

/// The content of all files that some paths, folders and patterns mean.
pub fn files(root: &Path, paths: &[String]) -> BTreeMap<String, Option<String>> {
    let mut found = BTreeMap::new();
    for path in paths {
        let folder = path.strip_suffix("/*.txt").unwrap_or(path);
        if root.join(folder).is_dir() {
            for entry in std::fs::read_dir(root.join(folder)).unwrap().flatten() {
                let name = entry.file_name().into_string().unwrap();
                if path == folder || name.ends_with(".txt") {
                    let inner = files(root, &[format!("{folder}/{name}")]);
                    found.extend(inner);
                }
            }
        } else {
            found.insert(path.clone(), std::fs::read_to_string(root.join(path)).ok());
        }
    }
    found
}

pub fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
