//! `pipe audit RUN`: an interval of a run trained once more, and compared.

use pipe_runs::{Checkpoint, CheckpointRecord};
use pipe_train::checkpoint::{PartDifference, differences};
use pipe_trainer::aside::is_as_recorded;
use serde_json::json;

use super::recorded_run::{RecordedRun, RecordedRunArgs, beginning, slot};
use super::{CliError, ExitCode, Kinds};
use crate::report::stdout::say;
use crate::report::{Output, message};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe audit 3\n  pipe audit base/3 --from 0 --to 10\n  pipe audit 3 --json | jq .differences\n\nExit codes: 0 the same, bit for bit; 1 something differs, or could not be trained; 2 bad usage."
)]
pub struct AuditArguments {
    #[command(flatten)]
    run: RecordedRunArgs,
    /// Begin with the kept checkpoint of this epoch, or with 0 at the run's beginning; the nearest
    /// kept one before the end if unset
    #[arg(long, value_name = "EPOCH")]
    from: Option<u64>,
    /// The epoch whose checkpoint is compared; the last kept one if unset
    #[arg(long, value_name = "EPOCH", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// The epochs between two checkpoints.
struct Interval<'a> {
    from: u64,
    to: u64,
    /// The checkpoint at its beginning; `None` for the run's.
    start: Option<&'a CheckpointRecord>,
    /// The checkpoint at its end, if it is kept.
    end: Option<&'a CheckpointRecord>,
}

/// What came of it.
#[derive(Default)]
struct Findings {
    /// What is wrong with the files themselves, or is another digest than the recorded one.
    problems: Vec<String>,
    differences: Vec<PartDifference>,
}

pub fn audit(a: AuditArguments, output: &Output, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let recorded = RecordedRun::open(&a.run, kinds)?;
    let interval = Interval::of(&recorded, a.from, a.to)?;
    let mut found = Findings::default();
    let (run, metadata) = (&recorded.run, &recorded.metadata);
    let mut broken = false;
    for record in interval.start.iter().chain(&interval.end) {
        if let Err(why) = is_as_recorded(run, metadata, record) {
            found.problems.push(why);
            // Of a whole file it can be told in what it differs; nothing begins with another one.
            broken |= interval.start == Some(*record) || !is_whole(&recorded, record);
        }
    }
    if !broken {
        let Interval { from, to, .. } = interval;
        let slot = slot(recorded.root())?;
        let repeat = recorded.prepare(&slot, &|c| c.epoch == from)?;
        message::note(&format!("epoch {to} is trained again from {}", beginning(&repeat)));
        if let Some(code) = recorded.train(output, (&slot, &repeat), to, None)? {
            return Ok(code);
        }
        let made = repeat.recomputed(to, None).map_err(CliError::failed)?;
        found.compare(&recorded, &interval, &made)?;
    }
    found.tell(&recorded, &interval, a.json);
    Ok(if found.is_none() { ExitCode::SUCCESS } else { ExitCode(1) })
}

fn is_whole(recorded: &RecordedRun, record: &CheckpointRecord) -> bool {
    let opened = Checkpoint::open(&recorded.run.file_of(record));
    opened.is_ok_and(|file| file.verify().is_ok())
}

impl<'a> Interval<'a> {
    fn of(recorded: &'a RecordedRun, from: Option<u64>, to: Option<u64>) -> Result<Self, CliError> {
        let (number, kept) = (recorded.run.number, &recorded.metadata.checkpoints);
        let none = || CliError::usage(format!("run {number} keeps no checkpoint to compare with"));
        let to = to.or(kept.last().map(|c| c.epoch)).ok_or_else(none)?;
        recorded.require_epoch(to)?;
        let of = |epoch: u64| kept.iter().find(|c| c.epoch == epoch);
        let nearest = || kept.iter().rfind(|c| c.epoch < to).map_or(0, |c| c.epoch);
        let from = from.unwrap_or_else(nearest);
        let names = || kept.iter().map(|c| c.epoch.to_string()).collect::<Vec<_>>().join(", ");
        if from >= to {
            let text = format!("--from {from}: the interval ends at epoch {to}");
            return Err(CliError::usage(text));
        }
        if from > 0 && of(from).is_none() {
            let text = format!("--from {from}: run {number} keeps the checkpoints of {}", names());
            return Err(CliError::usage(text).note("0 is the run's beginning"));
        }
        if of(to).is_none() && recorded.metadata.saved(to).is_none() {
            let text = format!(
                "--to {to}: run {number} has neither a checkpoint of that epoch nor its digest on record; it keeps \
                 those of {}",
                names()
            );
            return Err(CliError::usage(text));
        }
        Ok(Self { from, to, start: of(from), end: of(to) })
    }
}

impl Findings {
    fn is_none(&self) -> bool {
        self.problems.is_empty() && self.differences.is_empty()
    }

    /// Compares what was made with what is kept, or with what is remembered of it.
    fn compare(
        &mut self,
        recorded: &RecordedRun,
        interval: &Interval,
        made: &Checkpoint,
    ) -> Result<(), CliError> {
        if let Some(end) = interval.end {
            let kept = Checkpoint::open(&recorded.run.file_of(end)).map_err(CliError::failed)?;
            self.differences = differences(&kept, made).map_err(CliError::failed)?;
        } else if let Some(saved) = recorded.metadata.saved(interval.to) {
            let now = made.state_digest().unwrap_or_default();
            if now != saved.state_digest {
                let then = &saved.state_digest;
                self.problems.push(format!(
                    "epoch {}: its tensors have the digest {now}, and had {then}",
                    interval.to
                ));
            }
        }
        Ok(())
    }

    fn tell(&self, recorded: &RecordedRun, interval: &Interval, as_json: bool) {
        let (number, Interval { from, to, .. }) = (recorded.run.number, interval);
        if as_json {
            let value = json!({
                "run_number": number, "from": from, "to": to, "same": self.is_none(),
                "problems": self.problems, "differences": self.differences,
            });
            say!("{value:#}");
            return;
        }
        let interval = format!("run {number}, epochs {} to {to}", from + 1);
        if self.is_none() {
            say!("{interval}: the same, bit for bit");
            return;
        }
        say!("{interval}: not the same");
        self.problems.iter().for_each(|problem| say!("  {problem}"));
        for PartDifference { part, of, differing, largest, names } in &self.differences {
            let largest = largest.map_or(String::new(), |by| format!(", by {by:.3e} at most"));
            let more = if differing > &names.len() { ", …" } else { "" };
            say!("  {part}: {differing} of {of} differ{largest}: {}{more}", names.join(", "));
        }
    }
}
