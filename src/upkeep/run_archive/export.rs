//! Writes a run into an archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use pipe_fs::{Lock, atomic, file_id, sha256_of};
use pipe_runs::{Run, is_run_file, is_run_subfolder};
use tar::{Builder, EntryType, Header};

use super::check::check;
use super::error::{ArchiveError, refused};
use super::exact_bytes::ExactBytes;
use super::long_names;
use super::manifest::{ArchivedFile, FORMAT, MANIFEST, MOST_FILES, Manifest, VERSION};

/// Files of a run's folder that it is whole without.
const SPARE: [&str; 2] = ["run.lock", "metadata.json.previous"];

/// A run that is about to be written, which nobody can train in meanwhile.
pub struct RunExport {
    run: Run,
    manifest: Manifest,
    left_out: Vec<String>,
    _lock: Lock,
}

impl RunExport {
    /// Takes a run's lock, checks all of its files, and lists them with their digests. `runs` is
    /// the folder of numbered runs that it is in, relative to the project; `program` is the version
    /// of this program.
    ///
    /// # Errors
    /// Somebody trains in it, or it is damaged.
    pub fn prepare(run: &Run, runs: Option<String>, program: &str) -> Result<Self, ArchiveError> {
        let lock = run.lock()?;
        let metadata = check(&run.folder)?;
        let (mut files, mut left_out) = (Vec::new(), Vec::new());
        let mut known: HashMap<(u64, u64), usize> = HashMap::new();
        for (name, path) in files_of(&run.folder)? {
            if is_folder_link(&name, &path) {
                continue;
            }
            if !is_run_file(&name) || is_link(&path) {
                left_out.push(name);
                continue;
            }
            let id = file_id(&path);
            if let Some(first) = id.and_then(|id| known.get(&id)).and_then(|at| files.get(*at)) {
                let ArchivedFile { path, bytes, digest, .. } = ArchivedFile::clone(first);
                files.push(ArchivedFile { path: name, bytes, digest, link: Some(path) });
                continue;
            }
            id.map(|id| known.insert(id, files.len()));
            let size = path.metadata().map_err(refused(path.display()))?.len();
            let digest = sha256_of(&path).map_err(refused(path.display()))?;
            files.push(ArchivedFile { path: name, bytes: size, digest, link: None });
        }
        if files.len() > MOST_FILES {
            return Err(refused(run.folder.display())(format!(
                "it has more than {MOST_FILES} files"
            )));
        }
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: program.to_owned(),
            run_number: run.number.0,
            pipeline: metadata.pipeline,
            stage: metadata.stage,
            runs,
            files,
        };
        Ok(Self { run: run.clone(), manifest, left_out, _lock: lock })
    }

    /// What the archive lists.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Files in the run's folder that are none of the program's, and stay behind.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// It cannot be written, or a file is not what it was when it was listed.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut tar = Builder::new(out);
        let text = serde_json::to_vec_pretty(&self.manifest).map_err(io::Error::other)?;
        let mut header = self.header(&mut tar, MANIFEST, None, text.len() as u64)?;
        header.set_cksum();
        tar.append(&header, text.as_slice())?;
        for file in &self.manifest.files {
            match &file.link {
                Some(target) => {
                    let mut header = self.header(&mut tar, &file.path, Some(target), 0)?;
                    header.set_cksum();
                    tar.append(&header, io::empty())?;
                }
                None => self.append(&mut tar, file)?,
            }
        }
        tar.into_inner()?.flush()
    }

    fn append(&self, tar: &mut Builder<&mut dyn Write>, file: &ArchivedFile) -> io::Result<()> {
        let path = self.run.folder.join(&file.path);
        let changed = || io::Error::other(format!("{} was changed meanwhile", path.display()));
        let from = File::open(&path)?;
        let seconds =
            from.metadata()?.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let mut header = self.header(tar, &file.path, None, file.bytes)?;
        header.set_mtime(seconds.map_or(0, |since| since.as_secs()));
        header.set_cksum();
        let mut bytes = ExactBytes::new(from, file.bytes);
        tar.append(&header, &mut bytes)
            .map_err(|e| if e.kind() == io::ErrorKind::UnexpectedEof { changed() } else { e })?;
        if bytes.digest() == file.digest { Ok(()) } else { Err(changed()) }
    }

    /// The header of a file in the folder of the run, or of a link to another, but for its
    /// checksum. What it has no room for is written before it.
    fn header(
        &self,
        tar: &mut Builder<&mut dyn Write>,
        path: &str,
        link: Option<&str>,
        bytes: u64,
    ) -> io::Result<Header> {
        let inside = |path: &str| format!("{}/{path}", self.manifest.folder());
        let mut header = Header::new_ustar();
        long_names::name(tar, &mut header, &inside(path), link.map(inside).as_deref())?;
        header.set_entry_type(if link.is_some() { EntryType::Link } else { EntryType::Regular });
        header.set_mode(0o644);
        header.set_size(bytes);
        Ok(header)
    }
}

/// The files of a run's folder with their names in it, in an order that is always the same; no
/// spare ones, and none that are not finished.
fn files_of(folder: &Path) -> Result<Vec<(String, PathBuf)>, ArchiveError> {
    let mut found = Vec::new();
    collect(folder, "", &mut found).map_err(refused(folder.display()))?;
    found.retain(|(name, path)| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        !SPARE.contains(&name.as_str()) && !atomic::is_temporary(&file)
    });
    found.sort();
    // The names that a link gives a checkpoint come after its own.
    found.sort_by_key(|(name, _)| LINKS.contains(&name.as_str()));
    Ok(found)
}

const LINKS: [&str; 4] = [
    "checkpoints/best.ckpt",
    "checkpoints/best.ckpt.json",
    "checkpoints/last.ckpt",
    "checkpoints/last.ckpt.json",
];

fn collect(folder: &Path, inside: &str, found: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let own = entry.file_name().to_string_lossy().into_owned();
        let name = if inside.is_empty() { own } else { format!("{inside}/{own}") };
        if entry.file_type()?.is_dir() && is_run_subfolder(&name) {
            collect(&entry.path(), &name, found)?;
        } else {
            found.push((name, entry.path()));
        }
    }
    Ok(())
}

/// Whether it is the second name of a checkpoint that is a folder. Whoever takes the run in gives it
/// that name again.
fn is_folder_link(name: &str, path: &Path) -> bool {
    let leads_beside =
        || std::fs::read_link(path).is_ok_and(|target| target.components().count() == 1);
    LINKS.contains(&name) && path.is_dir() && leads_beside()
}

/// Whether it is anything but a plain file.
fn is_link(path: &Path) -> bool {
    !path.symlink_metadata().is_ok_and(|found| found.is_file())
}
