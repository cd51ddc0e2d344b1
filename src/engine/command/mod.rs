//! `kind: command`: any program, with the files that it reads and writes declared, so that a
//! pipeline is never stuck.

mod file_stamps;
mod files;
pub(crate) mod hook;
mod output;
mod process;
mod process_tree;
mod program;
mod signals;
mod stale_outputs;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use pipe_core::failure::{Failure, StageError};
use pipe_core::ids::StageId;
use pipe_core::secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::file_stamps::Seen;
use self::files::{Files, Found, digested};
pub use self::process_tree::end_all;
pub(crate) use self::program::{Program, Word};
use crate::artifact::{Artifact, Outcome};
use crate::file_formats::FileFormats;
use crate::graph::Graph;
use crate::identity::hex;
use crate::inspection::{Inspection, StageState};
use crate::kind;
use crate::kind::{InspectContext, RunContext, Stage, StageKind};
use crate::reference::{Reference, is_inside_project};
use crate::rejection::Rejection;
use crate::state::{Output, Outputs};

/// Runs a program.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandSettings {
    /// The program and its arguments as a list, or one line for the shell (`sh -c`).
    #[schemars(example = vec!["python3", "evaluate.py", "best.ckpt"])]
    #[schemars(example = &"sha256sum best.ckpt > digest.txt")]
    run: Program,
    /// Files, folders or patterns (`data/*.csv`, `data/**/*.png`) that it reads, relative to the
    /// project. Another content of them is a reason to run again.
    #[serde(default)]
    #[schemars(example = vec!["best.ckpt", "data/*.csv"])]
    inputs: Vec<String>,
    /// Files or folders that it writes, relative to the project. Each must be written each time.
    #[serde(default)]
    #[schemars(example = vec!["digest.txt"])]
    outputs: Vec<PathBuf>,
    /// Environment variables besides those that `pipe` was started with. Their values are written
    /// down nowhere: a record holds their digests.
    #[serde(default, serialize_with = "digests", deserialize_with = "program::words")]
    #[schemars(with = "BTreeMap<String, program::Word>")]
    env: BTreeMap<String, String>,
    /// Where it is started, relative to the project.
    #[serde(default)]
    working_dir: Option<PathBuf>,
}

impl Program {
    /// In one line, for messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Program::Shell(line) => line.clone(),
            Program::Arguments(list) => list.join(" "),
        }
    }
}

/// Values may be secrets: what is kept tells whether they are the same, and nothing else.
fn digests<S: serde::Serializer>(
    env: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(env.iter().map(|(name, value)| {
        let digest = Sha256::digest(format!("{name}={value}"));
        (name, format!("sha256:{}", hex(&digest)))
    }))
}

pub struct CommandKind;

/// What is called in the place of a program, with the words that would start it.
pub type Substitute = Arc<dyn Fn(&RunContext, &str) -> Result<(), StageError> + Send + Sync>;

/// The same kind with a function in the place of programs, for tests of more stages than there is
/// time to start programs for.
pub struct InProcess(pub Substitute);

impl StageKind for CommandKind {
    fn name(&self) -> &'static str {
        "command"
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(CommandSettings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        Ok(Arc::new(CommandStage { settings: checked(settings)?, substitute: None }))
    }
}

impl StageKind for InProcess {
    fn name(&self) -> &'static str {
        CommandKind.name()
    }

    fn schema(&self) -> schemars::Schema {
        CommandKind.schema()
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        Ok(Arc::new(CommandStage {
            settings: checked(settings)?,
            substitute: Some(self.0.clone()),
        }))
    }
}

/// The settings, if they make sense.
fn checked(settings: &Figment) -> Result<CommandSettings, Rejection> {
    // Whatever is wrong with them, no message may repeat them.
    if let Ok(env) = settings.extract_inner::<Value>("env") {
        learn(&env);
    }
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
        glob::Pattern::new(pattern)
            .map_err(|e| Rejection::value(&key, format!("not a pattern: {e}")))?;
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
    secret::learn_addresses(&settings.run.shown());
    for (name, value) in &settings.env {
        let told = "the value itself: `***` stands for one in what is shown";
        Rejection::unless(format!("env.{name}"), value != secret::MASK, told)?;
        let good = !name.is_empty() && !name.contains(['=', '\0']);
        Rejection::unless(format!("env.{name}"), good, "the name of a variable")?;
    }
    Ok(settings)
}

/// Takes note of every text in a value. The path of what is there is no secret, and stands in
/// messages.
fn learn(value: &Value) {
    match value {
        Value::String(text) if !Path::new(text).exists() => secret::learn(text),
        Value::Array(items) => items.iter().for_each(learn),
        Value::Object(map) => map.values().for_each(learn),
        _ => {}
    }
}

struct CommandStage {
    settings: CommandSettings,
    substitute: Option<Substitute>,
}

impl Stage for CommandStage {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }

    fn files(&self) -> kind::Files {
        let reads =
            self.settings.inputs.iter().map(|pattern| ("inputs".to_owned(), pattern.clone()));
        let writes = self.settings.outputs.iter().map(|path| ("outputs".to_owned(), path.clone()));
        kind::Files { reads: reads.collect(), writes: writes.collect() }
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let Some(made) = o.made else { return Ok(StageState::absent("never run").into()) };
        let changes = o.changes_since(&made.manifest);
        if !changes.is_empty() {
            return Ok(StageState::changed(changes).into());
        }
        let settings = &self.settings;
        if settings.outputs.is_empty() && settings.inputs.is_empty() {
            return Ok(done(&made.outputs));
        }
        let files = self.at(o.root, o.graph, o.formats, o.stage);
        let (found, missing) = self.inputs(&files)?;
        let seen = Seen::of(&files, found, made, &made.inputs)?;
        let is_left_out = |path: &Path| files.was_left_out(&settings.inputs, path);
        let changes = seen.changes(&made.inputs, is_left_out);
        if let Some(pattern) = missing {
            // A stage before this one may bring it.
            let reason = there_is_no(pattern);
            return Ok(StageState::Absent { reason, changes }.into());
        }
        if !changes.is_empty() {
            return Ok(StageState::changed(changes).into());
        }
        let (found, missing) = self.outputs(&files)?;
        if let Some(missing) = missing {
            return Ok(StageState::absent(format!("{} is not there", missing.display())).into());
        }
        let inputs = seen.files;
        let seen = Seen::of(&files, found, made, &made.outputs)?;
        let changes = seen.changes(&made.outputs, |path| files.is_written_by_others(path));
        if let Some(change) = changes.first() {
            return Ok(
                StageState::absent(format!("{} was changed since it was made", change.key)).into()
            );
        }
        let outputs = seen.files;
        let observation = done(&outputs);
        o.confirm(Outputs { inputs, outputs, follows_links: true, ..made.clone() });
        Ok(observation)
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let s = &self.settings;
        let known = context.made.as_ref().map_or(&[][..], |made| &made.inputs);
        let files = self.at(&context.root, context.graph, context.formats, &context.stage);
        // Taken before the start: what changes while the program runs is a reason to run again.
        let (found, missing) = self.inputs(&files)?;
        if let Some(pattern) = missing {
            return Err(StageError::new(Failure::Input, there_is_no(pattern)));
        }
        let inputs = digested(&context.root, context.formats, found, known)?;
        let (standing, _) = self.outputs(&files)?;
        let before = stale_outputs::before(context, &standing, &inputs)?;
        for path in &s.outputs {
            if let Some(parent) = context.root.join(path).parent() {
                pipe_fs::atomic::create_folder(context.root.disk(), parent)?;
            }
        }
        let folder =
            s.working_dir.as_ref().map_or(context.root.to_path_buf(), |dir| context.root.join(dir));
        match &self.substitute {
            Some(substitute) => substitute(context, &s.run.shown())?,
            None => process::run(context, &s.run, &folder, &s.env)?,
        }
        let (found, missing) = self.outputs(&files)?;
        let failed = |text| StageError::new(Failure::Command, text);
        if let Some(missing) = missing {
            let missing = missing.display();
            return Err(failed(format!(
                "it ended well and did not write {missing}, one of its outputs"
            )));
        }
        if let Some(path) = stale_outputs::find(&files, &found, &before) {
            return Err(failed(stale_outputs::message(&files, path)));
        }
        files::sync(&context.root, &found)?;
        let outputs = digested(&context.root, context.formats, found, &[])?;
        context.record_outputs(outputs.clone(), inputs, Vec::new())?;
        let summary = if s.outputs.is_empty() {
            "done".to_owned()
        } else {
            s.outputs.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
        };
        Ok(Outcome { artifact: Some(artifact(&outputs)), summary, next: None })
    }
}

fn there_is_no(pattern: &str) -> String {
    format!("inputs: there is no {pattern}")
}

impl CommandStage {
    fn at<'a>(
        &'a self,
        root: &'a Path,
        graph: &'a Graph,
        formats: &'a dyn FileFormats,
        stage: &'a StageId,
    ) -> Files<'a> {
        let (own, others) = (&self.settings.outputs[..], OnceCell::new());
        Files { root, graph, formats, stage, own, others }
    }

    /// The files that it reads now, and the first input that means none.
    fn inputs(&self, files: &Files) -> Result<(Vec<Found>, Option<&str>), StageError> {
        let (mut found, mut missing) = (Vec::new(), None);
        for pattern in &self.settings.inputs {
            if !files.read(pattern, &mut found)? {
                missing = missing.or(Some(pattern.as_str()));
            }
        }
        Ok((found, missing))
    }

    /// The files that stand in the place of its outputs, and the first output that is not there.
    fn outputs(&self, files: &Files) -> Result<(Vec<Found>, Option<&Path>), StageError> {
        let (mut found, mut missing) = (Vec::new(), None);
        for path in &self.settings.outputs {
            if !files.written(path, &mut found)? {
                missing = missing.or(Some(path.as_path()));
            }
        }
        Ok((found, missing))
    }
}

fn done(outputs: &[Output]) -> Inspection {
    Inspection {
        state: StageState::Done { reason: "up to date".into() },
        artifact: Some(artifact(outputs)),
    }
}

/// The files as something that counts by its content.
fn artifact(outputs: &[Output]) -> Artifact {
    let mut hash = Sha256::new();
    for output in outputs {
        hash.update(format!("{}={}\n", output.path, output.digest));
    }
    Artifact::new(outputs.to_vec(), Some(format!("sha256:{}", hex(&hash.finalize()))))
}
