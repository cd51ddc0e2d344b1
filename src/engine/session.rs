//! The front door of this crate: a pipeline that is loaded, planned and run.
//!
//! A session knows a pipeline file with its settings resolved, and which of its stages are meant.
//! It knows no command line and prints nothing. Where its stages run, an
//! [`Executor`] says: in this process, or as jobs of Slurm.
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use pipe_core::progress::NullListener;
//! use pipe_core::stop::Stop;
//! use pipe_engine::command::CommandKind;
//! use pipe_engine::exec::LocalExecutor;
//! use pipe_engine::session::Session;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let project = tempfile::tempdir()?;
//! let file = "
//! name: greet
//! stages:
//!   hello: { kind: command, run: 'echo hello > hello.txt', outputs: [hello.txt] }
//! ";
//! std::fs::write(project.path().join("greet.yaml"), file)?;
//!
//! let session = Session::load(project.path(), Path::new("greet.yaml"), &[Arc::new(CommandKind)], &[])?;
//! let stop = Stop::default();
//! let execution = session.execution(&stop, &NullListener);
//! let (plan, inspected) = session.plan(&execution).map_err(|(_, error)| error)?;
//! assert_eq!(plan.steps[0].action.to_string(), "run");
//! let summary = session.run(&LocalExecutor, &execution, &plan, inspected)?;
//! assert_eq!(summary.finished.len(), 1);
//!
//! // What is up to date is skipped.
//! let (plan, _) = session.plan(&execution).map_err(|(_, error)| error)?;
//! assert_eq!(plan.steps[0].action.to_string(), "skip");
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pipe_core::error::{SpecError, SpecErrors};
use pipe_core::failure::StageError;
use pipe_core::fingerprint::Manifest;
use pipe_core::ids::StageId;
use pipe_core::progress::EventListener;
use pipe_core::stop::Stop;
use pipe_fs::ProjectRoot;

use crate::exec::{self, Execution, Executor, ExecutorError, InspectedStage, Summary};
use crate::file_formats::{FileFormats, PlainFiles};
use crate::graph::{Graph, Selection, Targets};
use crate::hooks;
use crate::identity;
use crate::inspection::Request;
use crate::kind::StageKind;
use crate::pipeline_file::{self, Override};
use crate::plan::{self, Plan};

/// How the selected stages stand, by name.
pub type Inspected = HashMap<StageId, InspectedStage>;

/// A pipeline with its settings resolved, and what is to be done with it.
pub struct Session {
    /// The folder of the project, whose files are as durable as the pipeline says.
    pub root: ProjectRoot,
    pub graph: Graph,
    /// What decides the result of stages for which the settings of others count too.
    pub manifests: HashMap<StageId, Manifest>,
    /// The stages that are meant.
    pub selection: Selection,
    /// Stages that run even if they are up to date.
    pub forced: BTreeSet<StageId>,
    request: Request,
    formats: &'static dyn FileFormats,
}

impl Session {
    /// Reads a pipeline file of the project in `root`. `overrides` are settings on top of those of
    /// the files, weakest first.
    ///
    /// # Errors
    ///
    /// All that is wrong with the file and its settings, each with its place.
    pub fn load(
        root: impl Into<ProjectRoot>,
        file: &Path,
        kinds: &[Arc<dyn StageKind>],
        overrides: &[Override],
    ) -> Result<Self, SpecErrors> {
        let root = root.into();
        let graph = Graph::build(pipeline_file::load(&root, file, kinds, overrides)?)?;
        Ok(Self::of(root, graph, &Targets::default())?)
    }

    /// A session of a pipeline that was read before: some of its stages, and those that they need
    /// or that need them.
    ///
    /// # Errors
    ///
    /// A name that no stage has.
    pub fn of(
        root: impl Into<ProjectRoot>,
        graph: Graph,
        targets: &Targets,
    ) -> Result<Self, SpecError> {
        Ok(Self {
            root: root.into().with_level(graph.pipeline.fsync),
            manifests: identity::manifests(&graph),
            selection: graph.select(targets)?,
            forced: BTreeSet::new(),
            request: Request::default(),
            formats: &PlainFiles,
            graph,
        })
    }

    /// The same with what is asked of numbered runs. With `force`, the stages that were named run
    /// even if they are up to date, or all of them if none was.
    pub fn request(self, request: Request) -> Self {
        let forced = if request.force { self.selection.named.clone() } else { BTreeSet::new() };
        // Stage by stage it is known from `forced`.
        Self { forced, request: Request { force: false, ..request }, ..self }
    }

    /// The same with files of these formats. Without it, files are bytes.
    pub fn formats(self, formats: &'static dyn FileFormats) -> Self {
        Self { formats, ..self }
    }

    /// One stage at a time, on no GPU of its own: what planning needs.
    pub fn execution<'a>(&'a self, stop: &'a Stop, report: &'a dyn EventListener) -> Execution<'a> {
        Execution {
            formats: self.formats,
            request: self.request.clone(),
            forced: self.forced.clone(),
            ..Execution::new(&self.root, &self.graph, &self.manifests, stop, report)
        }
    }

    /// Looks at what there is, to show it. Changes nothing. What cannot be read is shown too.
    ///
    /// # Errors
    ///
    /// The stage that could not be looked at.
    pub fn inspect(&self, execution: &Execution) -> Result<Inspected, (StageId, StageError)> {
        exec::inspect_for_display(execution, &self.selection.stages)
    }

    /// Looks at what there is, and decides for each selected stage. Changes nothing.
    ///
    /// # Errors
    ///
    /// The stage that could not be looked at.
    pub fn plan(&self, execution: &Execution) -> Result<(Plan, Inspected), (StageId, StageError)> {
        let inspected = exec::inspect(execution, &self.selection.stages)?;
        Ok((plan::plan(&self.graph, &self.selection, &self.forced, &inspected), inspected))
    }

    /// Runs what the plan says. How stages ended is in the summary. Hooks have ended too.
    ///
    /// # Errors
    ///
    /// The state of the project could not be written, or the cluster could not be reached.
    pub fn run(
        &self,
        executor: &dyn Executor,
        execution: &Execution,
        plan: &Plan,
        inspected: Inspected,
    ) -> Result<Summary, ExecutorError> {
        let started = Instant::now();
        let ended = executor.run(execution, plan, inspected);
        let outcome = ended.as_ref().map_err(ToString::to_string);
        hooks::tell_end(execution, outcome, started.elapsed());
        ended
    }
}
