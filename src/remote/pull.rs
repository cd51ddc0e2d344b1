//! Pulls the store's state into the folder before anything is planned, or finds that both have
//! diverged.

use std::path::Path;
use std::time::Duration;

use pipe_engine::pipeline_file::StoreUrl;
use pipe_fs::{ProjectRoot, STATE_FOLDER, atomic};

use crate::bucket::Bucket;
pub use crate::download::DownloadSummary;
use crate::download::{download, has_content};
use crate::error::{RemoteError, RemoteErrorKind};
use crate::index::{Entry, Index};
use crate::project::{self, FileStat, Project, file_stat};
use crate::repaired;
use crate::sync_plan::{Comparison, SyncPlan, compare, is_unchanged_since};
use crate::sync_state::{self, SyncState};

/// Which side to go on with when folder and store have diverged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictResolution {
    Store,
    Folder,
}

/// A folder that is at least as new as its store.
pub struct WorkingCopy {
    pub(crate) bucket: Bucket,
    pub(crate) project: Project,
    pub(crate) base: Index,
    /// Files that the store does not have yet.
    pub(crate) upload: Vec<String>,
    pub(crate) delete_remote: Vec<String>,
    /// What was downloaded; `None` if the folder was up to date.
    pub downloaded: Option<DownloadSummary>,
    /// Why the store could not be reached. The folder then goes on from the base.
    pub offline: Option<RemoteError>,
}

/// How long another process of the folder may take to pull.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3600);
/// How often a pull begins anew because the index was replaced while its files were downloaded.
const ATTEMPTS: usize = 5;

/// Downloads what the store has and the folder lacks. `before_download` is called with the number
/// of files and bytes before the first of them.
///
/// # Errors
/// The store cannot be reached and no base is known, it is damaged, or both sides have diverged and
/// no resolution was given.
pub fn pull(
    url: &StoreUrl,
    project: Project,
    resolution: Option<ConflictResolution>,
    before_download: &dyn Fn(usize, u64),
) -> Result<WorkingCopy, RemoteError> {
    pull_from(
        Bucket::open(project.root.disk(), url, &project.pipeline)?,
        project,
        resolution,
        before_download,
    )
}

pub(crate) fn pull_from(
    bucket: Bucket,
    project: Project,
    resolution: Option<ConflictResolution>,
    before_download: &dyn Fn(usize, u64),
) -> Result<WorkingCopy, RemoteError> {
    let state = SyncState::load(&project.root, &project.pipeline, &bucket.url);
    let remote = match (bucket.newest(), &state) {
        (Ok(remote), _) => remote,
        (Err(error), Some(state))
            if error.kind == RemoteErrorKind::Transient && state.index.generation > 0 =>
        {
            // Offline: what the folder lacks cannot be downloaded now.
            let base = state.index.clone();
            let SyncPlan { upload, delete_remote, .. } =
                plan_with_index(&bucket, &project, Some(state), &base, resolution)?;
            return Ok(WorkingCopy {
                bucket,
                project,
                base,
                upload,
                delete_remote,
                downloaded: None,
                offline: Some(error),
            });
        }
        (Err(error), _) => return Err(error),
    };
    if is_recorded(state.as_ref(), remote.as_ref()) {
        let (base, plan) = plan_sync(&bucket, &project, state.as_ref(), remote, resolution)?;
        if !plan.changes_folder() {
            let SyncPlan { upload, delete_remote, .. } = plan;
            return Ok(WorkingCopy {
                bucket,
                project,
                base,
                upload,
                delete_remote,
                downloaded: None,
                offline: None,
            });
        }
    }
    let _lock = sync_state::lock(&project.root, &project.pipeline, LOCK_TIMEOUT)?;
    for last in (0..ATTEMPTS).map(|n| n + 1 == ATTEMPTS) {
        // Another process of this folder may have done it meanwhile.
        let state = SyncState::load(&project.root, &project.pipeline, &bucket.url);
        let remote = bucket.newest()?;
        let (base, plan) = plan_sync(&bucket, &project, state.as_ref(), remote, resolution)?;
        match apply_locally(&bucket, &project, state, &base, &plan, before_download) {
            Ok(got) => {
                let SyncPlan { upload, delete_remote, .. } = plan;
                let downloaded = Some(got).filter(|got| got.files > 0);
                return Ok(WorkingCopy {
                    bucket,
                    project,
                    base,
                    upload,
                    delete_remote,
                    downloaded,
                    offline: None,
                });
            }
            // The index may have been replaced while its files were fetched.
            Err(error) => match bucket.newest()? {
                Some(newest) if newest.commit != base.commit && !last => {}
                _ => return Err(error),
            },
        }
    }
    let text = format!("store {}: it changes faster than it can be fetched", bucket.url);
    Err(RemoteError::new(RemoteErrorKind::Transient, text))
}

/// Whether the folder's base is the newest index of the store.
fn is_recorded(state: Option<&SyncState>, remote: Option<&Index>) -> bool {
    match (state, remote) {
        (None, None) => true,
        (Some(state), None) => state.index.generation == 0,
        (None, Some(_)) => false,
        (Some(state), Some(remote)) => {
            state.index.commit == remote.commit
                && state.instead_of.is_none()
                && state.fetching.is_none()
        }
    }
}

/// The index to go on from, and the plan. A store without this pipeline gets all files.
fn plan_sync(
    bucket: &Bucket,
    project: &Project,
    state: Option<&SyncState>,
    remote: Option<Index>,
    resolution: Option<ConflictResolution>,
) -> Result<(Index, SyncPlan), RemoteError> {
    match remote {
        Some(remote) => {
            let plan = plan_with_index(bucket, project, state, &remote, resolution)?;
            Ok((remote, plan))
        }
        None => {
            let base =
                state.filter(|state| state.index.generation == 0).map(|state| state.index.clone());
            let upload = project.scan().files.into_keys().collect();
            Ok((
                base.unwrap_or_else(|| Index::empty(&project.pipeline)),
                SyncPlan { upload, ..SyncPlan::default() },
            ))
        }
    }
}

fn plan_with_index(
    bucket: &Bucket,
    project: &Project,
    state: Option<&SyncState>,
    remote: &Index,
    resolution: Option<ConflictResolution>,
) -> Result<SyncPlan, RemoteError> {
    if let Some(path) =
        remote.files.keys().find(|path| project::index_path(path.as_ref()).as_ref() != Some(path))
    {
        return Err(bucket
            .damaged(format!("its index lists {path:?}, which is no path of a file in a project: the store was damaged, or changed by somebody")));
    }
    let (known, unknown) = split(project, remote);
    if let Some(path) =
        unknown.iter().find(|path| state.is_none_or(|s| !s.index.files.contains_key(**path)))
    {
        tracing::warn!(
            "store {}: its index lists {path:?} and {} other files that no stage of this pipeline keeps; they are left alone",
            bucket.url,
            unknown.len() - 1
        );
    }
    let mut local = project.scan();
    // Files of runs that the scan does not see: such as those of runs without metadata.
    let listed = known.files.keys().chain(state.iter().flat_map(|state| state.index.files.keys()));
    let busy = local.busy.clone();
    for path in listed.filter(|path| !busy.iter().any(|busy| sync_state::is_within(path, busy))) {
        if !local.files.contains_key(path)
            && project.state_path(path).is_some()
            && let Some(found) = file_stat(&project.locate(path)?)
        {
            local.files.insert(path.clone(), found);
        }
    }
    let same = |path: &str, file: &FileStat, entry: &Entry| {
        project.locate(path).is_ok_and(|path| has_content(&path, file.bytes, file.modified, entry))
    };
    for (path, written) in state.iter().flat_map(|state| &state.repaired) {
        let is_as_written = |written: &String| {
            project.locate(path).is_ok_and(|file| repaired::holds(&file, written))
        };
        if local.files.contains_key(path) && written.as_ref().is_some_and(is_as_written) {
            local.repaired.insert(path.clone());
        }
    }
    match compare(&local, state, &known, resolution, &same) {
        Comparison::Plan(mut plan) => {
            // What a person removed here goes there too, whatever it was.
            let removed = |path: &&String| {
                state.is_some_and(|s| is_unchanged_since(s, remote) && s.was_removed(path))
            };
            plan.delete_remote.extend(unknown.into_iter().filter(removed).cloned());
            Ok(plan)
        }
        Comparison::Diverged(own) => Err(diverged(bucket, remote, &own)),
    }
}

/// The index with the files of the pipeline's state alone, and the others that it lists: those of
/// stages that had other settings, and what nobody of this program has put there.
fn split<'a>(project: &Project, remote: &'a Index) -> (Index, Vec<&'a String>) {
    let mut known = remote.clone();
    known.files.retain(|path, _| project.state_path(path).is_some());
    let unknown = remote.files.keys().filter(|path| !known.files.contains_key(*path)).collect();
    (known, unknown)
}

fn diverged(bucket: &Bucket, remote: &Index, own: &[String]) -> RemoteError {
    let shown: Vec<&str> = own.iter().take(3).map(String::as_str).collect();
    let more = if own.len() > 3 { format!(" and {} more", own.len() - 3) } else { String::new() };
    RemoteError::new(
        RemoteErrorKind::Diverged,
        format!(
            "store {}: {} left it in a state that this folder does not go on from; here {}{more} are other than there\n  \
             = `--take store` goes on with the store's state and moves these files to {STATE_FOLDER}/aside\n  \
             = `--take folder` goes on with this folder's and gives up the store's\n  \
             = `--store none` leaves the store alone; two trainings each need a store of their own",
            bucket.url,
            remote.origin(),
            shown.join(", ")
        ),
    )
}

/// Carries out the folder's side of a plan. Files that the store lacks stay.
fn apply_locally(
    bucket: &Bucket,
    project: &Project,
    state: Option<SyncState>,
    remote: &Index,
    plan: &SyncPlan,
    before_download: &dyn Fn(usize, u64),
) -> Result<DownloadSummary, RemoteError> {
    let root = &project.root;
    let mut state =
        state.unwrap_or_else(|| SyncState::new(&bucket.url, Index::empty(&project.pipeline)));
    if state.index.commit != remote.commit {
        // Should this process be killed, the next one finds files of either state.
        state.fetching = Some(remote.clone());
        state.save(root)?;
    }
    let folder = format!("{STATE_FOLDER}/aside/{}", chrono::Utc::now().format("%Y%m%d-%H%M%S"));
    for path in &plan.set_aside {
        set_aside(root, &project.locate(path)?, path, &folder)?;
    }
    let downloaded = download(bucket, project, remote, &plan.download, before_download)?;
    for path in &plan.delete_local {
        let file = project.locate(path)?;
        atomic::remove(root.disk(), &file)?;
        remove_empty_folders(root, &file);
    }
    let SyncState { removed, mut repaired, .. } = state;
    repaired.retain(|path, _| !plan.download.contains(path));
    SyncState { removed, repaired, ..SyncState::new(&bucket.url, remote.clone()) }.save(root)?;
    Ok(downloaded)
}

fn set_aside(root: &ProjectRoot, file: &Path, path: &str, folder: &str) -> Result<(), RemoteError> {
    let target = root.join(folder).join(path);
    atomic::create_folder(root.disk(), target.parent().unwrap_or(root))?;
    Ok(atomic::put_in_place(root.disk(), file, &target)?)
}

/// A run's folder with nothing but locks in it would count as one that was never begun.
fn remove_empty_folders(root: &Path, file: &Path) {
    let mut folder = file.to_owned();
    while folder.pop() && folder != *root {
        let Ok(entries) = std::fs::read_dir(&folder) else { return };
        let left: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        if !left.iter().all(|path| is_disposable(path)) {
            return;
        }
        left.iter().for_each(|path| drop(std::fs::remove_file(path)));
        if std::fs::remove_dir(&folder).is_err() {
            return;
        }
    }
}

/// Whether a file is worth nothing without the others of its folder.
fn is_disposable(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_ours =
        ["run.lock", "metadata.json.previous"].contains(&&*name) || atomic::is_temporary(&name);
    is_ours && !path.is_dir()
}
