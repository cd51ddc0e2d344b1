//! Takes a run in from an archive that may come from anyone.

use std::io::{self, Read};
use std::path::Path;

use pipe_fs::{Disk, atomic, checksummed_json, disk_space};
use pipe_runs::{CHECKPOINTS, CheckpointRecord, Metadata, Run, Runs, checkpoint};
use tar::{Archive, Entry, EntryType};

use super::check::check;
use super::error::{ArchiveError, refused};
use super::exact_bytes::ExactBytes;
use super::long_names::Names;
use super::manifest::{ArchivedFile, LONGEST_MANIFEST, MANIFEST, Manifest};

/// A run that was taken in.
pub struct Imported {
    pub run: Run,
    pub manifest: Manifest,
    /// Whether it was there already, so that nothing was written.
    pub was_there: bool,
}

/// Takes the run of an archive in as a new one, with the next free number or the one that is given.
/// A run that its folder has already is taken in once more only with a number.
///
/// `shown` names the archive in messages; `choose` says which folder of runs it goes to.
///
/// # Errors
/// An archive that is not what it says of itself, a number that is taken, a disk without the room:
/// nothing is there then that was not there before.
pub fn import(
    disk: &Disk,
    from: impl Read,
    shown: &str,
    number: Option<u32>,
    choose: impl FnOnce(&Manifest) -> Result<Runs, ArchiveError>,
) -> Result<Imported, ArchiveError> {
    let refuse = refused::<String>(shown);
    let cannot = refused::<io::Error>(shown);
    let mut tar = Archive::new(from);
    // Raw: the reader would take names of any length into memory.
    let mut entries = tar.entries().map_err(&cannot)?.raw(true);
    let first = entries.next().ok_or_else(|| refuse("it is empty".to_owned()))?;
    let mut first = first.map_err(|_| refuse("it is no archive of a run".to_owned()))?;
    let manifest = read_manifest(&mut first).map_err(&refuse)?;
    let runs = choose(&manifest)?;
    if number.is_some_and(|number| runs.find(number).is_some()) {
        return Err(refuse(format!(
            "a run of that number is in {} already",
            runs.folder().display()
        )));
    }
    if number.is_none()
        && let Some(run) = same_run(&runs, &manifest)
    {
        return Ok(Imported { run, manifest, was_there: true });
    }
    atomic::create_folder(disk, runs.folder())?;
    let needed = manifest.bytes().map_err(&refuse)?;
    if let Some(free) = disk_space::free(runs.folder()).filter(|free| *free < needed) {
        return Err(refuse(format!("its files take {needed} bytes, and {free} are free")));
    }
    let hidden = atomic::temporary(&runs.folder().join(IMPORT));
    atomic::create_folder(disk, &hidden)?;
    let unpacked = (|| {
        for file in &manifest.files {
            let missing = || refuse(format!("it ends before {}", file.path));
            let mut entry = entries.next().ok_or_else(missing)?.map_err(&cannot)?;
            let long = Names::before(&mut entry).map_err(&refuse)?;
            if long.is_some() {
                entry = entries.next().ok_or_else(missing)?.map_err(&cannot)?;
            }
            let names = long.unwrap_or_default().or_of(&entry);
            take_in(disk, &mut entry, &names, file, &manifest, &hidden, &refuse)?;
        }
        if entries.next().is_some() {
            return Err(refuse("it holds more than it lists".to_owned()));
        }
        check_labels(&hidden)?;
        let metadata = check(&hidden)?;
        link_folders(disk, &hidden, &metadata)?;
        place(disk, &runs, number, &hidden, metadata, &refuse)
    })();
    if unpacked.is_err() && hidden.exists() {
        atomic::remove_tree(disk, &hidden)?;
    }
    Ok(Imported { run: unpacked?, manifest, was_there: false })
}

/// The run of a folder that an archive holds: its metadata, but for the number, and all of its files.
fn same_run(runs: &Runs, manifest: &Manifest) -> Option<Run> {
    let archived = manifest.files.iter().find(|file| file.path == METADATA)?;
    let is_same = |run: &Run| {
        let Ok(metadata) = run.metadata() else { return false };
        let metadata = Metadata { run_number: manifest.run_number, ..metadata };
        let text = checksummed_json::to_text(&metadata);
        let mut bytes = ExactBytes::new(text.as_bytes(), text.len() as u64);
        io::copy(&mut bytes, &mut io::sink()).is_ok_and(|_| bytes.digest() == archived.digest)
    };
    let has = |run: &Run, file: &ArchivedFile| {
        let found = std::fs::metadata(run.folder.join(&file.path));
        file.path == METADATA || found.is_ok_and(|found| found.len() == file.bytes)
    };
    let has_all = |run: &Run| manifest.files.iter().all(|file| has(run, file));
    runs.list().into_iter().find(|run| is_same(run) && has_all(run))
}

const METADATA: &str = "metadata.json";

/// What is being unpacked is called so until it is a run.
pub(crate) const IMPORT: &str = "import";

fn read_manifest(entry: &mut Entry<impl Read>) -> Result<Manifest, String> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let folder = name.strip_suffix(MANIFEST).and_then(|folder| folder.strip_suffix('/'));
    let folder = folder.ok_or_else(|| {
        format!("it is no archive of a run: it begins with {name:?}, and not with a {MANIFEST}")
    })?;
    if entry.header().entry_type() != EntryType::Regular || entry.size() > LONGEST_MANIFEST {
        return Err(format!("its {MANIFEST} is no plain file, or longer than any"));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(|e| e.to_string())?;
    let manifest = Manifest::parse(&text)?;
    if folder == manifest.folder() {
        Ok(manifest)
    } else {
        Err(format!("it is of {}, and its files are in {folder:?}", manifest.folder()))
    }
}

/// Writes the file of an entry, which must be the one that was announced.
fn take_in(
    disk: &Disk,
    entry: &mut Entry<impl Read>,
    names: &Names,
    file: &ArchivedFile,
    manifest: &Manifest,
    folder: &Path,
    refuse: &impl Fn(String) -> ArchiveError,
) -> Result<(), ArchiveError> {
    let inside = |path: &str| format!("{}/{path}", manifest.folder());
    if !names.is(&inside(&file.path)) {
        let name = names.shown();
        return Err(refuse(format!("it has {name:?} where it lists {}", file.path)));
    }
    let path = folder.join(&file.path);
    path.parent().map_or(Ok(()), |parent| atomic::create_folder(disk, parent))?;
    let kind = entry.header().entry_type();
    if let Some(target) = &file.link {
        let leads = names.leads_to(&inside(target));
        if !(kind == EntryType::Link && entry.size() == 0 && leads) {
            return Err(refuse(format!("{} is no link to {target}, as it lists", file.path)));
        }
        return Ok(atomic::link(disk, &folder.join(target), &path)?);
    }
    if kind != EntryType::Regular {
        return Err(refuse(format!("{} is a link, device or other special file", file.path)));
    }
    if entry.size() != file.bytes {
        let (found, listed) = (entry.size(), file.bytes);
        return Err(refuse(format!("{} has {found} bytes, and it lists {listed}", file.path)));
    }
    let mut bytes = ExactBytes::new(entry, file.bytes);
    let mut cut = None;
    let written = atomic::write(disk, &path, |out| {
        let mut piece = vec![0; PIECE];
        while bytes.left > 0 {
            // What the archive does not give is no fault of the disk.
            let read = bytes.read(&mut piece).inspect_err(|e| cut = Some(e.to_string()))?;
            out.write_all(&piece[..read])?;
        }
        Ok(())
    });
    if let Some(why) = cut {
        return Err(refuse(format!("it is cut off within {}: {why}", file.path)));
    }
    written?;
    if bytes.digest() == file.digest {
        Ok(())
    } else {
        Err(refuse(format!("{} is damaged: it has another digest than it lists", file.path)))
    }
}

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// Refuses a note and tags that could not be read afterwards.
fn check_labels(folder: &Path) -> Result<(), ArchiveError> {
    let path = folder.join("labels.json");
    if !path.exists() {
        return Ok(());
    }
    let text = std::fs::read(&path).map_err(refused(path.display()))?;
    let read: Result<pipe_runs::Labels, _> = serde_json::from_slice(&text);
    read.map(drop).map_err(refused("labels.json"))
}

/// Gives the best and the newest checkpoint their second names where they are folders: no link to a
/// folder is in an archive.
fn link_folders(disk: &Disk, folder: &Path, metadata: &Metadata) -> Result<(), ArchiveError> {
    let epoch = |best: &CheckpointRecord| {
        let same = metadata.checkpoints.iter().find(|c| c.epoch == best.epoch);
        same.unwrap_or(best).path.clone()
    };
    let best = metadata.best_checkpoint.as_ref().map(epoch);
    let partial = metadata.partial_checkpoint.as_ref().map(|partial| partial.path.clone());
    let newest = partial.or_else(|| metadata.checkpoints.last().map(|c| c.path.clone()));
    for (name, path) in [("best.ckpt", best), ("last.ckpt", newest)] {
        let link = folder.join(CHECKPOINTS).join(name);
        let path = path.map(|path| folder.join(path)).filter(|path| path.is_dir());
        if let Some(path) = path.filter(|_| !link.exists()) {
            checkpoint::link(disk, &path, &link)?;
        }
    }
    Ok(())
}

/// Makes what was unpacked a run.
fn place(
    disk: &Disk,
    runs: &Runs,
    number: Option<u32>,
    unpacked: &Path,
    metadata: Metadata,
    refuse: &impl Fn(String) -> ArchiveError,
) -> Result<Run, ArchiveError> {
    let run = match number {
        None => runs.create()?,
        Some(number) => runs.create_numbered(number)?.ok_or_else(|| {
            refuse(format!("a run of that number is in {} already", runs.folder().display()))
        })?,
    };
    if metadata.run_number != run.number.0 {
        let metadata = Metadata { run_number: run.number.0, ..metadata };
        let text = checksummed_json::to_text(&metadata);
        atomic::write(disk, &unpacked.join(METADATA), |out| out.write_all(text.as_bytes()))?;
    }
    atomic::replace_empty_folder(disk, unpacked, &run.folder)?;
    Ok(run)
}
