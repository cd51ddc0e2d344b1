//! How far a stage is that looks at each checkpoint of a training, as a plan sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pipe_engine::kind::InspectContext;
use pipe_runs::{CheckpointResult, CheckpointResults, Metadata, Run};

use crate::artifacts::Checkpoints;
use crate::epoch_places::{EpochPlaces, digest_of};
use crate::following::of_best;

/// Why a stage that looks at each checkpoint of the training that the input `from` names has something
/// to do, if it has. The outputs that its record has must be known to stand. `is_of_best`: whether
/// what stands for the best checkpoint is what was made of this one.
pub fn why_open(
    o: &InspectContext,
    from: &str,
    places: &dyn EpochPlaces,
    is_of_best: impl Fn(&CheckpointResult) -> bool,
) -> Option<String> {
    let Some(state) = FollowState::of(o, from) else {
        return Some("its training goes on".to_owned());
    };
    state.unseen().or_else(|| state.other_files(o, places)).or_else(|| {
        let best = of_best(&state.metadata, &state.results)?;
        (!is_of_best(best))
            .then(|| format!("the checkpoint of epoch {} is the best now", best.epoch))
    })
}

/// How many results go where a stage looks anew at each checkpoint of the training that the input
/// `from` names, since those checkpoints are gone.
pub fn lost_results(o: &InspectContext, from: &str) -> usize {
    let Some((run, metadata)) = training(o, from) else { return 0 };
    let before = CheckpointResults::load(&run, o.pipeline, o.stage);
    // Those that were found as they would be today stay.
    let Some(before) = before.filter(|before| before.identity != o.identity) else { return 0 };
    let standing = standing(&run, &metadata);
    before.checkpoints.iter().filter(|seen| !standing.contains(&seen.epoch)).count()
}

/// The run whose checkpoints are looked at, once its training has come to its end.
fn training(o: &InspectContext, from: &str) -> Option<(Run, Metadata)> {
    o.inputs.get(from).and_then(Checkpoints::run_of)
}

/// The epochs whose checkpoints stand.
fn standing(run: &Run, metadata: &Metadata) -> BTreeSet<u64> {
    let standing = metadata.checkpoints.iter().filter(|c| run.file_of(c).exists());
    standing.map(|c| c.epoch).collect()
}

/// How the checkpoints of a training stand.
struct FollowState {
    metadata: Metadata,
    /// What was found out about them, as it would be today.
    results: CheckpointResults,
    /// The epochs of those that stand.
    standing: BTreeSet<u64>,
}

impl FollowState {
    /// `None`: the training has not come to its end.
    fn of(o: &InspectContext, from: &str) -> Option<Self> {
        let (run, metadata) = training(o, from)?;
        let results = CheckpointResults::load(&run, o.pipeline, o.stage)
            .filter(|results| results.identity == o.identity);
        let none = || CheckpointResults::new(o.pipeline, o.stage, "", o.identity);
        let standing = standing(&run, &metadata);
        Some(Self { metadata, results: results.unwrap_or_else(none), standing })
    }

    fn unseen(&self) -> Option<String> {
        let all = self.metadata.checkpoints.iter().filter(|c| self.standing.contains(&c.epoch));
        let unseen = all.filter(|c| self.results.of(c).is_none()).count();
        let total = self.standing.len();
        (unseen > 0).then(|| format!("{unseen} of {total} checkpoints not looked at yet"))
    }

    /// Why the files that the stage noted are not all those of this run.
    fn other_files(&self, o: &InspectContext, places: &dyn EpochPlaces) -> Option<String> {
        let mut noted: BTreeMap<u64, Vec<(&Path, &str)>> = BTreeMap::new();
        for output in o.made.iter().flat_map(|made| &made.outputs) {
            let path = Path::new(&output.path);
            if let Some(epoch) = places.epoch_of(path) {
                noted.entry(epoch).or_default().push((path, output.digest.as_str()));
            }
        }
        let is_missing = self.standing.iter().any(|epoch| !noted.contains_key(epoch));
        let other = noted.into_iter().find_map(|(epoch, files)| {
            let seen = self.results.checkpoints.iter().find(|seen| seen.epoch == epoch);
            match seen.map(|seen| &seen.files) {
                Some(Some(digest)) if *digest == digest_of(files) => None,
                Some(None) if !self.standing.contains(&epoch) => None,
                Some(None) => Some(format!(
                    "it is not known of which checkpoint the files of epoch {epoch} were made"
                )),
                _ => Some(format!("the files of epoch {epoch} were made of another checkpoint")),
            }
        });
        let ended = "it ended before the best checkpoint was chosen";
        other.or_else(|| is_missing.then(|| ended.to_owned()))
    }
}
