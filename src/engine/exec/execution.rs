//! What a run needs besides its plan, and how its stages stand before it begins.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use pipe_core::failure::{Failure, StageError};
use pipe_core::ids::StageId;
use pipe_core::parallel;
use pipe_core::progress::EventListener;
use pipe_core::stop::Stop;
use pipe_fs::ProjectRoot;

use super::rounds::{Round, rounds};
use crate::artifact::Artifact;
use crate::file_formats::{FileFormats, PlainFiles};
use crate::graph::Graph;
use crate::hooks::HookClient;
use crate::identity::{self, Manifest};
use crate::inspection::{Inspection, Request, StageState};
use crate::kind::{ContentContext, InspectContext};
use crate::pipeline_file::{Input, LoadedStage};
use crate::state::{JobId, Outputs, Record};
use crate::upstream::RunsElsewhere;

/// Everything a run needs besides the plan.
pub struct Execution<'a> {
    pub root: &'a ProjectRoot,
    pub graph: &'a Graph,
    pub manifests: &'a HashMap<StageId, Manifest>,
    pub formats: &'a dyn FileFormats,
    pub request: Request,
    /// Stages that run even if they are up to date.
    pub forced: BTreeSet<StageId>,
    /// Go on with stages that do not depend on a failed one.
    pub keep_going: bool,
    /// Stages that may run at once, at least 1.
    pub jobs: usize,
    /// GPUs that stages with `resources: {gpu: 1}` share; with none they run as the others do.
    pub gpus: u32,
    /// The cluster's job that this process is.
    pub job: Option<JobId>,
    /// This process goes on with what an earlier one began for the same job: such a stage is gone
    /// on with, whatever `resume` says.
    pub restarted: bool,
    /// This process carries out a part of a run that another one follows: the end of the pipeline
    /// is not its to tell.
    pub is_part: bool,
    /// How far stages are carried now that are halved with others, where that is known from elsewhere.
    pub carried: BTreeMap<StageId, u64>,
    /// Stages of a halving of which nothing more is to be expected.
    pub given_up: BTreeSet<StageId>,
    /// Who knows of stages that another process runs.
    pub elsewhere: Option<&'a dyn RunsElsewhere>,
    /// What sends to the addresses among the hooks.
    pub hook_client: Option<&'a dyn HookClient>,
    pub stop: &'a Stop,
    pub report: &'a dyn EventListener,
}

impl<'a> Execution<'a> {
    /// One stage at a time, on no GPU of its own, without anything that was asked for besides.
    pub fn new(
        root: &'a ProjectRoot,
        graph: &'a Graph,
        manifests: &'a HashMap<StageId, Manifest>,
        stop: &'a Stop,
        report: &'a dyn EventListener,
    ) -> Self {
        Self {
            root,
            graph,
            manifests,
            formats: &PlainFiles,
            request: Request::default(),
            forced: BTreeSet::new(),
            keep_going: false,
            jobs: 1,
            gpus: 0,
            job: None,
            restarted: false,
            is_part: false,
            carried: BTreeMap::new(),
            given_up: BTreeSet::new(),
            elsewhere: None,
            hook_client: None,
            stop,
            report,
        }
    }

    /// The same once more, for what is left: nothing is forced.
    pub(super) fn again(&self) -> Self {
        Self {
            forced: BTreeSet::new(),
            request: self.request.clone(),
            carried: self.carried.clone(),
            given_up: self.given_up.clone(),
            ..*self
        }
    }
}

/// How each stage of a plan ended.
#[derive(Debug, Default)]
pub struct Summary {
    /// Each with the line that says what came of it.
    pub finished: Vec<(StageId, String)>,
    pub skipped: Vec<StageId>,
    pub failed: Vec<(StageId, StageError)>,
    /// Never begun: something before them failed, or the run was stopped.
    pub not_begun: Vec<StageId>,
    /// Jobs of a cluster that are not waited for.
    pub submitted: Vec<(StageId, JobId)>,
}

/// A stage as it was found.
pub struct InspectedStage {
    pub inspection: Inspection,
    /// Digest of all that decides its result, as far as that is known.
    pub identity: String,
    pub record: Option<Record>,
    /// What the record should say of the stage's files, where they were found unchanged and it does
    /// not know that.
    pub confirmed: Option<Outputs>,
    /// How far it is to be carried now, where it is halved with others.
    pub round: Option<Round>,
}

impl InspectedStage {
    pub fn is_transient(&self) -> bool {
        matches!(self.inspection.state, StageState::Transient)
    }

    /// The run by which it is done, where its record names another or none.
    pub(super) fn unnoted_run(&self) -> Option<PathBuf> {
        let noted = self.record.as_ref().and_then(|record| record.run.as_ref());
        self.inspection.run.clone().filter(|run| Some(run) != noted)
    }
}

/// What is known of stages that have yet to run, for one behind them.
#[derive(Default)]
pub(super) struct Ahead {
    /// One of them has to run before it.
    pending: bool,
    /// What they say of what they will make.
    prospects: HashMap<StageId, Artifact>,
}

/// Asks every selected stage how far it is.
pub fn inspect(
    execution: &Execution,
    selected: &HashSet<StageId>,
) -> Result<HashMap<StageId, InspectedStage>, (StageId, StageError)> {
    inspect_with(execution, selected, |_| false)
}

/// The same, to show how things stand: a stage whose data cannot be read counts as not there, with
/// the reason.
pub fn inspect_for_display(
    execution: &Execution,
    selected: &HashSet<StageId>,
) -> Result<HashMap<StageId, InspectedStage>, (StageId, StageError)> {
    inspect_with(execution, selected, |error| error.failure == Failure::Input)
}

fn inspect_with(
    execution: &Execution,
    selected: &HashSet<StageId>,
    passes_over: impl Fn(&StageError) -> bool,
) -> Result<HashMap<StageId, InspectedStage>, (StageId, StageError)> {
    let found = inspect_rounds(execution, selected, &passes_over, HashMap::new())?;
    match rounds(execution, &found) {
        none if none.is_empty() => Ok(found),
        rounds => inspect_rounds(execution, selected, &passes_over, rounds),
    }
}

/// The same with stages that are carried as far as their rounds go.
fn inspect_rounds(
    execution: &Execution,
    selected: &HashSet<StageId>,
    passes_over: impl Fn(&StageError) -> bool,
    mut rounds: HashMap<StageId, Round>,
) -> Result<HashMap<StageId, InspectedStage>, (StageId, StageError)> {
    let mut all = HashMap::with_capacity(selected.len());
    let mut artifacts = HashMap::new();
    let mut ahead = Ahead::default();
    let mut open: HashSet<&StageId> = HashSet::new();
    let stages: Vec<&LoadedStage> =
        execution.graph.stages().filter(|s| selected.contains(&s.id)).collect();
    let remembered = |stage: &&LoadedStage| {
        Record::load(execution.root, &execution.graph.pipeline.name, &stage.id)
    };
    let records = parallel::map(&stages, remembered);
    for (stage, record) in stages.iter().zip(records) {
        ahead.pending = stage.needs.iter().any(|(_, before)| open.contains(before));
        let round = rounds.remove(&stage.id);
        let asked = request(execution, stage, round.as_ref());
        let mut observed = match inspect_stage(
            execution,
            (stage, &asked),
            record,
            &artifacts,
            &HashSet::new(),
            &ahead,
        ) {
            Err(error) if passes_over(&error) => InspectedStage {
                inspection: StageState::absent(error.message).into(),
                identity: planned(execution, stage),
                record: Record::load(execution.root, &execution.graph.pipeline.name, &stage.id),
                confirmed: None,
                round: None,
            },
            observed => observed.map_err(|error| (stage.id.clone(), error))?,
        };
        let settled =
            matches!(observed.inspection.state, StageState::Done { .. } | StageState::Transient)
                && round.as_ref().is_none_or(|round| round.course.is_final);
        observed.round = round;
        if ahead.pending || !settled || execution.forced.contains(&stage.id) {
            open.insert(&stage.id);
        }
        if let Some(artifact) = &observed.inspection.artifact {
            artifacts.insert(stage.id.clone(), artifact.clone());
        }
        if let Some(prospect) = &observed.inspection.prospect {
            ahead.prospects.insert(stage.id.clone(), prospect.clone());
        }
        all.insert(stage.id.clone(), observed);
    }
    Ok(all)
}

/// `failed`: stages that nothing more is to be expected of.
pub(super) fn inspect_stage(
    execution: &Execution,
    (stage, asked): (&LoadedStage, &Request),
    record: Option<Record>,
    artifacts: &HashMap<StageId, Artifact>,
    failed: &HashSet<&StageId>,
    ahead: &Ahead,
) -> Result<InspectedStage, StageError> {
    let pipeline = &execution.graph.pipeline.name;
    let known = inputs(stage, artifacts);
    let prospects = inputs(stage, &ahead.prospects);
    let made = record.as_ref().and_then(|r| r.made.as_ref());
    let (manifest, mut unknown) = manifest(execution, stage, &known, made)?;
    let is_gone = |input: &Input| input.may_fail && failed.contains(&input.stage);
    unknown.retain(|name| !stage.inputs.iter().any(|input| input.name == *name && is_gone(input)));
    let identity = manifest.digest();
    let confirmed = RefCell::default();
    let observation = stage.stage.inspect(&InspectContext {
        root: execution.root,
        pipeline,
        stage: &stage.id,
        identity: &identity,
        manifest: manifest.record(),
        unknown: &unknown,
        inputs: &known,
        prospects: &prospects,
        made,
        pending: ahead.pending,
        request: asked,
        graph: execution.graph,
        formats: execution.formats,
        confirmed: &confirmed,
    })?;
    if matches!(observation.state, StageState::Absent { .. }) {
        check_places(execution.root, stage)?;
    }
    Ok(InspectedStage {
        inspection: observation,
        identity,
        record,
        confirmed: confirmed.into_inner(),
        round: None,
    })
}

/// Refuses a stage whose folder cannot be made, before anything is computed for it.
fn check_places(root: &ProjectRoot, stage: &LoadedStage) -> Result<(), StageError> {
    let in_the_way = |folder: &Path| {
        let file = pipe_fs::file_in_place_of(&root.join(folder))?;
        let file = file.strip_prefix(root).unwrap_or(&file).to_owned();
        let text = format!("{} is a file, and a folder is needed there", file.display());
        Some(StageError::setting(text))
    };
    for (key, path) in &stage.files.writes {
        if let Some(error) = path.parent().and_then(in_the_way) {
            return Err(error.at(key));
        }
    }
    stage.stage.runs().and_then(|folder| in_the_way(&folder)).map_or(Ok(()), Err)
}

/// What is asked of one stage: by the command line, and by its round.
pub(super) fn request(
    execution: &Execution,
    stage: &LoadedStage,
    round: Option<&Round>,
) -> Request {
    // What begins anew is compared anew: its further rungs go on.
    let is_first = round.is_none_or(|round| round.course.rung == 0);
    Request {
        force: execution.forced.contains(&stage.id) && is_first,
        until: round.map(|round| round.until),
        monitor: stage.options.halving.as_ref().map(|halving| halving.monitor.clone()),
        ..execution.request.clone()
    }
}

/// What the stages that `stage` refers to hand on, by the input's name.
pub(super) fn inputs(
    stage: &LoadedStage,
    artifacts: &HashMap<StageId, Artifact>,
) -> BTreeMap<String, Artifact> {
    let known = |stage| artifacts.get(stage).cloned();
    stage
        .inputs
        .iter()
        .filter_map(|input| Some((input.name.clone(), known(&input.stage)?)))
        .collect()
}

/// Digest of the settings that decide a stage's result, those of stages before it that count by
/// their settings too.
pub fn planned(execution: &Execution, stage: &LoadedStage) -> String {
    execution.manifests.get(&stage.id).unwrap_or(&stage.manifest).digest()
}

pub(super) fn manifest<'a>(
    execution: &'a Execution,
    stage: &'a LoadedStage,
    inputs: &BTreeMap<String, Artifact>,
    made: Option<&Outputs>,
) -> Result<(Cow<'a, Manifest>, Vec<String>), StageError> {
    let settings = execution.manifests.get(&stage.id).unwrap_or(&stage.manifest);
    let (manifest, unknown) = identity::complete(settings, stage, inputs);
    let Execution { root, graph, formats, .. } = *execution;
    let content =
        stage.stage.content(&ContentContext { root, stage: &stage.id, graph, made, formats })?;
    if content.is_empty() {
        return Ok((manifest, unknown));
    }
    let content = content.into_iter().map(|(key, digest)| (key, digest.into()));
    Ok((Cow::Owned(manifest.into_owned().with(content)), unknown))
}
