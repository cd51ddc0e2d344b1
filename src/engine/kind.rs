//! What the engine knows of a stage: a trait. Real stages live in `pipe-train`, scripted ones in
//! the tests.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exec::Journal;
use crate::graph::{Graph, Targets};
use crate::identity::{self, Difference};
use crate::policy::Adjustment;
use crate::progress::{Event, EventListener};
use crate::secret;
use crate::shell;
use crate::stop::Stop;
use crate::store::{Lock, Output, OutputBaseline, Outputs, Stamp};

/// A kind of stage, such as `dataset` or `train`.
pub trait StageKind: Send + Sync {
    /// The word after `kind:`.
    fn name(&self) -> &'static str;

    /// JSON schema of the settings. A property's `x-class` (`identity`, `extend` or `runtime`) says
    /// what a change of it means; without one it is `identity`. `x-instead-of` names another
    /// property that it stands for: of the two, the one in the stronger layer counts. `x-known-as`
    /// lists what other programs call it, for people who look for that.
    fn schema(&self) -> schemars::Schema;

    /// Checks merged settings and makes a stage of them.
    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection>;
}

/// Why settings were refused. The key path is relative to the stage.
#[derive(Debug)]
pub enum Rejection {
    /// The settings do not have the form that the type asks for.
    Form(Box<figment::Error>),
    /// The form is right and the value makes no sense.
    Value { key: String, message: String },
}

impl Rejection {
    pub fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { key: key.into(), message: message.into() }
    }

    /// Refuses the value at `key` if it is not good.
    pub fn unless(key: impl Into<String>, good: bool, expected: &str) -> Result<(), Self> {
        match good {
            true => Ok(()),
            false => Err(Self::value(key, format!("expected {expected}"))),
        }
    }

    /// Where the value stands, or should stand.
    pub(crate) fn path(&self) -> Vec<String> {
        match self {
            Self::Value { key, .. } => {
                key.split('.').filter(|k| !k.is_empty()).map(str::to_owned).collect()
            }
            Self::Form(error) => {
                let mut path = error.path.clone();
                let named = match &error.kind {
                    figment::error::Kind::UnknownField(name, _) => Some(name.clone()),
                    figment::error::Kind::MissingField(name) => Some(name.to_string()),
                    _ => None,
                };
                // The library has it in the path in some cases.
                path.extend(named.filter(|name| path.last() != Some(name)));
                path
            }
        }
    }

    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Form(error) if matches!(error.kind, figment::error::Kind::MissingField(_)))
    }
}

impl From<figment::Error> for Rejection {
    fn from(error: figment::Error) -> Self {
        Self::Form(Box::new(error))
    }
}

/// A stage with its settings resolved.
pub trait Stage: Send + Sync {
    /// All settings, defaults filled in.
    fn settings(&self) -> Value;

    /// What decides the result and is no setting by itself, such as a schedule's horizon.
    fn derived(&self) -> BTreeMap<String, Value> {
        BTreeMap::new()
    }

    /// The settings that name other stages.
    fn references(&self) -> Vec<Reference>;

    /// Files of the project that it reads and writes, so that stages which share one are run in the
    /// right order.
    fn files(&self) -> Files {
        Files::default()
    }

    /// The folder of its numbered runs, relative to the project, if it keeps any.
    fn runs(&self) -> Option<PathBuf> {
        None
    }

    /// Files that decide the result besides the settings: the digest of each, by a key of the
    /// manifest. One that is not there has none.
    fn content(&self, _root: &Path) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// GPUs that it computes on at the same time, where its settings say; a job asks for so many.
    fn gpus(&self) -> u32 {
        0
    }

    /// What is legal and probably not meant, or can never work together with the stages that it
    /// refers to.
    fn lint(&self, _pipeline: &PipelineView) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// What stands on disk for this stage. Changes nothing.
    fn inspect(&self, observer: &InspectContext) -> Result<Inspection, StageError>;

    /// Does the work. Long stages look at `context.stop` often.
    fn run(&self, context: &RunContext) -> Result<Outcome, StageError>;
}

/// What a stage sees of its pipeline before anything runs: the stages, by name.
pub struct PipelineView<'a>(pub(crate) HashMap<&'a str, (&'a str, &'a dyn Stage)>);

impl PipelineView<'_> {
    /// The kind of a stage and its settings; of a matrix those of its first stage by name.
    pub fn get(&self, stage: &str) -> Option<(&str, Value)> {
        let first = || {
            let members = self
                .0
                .iter()
                .filter(|(id, _)| id.split_once('@').is_some_and(|(of, _)| of == stage));
            members.min_by_key(|(id, _)| **id).map(|(_, found)| found)
        };
        let (kind, stage) = self.0.get(stage).or_else(first)?;
        Some((kind, stage.settings()))
    }

    /// The same of every stage of a matrix, by name; of one that has none, of itself.
    pub fn each(&self, stage: &str) -> Vec<(&str, &str, Value)> {
        let meant = |id: &str| id == stage || id.split_once('@').is_some_and(|(of, _)| of == stage);
        let mut found: Vec<_> = self.0.iter().filter(|(id, _)| meant(id)).collect();
        found.sort_by_key(|(id, _)| **id);
        found.into_iter().map(|(id, (kind, stage))| (*id, *kind, stage.settings())).collect()
    }
}

/// A finding about the value at a key of a stage: a warning or an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Dotted path, relative to the stage.
    pub key: String,
    pub message: String,
    /// What to do about it.
    pub note: Option<String>,
    /// It can never work: an error, not a warning.
    pub fatal: bool,
}

impl Diagnostic {
    pub fn warning(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), note: None, fatal: false }
    }

    pub fn error(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::warning(key, message) }
    }

    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }
}

/// A setting whose value is the name of another stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The key that holds the name, such as `dataset`.
    pub key: &'static str,
    pub stage: String,
    /// The kinds of stage that fit there.
    pub kinds: &'static [&'static str],
    pub mode: DependencyMode,
    /// Whether it may name a whole matrix. The inputs are then called `key.STAGE`, one for each of
    /// its stages.
    pub many: bool,
    /// Whether stages of the matrix that failed may be passed over, as long as one is left.
    pub passes_over_failed: bool,
}

impl Reference {
    /// A reference to one stage.
    pub fn to(
        key: &'static str,
        stage: &str,
        kinds: &'static [&'static str],
        counts: DependencyMode,
    ) -> Self {
        Self {
            key,
            stage: stage.to_owned(),
            kinds,
            mode: counts,
            many: false,
            passes_over_failed: false,
        }
    }
}

/// Files, each with the setting's key that names it. Relative to the project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Paths and patterns.
    pub reads: Vec<(String, String)>,
    pub writes: Vec<(String, PathBuf)>,
}

/// Whether a relative path stays inside the project, as far as its words say.
pub fn is_inside_project(path: &Path) -> bool {
    let plain = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    plain && !path.as_os_str().is_empty()
}

/// What of another stage goes into the identity of the one that refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyMode {
    /// Its settings: they decide what it hands on.
    Fingerprint,
    /// The digest of what it hands on, however that came about.
    Content,
    /// Both: its settings, and the digest of what it hands on where those do not decide it.
    FingerprintAndContent,
}

impl DependencyMode {
    pub fn by_fingerprint(self) -> bool {
        matches!(self, DependencyMode::Fingerprint | DependencyMode::FingerprintAndContent)
    }

    pub fn by_content(self) -> bool {
        matches!(self, DependencyMode::Content | DependencyMode::FingerprintAndContent)
    }
}

/// What a stage may look at when it says how far it is.
pub struct InspectContext<'a> {
    pub root: &'a Path,
    pub pipeline: &'a str,
    pub stage: &'a StageId,
    pub identity: &'a str,
    /// What the identity was made of, by key.
    pub manifest: &'a BTreeMap<String, Value>,
    /// Keys of the manifest that are missing, because a stage before this one has yet to run.
    pub unknown: &'a [String],
    /// What the stages that this one refers to hand on, by the input's name, where that is known
    /// already.
    pub inputs: &'a BTreeMap<String, Artifact>,
    /// What the stage last made, as it noted it then.
    pub made: Option<&'a Outputs>,
    /// A stage before this one has yet to run: files that it reads may come, or become others.
    pub pending: bool,
    pub request: &'a Request,
    pub graph: &'a Graph,
    pub(crate) confirmed: &'a RefCell<Option<Outputs>>,
}

impl InspectContext<'_> {
    /// What differs from an earlier manifest, as far as it is known yet.
    pub fn changes_since(&self, earlier: &BTreeMap<String, Value>) -> Vec<Difference> {
        let all = identity::differences(earlier, self.manifest);
        all.into_iter().filter(|d| !self.unknown.contains(&d.key)).collect()
    }

    /// Files that the stage made and read are as they were: their stamps are noted when it is
    /// skipped, so that they need not be read again.
    pub fn confirm(&self, made: Outputs) {
        if self.made.is_some_and(|before| *before != made) {
            self.confirmed.replace(Some(made));
        }
    }
}

/// What stands on disk for a stage.
pub struct Inspection {
    pub state: StageState,
    /// What the stage hands on, if that is known without running it: always when it is done.
    pub artifact: Option<Artifact>,
}

impl From<StageState> for Inspection {
    fn from(state: StageState) -> Self {
        Self { state, artifact: None }
    }
}

/// What the command line asks of the numbered runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// `--run-number N`
    pub run_number: Option<u32>,
    /// `--resume`
    pub resume: bool,
    /// `--force`
    pub force: bool,
    /// `--no-data-check`: data sets count as they were last seen.
    pub data_as_last_seen: bool,
}

/// How far a stage is, as seen on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageState {
    /// Nothing usable there. `changes`: the settings that made what is there useless, if it was
    /// that.
    Absent { reason: String, changes: Vec<Difference> },
    /// Begun and not finished.
    Partial { done: u64, total: u64, reason: String },
    /// Finished, and more of the same is wanted.
    Extendable { from: u64, to: u64 },
    /// Finished.
    Done { reason: String },
    /// Keeps nothing on disk; runs whenever a stage that needs it runs.
    Transient,
}

impl StageState {
    /// Nothing usable there.
    pub fn absent(reason: impl Into<String>) -> Self {
        Self::Absent { reason: reason.into(), changes: Vec::new() }
    }

    /// What is there was made with other settings.
    pub fn changed(changes: Vec<Difference>) -> Self {
        Self::Absent { reason: identity::in_words(&changes), changes }
    }
}

/// All that a running stage gets.
pub struct RunContext<'a> {
    pub root: PathBuf,
    pub pipeline: String,
    pub stage: StageId,
    pub identity: String,
    /// What the identity was made of, by key.
    pub manifest: BTreeMap<String, Value>,
    pub request: Request,
    /// What the stages that this one refers to hand on, by the input's name.
    pub inputs: BTreeMap<String, Artifact>,
    /// What the stage last made, as it noted it then.
    pub made: Option<Outputs>,
    /// What this attempt differs in from a first one.
    pub adjustment: Adjustment,
    /// The GPU that is the stage's own while it runs, counted from 0.
    pub gpu: Option<u32>,
    pub graph: &'a Graph,
    pub stop: &'a Stop,
    pub(crate) journal: &'a Journal<'a>,
    /// The stage's own, held by this process.
    pub(crate) lock: &'a Lock,
}

impl RunContext<'_> {
    pub fn event(&self, event: Event) {
        self.journal.event(&self.stage, &event);
    }

    /// Notes what the stage makes, so that it knows tomorrow whether its files are its own and up
    /// to date. `replaced`: digests of earlier files that may still stand in their place.
    pub fn record_outputs(
        &self,
        outputs: Vec<Output>,
        inputs: Vec<Output>,
        replaced: Vec<String>,
    ) -> Result<(), StageError> {
        let made = Outputs {
            identity: self.identity.clone(),
            manifest: self.manifest.clone(),
            written_at: chrono::Utc::now(),
            outputs,
            inputs,
            replaced,
            follows_links: true,
        };
        self.journal.made(&self.stage, made)
    }

    /// The files that stood in the place of the stage's outputs before its first attempt: `now`,
    /// unless an earlier attempt at the same has noted that already. `run`: digest of what the
    /// stage runs with.
    pub(crate) fn output_baseline(
        &self,
        run: String,
        now: BTreeMap<String, Stamp>,
    ) -> Result<BTreeMap<String, Stamp>, StageError> {
        Ok(self.journal.before(&self.stage, OutputBaseline { run, files: now })?.files)
    }

    /// A pipeline file that says all about this stage and those it needs, without parameters,
    /// policies or layers. It holds no secrets of addresses.
    pub fn resolved(&self) -> String {
        let wanted = Targets { until: vec![self.stage.to_string()], ..Targets::default() };
        let selected = self.graph.select(&wanted).unwrap_or_default().stages;
        let mut stages = serde_yaml::Mapping::new();
        for stage in self.graph.stages().filter(|s| selected.contains(&s.id)) {
            let mut body = serde_yaml::Mapping::new();
            body.insert("kind".into(), stage.kind.clone().into());
            let mut settings = stage.stage.settings();
            secret::mask_addresses_in(&mut settings);
            if let Ok(serde_yaml::Value::Mapping(settings)) = serde_yaml::to_value(settings) {
                body.extend(settings);
            }
            stages.insert(stage.id.to_string().into(), body.into());
        }
        let mut file = serde_yaml::Mapping::new();
        file.insert("name".into(), self.pipeline.clone().into());
        file.insert("stages".into(), stages.into());
        serde_yaml::to_string(&file).unwrap_or_default()
    }
}

/// What a stage hands to those that refer to it.
#[derive(Clone)]
pub struct Artifact {
    value: Arc<dyn Any + Send + Sync>,
    /// Digest of it, for references that count by content.
    pub content: Option<String>,
}

impl Artifact {
    pub fn new<T: Any + Send + Sync>(value: T, content: Option<String>) -> Self {
        Self { value: Arc::new(value), content }
    }

    /// The value, if it is a `T`.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.value.clone().downcast().ok()
    }
}

/// What a stage ended with.
#[derive(Clone, Default)]
pub struct Outcome {
    pub artifact: Option<Artifact>,
    /// One line for the final summary.
    pub summary: String,
    /// A command that one would type next.
    pub next: Option<NextCommand>,
}

/// A command that one would type next, from the project's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextCommand {
    pub command: String,
    /// How good what it is about came out. Of the stages of one matrix that with the highest has
    /// its command shown.
    #[serde(rename = "merit", default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

impl From<shell::CommandLine> for NextCommand {
    fn from(line: shell::CommandLine) -> Self {
        Self { command: line.to_string(), score: None }
    }
}

pub use pipe_core::failure::{Failure, StageError, panic_message};
pub use pipe_core::ids::StageId;
