//! What a run comes to, from its metadata.

use pipe_runs::Metadata;

/// The metric by which its best checkpoint was chosen.
pub fn monitor(metadata: &Metadata) -> String {
    metadata.settings["checkpoint"]["monitor"].as_str().unwrap_or("train_loss").to_owned()
}

/// That metric of the best checkpoint.
pub fn best(metadata: &Metadata) -> Option<f64> {
    metadata.best_checkpoint.as_ref()?.metrics.get(&monitor(metadata)).copied()
}

/// Epochs that were completed.
pub fn done(metadata: &Metadata) -> u64 {
    metadata.history.last().map_or(0, |e| e.epoch)
}

/// Time spent in epochs.
pub fn seconds(metadata: &Metadata) -> f64 {
    metadata.history.iter().fold(0.0, |sum, epoch| sum + epoch.seconds)
}
