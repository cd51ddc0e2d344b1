//! Checkpoints that a program wrote in a form of its own: a file or a folder, untouched, and beside
//! it, as `NAME.json`, what this program knows of it: the header that its own files begin with, and
//! the length and digest of each file.
//!
//! The digest of a checkpoint that is one file is `blake3:…`, as `b3sum` gives it. That of a folder
//! is `blake3-tree:…`: BLAKE3 over a line `DIGEST  PATH` for each file, sorted by path.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pipe_fs::atomic::{self, WriteError};
use pipe_fs::{Disk, bounded_read, checksummed_json, sync};
use serde::{Deserialize, Serialize};

use super::Header;
use super::format::{BLAKE3, CHUNK, Corruption, TREE, Written};
use super::share::share;

/// The files of a checkpoint that a program wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProgramFiles {
    /// Whether it is a folder; else it is one file.
    pub folder: bool,
    files: Vec<ProgramFile>,
}

/// One file of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ProgramFile {
    /// Inside the folder, with `/`; empty where the checkpoint is one file.
    path: String,
    bytes: u64,
    /// BLAKE3 of its content, in hexadecimal digits.
    digest: String,
}

/// What stands beside such a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Beside {
    /// The header, as checkpoint files of this program have it.
    header: BTreeMap<String, String>,
    #[serde(flatten)]
    content: ProgramFiles,
}

/// Where the header of a program's checkpoint stands.
pub fn header_beside(path: &Path) -> PathBuf {
    path.with_added_extension("json")
}

/// The header beside a checkpoint and its files, if it is a program's.
pub(super) fn read_beside(
    path: &Path,
) -> Result<Option<(Header, ProgramFiles)>, (Corruption, String)> {
    let beside = header_beside(path);
    let unreadable = |e: io::Error| {
        (Corruption::Unreadable, format!("failed to read {}: {e}", beside.display()))
    };
    let bytes = match bounded_read::read(&beside, bounded_read::RECORD) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        read => read.map_err(unreadable)?,
    };
    let altered = |e: String| (Corruption::Altered, format!("{}: {e}", beside.display()));
    let Beside { header, content } = checksummed_json::from_bytes(&bytes).map_err(altered)?;
    let header = Header::from_metadata(header)?;
    content.stand_at(path).map_err(|message| (Corruption::Torn, message))?;
    Ok(Some((header, content)))
}

impl ProgramFiles {
    /// Their length in all.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// What identifies the content.
    pub fn digest(&self) -> String {
        match &self.files[..] {
            [only] if !self.folder => format!("{BLAKE3}{}", only.digest),
            files => {
                let mut hash = blake3::Hasher::new();
                for file in files {
                    hash.update(format!("{}  {}\n", file.digest, file.path).as_bytes());
                }
                format!("{TREE}{}", hash.finalize().to_hex())
            }
        }
    }

    /// The path of each file of the checkpoint at `path`.
    pub fn paths(&self, path: &Path) -> Vec<PathBuf> {
        let whole = |file: &ProgramFile| {
            if self.folder { path.join(&file.path) } else { path.to_owned() }
        };
        self.files.iter().map(whole).collect()
    }

    /// Looks at names and lengths alone.
    fn stand_at(&self, path: &Path) -> Result<(), String> {
        for (file, at) in self.files.iter().zip(self.paths(path)) {
            let found = fs::metadata(&at).ok().filter(fs::Metadata::is_file).map(|m| m.len());
            let shown = if file.path.is_empty() { "the file" } else { &file.path };
            match found {
                Some(bytes) if bytes == file.bytes => {}
                Some(bytes) => {
                    return Err(format!(
                        "{shown} has {bytes} bytes, it was written with {}",
                        file.bytes
                    ));
                }
                None => return Err(format!("{shown} is not there")),
            }
        }
        Ok(())
    }

    /// Reads all of it, and compares.
    pub fn verify(&self, path: &Path) -> Result<(), (Corruption, String)> {
        let unreadable = |e: io::Error| (Corruption::Unreadable, format!("failed to read: {e}"));
        let altered = |message: String| (Corruption::Altered, message);
        self.stand_at(path).map_err(altered)?;
        let names: Vec<String> = self.files.iter().map(|file| file.path.clone()).collect();
        if self.folder && list(path).map_err(unreadable)? != names {
            return Err(altered(
                "its folder holds other files than it was written with".to_owned(),
            ));
        }
        let found = digests(&self.paths(path)).map_err(unreadable)?;
        let wrong = self.files.iter().zip(found).find(|(file, (_, digest))| file.digest != *digest);
        match wrong {
            None => Ok(()),
            Some((file, _)) if file.path.is_empty() => {
                Err(altered("it does not have its digest: the file was altered".to_owned()))
            }
            Some((file, _)) => Err(altered(format!("{} was altered", file.path))),
        }
    }

    /// The files of what a program wrote, read once.
    ///
    /// # Errors
    /// The disk's; a link, a pipe or a device among them, and an empty folder.
    pub fn of(path: &Path) -> io::Result<Self> {
        let folder = fs::symlink_metadata(path)?.is_dir();
        let names = if folder { list(path)? } else { vec![only_file(path)?] };
        if names.is_empty() {
            return Err(io::Error::other("the folder holds no file"));
        }
        let whole = |name: &String| if folder { path.join(name) } else { path.to_owned() };
        let read = digests(&names.iter().map(whole).collect::<Vec<_>>())?;
        let of = |(path, (bytes, digest))| ProgramFile { path, bytes, digest };
        Ok(Self { folder, files: names.into_iter().zip(read).map(of).collect() })
    }
}

/// The empty name of a checkpoint that is one file.
fn only_file(path: &Path) -> io::Result<String> {
    if fs::symlink_metadata(path)?.is_file() {
        Ok(String::new())
    } else {
        Err(io::Error::other("a link, a pipe or a device; a checkpoint is a file or a folder"))
    }
}

/// The files of a folder and of those in it, with `/`, sorted.
fn list(folder: &Path) -> io::Result<Vec<String>> {
    let (mut names, mut folders) = (Vec::new(), vec![String::new()]);
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(folder.join(&inner))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                let wrong = format!("a name that is not UTF-8: {}", entry.path().display());
                return Err(io::Error::other(wrong));
            };
            let name = if inner.is_empty() { name } else { format!("{inner}/{name}") };
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(name),
                kind if kind.is_file() => names.push(name),
                _ => {
                    let wrong = format!("{name} is a link, a pipe or a device, not a file");
                    return Err(io::Error::other(wrong));
                }
            }
        }
    }
    names.sort();
    Ok(names)
}

/// Length and digest of each file; several are read at a time.
fn digests(paths: &[PathBuf]) -> io::Result<Vec<(u64, String)>> {
    let buffer = || Ok(vec![0; CHUNK]);
    share(paths, buffer, |buffer: &mut Vec<u8>, path| digest(path, buffer))
}

fn digest(path: &Path, buffer: &mut [u8]) -> io::Result<(u64, String)> {
    let (mut file, mut hash, mut bytes) = (File::open(path)?, blake3::Hasher::new(), 0);
    loop {
        match file.read(buffer)? {
            0 => return Ok((bytes, hash.finalize().to_hex().to_string())),
            read => {
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

/// Makes what a program wrote the checkpoint at `path`: moved there by a rename, whole or not at
/// all. It is read once, for its digest, while the disk takes it in.
///
/// # Errors
/// The disk's, and what is no file or folder of files.
pub fn take_in(
    disk: &Disk,
    written: &Path,
    path: &Path,
    header: &Header,
) -> Result<Written, WriteError> {
    let content = std::thread::scope(|scope| {
        let durable = || {
            if written.is_dir() {
                sync::tree(disk, written)
            } else {
                sync::contents(disk, &[written.to_owned()])
            }
        };
        let syncing = std::thread::Builder::new().spawn_scoped(scope, durable);
        let content = ProgramFiles::of(written).map_err(atomic::failed(disk, "read", written));
        if let Ok(syncing) = syncing {
            syncing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        content
    })?;
    // One of the same name is damaged, or another run's that was given a name of its own.
    if fs::symlink_metadata(path).is_ok() {
        remove(disk, path)?;
    }
    let (bytes, file_digest) = (content.bytes(), content.digest());
    let text = checksummed_json::to_text(&Beside { header: header.to_metadata(), content });
    atomic::write(disk, &header_beside(path), |out| out.write_all(text.as_bytes()))?;
    atomic::move_in(disk, written, path)?;
    Ok(Written { bytes, state_digest: file_digest.clone(), file_digest })
}

/// Removes a checkpoint, whatever it is made of; one that is gone already is fine.
pub fn remove(disk: &Disk, path: &Path) -> Result<(), WriteError> {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    if is_folder {
        atomic::remove_tree(disk, path)?
    } else {
        atomic::remove(disk, path)?
    }
    let beside = header_beside(path);
    if beside.exists() { atomic::remove(disk, &beside) } else { Ok(()) }
}

/// Makes `link` another name of the checkpoint at `path`, which stands in the same folder.
pub fn link(disk: &Disk, path: &Path, link: &Path) -> Result<(), WriteError> {
    let (beside, link_beside) = (header_beside(path), header_beside(link));
    if beside.exists() {
        atomic::link(disk, &beside, &link_beside)?;
    } else if link_beside.exists() {
        atomic::remove(disk, &link_beside)?;
    }
    if path.is_dir() {
        atomic::link_folder(disk, path, link)
    } else {
        atomic::link(disk, path, link)
    }
}

/// Moves a checkpoint to another name in its folder, where nothing stands.
pub fn rename(disk: &Disk, path: &Path, to: &Path) -> Result<(), WriteError> {
    let beside = header_beside(path);
    if beside.exists() {
        atomic::link(disk, &beside, &header_beside(to))?;
    }
    atomic::move_in(disk, path, to)?;
    if beside.exists() { atomic::remove(disk, &beside) } else { Ok(()) }
}
