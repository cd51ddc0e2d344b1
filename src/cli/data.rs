//! `pipe data FILE [STAGE…]`

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pipe_core::number_text::counted;
use pipe_core::progress::{Event, EventListener, Unit};
use pipe_core::stop::Stop;
use pipe_engine::kind::{Failure, StageError, StageId};
use pipe_train::data::{DataError, Dataset, DatasetSettings, Progress};
use pipe_train::sampling::{ContactSheet, Format, ImageGrid, stack};
use pipe_train::stages::artifacts::DATASET;
use pipe_train::stages::data_failure;

use super::pipeline_args::{PipelineArgs, PipelineSession};
use super::{CliError, ExitCode, Kinds, output_file, signals};
use crate::report::dataset::DatasetReport;
use crate::report::stdout::say;
use crate::report::{self, Output, message};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe data pipelines/base_training.yaml\n  pipe data pipelines/base_to_lora.yaml trees -o sheet.png\n  pipe data pipelines/base_training.yaml --set image_size=32 --augmented -o sheet.jpg\n  pipe data pipelines/base_training.yaml --json | jq '.[].passed_over'\n\nExit codes: 0 all images can be read; 1 some cannot, or a data set cannot be opened; 2 bad usage, file or setting."
)]
pub struct DataArguments {
    #[command(flatten)]
    args: PipelineArgs,
    /// As JSON, one record for each data set
    #[arg(long)]
    json: bool,
    /// Draw what a model will see of each class into this file: a .png, .jpg or .webp
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw the images as the training's augmentation changes them
    #[arg(long, requires = "output")]
    augmented: bool,
    /// Images of each class that are drawn, at most
    #[arg(long, value_name = "N", default_value_t = 8, requires = "output", value_parser = clap::value_parser!(u16).range(1..=256))]
    each: u16,
}

pub fn data(
    arguments: DataArguments,
    output: &Output,
    kinds: &Kinds,
) -> Result<ExitCode, CliError> {
    let a = arguments;
    let target = a.output.as_deref().map(|path| Ok((path, Format::of_file(path)?)));
    let target =
        target.transpose().map_err(|e: String| CliError::usage(format!("--output {e}")))?;
    let args = a.args.clone().resolved()?;
    let loaded = args.load(kinds)?;
    let stages = datasets(&loaded)?;
    let stop = Stop::default();
    signals::watch(stop.clone())?;
    let (mut summary, mut grids, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for (stage, settings) in &stages {
        let report = report::reporter(output, false);
        let looked = look(stage, settings, &loaded, &Watching::new(stage, &*report, &stop));
        report.finish();
        match looked {
            Ok((dataset, found)) => {
                if target.is_some() {
                    grids.push(sheet(stage, &dataset, &a, &loaded.session.graph.pipeline.name));
                }
                if !found.bad.is_empty() {
                    let bad = format!("{} that cannot be read", counted(found.bad.len(), "image"));
                    errors.push(CliError::stage(
                        stage.as_str(),
                        &StageError::new(Failure::Input, bad),
                    ));
                }
                summary.push(found);
            }
            Err(DataError::Stopped) => {
                return Ok(ExitCode::from(stop.requested().map_or(1, |signal| signal.exit_code())));
            }
            Err(error) => {
                let (graph, error) = (&loaded.session.graph, data_failure(error));
                errors.push(CliError::stage_of(graph, stage, &error));
            }
        }
    }
    if a.json {
        say!("{}", serde_json::to_string_pretty(&summary).unwrap_or_default())
    } else {
        summary.iter().for_each(|found| say!("{}", found.text()))
    }
    if let Some((path, format)) = target.filter(|_| !grids.is_empty()) {
        let bytes = format.encode(&stack(&grids)).map_err(CliError::failed)?;
        output_file::write(loaded.session.root.disk(), path, |out| out.write_all(&bytes))?;
        if !a.json && !output_file::is_output(path) {
            say!("{}", path.display());
        }
    }
    CliError::all(errors).map_or(Ok(ExitCode::SUCCESS), Err)
}

/// The `dataset` stages that are meant, in the graph's order.
fn datasets(loaded: &PipelineSession) -> Result<Vec<(StageId, DatasetSettings)>, CliError> {
    let all = loaded.session.graph.stages().filter(|stage| stage.makes == DATASET);
    let found: Vec<(StageId, DatasetSettings)> = all
        .filter(|stage| loaded.session.selection.stages.contains(&stage.id))
        .filter_map(|stage| {
            Some((stage.id.clone(), serde_json::from_value(stage.stage.settings()).ok()?))
        })
        .collect();
    if found.is_empty() {
        Err(CliError::usage("there is no stage of kind `dataset` among those that are meant"))
    } else {
        Ok(found)
    }
}

/// Opens a data set and reads every image.
fn look(
    stage: &StageId,
    settings: &DatasetSettings,
    loaded: &PipelineSession,
    progress: &dyn Progress,
) -> Result<(Dataset, DatasetReport), DataError> {
    let dataset = Dataset::open(settings, &loaded.session.root, progress)?;
    let bad = dataset.bad_images(progress)?;
    let root = (!settings.source.is_synthetic()).then(|| settings.root.clone());
    let at = settings.root_in(&loaded.session.root);
    let summary = DatasetReport::new(
        stage,
        &dataset,
        root,
        bad.iter().map(|image| (relative(&image.file, &at), &*image.reason)),
    );
    Ok((dataset, summary))
}

fn relative<'a>(file: &'a Path, root: &Path) -> &'a Path {
    file.strip_prefix(root).unwrap_or(file)
}

fn sheet(
    stage: &StageId,
    dataset: &Dataset,
    arguments: &DataArguments,
    pipeline: &str,
) -> ImageGrid {
    let size = dataset.image_size();
    let mut title =
        format!("{stage} of {pipeline}: {}, {size} x {size} pixels", dataset.source().name());
    match (arguments.augmented, dataset.augmentation().enabled) {
        (true, true) => title.push_str(", augmented"),
        (true, false) => message::warning(&format!(
            "stage {stage}: its augmentation is not enabled, so --augmented changes nothing"
        )),
        (false, _) => {}
    }
    ContactSheet { each: arguments.each.into(), augmented: arguments.augmented }.of(&title, dataset)
}

/// Shows how far it is, a few times a second, and ends the work when a signal came.
pub(super) struct Watching<'a> {
    stage: &'a StageId,
    report: &'a dyn EventListener,
    stop: &'a Stop,
    last: Mutex<Option<Instant>>,
}

impl<'a> Watching<'a> {
    pub fn new(stage: &'a StageId, report: &'a dyn EventListener, stop: &'a Stop) -> Self {
        Self { stage, report, stop, last: Mutex::new(None) }
    }

    fn show(&self, what: String, done: u64, total: Option<u64>, unit: Unit) {
        let Ok(mut last) = self.last.lock() else { return };
        if last.is_none_or(|at| at.elapsed() > Duration::from_millis(100)) {
            *last = Some(Instant::now());
            self.report.event(self.stage, &Event::Preparing { what, done, total, unit });
        }
    }
}

impl Progress for Watching<'_> {
    fn downloaded(&self, name: &str, done: u64, total: Option<u64>) {
        self.show(format!("downloading {name}"), done, total, Unit::Bytes);
    }

    fn indexed(&self, done: usize) {
        self.show("reading images".to_owned(), done as u64, None, Unit::Items);
    }

    fn decoded(&self, done: usize, total: usize) {
        self.show("checking images".to_owned(), done as u64, Some(total as u64), Unit::Items);
    }

    fn stopped(&self) -> bool {
        self.stop.requested().is_some()
    }
}
