//! `pipe replay RUN --step N`: a step of a training once more, or a range of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipe_runs::RunNumber;
use pipe_train::replay::{Jump, THRESHOLD, WINDOW, jump, sheet};
use pipe_train::sampling::Format;
use pipe_train::trainer::{ProbedImage, ProbedStep, StepProbe};
use serde_json::json;

use super::recorded_run::{RecordedRun, RecordedRunArgs, beginning, slot};
use super::{CliError, ExitCode, Kinds, output_file, project};
use crate::report::stdout::say;
use crate::report::{Output, message, table};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe replay 3 --step 12345\n  pipe replay base/3 --step 12345 -o step.png\n  pipe replay 3 --from 12000 --to 13000\n  pipe replay 3 --from 12000 --to 13000 --json | jq .jump",
    group = clap::ArgGroup::new("which").required(true).args(["step", "from"])
)]
pub struct ReplayArguments {
    #[command(flatten)]
    run: RecordedRunArgs,
    /// The optimizer step, counted from 1 over all epochs, as the logs have it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    step: Option<u64>,
    /// The first of several steps, among which that is found at which the loss jumped
    #[arg(long, value_name = "N", requires = "to", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// The last of them
    #[arg(long, value_name = "N", requires = "from", conflicts_with = "step")]
    to: Option<u64>,
    /// Draw the step's images into this file, the largest loss first: a .png, .jpg or .webp
    #[arg(short, long, value_name = "FILE", requires = "step")]
    output: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Images of a jump that are told of.
const TOLD: usize = 8;

pub fn replay(a: ReplayArguments, output: &Output, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let format = a.output.as_deref().map(Format::of_file).transpose();
    let format = format.map_err(|e: String| CliError::usage(format!("--output {e}")))?;
    let recorded = RecordedRun::open(&a.run, kinds)?;
    if recorded.kind() == "trainer" {
        let text = format!(
            "run {} was trained by a program of its own, whose steps cannot be looked into",
            recorded.run.number
        );
        return Err(CliError::usage(text));
    }
    let (from, to) = (a.step.or(a.from).unwrap_or(1), a.step.or(a.to).unwrap_or(1));
    let until = last_epoch(&recorded, from, to)?;
    let slot = slot(recorded.root())?;
    // Of a range the losses before it say what is to be expected.
    let before = if a.step.is_some() { 0 } else { WINDOW as u64 };
    let repeat = recorded.prepare(&slot, &|c| c.global_step + before < from)?;
    message::note(&format!("goes to step {to} from {}", beginning(&repeat)));
    let probe = Arc::new(StepProbe::new(from, to));
    if let Some(code) = recorded.train(output, (&slot, &repeat), until, Some(probe.clone()))? {
        return Ok(code);
    }
    let steps = from_project(probe.steps(), recorded.root());
    let number = recorded.run.number;
    let last = steps.last().filter(|step| step.step == to).ok_or_else(|| {
        CliError::failed(format!("the training came to its end before step {to}"))
    })?;
    if a.step.is_none() {
        tell_range(number, &steps, (from, to), a.json);
        return Ok(ExitCode::SUCCESS);
    }
    if let (Some(path), Some(format)) = (&a.output, format) {
        let bytes = format.encode(&sheet(last).render()).map_err(CliError::failed)?;
        let file = project::path(path);
        output_file::write(recorded.root().disk(), &file, |out| out.write_all(&bytes))?;
    }
    tell_step(number, last, a.json);
    Ok(ExitCode::SUCCESS)
}

/// The epoch that the last step belongs to.
fn last_epoch(recorded: &RecordedRun, from: u64, to: u64) -> Result<u64, CliError> {
    if from > to {
        return Err(CliError::usage(format!("--from {from}: the range ends at step {to}")));
    }
    let metadata = &recorded.metadata;
    let whole = metadata.history.last().map_or((0, 0), |last| (last.epoch, last.global_step));
    let inside = metadata.partial_checkpoint.as_ref().map_or(0, |partial| partial.global_step);
    let done = whole.1.max(inside);
    if to > done {
        let number = recorded.run.number;
        let text = format!("run {number} has not come to step {to}: it has come to step {done}");
        return Err(CliError::usage(text));
    }
    let epoch = metadata.history.iter().find(|e| e.global_step >= to).map(|e| e.epoch);
    Ok(epoch.unwrap_or(whole.0 + 1))
}

fn tell_step(number: RunNumber, step: &ProbedStep, as_json: bool) {
    if as_json {
        say!("{:#}", json!({"run_number": number.0, "step": step}));
        return;
    }
    say!("run {number}, {}\n", in_words(step));
    say!("{}", images(step.images.iter().enumerate()));
}

fn tell_range(number: RunNumber, steps: &[ProbedStep], (from, to): (u64, u64), as_json: bool) {
    let losses: Vec<(u64, f64)> = steps.iter().map(|step| (step.step, step.loss)).collect();
    let jump = jump(&losses, from);
    let in_range: Vec<&ProbedStep> = steps.iter().filter(|step| step.step >= from).collect();
    if as_json {
        let certain = jump.is_some_and(|jump| jump.is_certain());
        let value = json!({
            "run_number": number.0, "from": from, "to": to, "jump": jump, "is_certain": certain, "steps": in_range,
        });
        say!("{value:#}");
        return;
    }
    let Some(jump) = jump else {
        say!("run {number}, steps {from} to {to}: too few steps to say what was expected of one");
        return;
    };
    let Jump { step, loss, expected, deviations } = jump;
    let [loss, expected] = [loss, expected].map(table::number);
    let told = format!("{loss} where {expected} was expected, {deviations:.1} deviations more");
    if !jump.is_certain() {
        say!(
            "run {number}, steps {from} to {to}: no jump of {THRESHOLD} deviations; the largest rise is at step {step}: \
             {told}"
        );
        return;
    }
    say!("run {number}, steps {from} to {to}: the loss jumped at step {step}: {told}");
    if let Some(step) = in_range.into_iter().find(|one| one.step == step) {
        let mut sorted: Vec<_> = step.images.iter().enumerate().collect();
        sorted.sort_by(|(_, a), (_, b)| b.loss.total_cmp(&a.loss));
        say!("\n{}\n", in_words(step));
        say!("{}", images(sorted.into_iter().take(TOLD)));
    }
}

/// `step 45, epoch 3: loss 0.4321, gradient norm 1.0200`
fn in_words(step: &ProbedStep) -> String {
    let norm = step.gradient_norm.map(|norm| format!(", gradient norm {}", table::number(norm)));
    let ProbedStep { step, epoch, loss, .. } = step;
    let (loss, norm) = (table::number(*loss), norm.unwrap_or_default());
    format!("step {step}, epoch {epoch}: loss {loss}{norm}")
}

fn images<'a>(images: impl Iterator<Item = (usize, &'a ProbedImage)>) -> String {
    let all: Vec<_> = images.collect();
    let has = |of: fn(&ProbedImage) -> bool| all.iter().any(|(_, image)| of(image));
    let (norms, files) = (has(|i| i.gradient_norm.is_some()), has(|i| i.file.is_some()));
    let mut headings = vec!["#", "image", "class", "sigma", "loss"];
    headings.extend(norms.then_some("gradient").into_iter().chain(files.then_some("file")));
    let row = |(number, image): &(usize, &ProbedImage)| {
        let dropped = if image.is_label_dropped { " (dropped)" } else { "" };
        let mut row = vec![
            number.to_string(),
            image.index.to_string(),
            format!("{}{dropped}", image.class),
            table::number(image.sigma),
            table::number(image.loss),
        ];
        row.extend(norms.then(|| table::number(image.gradient_norm.unwrap_or_default())));
        row.extend(files.then(|| image.file.clone().unwrap_or_default()));
        row
    };
    table::table(&headings, &all.iter().map(row).collect::<Vec<_>>())
}

/// The same with the files of the project as they are named there.
fn from_project(mut steps: Vec<ProbedStep>, root: &Path) -> Vec<ProbedStep> {
    for image in steps.iter_mut().flat_map(|step| &mut step.images) {
        let inside = image.file.as_ref().and_then(|file| Path::new(file).strip_prefix(root).ok());
        image.file = inside.map(|path| path.display().to_string()).or(image.file.take());
    }
    steps
}
