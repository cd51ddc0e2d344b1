//! What the engine knows of a stage: the traits `StageKind` and `Stage`, and what a stage is given
//! when it is looked at and when it runs. Real stages live in `burn-pipe-train`, scripted ones in
//! the tests.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use figment::Figment;
pub use pipe_core::failure::{Failure, StageError, panic_message};
use pipe_core::fingerprint::{Difference, differences};
pub use pipe_core::ids::StageId;
use pipe_core::progress::{Event, EventListener};
use pipe_core::secret;
use pipe_core::stop::Stop;
use pipe_fs::{Lock, ProjectRoot, Stamp};
use serde_json::Value;

pub use crate::artifact::{Artifact, ArtifactType, Metrics, NextCommand, Outcome};
pub use crate::aside::Aside;
pub use crate::diagnostic::Diagnostic;
use crate::exec::Journal;
pub use crate::file_formats::{FileFormats, PlainFiles};
use crate::graph::{Graph, Targets};
pub use crate::inspection::{Forecast, Fork, Inspection, Request, StageState};
pub use crate::pipeline_view::{PipelineView, Preview};
use crate::policy::{Adjustment, Halving, Tasks};
use crate::reference::JUDGE_INPUT;
pub use crate::reference::{
    DependencyMode, Files, Judge, Reference, is_inside_project, names_file,
};
pub use crate::rejection::Rejection;
use crate::state::{Output, OutputBaseline, Outputs};
pub use crate::upstream::Upstream;
use crate::upstream::Upstreams;

/// A kind of stage, such as `dataset` or `train`.
pub trait StageKind: Send + Sync {
    /// The word after `kind:`.
    fn name(&self) -> &'static str;

    /// What its stages make. They fit wherever a setting asks for that.
    fn makes(&self) -> ArtifactType {
        ArtifactType::FILES
    }

    /// What a stage makes in the place of that where one of its settings is given: the type, and the
    /// setting's key.
    fn makes_with(&self) -> Option<(ArtifactType, &'static str)> {
        None
    }

    /// The key of the setting that names a file, for kinds that hand a file on as it is.
    fn hands_on(&self) -> Option<&'static str> {
        None
    }

    /// JSON schema of the settings. A property's `x-class` (`identity`, `extend` or `runtime`) says
    /// what a change of it means; without one it is `identity`. `x-instead-of` names another
    /// property that it stands for: of the two, the one in the stronger layer counts. `x-known-as`
    /// lists what other programs call it, for people who look for that.
    fn schema(&self) -> schemars::Schema;

    /// The key of the setting that says how far its stages go, for those that can be carried on bit
    /// by bit ([`Request::until`]).
    fn length(&self) -> Option<&'static str> {
        None
    }

    /// Keys of its settings whose value may be the name of a block under `policies:`.
    fn policies(&self) -> &'static [&'static str] {
        &[]
    }

    /// Checks merged settings and makes a stage of them.
    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection>;
}

/// A stage with its settings resolved.
pub trait Stage: Send + Sync {
    /// All settings, defaults filled in.
    fn settings(&self) -> Value;

    /// The settings as they decide the result: one that changes nothing, as the others are, has its
    /// default here.
    fn deciding_settings(&self) -> Value {
        self.settings()
    }

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
    fn content(&self, _at: &ContentContext) -> Result<BTreeMap<String, String>, StageError> {
        Ok(BTreeMap::new())
    }

    /// GPUs that it computes on at the same time, where its settings say; a job asks for so many.
    fn gpus(&self) -> u32 {
        0
    }

    /// The stage whose metrics decide what this one hands on. It takes what this one makes while it
    /// makes that ([`DependencyMode::Streaming`]); whoever takes what this one hands on waits for
    /// both.
    fn judge(&self) -> Option<Judge> {
        None
    }

    /// Whether its work can be that of several processes on several nodes: see
    /// [`RunContext::tasks`].
    fn spans_nodes(&self) -> bool {
        false
    }

    /// What it will hand on, as far as settings tell, for the lints of those that refer to it: a
    /// type that they know. A stage that hands on what another one made asks `pipeline` for that.
    fn preview(&self, _pipeline: &PipelineView) -> Option<Preview> {
        None
    }

    /// What is legal and probably not meant, or can never work together with the stages that it
    /// refers to.
    fn lint(&self, _pipeline: &PipelineView) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// The same of the metric by which it is halved with others ([`Request::monitor`]).
    fn lint_halving(&self, _halving: &Halving, _pipeline: &PipelineView) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// What stands on disk for this stage. Changes nothing.
    fn inspect(&self, observer: &InspectContext) -> Result<Inspection, StageError>;

    /// Does the work. Long stages look at `context.stop` often.
    fn run(&self, context: &RunContext) -> Result<Outcome, StageError>;
}

/// What a stage may look at when it says which files decide its result.
pub struct ContentContext<'a> {
    pub root: &'a ProjectRoot,
    pub stage: &'a StageId,
    pub graph: &'a Graph,
    /// What the stage last made, as it noted it then.
    pub made: Option<&'a Outputs>,
    pub(crate) formats: &'a dyn FileFormats,
}

/// What a stage may look at when it says how far it is.
pub struct InspectContext<'a> {
    pub root: &'a ProjectRoot,
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
    /// What those say of what they have yet to make: [`Inspection::prospect`]; in a plan alone.
    pub prospects: &'a BTreeMap<String, Artifact>,
    /// What the stage last made, as it noted it then.
    pub made: Option<&'a Outputs>,
    /// A stage before this one has yet to run: files that it reads may come, or become others.
    pub pending: bool,
    pub request: &'a Request,
    pub graph: &'a Graph,
    pub(crate) formats: &'a dyn FileFormats,
    pub(crate) confirmed: &'a RefCell<Option<Outputs>>,
}

impl InspectContext<'_> {
    /// What differs from an earlier manifest, as far as it is known yet.
    pub fn changes_since(&self, earlier: &BTreeMap<String, Value>) -> Vec<Difference> {
        let all = differences(earlier, self.manifest);
        all.into_iter().filter(|d| !self.unknown.contains(&d.key)).collect()
    }

    /// A file that the stage made, as it is on disk now, if it still has its content.
    pub fn if_unchanged(&self, output: &Output) -> Option<Output> {
        output.if_unchanged(self.root, self.formats)
    }

    /// Files that the stage made and read are as they were: their stamps are noted when it is
    /// skipped, so that they need not be read again.
    pub fn confirm(&self, made: Outputs) {
        if self.made.is_some_and(|before| *before != made) {
            self.confirmed.replace(Some(made));
        }
    }
}

/// All that a running stage gets.
pub struct RunContext<'a> {
    pub root: ProjectRoot,
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
    /// Set where a part of a run that stands is to be done once more, and the run is to stay as it
    /// is. Stages without numbered runs need not look at it.
    pub aside: Option<Aside>,
    /// The GPU that is the stage's own while it runs, counted from 0.
    pub gpu: Option<u32>,
    /// The processes that a stage which spans nodes is to be, where this is a job that has room for
    /// several.
    pub tasks: Option<Tasks>,
    pub graph: &'a Graph,
    pub(crate) formats: &'a dyn FileFormats,
    pub(crate) upstreams: &'a dyn Upstreams,
    pub stop: &'a Stop,
    pub(crate) journal: &'a Journal<'a>,
    /// The stage's own, held by this process.
    pub(crate) lock: &'a Lock,
}

impl RunContext<'_> {
    /// What the stage may look at for the files that decide its result.
    pub fn content_context(&self) -> ContentContext<'_> {
        let Self { root, stage, graph, formats, made, .. } = self;
        ContentContext { root, stage, graph, made: made.as_ref(), formats: *formats }
    }

    pub fn event(&self, event: Event) {
        self.journal.event(&self.stage, &event);
    }

    /// How the stage stands that an input names, for one that takes what it makes while it makes
    /// that.
    pub fn upstream(&self, input: &str) -> Upstream {
        let own = self.graph.stage(&self.stage);
        let named = own.and_then(|own| own.inputs.iter().find(|i| i.name == input));
        match (self.inputs.get(input), named) {
            (Some(artifact), _) => Upstream::Ended(Some(artifact.clone())),
            (None, Some(input)) => self.upstreams.state(&input.stage),
            (None, None) => Upstream::Ended(None),
        }
    }

    /// How the stages stand that decide what the one hands on which this one follows, where there are
    /// any besides itself: running as long as one of them is.
    pub fn upstream_judges(&self) -> Option<Upstream> {
        let own = self.graph.stage(&self.stage)?;
        let judges = own.inputs.iter().filter(|input| input.name.starts_with(JUDGE_INPUT));
        let states: Vec<Upstream> = judges.map(|input| self.upstream(&input.name)).collect();
        let is_open = |state: &&Upstream| matches!(state, Upstream::Running);
        let failed = states.iter().find(|state| matches!(state, Upstream::Failed(_)));
        failed.or_else(|| states.iter().find(is_open)).or(states.first()).cloned()
    }

    /// The stages of this run that take what this one makes while it makes it.
    pub fn followers(&self) -> Vec<StageId> {
        self.followers_of(&self.stage)
    }

    /// The stages of this run that take what another one makes while it makes it.
    pub fn followers_of(&self, stage: &StageId) -> Vec<StageId> {
        self.upstreams.followers(stage)
    }

    /// A file of the project as it is on disk now. Where its digest is to be compared with a
    /// `known` one, it is of the same form.
    pub fn output(&self, path: &str, known: Option<&str>) -> Result<Output, StageError> {
        Ok(Output::of(&self.root, path, known, self.formats)?)
    }

    /// The file as it is now, if its content is still the one that was noted; read only where its
    /// stamp has changed.
    pub fn if_unchanged(&self, output: &Output) -> Option<Output> {
        output.if_unchanged(&self.root, self.formats)
    }

    /// Notes what the stage makes, so that it knows tomorrow whether its files are its own and up
    /// to date. `replaced`: digests of earlier files that may still stand in their place.
    pub fn record_outputs(
        &self,
        outputs: Vec<Output>,
        inputs: Vec<Output>,
        replaced: Vec<String>,
    ) -> Result<(), StageError> {
        let new: HashSet<&String> = outputs.iter().map(|output| &output.path).collect();
        let is_left =
            |old: &&Output| !new.contains(&old.path) && self.root.join(&old.path).exists();
        let former = self.made.iter().flat_map(Outputs::all).filter(is_left).cloned().collect();
        let made = Outputs {
            identity: self.identity.clone(),
            manifest: self.manifest.clone(),
            written_at: chrono::Utc::now(),
            outputs,
            inputs,
            replaced,
            follows_links: true,
            former,
        };
        self.journal.outputs(&self.stage, made)
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
