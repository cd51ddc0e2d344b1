//! `kind: command`: any program, with the files that it reads and writes declared, so that a
//! pipeline is never stuck.

mod check;
mod file_stamps;
mod files;
pub(crate) mod hook;
mod inputs;
mod metrics;
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
use std::sync::atomic::AtomicBool;

use figment::Figment;
use pipe_core::failure::{Failure, StageError};
use pipe_core::ids::StageId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::check::read_settings;
pub use self::check::{check_program, learn_environment};
use self::file_stamps::Seen;
use self::files::{Files, Found, digested};
pub use self::inputs::{InputFiles, input_files};
pub use self::process::{Launch, LaunchError, Starter, launch};
pub use self::process_tree::end_all;
pub use self::program::{Program, Word, words};
use crate::artifact::{Artifact, ArtifactType, Metrics, Outcome};
use crate::file_formats::FileFormats;
use crate::graph::Graph;
use crate::identity::hex;
use crate::inspection::{Inspection, StageState};
use crate::kind;
use crate::kind::{InspectContext, RunContext, Stage, StageKind};
use crate::reference::Reference;
use crate::rejection::Rejection;
use crate::state::{Output, Outputs};

/// Runs a program.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandSettings {
    /// The program and its arguments as a list, or one line for the shell (`sh -c`).
    #[schemars(example = vec!["python3", "evaluate.py", "best.ckpt"])]
    #[schemars(example = &"sha256sum best.ckpt > digest.txt")]
    #[schemars(extend("x-known-as" = ["command", "cmd", "script", "shell"]))]
    run: Program,
    /// Files, folders or patterns (`data/*.csv`, `data/**/*.png`) that it reads, relative to the
    /// project. Another content of them is a reason to run again.
    #[serde(default)]
    #[schemars(example = vec!["best.ckpt", "data/*.csv"])]
    #[schemars(extend("x-known-as" = ["input", "deps"]))]
    inputs: Vec<String>,
    /// Files or folders that it writes, relative to the project. Each must be written each time.
    #[serde(default)]
    #[schemars(example = vec!["digest.txt"])]
    #[schemars(extend("x-known-as" = ["output", "outs"]))]
    outputs: Vec<PathBuf>,
    /// A JSON file that it writes, relative to the project: one object of names and numbers, such
    /// as `{"fid": 12.5}`. It is an output like the others, and other stages choose by its numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"scores.json")]
    metrics: Option<PathBuf>,
    /// Environment variables besides those that `pipe` was started with. Their values are written
    /// down nowhere: a record holds their digests.
    #[serde(default, serialize_with = "digests", deserialize_with = "program::words")]
    #[schemars(with = "BTreeMap<String, program::Word>")]
    env: BTreeMap<String, String>,
    /// Where it is started, relative to the project.
    #[serde(default)]
    #[schemars(extend("x-known-as" = ["cwd", "wdir", "workdir"]))]
    working_dir: Option<PathBuf>,
}

impl Program {
    /// In one line, for messages.
    pub fn shown(&self) -> String {
        match self {
            Program::Shell(line) => line.clone(),
            Program::Arguments(list) => list.join(" "),
        }
    }
}

/// Writes variables down by digests: values may be secrets, and what is kept tells whether they are
/// the same, and nothing else.
pub fn digests<S: serde::Serializer>(
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

    fn makes_with(&self) -> Option<(ArtifactType, &'static str)> {
        Some((ArtifactType::METRICS, "metrics"))
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(CommandSettings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        Ok(Arc::new(CommandStage::new(read_settings(settings)?, None)))
    }
}

impl StageKind for InProcess {
    fn name(&self) -> &'static str {
        CommandKind.name()
    }

    fn makes_with(&self) -> Option<(ArtifactType, &'static str)> {
        CommandKind.makes_with()
    }

    fn schema(&self) -> schemars::Schema {
        CommandKind.schema()
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        Ok(Arc::new(CommandStage::new(read_settings(settings)?, Some(self.0.clone()))))
    }
}

struct CommandStage {
    settings: CommandSettings,
    /// All that it writes: its outputs, and the file of its metrics.
    written: Vec<PathBuf>,
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
        let outputs = self.settings.outputs.len();
        let key = |place: usize| if place < outputs { "outputs" } else { "metrics" };
        let named = |(place, path): (usize, &PathBuf)| (key(place).to_owned(), path.clone());
        let writes = self.written.iter().enumerate().map(named);
        kind::Files { reads: reads.collect(), writes: writes.collect() }
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let Some(made) = o.made else { return Ok(StageState::absent("never run").into()) };
        let changes = o.changes_since(&made.manifest);
        if !changes.is_empty() {
            return Ok(StageState::changed(changes).into());
        }
        let settings = &self.settings;
        if self.written.is_empty() && settings.inputs.is_empty() {
            return Ok(self.done(o.root, &made.outputs));
        }
        let files = self.at(o.root, o.graph, o.formats, o.stage);
        let (found, missing) = self.inputs(&files)?;
        let seen = Seen::of(&files, found, made, &made.inputs)?;
        let is_left_out = |path: &Path| files.was_left_out(&settings.inputs, path);
        let changes = seen.changes(&made.inputs, is_left_out);
        if let Some(pattern) = missing {
            // A stage before this one may bring it.
            let reason = there_is_no(pattern, o.root);
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
        let observation = self.done(o.root, &outputs);
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
            return Err(StageError::new(Failure::Input, there_is_no(pattern, &context.root)));
        }
        let inputs = digested(&context.root, context.formats, found, known)?;
        let (standing, _) = self.outputs(&files)?;
        let before = stale_outputs::before(context, &standing, &inputs)?;
        for path in &self.written {
            if let Some(parent) = context.root.join(path).parent() {
                pipe_fs::atomic::create_folder(context.root.disk(), parent)?;
            }
        }
        let folder =
            s.working_dir.as_ref().map_or(context.root.to_path_buf(), |dir| context.root.join(dir));
        match &self.substitute {
            Some(substitute) => substitute(context, &s.run.shown())?,
            None => launch(
                context,
                &Launch {
                    program: &s.run,
                    starter: None,
                    folder: &folder,
                    env: &s.env,
                    grace: process::GRACE,
                    tells_all: true,
                    cancelled: &AtomicBool::new(false),
                },
            )?,
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
        let metrics = self.metrics(&context.root).map_err(failed)?;
        files::sync(&context.root, &found)?;
        let outputs = digested(&context.root, context.formats, found, &[])?;
        context.record_outputs(outputs.clone(), inputs, Vec::new())?;
        let summary = self.summary(metrics.as_ref());
        Ok(Outcome { artifact: Some(artifact(&outputs, metrics)), summary, next: None })
    }
}

/// What is said of a pattern of `inputs:` that no file matches.
pub fn there_is_no(pattern: &str, root: &Path) -> String {
    format!("inputs: there is no {pattern} in the project's folder, {}", root.display())
}

impl CommandStage {
    fn new(settings: CommandSettings, substitute: Option<Substitute>) -> Self {
        let mut written = settings.outputs.clone();
        written.extend(settings.metrics.clone().filter(|path| !settings.outputs.contains(path)));
        Self { settings, written, substitute }
    }

    /// The metrics that stand on disk, if it writes some.
    fn metrics(&self, root: &Path) -> Result<Option<Metrics>, String> {
        self.settings.metrics.as_ref().map(|path| metrics::read(root, path)).transpose()
    }

    fn done(&self, root: &Path, outputs: &[Output]) -> Inspection {
        let metrics = match self.metrics(root) {
            Ok(metrics) => metrics,
            Err(reason) => return StageState::absent(reason).into(),
        };
        let shown = metrics.as_ref().map(|metrics| format!(", {}", metrics.shown()));
        Inspection::new(
            StageState::Done { reason: format!("up to date{}", shown.unwrap_or_default()) },
            Some(artifact(outputs, metrics)),
        )
    }

    /// What came of it: the files, and the metrics.
    fn summary(&self, metrics: Option<&Metrics>) -> String {
        let files: Vec<String> = self.written.iter().map(|p| p.display().to_string()).collect();
        let done = if files.is_empty() { "done".to_owned() } else { files.join(", ") };
        match metrics {
            Some(metrics) => format!("{done}: {}", metrics.shown()),
            None => done,
        }
    }

    fn at<'a>(
        &'a self,
        root: &'a Path,
        graph: &'a Graph,
        formats: &'a dyn FileFormats,
        stage: &'a StageId,
    ) -> Files<'a> {
        let (own, others) = (&self.written[..], OnceCell::new());
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
        for path in &self.written {
            if !files.written(path, &mut found)? {
                missing = missing.or(Some(path.as_path()));
            }
        }
        Ok((found, missing))
    }
}

/// The metrics, or else the files, as something that counts by its content.
fn artifact(outputs: &[Output], metrics: Option<Metrics>) -> Artifact {
    if let Some(metrics) = metrics {
        return metrics.artifact();
    }
    let mut hash = Sha256::new();
    for output in outputs {
        hash.update(format!("{}={}\n", output.path, output.digest));
    }
    Artifact::new(outputs.to_vec(), Some(format!("sha256:{}", hex(&hash.finalize()))))
}
