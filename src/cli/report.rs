//! `pipe report [FILE]`, and what `pipe ui` shows too.

use std::collections::BTreeSet;
use std::path::PathBuf;

use chrono::Utc;
use pipe_engine::progress::Silent;
use pipe_engine::stop::Stop;
use pipe_engine::store::{Runs, Status, atomic};
use serde_json::Value;

use super::asked::{Asked, AskedFile, Meant};
use super::runs::folders;
use super::{CliError, ExitCode, status, version};
use crate::report::page::{self, Node, Page};
use crate::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe report\n  pipe report pipelines/base_to_lora.yaml -o lora.html\n  pipe report pipelines/sweep.yaml --set data.num_images=512"
)]
pub struct ReportArguments {
    #[command(flatten)]
    asked: AskedFile,
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

pub fn report(arguments: ReportArguments) -> Result<ExitCode, CliError> {
    let subject = Subject::of(arguments.asked.asked())?;
    let page = subject.page()?;
    let html = page.to_html(false);
    atomic::write(&arguments.output, |out| out.write_all(html.as_bytes())).map_err(CliError::failed)?;
    page.warnings.iter().for_each(|warning| crate::report::message::warning(warning));
    say!("{}", arguments.output.display());
    Ok(ExitCode::SUCCESS)
}

/// What a page is about: a pipeline and its runs, or all runs of the project.
pub struct Subject {
    pipeline: Option<(Asked, Meant)>,
    /// Folders of runs that the pipeline names.
    named: BTreeSet<PathBuf>,
}

impl Subject {
    pub fn of(asked: Option<Asked>) -> Result<Self, CliError> {
        let pipeline = asked.map(|asked| asked.load().map(|meant| (asked, meant))).transpose()?;
        let stages = pipeline.iter().flat_map(|(_, meant)| meant.graph.stages());
        let folder = |settings: Value| settings.pointer("/checkpoint/base_dir")?.as_str().map(PathBuf::from);
        let named = stages.filter_map(|stage| folder(stage.stage.settings())).collect();
        Ok(Self { pipeline, named })
    }

    /// The folders of runs: those under `checkpoints/`, and those that the pipeline names.
    pub fn folders(&self) -> Result<Vec<Runs>, CliError> {
        let mut found = folders(None)?;
        for named in &self.named {
            if found.iter().all(|f| f.folder() != named) {
                found.push(Runs::at(named));
            }
        }
        Ok(found)
    }

    pub fn page(&self) -> Result<Page, CliError> {
        let pipeline = self.pipeline.as_ref().map(|(_, meant)| meant.graph.pipeline.name.as_str());
        let (runs, warnings) = page::runs_in(&self.folders()?, pipeline);
        Ok(Page {
            title: pipeline.unwrap_or("All runs").to_owned(),
            file: self.pipeline.as_ref().map(|(asked, _)| asked.file.display().to_string()),
            generated_at: Utc::now(),
            version: version::long().replace('\n', ", "),
            stages: self.stages()?,
            runs,
            warnings,
        })
    }

    /// The graph as it stands.
    pub fn stages(&self) -> Result<Vec<Node>, CliError> {
        let Some((_, meant)) = &self.pipeline else { return Ok(Vec::new()) };
        let observed = meant.observe(&meant.execution(&Stop::default(), &Silent))?;
        let node = |standing: status::Standing| {
            let dependencies = meant.graph.dependencies(&standing.stage);
            let seconds = standing.record.as_ref().map(|record| {
                let running = record.status == Status::Running && standing.holder.is_some();
                let end = if running { Utc::now() } else { record.updated_at };
                (end - record.started_at).as_seconds_f64().max(0.0)
            });
            Node { needs: dependencies.iter().map(|(_, s)| s.id.to_string()).collect(), standing, seconds }
        };
        Ok(status::standings(meant, &observed).into_iter().map(node).collect())
    }
}
