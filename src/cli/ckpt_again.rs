//! `pipe ckpt again RUN --epoch N`: a checkpoint that retention removed, made again.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use pipe_runs::{Checkpoint, CheckpointManager, Metadata};
use pipe_trainer::aside::{copy_checkpoint, is_as_recorded};

use super::recorded_run::{RecordedRun, RecordedRunArgs, beginning, shown, slot};
use super::{CliError, ExitCode, Kinds, ckpt, project};
use crate::report::stdout::say;
use crate::report::{Output, message, table};

#[derive(clap::Args)]
pub struct AgainArguments {
    #[command(flatten)]
    run: RecordedRunArgs,
    /// The epoch that it ended
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epoch: u64,
    /// File to write; unless given, it comes back into the run, and stays there
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write over a file that exists
    #[arg(long, requires = "output")]
    overwrite: bool,
}

pub fn again(a: AgainArguments, output: &Output, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let recorded = RecordedRun::open(&a.run, kinds)?;
    let (run, metadata, epoch) = (&recorded.run, &recorded.metadata, a.epoch);
    let named = a.output.as_deref().map(project::path);
    let target = named.map(|file| ckpt::free(&file, a.overwrite)).transpose()?;
    if let Some(holder) = run.holder() {
        let text = format!("run {} is being trained by {}; wait for it", run.number, holder.0);
        return Err(CliError::usage(text));
    }
    recorded.require_epoch(epoch)?;
    let (disk, slot) = (recorded.root().disk(), slot(recorded.root())?);
    let listed = metadata.checkpoints.iter().find(|c| c.epoch == epoch);
    if let Some(record) = listed.filter(|record| is_as_recorded(run, metadata, record).is_ok()) {
        let file = run.file_of(record);
        if let Some(target) = &target {
            copy_checkpoint(disk, &file, target).map_err(CliError::failed)?;
        }
        say!("{}: it stands, {}", shown(&file), record.digest);
        return Ok(ExitCode::SUCCESS);
    }
    let expected = Expected::of(metadata, epoch);
    let repeat = recorded.prepare(&slot, &|c| c.epoch < epoch)?;
    message::note(&format!("epoch {epoch} is trained again from {}", beginning(&repeat)));
    if let Some(code) = recorded.train(output, (&slot, &repeat), epoch, None)? {
        return Ok(code);
    }
    let made = repeat.recomputed(epoch, expected.saved_at).map_err(CliError::failed)?;
    let verdict = expected.compare(&made, metadata);
    if let Verdict::Different(why) = &verdict {
        if !recorded.may_differ() || target.is_none() {
            let number = run.number;
            let text = format!("epoch {epoch} of run {number} came out otherwise: {why}");
            return Err(CliError::failed(text).note("nothing was written: the run is as it was"));
        }
        message::warning(&format!("not the checkpoint that the run had: {why}"));
    }
    let (bytes, digest) = (table::bytes(made.bytes()), made.head_digest().to_owned());
    let path = match target {
        Some(target) => {
            copy_checkpoint(disk, made.path(), &target).map_err(CliError::failed)?;
            target
        }
        None => {
            let record = CheckpointManager::put_back(run, made.path()).map_err(CliError::failed)?;
            run.folder.join(record.path)
        }
    };
    say!("{}: {bytes}, {digest}", shown(&path));
    if let Some(words) = verdict.in_words() {
        say!("{words}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What a run knows of a checkpoint that it had.
struct Expected {
    epoch: u64,
    saved_at: Option<DateTime<Utc>>,
    digest: Option<String>,
    state_digest: Option<String>,
}

/// What came of comparing.
enum Verdict {
    SameFile,
    /// With another header.
    SameState,
    /// No digest is on record, and the metrics are those of the history.
    Unknown,
    Different(String),
}

impl Verdict {
    /// Of one that is no failure.
    fn in_words(&self) -> Option<&'static str> {
        match self {
            Self::SameFile => Some("the same file as then, byte for byte"),
            Self::SameState => Some(
                "the same tensors as then, bit for bit; only the header is another one, since the run was extended",
            ),
            Self::Unknown => Some(
                "no digest on record: no checkpoint of that epoch was saved, or an earlier version did it. The metrics are \
                 those of the run's history",
            ),
            Self::Different(_) => None,
        }
    }
}

impl Expected {
    fn of(metadata: &Metadata, epoch: u64) -> Self {
        let listed = metadata.checkpoints.iter().find(|c| c.epoch == epoch);
        let of_history = metadata.saved(epoch);
        Self {
            epoch,
            saved_at: of_history.map(|s| s.saved_at).or(listed.map(|c| c.saved_at)),
            digest: of_history.map(|s| &s.digest).or(listed.map(|c| &c.digest)).cloned(),
            state_digest: of_history.map(|s| s.state_digest.clone()),
        }
    }

    fn compare(&self, made: &Checkpoint, metadata: &Metadata) -> Verdict {
        if self.digest.as_deref() == Some(made.head_digest()) {
            return Verdict::SameFile;
        }
        match (&self.state_digest, made.state_digest()) {
            (Some(then), Some(now)) if *then == now => Verdict::SameState,
            (Some(then), now) => {
                let now = now.unwrap_or_default();
                Verdict::Different(format!("its tensors have the digest {now}, and had {then}"))
            }
            (None, _) => self.compare_metrics(made, metadata),
        }
    }

    /// Where no digest of the state is known.
    fn compare_metrics(&self, made: &Checkpoint, metadata: &Metadata) -> Verdict {
        let then = metadata.history.iter().find(|e| e.epoch == self.epoch).map(|e| &e.metrics);
        let other = made.header().metrics.iter().find_map(|(name, now)| {
            let then = then?.get(name).filter(|then| *then != now)?;
            Some(format!("its {name} is {now}, and was {then}"))
        });
        other.map_or(Verdict::Unknown, Verdict::Different)
    }
}
