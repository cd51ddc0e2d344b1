//! A three-way comparison of the folder, the store and their common base: what to do to make both
//! the same. Pure, but for the question whether a file has a certain content.

use std::collections::BTreeMap;

use crate::index::{Entry, Index};
use crate::project::{FileStat, Scan};
use crate::pull::ConflictResolution;
use crate::sync_state::{SyncState, is_within};

/// What a comparison comes to.
#[derive(Debug, PartialEq)]
pub(crate) enum Comparison {
    Plan(SyncPlan),
    /// Both sides changed. These files of the folder are neither the store's nor the base's.
    Diverged(Vec<String>),
}

/// Paths by what is to be done with them, so that folder and store become the same.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SyncPlan {
    pub download: Vec<String>,
    pub upload: Vec<String>,
    /// Files of the folder that the store does not have any more.
    pub delete_local: Vec<String>,
    /// Files of the store that the folder does not have any more.
    pub delete_remote: Vec<String>,
    /// Files of the folder to be moved to `.pipe/aside` before anything is downloaded.
    pub set_aside: Vec<String>,
}

impl SyncPlan {
    pub fn changes_folder(&self) -> bool {
        !(self.download.is_empty() && self.delete_local.is_empty() && self.set_aside.is_empty())
    }
}

/// Whether a file of the folder has the content of an entry.
pub(crate) type HasContent<'a> = &'a dyn Fn(&str, &FileStat, &Entry) -> bool;

pub(crate) fn compare(
    local: &Scan,
    state: Option<&SyncState>,
    remote: &Index,
    resolution: Option<ConflictResolution>,
    same: HasContent,
) -> Comparison {
    let busy = |path: &str| local.busy.iter().any(|busy| is_within(path, busy));
    let listed = remote.files.iter().filter(|(path, _)| !busy(path));
    let differs = |path: &String, file: &FileStat| {
        remote.files.get(path).is_none_or(|entry| !same(path, file, entry))
    };
    let changed: Vec<String> = local
        .files
        .iter()
        .filter(|(path, file)| differs(path, file))
        .map(|(path, _)| path.clone())
        .collect();
    let missing: Vec<String> = listed
        .filter(|(path, _)| !local.files.contains_key(*path))
        .map(|(path, _)| path.clone())
        .collect();

    if state.is_some_and(|state| is_unchanged_since(state, remote)) {
        return Comparison::Plan(plan_for_unchanged_store(local, state, changed, missing));
    }

    // The store has changed since the base. The folder must hold what the base or the store has.
    let before: Vec<&BTreeMap<String, Entry>> = state
        .filter(|state| state.index.lineage == remote.lineage && state.instead_of.is_none())
        .map(|state| &state.index.files)
        .into_iter()
        .chain(state.and_then(|state| state.fetching.as_ref()).map(|index| &index.files))
        .collect();
    let known = |path: &String| {
        let file = &local.files[path];
        local.repaired.contains(path)
            || before
                .iter()
                .any(|files| files.get(path).is_some_and(|entry| same(path, file, entry)))
    };
    let (older, own): (Vec<String>, Vec<String>) = changed.into_iter().partition(known);
    let (replaced, delete_local): (Vec<String>, Vec<String>) =
        older.iter().cloned().partition(|path| remote.files.contains_key(path));
    let download = |more: &[String]| {
        let all = missing
            .iter()
            .chain(&replaced)
            .chain(more.iter().filter(|path| remote.files.contains_key(*path)));
        all.cloned().collect()
    };
    match resolution {
        _ if own.is_empty() => Comparison::Plan(SyncPlan {
            download: download(&[]),
            delete_local,
            ..SyncPlan::default()
        }),
        None => Comparison::Diverged(own),
        Some(ConflictResolution::Store) => Comparison::Plan(SyncPlan {
            download: download(&own),
            delete_local,
            set_aside: own,
            ..SyncPlan::default()
        }),
        Some(ConflictResolution::Folder) => {
            let upload = own.into_iter().chain(older).collect();
            // Of what a repair took away the store may have the one whole copy.
            let taken = |path: &String| state.is_some_and(|state| state.was_repaired(path));
            let delete_remote = missing.into_iter().filter(|path| !taken(path)).collect();
            Comparison::Plan(SyncPlan { upload, delete_remote, ..SyncPlan::default() })
        }
    }
}

/// The store has not changed since the base. A file that is missing was removed on purpose, was
/// given up by a run that went on, or is lost. What a repair took away is lost, and a run that it
/// put in order did not go on by that: the run comes back as the store has it.
fn plan_for_unchanged_store(
    local: &Scan,
    state: Option<&SyncState>,
    changed: Vec<String>,
    missing: Vec<String>,
) -> SyncPlan {
    let removed = |path: &String| state.is_some_and(|state| state.was_removed(path));
    let taken = |path: &String| state.is_some_and(|state| state.was_repaired(path));
    let (mut lost, changed): (Vec<String>, Vec<String>) =
        changed.into_iter().partition(|path| local.repaired.contains(path));
    let went_on = |path: &String| {
        let run = run_of(path).map(|run| format!("{run}/metadata.json"));
        run.is_some_and(|metadata| metadata != *path && changed.contains(&metadata))
    };
    let (delete_remote, mut download): (Vec<String>, Vec<String>) =
        missing.into_iter().partition(|path| removed(path) || (went_on(path) && !taken(path)));
    download.append(&mut lost);
    SyncPlan { download, upload: changed, delete_remote, ..SyncPlan::default() }
}

/// Whether the store's newest index is the one that this folder has as its base.
pub(crate) fn is_unchanged_since(state: &SyncState, remote: &Index) -> bool {
    let SyncState { index, instead_of, .. } = state;
    index.lineage == remote.lineage
        && (index.commit == remote.commit
            || instead_of.as_ref().is_some_and(|old| *old == remote.commit))
}

/// The folder of the numbered run that a file belongs to.
fn run_of(path: &str) -> Option<&str> {
    let is_run = |part: &str| {
        part.strip_prefix("run_").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut end = 0;
    for part in path.split('/') {
        end += part.len();
        if is_run(part) {
            return path.get(..end);
        }
        end += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files by name, each with a letter for its content.
    fn files(text: &str) -> BTreeMap<String, Entry> {
        let entry = |content: &str| Entry {
            sha256: content.into(),
            bytes: 1,
            modified: 0,
            nonce: String::new(),
            object: None,
        };
        text.split_whitespace()
            .map(|f| f.split_once(':').unwrap())
            .map(|(n, c)| (n.into(), entry(c)))
            .collect()
    }

    struct Case {
        local: &'static str,
        busy: Vec<String>,
        /// What a repair wrote, and is as it wrote it.
        repaired: Vec<String>,
        remote: Index,
        state: Option<SyncState>,
    }

    impl Case {
        /// `last`: what was last the same.
        fn new(local: &'static str, last: &str, remote: &str) -> Self {
            let remote = Index::empty("p").next(files(remote));
            let mut index = remote.next(files(last));
            index.generation = 0;
            let (busy, repaired) = (Vec::new(), Vec::new());
            Self { local, busy, repaired, remote, state: Some(SyncState::new("url", index)) }
        }

        /// A repair took these files away, or wrote those that stand.
        fn repaired(mut self, paths: &[&'static str]) -> Self {
            let stands = |path: &str| files(self.local).contains_key(path);
            self.repaired =
                paths.iter().filter(|path| stands(path)).map(|path| path.to_string()).collect();
            let noted = paths.iter().map(|path| (path.to_string(), None));
            self.change(|state| state.repaired = noted.collect())
        }

        /// Nobody but this folder changed the store.
        fn alone(mut self) -> Self {
            self.state.as_mut().unwrap().index.commit = self.remote.commit.clone();
            self
        }

        fn without_memory(mut self) -> Self {
            self.state = None;
            self
        }

        fn change(mut self, change: impl FnOnce(&mut SyncState)) -> Self {
            change(self.state.as_mut().unwrap());
            self
        }

        fn comparison(&self, resolution: Option<ConflictResolution>) -> Comparison {
            let contents = files(self.local);
            let standing = FileStat { bytes: 1, modified: 0 };
            let local = Scan {
                files: contents.keys().map(|name| (name.clone(), standing)).collect(),
                busy: self.busy.clone(),
                repaired: self.repaired.iter().cloned().collect(),
            };
            let same =
                |path: &str, _: &FileStat, entry: &Entry| contents[path].sha256 == entry.sha256;
            compare(&local, self.state.as_ref(), &self.remote, resolution, &same)
        }

        #[track_caller]
        fn goes(&self, expected: &str) {
            self.goes_resolving(None, expected);
        }

        #[track_caller]
        fn goes_resolving(&self, resolution: Option<ConflictResolution>, expected: &str) {
            let Comparison::Plan(plan) = self.comparison(resolution) else {
                panic!("{:?}", self.comparison(resolution))
            };
            let words = [
                ("download", plan.download),
                ("upload", plan.upload),
                ("delete local", plan.delete_local),
                ("delete remote", plan.delete_remote),
                ("set aside", plan.set_aside),
            ];
            let shown: Vec<String> = words
                .into_iter()
                .filter(|(_, paths)| !paths.is_empty())
                .map(|(word, paths)| format!("{word} {}", paths.join(" ")))
                .collect();
            assert_eq!(shown.join("; "), expected);
        }
    }

    #[test]
    fn a_fresh_folder_gets_all_and_one_that_is_the_same_nothing() {
        Case::new("", "", "a:1 b:2").without_memory().goes("download a b");
        Case::new("a:1 b:2", "", "a:1 b:2").without_memory().goes("");
        Case::new("a:1", "", "a:1 b:2").without_memory().goes("download b");
    }

    #[test]
    fn what_this_folder_did_alone_goes_there() {
        Case::new("a:2 b:1 c:1", "a:1 b:1", "a:1 b:1").alone().goes("upload a c");
    }

    #[test]
    fn what_is_lost_comes_back_and_what_was_removed_does_not() {
        Case::new("a:1", "a:1 b:1", "a:1 b:1").alone().goes("download b");
        let removed = Case::new("a:1", "a:1 runs/run_001/x:1", "a:1 runs/run_001/x:1").alone();
        removed
            .change(|state| state.removed.push("runs/run_001".into()))
            .goes("delete remote runs/run_001/x");
        // The run went on, so a checkpoint of it that is missing was given up.
        let of_run = "r/run_001/metadata.json:1 r/run_001/c/e1:1";
        Case::new("r/run_001/metadata.json:2 r/run_001/c/e2:1", of_run, of_run)
            .alone()
            .goes("upload r/run_001/c/e2 r/run_001/metadata.json; delete remote r/run_001/c/e1");
        Case::new("r/run_001/metadata.json:1", of_run, of_run)
            .alone()
            .goes("download r/run_001/c/e1");
    }

    #[test]
    fn what_a_repair_took_away_comes_back_and_goes_from_no_store() {
        const METADATA: &str = "r/run_001/metadata.json";
        const EPOCH: &str = "r/run_001/c/e2";
        let of_run = "r/run_001/metadata.json:2 r/run_001/c/e1:1 r/run_001/c/e2:1";
        let local = "r/run_001/metadata.json:1 r/run_001/c/e1:1";
        let both = "download r/run_001/c/e2 r/run_001/metadata.json";
        let case = |remote| Case::new(local, of_run, remote).repaired(&[METADATA, EPOCH]);
        case(of_run).alone().goes(both);
        // Whoever went on elsewhere went on from the whole state.
        let further = "r/run_001/metadata.json:3 r/run_001/c/e1:1 r/run_001/c/e2:1";
        case(further).goes(both);
        // The folder's own state had gone on before the repair, or goes on since.
        let gone_on = Case::new(local, of_run, of_run).repaired(&[EPOCH]);
        gone_on.alone().goes("download r/run_001/c/e2; upload r/run_001/metadata.json");
        Case::new(local, of_run, further)
            .repaired(&[EPOCH])
            .goes_resolving(Some(ConflictResolution::Folder), "upload r/run_001/metadata.json");
        // What somebody removed on purpose stays away all the same.
        case(of_run)
            .alone()
            .change(|state| state.removed.push(EPOCH.into()))
            .goes("download r/run_001/metadata.json; delete remote r/run_001/c/e2");
    }

    #[test]
    fn what_somebody_else_did_comes_here() {
        Case::new("a:1 b:1 c:1", "a:1 b:1 c:1", "a:2 b:1 d:1").goes("download d a; delete local c");
    }

    #[test]
    fn an_interrupted_fetch_is_gone_on_with() {
        let case = Case::new("a:2 b:1", "a:1 b:1", "a:3 b:3");
        assert_eq!(case.comparison(None), Comparison::Diverged(vec!["a".into()]));
        let fetching = Index::empty("p").next(files("a:2 b:2"));
        case.change(|state| state.fetching = Some(fetching)).goes("download a b");
    }

    #[test]
    fn two_who_went_on_are_told_apart() {
        let case = || Case::new("a:2 b:1", "a:1 b:1", "a:3 b:2 c:1");
        assert_eq!(case().comparison(None), Comparison::Diverged(vec!["a".into()]));
        case().goes_resolving(Some(ConflictResolution::Store), "download c b a; set aside a");
        case().goes_resolving(Some(ConflictResolution::Folder), "upload a b; delete remote c");
        let stranger = Case::new("a:2", "", "a:1").without_memory();
        assert_eq!(stranger.comparison(None), Comparison::Diverged(vec!["a".into()]));
    }

    #[test]
    fn another_line_of_states_was_never_the_same() {
        let case =
            Case::new("a:1", "a:1", "b:1").change(|state| state.index.lineage = "other".into());
        assert_eq!(case.comparison(None), Comparison::Diverged(vec!["a".into()]));
    }

    #[test]
    fn a_commit_whose_end_nobody_saw_is_one_or_the_other() {
        let half = Case::new("a:2", "a:2", "a:1");
        let old = half.remote.commit.clone();
        half.change(|state| state.instead_of = Some(old)).goes("upload a");
        let lost =
            Case::new("a:2", "a:2", "a:3").change(|state| state.instead_of = Some("older".into()));
        assert_eq!(lost.comparison(None), Comparison::Diverged(vec!["a".into()]));
    }

    #[test]
    fn what_another_process_is_at_is_left_to_it() {
        let mut case = Case::new("a:1", "a:1 r/run_001/x:1", "a:1 r/run_001/x:1").alone();
        case.busy.push("r/run_001".into());
        case.goes("");
    }

    #[test]
    fn runs_are_found_in_paths() {
        assert_eq!(run_of("a/run_001/c/x"), Some("a/run_001"));
        assert_eq!(run_of("run_1000/x"), Some("run_1000"));
        assert_eq!(run_of("a/runs/x"), None);
    }
}
