//! `kind: command`: any program, with the files that it reads and writes declared, so that a pipeline is never stuck.

mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::identity::{Difference, hex};
use crate::kind::{
    Artifact, Failure, Files, Observation, Observer, Outcome, Reference, Rejection, RunContext, Stage,
    StageError, StageKind, State, is_inside_project,
};
use crate::store::Output;

/// Runs a program.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandSettings {
    /// The program and its arguments as a list, or one line for the shell (`sh -c`).
    #[schemars(example = vec!["python3", "evaluate.py", "best.ckpt"])]
    #[schemars(example = &"sha256sum best.ckpt > digest.txt")]
    run: Program,
    /// Files, folders or patterns (`data/*.csv`, `data/**/*.png`) that it reads, relative to the project. Another
    /// content of them is a reason to run again.
    #[serde(default)]
    #[schemars(example = vec!["best.ckpt", "data/*.csv"])]
    inputs: Vec<String>,
    /// Files or folders that it writes, relative to the project. Each must be there afterwards.
    #[serde(default)]
    #[schemars(example = vec!["digest.txt"])]
    outputs: Vec<PathBuf>,
    /// Environment variables besides those that `pipe` was started with. Their values are written down nowhere: a record
    /// holds their digests.
    #[serde(default, serialize_with = "digests")]
    env: BTreeMap<String, String>,
    /// Where it is started, relative to the project.
    #[serde(default)]
    working_dir: Option<PathBuf>,
}

/// What is started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Program {
    /// A line for the shell.
    Shell(String),
    /// A program and its arguments, taken literally.
    Arguments(Vec<String>),
}

/// Values may be secrets: what is kept tells whether they are the same, and nothing else.
fn digests<S: serde::Serializer>(env: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(env.iter().map(|(name, value)| {
        let digest = Sha256::digest(format!("{name}={value}"));
        (name, format!("sha256:{}", hex(&digest)))
    }))
}

pub struct CommandKind;

impl StageKind for CommandKind {
    fn name(&self) -> &'static str {
        "command"
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(CommandSettings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings: CommandSettings = settings.extract()?;
        let program = match &settings.run {
            Program::Shell(line) => line.trim(),
            Program::Arguments(list) => list.first().map_or("", String::as_str),
        };
        Rejection::unless(
            "run",
            !program.is_empty(),
            "a program with its arguments, or a line for the shell",
        )?;
        let inside = "a path inside the project, without `..`";
        for (index, pattern) in settings.inputs.iter().enumerate() {
            let key = format!("inputs.{index}");
            Rejection::unless(&key, is_inside_project(Path::new(pattern)), inside)?;
            glob::Pattern::new(pattern).map_err(|e| Rejection::value(&key, format!("not a pattern: {e}")))?;
        }
        for (index, path) in settings.outputs.iter().enumerate() {
            Rejection::unless(format!("outputs.{index}"), is_inside_project(path), inside)?;
        }
        if let Some(folder) = &settings.working_dir {
            Rejection::unless(
                "working_dir",
                is_inside_project(folder),
                "a folder inside the project, without `..`",
            )?;
        }
        for name in settings.env.keys() {
            let good = !name.is_empty() && !name.contains(['=', '\0']);
            Rejection::unless(format!("env.{name}"), good, "the name of a variable")?;
        }
        Ok(Arc::new(CommandStage { settings }))
    }
}

struct CommandStage {
    settings: CommandSettings,
}

impl Stage for CommandStage {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }

    fn files(&self) -> Files {
        let reads = self.settings.inputs.iter().map(|pattern| ("inputs".to_owned(), pattern.clone()));
        let writes = self.settings.outputs.iter().map(|path| ("outputs".to_owned(), path.clone()));
        Files { reads: reads.collect(), writes: writes.collect() }
    }

    fn observe(&self, o: &Observer) -> Result<Observation, StageError> {
        let Some(made) = o.made else { return Ok(State::absent("never run").into()) };
        let changes = o.changes_since(&made.manifest);
        if !changes.is_empty() {
            return Ok(State::changed(changes).into());
        }
        if self.settings.outputs.is_empty() && self.settings.inputs.is_empty() {
            return Ok(done(&made.outputs));
        }
        let inputs = match self.inputs(o.root, &made.inputs) {
            Ok(inputs) => inputs,
            // A stage before this one may bring it.
            Err(error) => return Ok(State::absent(error.message).into()),
        };
        let changes = file_changes(&made.inputs, &inputs);
        if !changes.is_empty() {
            return Ok(State::changed(changes).into());
        }
        let outputs = match files_of(o.root, &self.settings.outputs, &made.outputs)? {
            Ok(outputs) => outputs,
            Err(missing) => return Ok(State::absent(format!("{} is not there", missing.display())).into()),
        };
        match file_changes(&made.outputs, &outputs).first() {
            Some(change) => Ok(State::absent(format!("{} was changed since it was made", change.key)).into()),
            None => Ok(done(&made.outputs)),
        }
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let s = &self.settings;
        let earlier = context.made.as_ref();
        // Taken before the start: what changes while the program runs is a reason to run again.
        let inputs = self.inputs(&context.root, earlier.map_or(&[], |m| &m.inputs))?;
        for path in &s.outputs {
            if let Some(parent) = context.root.join(path).parent() {
                crate::store::atomic::create_folder(parent)?;
            }
        }
        let folder = s.working_dir.as_ref().map_or(context.root.clone(), |dir| context.root.join(dir));
        process::run(context, &s.run, &folder, &s.env)?;
        let outputs = files_of(&context.root, &s.outputs, &[])?.map_err(|missing| {
            let text = format!("it ended well and did not write {}, one of its outputs", missing.display());
            StageError::new(Failure::Command, text)
        })?;
        context.note_made(outputs.clone(), inputs, Vec::new())?;
        let summary = match s.outputs.is_empty() {
            true => "done".to_owned(),
            false => s.outputs.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "),
        };
        Ok(Outcome { artifact: Some(artifact(&outputs)), summary, next: None })
    }
}

impl CommandStage {
    /// The files that it reads now, in order; `known` saves reading those that did not change.
    fn inputs(&self, root: &Path, known: &[Output]) -> Result<Vec<Output>, StageError> {
        let mut files = Vec::new();
        for pattern in &self.settings.inputs {
            if collect(root, Path::new(pattern), &mut files)? {
                continue;
            }
            let escaped = format!("{}/{pattern}", glob::Pattern::escape(&root.to_string_lossy()));
            let found = glob::glob(&escaped).map_err(|e| StageError::new(Failure::Setting, e.to_string()))?;
            let before = files.len();
            for path in found.flatten() {
                if let Ok(path) = path.strip_prefix(root) {
                    collect(root, path, &mut files)?;
                }
            }
            if files.len() == before {
                return Err(StageError::new(Failure::Input, format!("inputs: there is no {pattern}")));
            }
        }
        as_outputs(root, files, known)
    }
}

fn done(outputs: &[Output]) -> Observation {
    Observation { state: State::Done { reason: "up to date".into() }, artifact: Some(artifact(outputs)) }
}

/// The files as something that counts by its content.
fn artifact(outputs: &[Output]) -> Artifact {
    let mut hash = Sha256::new();
    for output in outputs {
        hash.update(format!("{}={}\n", output.path, output.digest));
    }
    Artifact::new(outputs.to_vec(), Some(format!("sha256:{}", hex(&hash.finalize()))))
}

/// A file of the project as it was found.
type Found = (PathBuf, std::fs::Metadata);

/// All files under some paths, by name, with their digests; or the path that is not there.
fn files_of(
    root: &Path,
    paths: &[PathBuf],
    known: &[Output],
) -> Result<Result<Vec<Output>, PathBuf>, StageError> {
    let mut files = Vec::new();
    for path in paths {
        if !collect(root, path, &mut files)? {
            return Ok(Err(path.clone()));
        }
    }
    as_outputs(root, files, known).map(Ok)
}

/// `known` saves reading files that did not change.
fn as_outputs(root: &Path, mut files: Vec<Found>, known: &[Output]) -> Result<Vec<Output>, StageError> {
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files.dedup_by(|a, b| a.0 == b.0);
    let known: BTreeMap<&str, &Output> = known.iter().map(|o| (o.path.as_str(), o)).collect();
    let now = |(path, metadata): &Found| {
        let name = path.to_string_lossy();
        match known.get(&*name) {
            Some(old) => old.again(root, metadata),
            None => Output::of(root, &name),
        }
    };
    Ok(files.iter().map(now).collect::<Result<_, _>>()?)
}

/// The file at a path, or all files under it; `false` if there is nothing.
fn collect(root: &Path, path: &Path, files: &mut Vec<Found>) -> Result<bool, StageError> {
    let whole = root.join(path);
    let unreadable = |e: std::io::Error| {
        StageError::new(Failure::Input, format!("failed to read {}: {e}", path.display()))
    };
    let metadata = match std::fs::metadata(&whole) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(unreadable(e)),
    };
    if metadata.is_file() {
        files.push((path.components().collect(), metadata));
        return Ok(true);
    }
    for entry in std::fs::read_dir(&whole).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let kind = entry.file_type().map_err(unreadable)?;
        // A link to a folder may lead back here.
        if kind.is_dir() || kind.is_file() || (kind.is_symlink() && !entry.path().is_dir()) {
            collect(root, &path.join(entry.file_name()), files)?;
        }
    }
    Ok(true)
}

fn file_changes(old: &[Output], new: &[Output]) -> Vec<Difference> {
    let digests = |of: &[Output]| -> BTreeMap<String, Value> {
        of.iter().map(|o| (o.path.clone(), Value::String(o.digest.clone()))).collect()
    };
    crate::identity::differences(&digests(old), &digests(new))
}
