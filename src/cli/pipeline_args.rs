//! What the commands that read a pipeline have in common: its file, the selected stages,
//! settings on top.

use std::path::{Path, PathBuf};

use pipe_core::shell::CommandLine;
use pipe_engine::exec::Execution;
use pipe_engine::graph::{Graph, Targets};
use pipe_engine::kind::Request;
use pipe_engine::pipeline_file::{self, Override};
use pipe_engine::plan::Plan;
use pipe_engine::session::{Inspected, Session};
use pipe_fs::ProjectRoot;
use pipe_train::stages::RunFiles;
use serde::{Deserialize, Serialize};

use super::pipeline_name::{self, HERE};
use super::resume_settings::ResumeContext;
use super::slurm_job;
use super::{CliError, Kinds, project};
use crate::report::message;

/// The arguments that choose a pipeline, its stages and settings. Plan files keep them.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
pub struct PipelineArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub settings: SettingArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub reuse: ReuseArgs,
}

/// Which stages of which pipeline.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
pub struct SelectionArgs {
    /// Pipeline file, or its name; the project's only one if there is none
    #[arg(default_value = HERE, hide_default_value = true)]
    pub file: PathBuf,
    /// Only these stages and what they need
    #[arg(value_name = "STAGE")]
    pub stages: Vec<String>,
    /// Only these stages, what depends on them, and what all of these need
    #[arg(long, value_name = "STAGE")]
    pub from: Vec<String>,
    /// Only these stages and what they need: the same as naming them after the file
    #[arg(long, value_name = "STAGE")]
    pub until: Vec<String>,
}

/// What becomes of runs that are there.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
pub struct ReuseArgs {
    /// Take data sets as they were last seen, without looking for images that changed
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_data_check: bool,
    /// Use this numbered run instead of the next free or the fitting one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    run_number: Option<u32>,
    /// Go on from the run's last checkpoint
    #[arg(long)]
    resume: bool,
    /// Run the named stages (all if none is named) even if they are up to date, as new runs
    #[arg(long, conflicts_with = "resume")]
    force: bool,
}

/// Settings on top of those of the files. Every command that reads a pipeline takes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
pub struct SettingArgs {
    /// Total epochs (not "more")
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    epochs: Option<String>,
    /// Images in a batch
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    batch_size: Option<String>,
    /// Peak learning rate
    #[arg(long, value_name = "LR", allow_negative_numbers = true)]
    learning_rate: Option<String>,
    /// Data set: shapes, trees, cifar10, cifar100, imagenette or image_folder
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Where to compute: auto, cpu, gpu, gpu:N
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Several devices that share each batch of a training: numbers of GPUs or devices between
    /// commas, or all
    #[arg(long, value_name = "LIST", conflicts_with = "device")]
    devices: Option<String>,
    /// Seed of everything random
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<String>,
    /// Set a parameter or any setting: `epochs=20`, `base.optimizer.weight_decay=0.1`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Make a stage of each value, as a matrix does, with all that follows from it:
    /// `base.learning_rate=1e-3,1e-4`
    #[arg(long, value_name = "KEY=VALUE,VALUE")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sweep: Vec<String>,
    /// Put what stands under this name in `profiles:` on the file; of several the later ones win
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    profile: Vec<String>,
    /// Mirror the state to this store, or `none`: s3://BUCKET/PREFIX, gs://…, az://…,
    /// file:///FOLDER
    #[arg(long, value_name = "URL")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<String>,
}

/// A pipeline as the command line means it.
pub struct PipelineSession {
    pub session: Session,
    /// The pipeline file, relative to the project if it lies in it.
    pub file: PathBuf,
    /// The command that runs it.
    pub run_command: CommandLine,
}

/// A pipeline file that may be left out.
#[derive(Debug, Clone, clap::Args)]
pub struct OptionalPipelineArgs {
    /// Pipeline file, or its name; all runs of the project if there is none
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingArgs,
}

impl OptionalPipelineArgs {
    /// The whole pipeline, if one was named.
    pub fn pipeline_args(self) -> Result<Option<PipelineArgs>, CliError> {
        let Some(file) = self.file else {
            return match self.settings.arguments().first() {
                Some(first) => Err(CliError::usage(format!(
                    "{first}: a setting of which pipeline? Name its file"
                ))),
                None => Ok(None),
            };
        };
        let file = pipeline_name::resolve(&file)?;
        let selection = SelectionArgs { file, ..SelectionArgs::default() };
        Ok(Some(PipelineArgs { selection, settings: self.settings, reuse: ReuseArgs::default() }))
    }
}

impl PipelineArgs {
    /// With the file that is meant by what was typed.
    pub fn resolved(mut self) -> Result<Self, CliError> {
        self.selection.file = pipeline_name::resolve(&self.selection.file)?;
        Ok(self)
    }

    /// Reads the pipeline; prints its warnings.
    pub fn load(&self, kinds: &Kinds) -> Result<PipelineSession, CliError> {
        self.load_over(pipeline_file::environment::settings(), kinds)
    }

    /// The pipeline as another machine reads it, with this command line and without this
    /// environment.
    pub fn load_for_export(&self, kinds: &Kinds) -> Result<PipelineSession, CliError> {
        let ReuseArgs { run_number, resume, force, .. } = self.reuse;
        if force || resume || run_number.is_some() {
            let text = "--force, --resume and --run-number are for one run, and what is exported may run many times";
            return Err(CliError::usage(text));
        }
        self.load_over(Vec::new(), kinds)
    }

    fn load_over(
        &self,
        environment: Vec<Override>,
        kinds: &Kinds,
    ) -> Result<PipelineSession, CliError> {
        project::enter(Some(&self.selection.file))?;
        let (root, file) = (project::root()?, project::path(&self.selection.file));
        let graph = self.read(&root, &file, environment, kinds)?;
        for warning in &graph.pipeline.warnings {
            crate::report::message::warning(&warning.to_string());
        }
        let SelectionArgs { stages, from, until, .. } = &self.selection;
        let until = stages.iter().chain(until).cloned().collect();
        let session = Session::of(&root, graph, &Targets { until, from: from.clone() })?;
        if session.selection.stages.is_empty() {
            return Err(CliError::usage(
                "no stage lies between those of --from and those that were named",
            ));
        }
        let ReuseArgs { run_number, resume, force, no_data_check } = self.reuse;
        let request = Request {
            run_number,
            resume,
            force,
            data_as_last_seen: no_data_check,
            walltime: slurm_job::walltime(&session.graph),
            ..Request::default()
        };
        let session = session.request(request).formats(&RunFiles);
        let run_command = Self::with_environment(self.command_line("run"), &session.graph);
        Ok(PipelineSession { session, file, run_command })
    }

    /// Reads the pipeline file with what was given besides. A run that is to go on by its number
    /// brings its own settings, which are weaker than all that was given.
    fn read(
        &self,
        root: &ProjectRoot,
        file: &Path,
        environment: Vec<Override>,
        kinds: &Kinds,
    ) -> Result<Graph, CliError> {
        let overrides = self.settings.overrides(root, file, environment)?;
        let load = |overrides: &[Override]| -> Result<Graph, CliError> {
            Ok(Graph::build(pipeline_file::load(root, file, kinds, overrides)?)?)
        };
        let given = load(&overrides)?;
        let (Some(number), true) = (self.reuse.run_number, self.reuse.resume) else {
            return Ok(given);
        };
        let Ok(plain) = load(&[]) else { return Ok(given) };
        let context =
            ResumeContext { from_files: &plain, with_overrides: &given, overrides: &overrides };
        let own = context.settings_of_run(root, number);
        if own.is_empty() {
            return Ok(given);
        }
        let words: Vec<&str> = own.iter().map(|own| own.by.shown.as_str()).collect();
        message::note(&format!("Run {number} goes on with its own settings: {}", words.join(", ")));
        load(&[own, overrides].concat())
    }

    /// The settings as arguments again, without the stages and what is to be forced.
    pub fn settings(&self) -> Vec<String> {
        let mut all = self.settings.arguments();
        all.extend(self.reuse.run_number.map(|number| format!("--run-number={number}")));
        all.extend(self.reuse.resume.then(|| "--resume".to_owned()));
        all.extend(self.reuse.no_data_check.then(|| "--no-data-check".to_owned()));
        all
    }

    /// The same, with data sets as they were last seen.
    pub fn without_data_check(self) -> Self {
        let reuse = ReuseArgs { no_data_check: true, ..self.reuse };
        Self { reuse, ..self }
    }

    /// The same for a command, as one types it: without what is not to be done twice.
    pub fn command_line(&self, command: &str) -> CommandLine {
        let mut line = CommandLine::new(["pipe", command]).path(&self.selection.file);
        for stage in &self.selection.stages {
            line = if stage.starts_with('-') {
                line.options([format!("--until={stage}")])
            } else {
                line.word(stage)
            };
        }
        let named = [("--from", &self.selection.from), ("--until", &self.selection.until)];
        let named = named
            .iter()
            .flat_map(|(flag, all)| all.iter().map(move |name| format!("{flag}={name}")));
        line.options(named).options(self.settings())
    }

    /// A command with the variables that set something in this pipeline: the shell that it is typed
    /// into may not have them.
    pub fn with_environment(line: CommandLine, graph: &Graph) -> CommandLine {
        let environment = pipeline_file::environment::settings();
        let settings = graph.stages().map(|stage| stage.stage.settings()).collect::<Vec<_>>();
        let is_used = |variable: &&Override| {
            let first = variable.path.first().map(|key| key.to_lowercase()).unwrap_or_default();
            let is_stage = graph.stages().any(|stage| stage.id.declared() == first);
            let written = |path: &[&str]| {
                graph
                    .pipeline
                    .source
                    .has(&path.iter().map(|key| key.to_string()).collect::<Vec<_>>())
            };
            is_stage
                || written(&["params", &first])
                || first == "profile" && written(&["profiles"])
                || ["store", "fsync"].contains(&first.as_str())
                || settings.iter().any(|s| s.get(&first).is_some())
        };
        let used = environment.iter().filter(is_used).map(|variable| variable.by.shown.as_str());
        used.filter_map(|name| Some((name, std::env::var(name).ok()?)))
            .fold(line, |line, (name, value)| line.with_variable(name, &value))
    }

    /// The command that runs it even if it is up to date: as a new run.
    pub fn forced_command_line(&self) -> CommandLine {
        let reuse = ReuseArgs { run_number: None, resume: false, ..self.reuse.clone() };
        Self { reuse, ..self.clone() }.command_line("run").options(["--force"])
    }

    /// Whether the command line says which run it means.
    pub fn is_for_one_run(&self) -> bool {
        self.reuse.run_number.is_some() || self.reuse.resume
    }

    /// The same settings for one stage alone.
    pub fn only(&self, stage: &str) -> Self {
        let selection = SelectionArgs {
            file: self.selection.file.clone(),
            stages: vec![stage.to_owned()],
            ..SelectionArgs::default()
        };
        Self { selection, ..self.clone() }
    }
}

impl SettingArgs {
    /// Reads a pipeline with them on top, and the environment below them.
    pub fn load(
        &self,
        root: &ProjectRoot,
        file: &Path,
        environment: Vec<Override>,
        kinds: &Kinds,
    ) -> Result<Graph, CliError> {
        let overrides = self.overrides(root, file, environment)?;
        let pipeline = pipeline_file::load(root, file, kinds, &overrides)?;
        Ok(Graph::build(pipeline)?)
    }

    /// Key, flag and value of each.
    fn shorthands(&self) -> [(&'static str, &'static str, &Option<String>); 7] {
        [
            ("epochs", "--epochs", &self.epochs),
            ("batch_size", "--batch-size", &self.batch_size),
            ("learning_rate", "--learning-rate", &self.learning_rate),
            ("dataset", "--dataset", &self.dataset),
            ("device", "--device", &self.device),
            ("devices", "--devices", &self.devices),
            ("seed", "--seed", &self.seed),
        ]
    }

    /// Environment, then `--set`, then the shorthand flags: weakest first.
    fn overrides(
        &self,
        root: &Path,
        file: &Path,
        environment: Vec<Override>,
    ) -> Result<Vec<Override>, CliError> {
        let mut all = environment;
        all.extend(self.profile.iter().map(|name| Override::profile(name)));
        for text in &self.set {
            all.push(Override::parse(text, format!("--set {text}")).map_err(CliError::usage)?);
        }
        for text in &self.sweep {
            all.push(Override::several(text, format!("--sweep {text}")).map_err(CliError::usage)?);
        }
        for (key, flag, value) in self.shorthands() {
            let Some(value) = value else { continue };
            let key = if key == "dataset" { pipeline_name::dataset_key(root, file)? } else { key };
            all.push(
                Override::new(key, value, format!("{flag} {value}")).map_err(CliError::usage)?,
            );
        }
        all.extend(
            self.store.as_ref().map(|url| Override::text("store", url, format!("--store {url}"))),
        );
        Ok(all)
    }

    /// As arguments again.
    fn arguments(&self) -> Vec<String> {
        let given = |(_, flag, value): (_, &str, &Option<String>)| {
            Some(format!("{flag}={}", value.as_ref()?))
        };
        let mut all: Vec<String> = self.shorthands().into_iter().filter_map(given).collect();
        all.extend(self.profile.iter().map(|name| format!("--profile={name}")));
        all.extend(self.set.iter().map(|text| format!("--set={text}")));
        all.extend(self.sweep.iter().map(|text| format!("--sweep={text}")));
        all.extend(self.store.iter().map(|url| format!("--store={url}")));
        all
    }
}

impl PipelineSession {
    /// Looks at what there is, to show it. Changes nothing. What cannot be read is shown too.
    pub fn inspect(&self, execution: &Execution) -> Result<Inspected, CliError> {
        self.session
            .inspect(execution)
            .map_err(|(stage, error)| CliError::stage_of(&self.session.graph, &stage, &error))
    }

    /// Looks at what there is, and decides. Changes nothing.
    pub fn plan(&self, execution: &Execution) -> Result<(Plan, Inspected), CliError> {
        self.session
            .plan(execution)
            .map_err(|(stage, error)| CliError::stage_of(&self.session.graph, &stage, &error))
    }
}
