//! Epochs that were better than the one that is copied, and whose checkpoints were not kept.

use pipe_core::number_text;
use pipe_core::progress::Event;
use pipe_engine::kind::RunContext;
use pipe_runs::EpochRecord;
use pipe_runs::policy::Mode;

use super::{CheckpointFile, Checkpoints};

/// Tells of the best epoch by a metric, where another one is copied.
pub(super) fn tell(
    context: &RunContext,
    from: &Checkpoints,
    copied: &CheckpointFile,
    by: (&str, Mode),
) {
    if let Checkpoints::Run { metadata, .. } = from
        && let Some(text) = better_epoch(&metadata.history, copied, by)
    {
        context.event(Event::Warning { text });
    }
}

/// A word about the best epoch by a metric, if another one is copied since its checkpoint does not
/// stand.
fn better_epoch(
    history: &[EpochRecord],
    copied: &CheckpointFile,
    (metric, mode): (&str, Mode),
) -> Option<String> {
    let own = *copied.metrics.get(metric)?;
    let all = history.iter().map(|e| (e.epoch, e.metrics.get(metric).copied()));
    let (epoch, value) = mode.best(all).filter(|(_, value)| mode.is_better(*value, own))?;
    let [value, own] = [value, own].map(number_text::short);
    Some(format!(
        "by {metric} epoch {epoch} was the best ({value}), and its checkpoint was not kept; epoch {} is copied ({own}). \
         `checkpoint.monitor: {metric}` keeps the best by it, `keep_last_n: null` all",
        copied.epoch
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    fn epoch(number: u64, loss: f64) -> EpochRecord {
        let metrics = BTreeMap::from([("loss".to_owned(), loss)]);
        EpochRecord {
            epoch: number,
            global_step: number,
            metrics,
            learning_rate: 0.0,
            seconds: 0.0,
            images_per_second: 0.0,
            data_wait: 0.0,
            saved: None,
        }
    }

    #[test]
    fn one_that_is_better_is_told_and_no_other_one() {
        let history = [epoch(1, 2.0), epoch(2, 1.0), epoch(3, f64::NAN), epoch(4, 1.5)];
        let copied = |number: u64| CheckpointFile {
            path: PathBuf::new(),
            digest: String::new(),
            epoch: number,
            bytes: 0,
            metrics: history[number as usize - 1].metrics.clone(),
        };
        let told = |number, metric, mode| better_epoch(&history, &copied(number), (metric, mode));
        assert!(told(4, "loss", Mode::Min).unwrap().contains("epoch 2 was the best"));
        assert!(told(4, "loss", Mode::Max).unwrap().contains("epoch 1 was the best"));
        assert_eq!(told(2, "loss", Mode::Min), None);
        assert_eq!(told(4, "other", Mode::Min), None);
    }
}
