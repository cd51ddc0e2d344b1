//! Before anything is planned: makes the folder as new as the store, or finds out that they cannot
//! be brought together.

use std::path::Path;
use std::time::Duration;

use pipe_engine::pipeline_file::StoreUrl;
use pipe_engine::store::{STATE_FOLDER, atomic};

use crate::bucket::Bucket;
use crate::compare::{Verdict, Way, compare, is_ours};
use crate::error::{Kind, RemoteError};
pub use crate::fetch::Fetched;
use crate::fetch::{fetch, has_content};
use crate::folder::{self, Project, Standing, standing};
use crate::index::{Entry, Index};
use crate::state::{self, State};

/// Which of two states that both went on is to be gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    Store,
    Folder,
}

/// A folder that is at least as new as its store.
pub struct Prepared {
    pub(crate) bucket: Bucket,
    pub(crate) project: Project,
    pub(crate) base: Index,
    /// What the store does not have yet.
    pub(crate) put: Vec<String>,
    pub(crate) gone: Vec<String>,
    /// Something was.
    pub fetched: Option<Fetched>,
    /// The store could not be asked; what is here was last the same as there.
    pub offline: Option<RemoteError>,
}

/// How long another process of the folder may take to fetch.
const PATIENCE: Duration = Duration::from_secs(3600);
/// An index may be replaced while its files are fetched; so often that is begun anew.
const TRIES: usize = 5;

/// Fetches what the store has and the folder lacks. `about_to` is told of files and bytes before
/// that begins.
pub fn prepare(
    url: &StoreUrl,
    project: Project,
    take: Option<Take>,
    about_to: &dyn Fn(usize, u64),
) -> Result<Prepared, RemoteError> {
    prepare_with(Bucket::open(url, &project.pipeline)?, project, take, about_to)
}

pub(crate) fn prepare_with(
    bucket: Bucket,
    project: Project,
    take: Option<Take>,
    about_to: &dyn Fn(usize, u64),
) -> Result<Prepared, RemoteError> {
    let state = State::load(&project.root, &project.pipeline, &bucket.url);
    let there = match (bucket.newest(), &state) {
        (Ok(there), _) => there,
        (Err(error), Some(state)) if error.kind == Kind::Passing && state.index.generation > 0 => {
            // What is missing here cannot be had now.
            let base = state.index.clone();
            let Way { put, gone_here: gone, .. } =
                decide(&bucket, &project, Some(state), &base, take)?;
            return Ok(Prepared {
                bucket,
                project,
                base,
                put,
                gone,
                fetched: None,
                offline: Some(error),
            });
        }
        (Err(error), _) => return Err(error),
    };
    if is_noted(state.as_ref(), there.as_ref()) {
        let (base, way) = way(&bucket, &project, state.as_ref(), there, take)?;
        if !way.changes_the_folder() {
            let Way { put, gone_here: gone, .. } = way;
            return Ok(Prepared { bucket, project, base, put, gone, fetched: None, offline: None });
        }
    }
    let _lock = state::lock(&project.root, &project.pipeline, PATIENCE)?;
    for last in (0..TRIES).map(|n| n + 1 == TRIES) {
        // Another process of this folder may have done it meanwhile.
        let state = State::load(&project.root, &project.pipeline, &bucket.url);
        let there = bucket.newest()?;
        let (base, way) = way(&bucket, &project, state.as_ref(), there, take)?;
        match bring_here(&bucket, &project, state, &base, &way, about_to) {
            Ok(got) => {
                let Way { put, gone_here: gone, .. } = way;
                let fetched = Some(got).filter(|got| got.files > 0);
                return Ok(Prepared { bucket, project, base, put, gone, fetched, offline: None });
            }
            // The index may have been replaced while its files were fetched.
            Err(error) => match bucket.newest()? {
                Some(newest) if newest.commit != base.commit && !last => {}
                _ => return Err(error),
            },
        }
    }
    let text = format!("store {}: it changes faster than it can be fetched", bucket.url);
    Err(RemoteError::new(Kind::Passing, text))
}

/// Whether the folder has noted that the store is as it is.
fn is_noted(state: Option<&State>, there: Option<&Index>) -> bool {
    match (state, there) {
        (None, None) => true,
        (Some(state), None) => state.index.generation == 0,
        (None, Some(_)) => false,
        (Some(state), Some(there)) => {
            state.index.commit == there.commit
                && state.instead_of.is_none()
                && state.fetching.is_none()
        }
    }
}

/// What is to go which way. A store that knows nothing of this pipeline gets all that is here.
fn way(
    bucket: &Bucket,
    project: &Project,
    state: Option<&State>,
    there: Option<Index>,
    take: Option<Take>,
) -> Result<(Index, Way), RemoteError> {
    match there {
        Some(there) => {
            let way = decide(bucket, project, state, &there, take)?;
            Ok((there, way))
        }
        None => {
            let base =
                state.filter(|state| state.index.generation == 0).map(|state| state.index.clone());
            let put = project.scan().files.into_keys().collect();
            Ok((
                base.unwrap_or_else(|| Index::empty(&project.pipeline)),
                Way { put, ..Way::default() },
            ))
        }
    }
}

fn decide(
    bucket: &Bucket,
    project: &Project,
    state: Option<&State>,
    there: &Index,
    take: Option<Take>,
) -> Result<Way, RemoteError> {
    if let Some(path) =
        there.files.keys().find(|path| folder::as_text(path.as_ref()).as_ref() != Some(path))
    {
        return Err(bucket
            .damaged(format!("its index lists {path:?}, which is no path of a file in a project: the store was damaged, or changed by somebody")));
    }
    let (known, strange) = split(project, there);
    if let Some(path) =
        strange.iter().find(|path| state.is_none_or(|s| !s.index.files.contains_key(**path)))
    {
        tracing::warn!(
            "store {}: its index lists {path:?} and {} other files that no stage of this pipeline keeps; they are left alone",
            bucket.url,
            strange.len() - 1
        );
    }
    let mut here = project.scan();
    // Files of runs that the scan does not see: such as those of runs without metadata.
    let listed = known.files.keys().chain(state.iter().flat_map(|state| state.index.files.keys()));
    let busy = here.busy.clone();
    for path in listed.filter(|path| !busy.iter().any(|busy| state::is_within(path, busy))) {
        if !here.files.contains_key(path)
            && project.of_index(path).is_some()
            && let Some(found) = standing(&project.locate(path)?)
        {
            here.files.insert(path.clone(), found);
        }
    }
    let same = |path: &str, file: &Standing, entry: &Entry| {
        project.locate(path).is_ok_and(|path| has_content(&path, file.bytes, file.modified, entry))
    };
    match compare(&here, state, &known, take, &same) {
        Verdict::Go(mut way) => {
            // What a person removed here goes there too, whatever it was.
            let removed =
                |path: &&String| state.is_some_and(|s| is_ours(s, there) && s.was_removed(path));
            way.gone_here.extend(strange.into_iter().filter(removed).cloned());
            Ok(way)
        }
        Verdict::Diverged(own) => Err(diverged(bucket, there, &own)),
    }
}

/// The index with the files of the pipeline's state alone, and the others that it lists: those of
/// stages that had other settings, and what nobody of this program has put there.
fn split<'a>(project: &Project, there: &'a Index) -> (Index, Vec<&'a String>) {
    let mut known = there.clone();
    known.files.retain(|path, _| project.of_index(path).is_some());
    let strange = there.files.keys().filter(|path| !known.files.contains_key(*path)).collect();
    (known, strange)
}

fn diverged(bucket: &Bucket, there: &Index, own: &[String]) -> RemoteError {
    let shown: Vec<&str> = own.iter().take(3).map(String::as_str).collect();
    let more = if own.len() > 3 { format!(" and {} more", own.len() - 3) } else { String::new() };
    RemoteError::new(
        Kind::Diverged,
        format!(
            "store {}: {} left it in a state that this folder does not go on from; here {}{more} are other than there\n  \
             = `--take store` goes on with the store's state and moves these files to {STATE_FOLDER}/aside\n  \
             = `--take folder` goes on with this folder's and gives up the store's\n  \
             = `--store none` leaves the store alone; two trainings each need a store of their own",
            bucket.url,
            there.origin(),
            shown.join(", ")
        ),
    )
}

/// Makes the folder as the store is, but for what is here alone.
fn bring_here(
    bucket: &Bucket,
    project: &Project,
    state: Option<State>,
    there: &Index,
    way: &Way,
    about_to: &dyn Fn(usize, u64),
) -> Result<Fetched, RemoteError> {
    let root = &project.root;
    let mut state =
        state.unwrap_or_else(|| State::of(&bucket.url, Index::empty(&project.pipeline)));
    if state.index.commit != there.commit {
        // Should this process be killed, the next one finds files of either state.
        state.fetching = Some(there.clone());
        state.save(root)?;
    }
    let aside = format!("{STATE_FOLDER}/aside/{}", chrono::Utc::now().format("%Y%m%d-%H%M%S"));
    for path in &way.aside {
        move_aside(root, &project.locate(path)?, path, &aside)?;
    }
    let fetched = fetch(bucket, project, there, &way.get, about_to)?;
    for path in &way.gone_there {
        let file = project.locate(path)?;
        atomic::remove(&file)?;
        remove_empty_folders(root, &file);
    }
    let removed = std::mem::take(&mut state.removed);
    State { removed, ..State::of(&bucket.url, there.clone()) }.save(root)?;
    Ok(fetched)
}

fn move_aside(root: &Path, file: &Path, path: &str, aside: &str) -> Result<(), RemoteError> {
    let target = root.join(aside).join(path);
    atomic::create_folder(target.parent().unwrap_or(root))?;
    Ok(atomic::put_in_place(file, &target)?)
}

/// A run's folder with nothing but locks in it would count as one that was never begun.
fn remove_empty_folders(root: &Path, file: &Path) {
    let mut folder = file.to_owned();
    while folder.pop() && folder != *root {
        let Ok(entries) = std::fs::read_dir(&folder) else { return };
        let left: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        if !left.iter().all(|path| is_needless(path)) {
            return;
        }
        left.iter().for_each(|path| drop(std::fs::remove_file(path)));
        if std::fs::remove_dir(&folder).is_err() {
            return;
        }
    }
}

/// Whether a file is worth nothing without the others of its folder.
fn is_needless(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_ours =
        ["run.lock", "metadata.json.previous"].contains(&&*name) || atomic::is_temporary(&name);
    is_ours && !path.is_dir()
}
