//! Downloads files of the store into the folder: whole and verified, or not at all. Files that say
//! that others are there come last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use pipe_engine::identity::hex;
use pipe_fs::copy::copy;
use pipe_fs::{Disk, atomic, disk_space};
use sha2::{Digest, Sha256};

use crate::bucket::Bucket;
use crate::digest;
use crate::error::RemoteError;
use crate::index::{Entry, Index};
use crate::project::Project;

/// What was downloaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownloadSummary {
    pub files: usize,
    pub bytes: u64,
    /// Which process wrote the index, and when.
    pub from: String,
}

/// Downloads these files of an index. `before_download` is called with the number of files and
/// bytes before the first of them.
pub(crate) fn download(
    bucket: &Bucket,
    project: &Project,
    index: &Index,
    paths: &[String],
    before_download: &dyn Fn(usize, u64),
) -> Result<DownloadSummary, RemoteError> {
    let mut order: Vec<(u8, &String, &Entry)> =
        paths.iter().filter_map(|path| Some((rank(path), path, index.files.get(path)?))).collect();
    order.sort_by_key(|(rank, path, _)| (*rank, *path));
    let mut downloaded = DownloadSummary { from: index.origin(), ..DownloadSummary::default() };
    // A content that several names share is downloaded once.
    let mut there: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let wanted: BTreeMap<String, u64> =
        order.iter().map(|(_, path, entry)| (entry.key(path), entry.bytes)).collect();
    let bytes = wanted.values().sum();
    if !paths.is_empty() {
        before_download(paths.len(), bytes);
    }
    check_disk_space(&project.root, bytes)?;
    remove_temporary_files(project, paths)?;
    for (_, path, entry) in order {
        let target = project.locate(path)?;
        atomic::create_folder(project.root.disk(), target.parent().unwrap_or(&project.root))?;
        let key = entry.key(path);
        let same = there.entry(key.clone()).or_default();
        // A run's `best` and `last` are names of its own files. Whoever writes to any other file
        // means that one alone.
        if let Some(own) = same.iter().find(|same| are_of_one_run(same, &target)) {
            atomic::link(project.root.disk(), own, &target)?;
        } else if let Some(same) = same.first() {
            copy(project.root.disk(), same, &target)?;
            set_modified(&target, entry);
        } else {
            download_file(project.root.disk(), bucket, path, &key, entry, &target)?;
            downloaded.bytes += entry.bytes;
        }
        same.push(target);
        downloaded.files += 1;
    }
    Ok(downloaded)
}

/// Whether both are checkpoints of the same run.
fn are_of_one_run(a: &Path, b: &Path) -> bool {
    a.parent() == b.parent() && a.parent().is_some_and(|folder| folder.ends_with("checkpoints"))
}

/// Removes temporary files that a killed download of these files left.
fn remove_temporary_files(project: &Project, paths: &[String]) -> Result<(), RemoteError> {
    let mut folders: BTreeMap<PathBuf, BTreeSet<&str>> = BTreeMap::new();
    for path in paths {
        let name = path.rsplit('/').next().unwrap_or(path);
        let folder = project.locate(path)?.parent().map(Path::to_owned).unwrap_or_default();
        folders.entry(folder).or_default().insert(name);
    }
    for (folder, names) in folders {
        atomic::remove_temporary_files_if(project.root.disk(), &folder, |name| {
            names.contains(name)
        });
    }
    Ok(())
}

/// The order of downloads: checkpoints and logs, then metadata that lists them, then records.
fn rank(path: &str) -> u8 {
    match path {
        path if path.starts_with(".pipe/") => 2,
        path if path.ends_with("/metadata.json") => 1,
        _ => 0,
    }
}

fn download_file(
    disk: &Disk,
    bucket: &Bucket,
    path: &str,
    key: &str,
    entry: &Entry,
    target: &Path,
) -> Result<(), RemoteError> {
    let mut failed = None;
    let written = atomic::write(disk, target, |out| {
        let mut hash = Sha256::new();
        let got = bucket.get(key, entry.bytes, &mut |piece| {
            hash.update(piece);
            out.write_all(piece).map_err(RemoteError::local)
        });
        if let Err(error) = got {
            failed = Some(error);
            return Err(io::Error::other("not fetched"));
        }
        if hex(&hash.finalize()) != entry.sha256 {
            failed = Some(bucket.damaged(format!(
                "{key} does not have the content that its index lists for {path}"
            )));
            return Err(io::Error::other("damaged"));
        }
        Ok(())
    });
    match (written, failed) {
        (Err(_), Some(error)) => return Err(error),
        (written, _) => written?,
    }
    set_modified(target, entry);
    Ok(())
}

/// Gives the file the time that the index has, so that caches of digests stay valid.
fn set_modified(target: &Path, entry: &Entry) {
    let time = UNIX_EPOCH + Duration::from_nanos(entry.modified);
    let set = File::options().write(true).open(target).and_then(|file| file.set_modified(time));
    if let Err(error) = set {
        tracing::debug!("{}: failed to set its time: {error}", target.display());
    }
}

fn check_disk_space(folder: &Path, bytes: u64) -> Result<(), RemoteError> {
    match disk_space::free(folder) {
        Some(free) if free < bytes => Err(RemoteError::local(format!(
            "{:.1} MB are to be fetched, and only {:.1} MB are free at {}",
            bytes as f64 / 1e6,
            free as f64 / 1e6,
            folder.display()
        ))),
        _ => Ok(()),
    }
}

/// Whether the file at a path has an entry's content; read only if its size fits and its time does
/// not.
pub(crate) fn has_content(path: &Path, bytes: u64, modified: u64, entry: &Entry) -> bool {
    if bytes != entry.bytes {
        return false;
    }
    modified == entry.modified
        || File::open(path)
            .and_then(|file| digest::of_file(&file, bytes))
            .is_ok_and(|found| found == entry.sha256)
}
