//! `pipe report [FILE]`, and what `pipe ui` shows too.

use std::collections::BTreeSet;
use std::path::PathBuf;

use chrono::Utc;
use pipe_core::progress::NullListener;
use pipe_core::shell::CommandLine;
use pipe_core::stop::Stop;
use pipe_fs::ProjectRoot;
use pipe_runs::{Runs, Status};

use super::pipeline_args::{OptionalPipelineArgs, PipelineArgs, PipelineSession};
use super::todays_stages::TodaysStages;
use super::{
    CliError, ExitCode, Kinds, output_file, pipeline_name, project, run_folders, status, version,
};
use crate::report::page::{self, Page, StageNode};
use crate::report::stage_status::StageStatus;
use crate::report::stdout::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe report\n  pipe report pipelines/base_to_lora.yaml -o lora.html\n  pipe report pipelines/sweep.yaml --set data.num_images=512"
)]
pub struct ReportArguments {
    #[command(flatten)]
    args: OptionalPipelineArgs,
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

pub fn report(arguments: ReportArguments, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let subject = Subject::of(arguments.args.pipeline_args()?, kinds)?;
    let (root, output) = (subject.root()?, project::path(&arguments.output));
    output_file::check_replaces(&output, "<!doctype html>", "page")?;
    let page = subject.page()?;
    if subject.pipeline.is_none() && page.runs.is_empty() {
        let text = "there are no runs here to report on";
        return Err(CliError::usage(text).note(pipeline_name::first_run_hint()));
    }
    let html = page.to_html(false);
    output_file::write(root.disk(), &output, |out| out.write_all(html.as_bytes()))?;
    page.warnings.iter().for_each(|warning| crate::report::message::warning(warning));
    if !output_file::is_output(&arguments.output) {
        say!("{}", arguments.output.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What a page is about: a pipeline and its runs, or all runs of the project.
pub struct Subject {
    pipeline: Option<PipelineSession>,
    /// Folders of runs that the pipeline names.
    named: BTreeSet<PathBuf>,
}

impl Subject {
    pub fn of(args: Option<PipelineArgs>, kinds: &Kinds) -> Result<Self, CliError> {
        let pipeline = args.map(|args| args.load(kinds)).transpose()?;
        if pipeline.is_none() {
            project::enter(None)?;
        }
        let stages = pipeline.iter().flat_map(|loaded| loaded.session.graph.stages());
        let named = stages.filter_map(|stage| stage.stage.runs()).collect();
        Ok(Self { pipeline, named })
    }

    /// The folders of runs: those of the project, and those that the pipeline names.
    pub fn folders(&self) -> Result<Vec<Runs>, CliError> {
        let root = self.root()?;
        let mut found = run_folders::all(&root);
        for named in &self.named {
            if found.iter().all(|f| f.folder() != named) {
                found.push(Runs::at(root.disk(), named));
            }
        }
        Ok(found)
    }

    /// The stages of the project's pipelines, and of the one that was named.
    pub fn todays_stages(&self, kinds: &Kinds) -> Result<TodaysStages, CliError> {
        let named = self.pipeline.as_ref().map(|loaded| &loaded.session.graph);
        Ok(TodaysStages::of(&self.root()?, named, kinds))
    }

    /// The project's folder; its files are as durable as the pipeline says, if one was named.
    pub fn root(&self) -> Result<ProjectRoot, CliError> {
        let pipeline = self.pipeline.as_ref();
        pipeline.map_or_else(project::root, |loaded| Ok(loaded.session.root.clone()))
    }

    pub fn page(&self) -> Result<Page, CliError> {
        let pipeline =
            self.pipeline.as_ref().map(|loaded| loaded.session.graph.pipeline.name.as_str());
        let (mut runs, warnings) = page::runs_in(&self.folders()?, pipeline);
        let root = self.root()?;
        let image_grids = page::image_grids_in(&root, pipeline, &mut runs);
        let mut stages = self.stages()?;
        page::join_metrics(&stages, &mut runs);
        let mut logs = pipeline.map(|name| page::stage_logs(&root, name)).unwrap_or_default();
        for node in &mut stages {
            node.log = logs.remove(node.status.stage.as_str()).unwrap_or_default();
        }
        Ok(Page {
            title: pipeline.unwrap_or("All runs").to_owned(),
            file: self.pipeline.as_ref().map(|loaded| loaded.file.display().to_string()),
            run: self
                .pipeline
                .as_ref()
                .map(|loaded| CommandLine::new(["pipe", "run"]).path(&loaded.file).to_string()),
            generated_at: Utc::now(),
            version: version::long().replace('\n', ", "),
            stages,
            runs,
            image_grids,
            warnings,
        })
    }

    /// The graph as it stands.
    pub fn stages(&self) -> Result<Vec<StageNode>, CliError> {
        let Some(loaded) = &self.pipeline else { return Ok(Vec::new()) };
        let observed =
            loaded.inspect(&loaded.session.execution(&Stop::default(), &NullListener))?;
        let node = |status: StageStatus| {
            let dependencies = loaded.session.graph.dependencies(&status.stage);
            let seconds = status.record.as_ref().map(|record| {
                let running = record.status == Status::Running && status.holder.is_some();
                let end = if running { Utc::now() } else { record.updated_at };
                (end - record.started_at).as_seconds_f64().max(0.0)
            });
            StageNode {
                needs: dependencies.iter().map(|(_, s)| s.id.to_string()).collect(),
                status,
                seconds,
                log: Vec::new(),
            }
        };
        Ok(status::stage_statuses(loaded, &observed).into_iter().map(node).collect())
    }
}
