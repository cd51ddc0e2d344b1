//! A project folder and commands in it: `Project::new().pipe(&["run", "p.yaml"]).succeeds()`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// A model of a few thousand parameters on tiny images: an epoch takes a fraction of a second.
pub const TINY: &str = "\
name: tiny
params: { epochs: 2 }
stages:
  data:
    kind: dataset
    source: shapes
    classes: [circle, square]
    image_size: 8
    num_images: 64
  base:
    kind: train
    dataset: data
    epochs: ${params.epochs}
    batch_size: 16
    model: { dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }
    device: cpu
    log_every_n_steps: 1
";

/// The folder of what is tested.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The YAML files in a folder of it, and in the folders there, by name.
pub fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub struct Project {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

/// What is tried in the place of the program. Of the process, which tries one thing alone.
static TRIED: OnceLock<PathBuf> = OnceLock::new();

/// Has projects start another program than the one that was built.
#[allow(dead_code, reason = "the tests of faults alone do")]
pub fn use_program(path: PathBuf) {
    TRIED.set(path).unwrap();
}

fn program() -> &'static Path {
    TRIED.get().map_or(Path::new(env!("CARGO_BIN_EXE_pipe")), PathBuf::as_path)
}

impl Project {
    /// An empty folder with the tiny pipeline as `p.yaml`.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let project = Self { folder, environment: Vec::new() };
        project.write("p.yaml", TINY);
        project
    }

    /// The tiny pipeline with a piece of it replaced.
    #[track_caller]
    pub fn with(from: &str, to: &str) -> Self {
        assert!(TINY.contains(from), "the tiny pipeline has no {from:?}");
        let project = Self::new();
        project.write("p.yaml", TINY.replacen(from, to, 1));
        project
    }

    pub fn environment(mut self, key: &str, value: impl Into<String>) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    #[track_caller]
    pub fn read(&self, relative: &str) -> String {
        let path = self.path(relative);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The run's metadata.
    #[track_caller]
    pub fn metadata(&self, run: &str) -> serde_json::Value {
        serde_json::from_str(&self.read(&format!("{run}/metadata.json"))).unwrap()
    }

    /// File names in a folder, sorted; none when it does not exist.
    pub fn list(&self, relative: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(relative)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A command that is ready to start.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
        // Settings of the machine that runs the tests must not reach the program.
        for (key, _) in std::env::vars() {
            if key.starts_with("PIPE_") {
                command.env_remove(key);
            }
        }
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs to the end.
    pub fn pipe(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).output().unwrap();
        Ended { output, arguments: arguments.join(" ") }
    }

    /// Starts and returns at once; output goes nowhere.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

/// A command that has ended.
pub struct Ended {
    output: Output,
    arguments: String,
}

impl Ended {
    /// Runs a command to its end.
    pub fn of(mut command: Command, arguments: &[&str]) -> Self {
        Self { output: command.output().unwrap(), arguments: arguments.join(" ") }
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        let found = self.output.status.code();
        assert_eq!(
            found,
            Some(code),
            "pipe {}\n--- stdout\n{}\n--- stderr\n{}",
            self.arguments,
            self.stdout(),
            self.stderr()
        );
        self
    }

    #[track_caller]
    pub fn succeeds(self) -> Self {
        self.exits(0)
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    #[track_caller]
    pub fn says(self, piece: &str) -> Self {
        let all = self.stdout() + &self.stderr();
        assert!(all.contains(piece), "pipe {}: no {piece:?} in\n{all}", self.arguments);
        self
    }
}

/// Every `state_dict.*` tensor of a checkpoint, as the safetensors crate reads it: name, shape,
/// bytes.
#[track_caller]
pub fn weights(path: &Path) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Vec<_> = tensors
        .tensors()
        .into_iter()
        .filter(|(name, _)| name.starts_with("state_dict."))
        .map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec()))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no weights in {}", path.display());
    found
}

/// All tensors but none of the header: weights, their mean, the optimizer's state.
#[track_caller]
pub fn all_tensors(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Vec<_> =
        tensors.tensors().into_iter().map(|(n, v)| (n, v.data().to_vec())).collect();
    found.sort();
    found
}

/// The largest difference between two lists of tensors of the same names and shapes.
#[track_caller]
pub fn furthest(
    ours: &[(String, Vec<usize>, Vec<u8>)],
    theirs: &[(String, Vec<usize>, Vec<u8>)],
) -> f32 {
    let values = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    assert_eq!(ours.len(), theirs.len());
    let mut worst: f32 = 0.0;
    for ((name, shape, a), (other, other_shape, b)) in ours.iter().zip(theirs) {
        assert_eq!((name, shape), (other, other_shape));
        worst = values(a).iter().zip(values(b)).map(|(x, y)| (x - y).abs()).fold(worst, f32::max);
    }
    worst
}

pub fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}
