//! `pipe plan [FILE] [STAGE…]`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipe_core::progress::NullListener;
use pipe_core::stop::Stop;
use pipe_engine::forecast::{self, PlanForecast};
use pipe_engine::graph::{Graph, LoadedStage};
use pipe_engine::identity::Manifest;
use pipe_engine::kind::StageId;
use pipe_engine::plan::{Action, Plan, Step};
use pipe_engine::source;
use serde::{Deserialize, Serialize};
use unicode_width::UnicodeWidthStr;

use super::pipeline_args::PipelineArgs;
use super::{CliError, ExitCode, Kinds, output_file, project, store, trial};
use crate::report::stdout::say;
use crate::report::style;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe plan pipelines/base_to_lora.yaml\n  pipe plan pipelines/base_to_lora.yaml --epochs 20 -o plan.json\n  pipe run --plan plan.json"
)]
pub struct PlanArguments {
    #[command(flatten)]
    args: PipelineArgs,
    /// Stages that may run at once: when the plan would end depends on it
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Time some steps of trainings that nothing is known of, on drawn images of the same size
    #[arg(long)]
    measure: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Write the plan into this file, for `pipe run --plan`
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A plan with what it was asked for.
#[derive(Serialize, Deserialize)]
pub struct PlanFile {
    version: u32,
    pipeline: String,
    #[serde(rename = "asked")]
    pub args: PipelineArgs,
    #[serde(flatten)]
    pub plan: Plan,
    /// Digest of all settings of each stage that has something to do, those among them that decide
    /// no result but say how long it is trained and what is kept.
    #[serde(default)]
    settings: BTreeMap<StageId, String>,
    /// How long it takes, as far as was known when it was made.
    #[serde(default, skip_deserializing)]
    forecast: PlanForecast,
}

const VERSION: u32 = 1;

pub fn plan(arguments: PlanArguments, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let mut args = arguments.args.resolved()?;
    let loaded = args.load(kinds)?;
    if let Some(path) = &arguments.output {
        output_file::check_replaces(&project::path(path), "{", "plan")?;
    }
    store::pull(&loaded, None)?;
    let stop = Stop::default();
    let mut execution = loaded.session.execution(&stop, &NullListener);
    execution.jobs = arguments.jobs.into();
    let (plan, mut observed) = loaded.plan(&execution)?;
    let mut forecast = forecast::forecast(&execution, &plan, &observed);
    if arguments.measure {
        trial::measure(&loaded.session.graph, &forecast, &mut observed)?;
        forecast = forecast::forecast(&execution, &plan, &observed);
    }
    let pipeline = loaded.session.graph.pipeline.name.clone();
    // A plan belongs to the project, wherever it was made.
    args.selection.file.clone_from(&loaded.file);
    let is_written = arguments.json || arguments.output.is_some();
    let settings = is_written.then(|| settings_of(&plan, &loaded.session.graph));
    let settings = settings.unwrap_or_default();
    let file = PlanFile { version: VERSION, pipeline, args, plan, settings, forecast };
    if let Some(path) = &arguments.output {
        let text = serde_json::to_string_pretty(&file).unwrap_or_default();
        let disk = loaded.session.root.disk();
        output_file::write(disk, &project::path(path), |out| writeln!(out, "{text}"))?;
    }
    let is_printed = arguments.output.as_deref().is_some_and(output_file::is_output);
    if arguments.json && !is_printed {
        say!("{}", serde_json::to_string_pretty(&file).unwrap_or_default());
    } else if !is_printed {
        print(&file.plan);
        brackets(&loaded.session.graph, &file.plan).iter().for_each(|line| say!("{line}"));
        let table = super::forecast::table(&file.forecast, arguments.jobs, &loaded.session.root);
        table.iter().for_each(|table| say!("\n{table}"));
    }
    // The process ends here: taking many thousand stages apart would be a tenth of its time.
    std::mem::forget((loaded, observed, file));
    Ok(ExitCode::SUCCESS)
}

/// What the stages are set to that have something to do.
fn settings_of(plan: &Plan, graph: &Graph) -> BTreeMap<StageId, String> {
    let acting = plan.steps.iter().filter(|step| step.action != Action::Skip);
    let stages = acting.filter_map(|step| graph.stage(&step.stage));
    let digest = |stage: &LoadedStage| {
        let options = serde_json::to_value(&stage.options).unwrap_or_default();
        let all = [("settings", stage.stage.settings()), ("options", options)];
        Manifest::default().with(all.map(|(key, value)| (key.to_owned(), value))).digest()
    };
    stages.map(|stage| (stage.id.clone(), digest(stage))).collect()
}

/// One line a stage.
pub fn print(plan: &Plan) {
    let action = |step: &Step| match (&step.action, &step.depends_on) {
        // What it says now may change when the other stage has run.
        (Action::Run, Some(_)) => "run?".to_owned(),
        (action, _) => action.to_string(),
    };
    let width = plan.steps.iter().map(|s| s.stage.as_str().width()).max().unwrap_or(0);
    let words = plan.steps.iter().map(|s| action(s).len()).max().unwrap_or(0);
    let mut text = String::new();
    for step in &plan.steps {
        let action = action(step);
        let gaps = [width - step.stage.as_str().width(), words - action.len()];
        let [after_stage, after_action] = gaps.map(|gap| " ".repeat(gap));
        let action = match style::of_word(action.split(' ').next().unwrap_or_default()) {
            Some(style) => style::paint_stdout(style, &action),
            None => action,
        };
        let line = format!("{}{after_stage}  {action}{after_action}  {}", step.stage, step.reason);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    say!("{}", text.trim_end());
}

/// What each halving of a plan comes to, where no member fails.
fn brackets(graph: &Graph, plan: &Plan) -> Vec<String> {
    let is_planned = |stage: &&LoadedStage| plan.steps.iter().any(|step| step.stage == stage.id);
    let line = |members: Vec<&LoadedStage>| {
        let (first, count) = (members.iter().copied().find(is_planned)?, members.len());
        let halving = first.options.halving.as_ref()?;
        let sizes = halving.sizes(count);
        let rungs: Vec<String> = sizes
            .iter()
            .zip(&halving.rungs)
            .map(|(size, epoch)| format!("{size} to epoch {epoch}"))
            .collect();
        let epochs = halving.epochs(count);
        let whole = count as u64 * halving.rungs.last()?;
        let (name, rungs) = (first.id.declared(), rungs.join(", "));
        Some(format!("\n{name}: {rungs}; {epochs} epochs in the place of {whole}"))
    };
    graph.brackets().into_iter().filter_map(line).collect()
}

impl PlanFile {
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let wrong = |e: &dyn std::fmt::Display| CliError::usage(format!("{}: {e}", path.display()));
        let text = source::read(path, path)?;
        let mut file: Self =
            serde_json::from_str(text.text()).map_err(|e| wrong(&format!("not a plan: {e}")))?;
        match file.version {
            VERSION => {
                project::enter(Some(path))?;
                file.args.selection.file = project::from_root(&file.args.selection.file);
                Ok(file)
            }
            other => {
                Err(wrong(&format!("a plan of version {other}; this program knows {VERSION}")))
            }
        }
    }

    /// Refuses when something else would be done today.
    pub fn still_holds(&self, path: &Path, today: &Plan, graph: &Graph) -> Result<(), CliError> {
        let settings = settings_of(today, graph);
        if self.plan == *today && self.settings == settings {
            return Ok(());
        }
        let show = |step: Option<&Step>| {
            step.map_or_else(|| "nothing".to_owned(), |s| format!("{} ({})", s.action, s.reason))
        };
        let mut lines = Vec::new();
        for new in &today.steps {
            let old = self.plan.steps.iter().find(|s| s.stage == new.stage);
            if old != Some(new) || self.settings.get(&new.stage) != settings.get(&new.stage) {
                let (old, shown) = (show(old), show(Some(new)));
                let what = if old == shown {
                    "other settings or inputs".to_owned()
                } else {
                    format!("{old} -> {shown}")
                };
                lines.push(format!("\n  {}: {what}", new.stage));
            }
        }
        for old in &self.plan.steps {
            if !today.steps.iter().any(|s| s.stage == old.stage) {
                lines.push(format!("\n  {}: {} -> nothing", old.stage, show(Some(old))));
            }
        }
        let again = PipelineArgs::with_environment(
            self.args.command_line("plan").word("-o").path(path),
            graph,
        );
        let error = CliError::usage(format!("the plan does not hold any more:{}", lines.concat()));
        Err(error.note(format!("make a new one: {again}")))
    }
}
