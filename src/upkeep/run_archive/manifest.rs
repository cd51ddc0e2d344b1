//! The list that an archive begins with.

use std::collections::BTreeSet;

use pipe_runs::{RunNumber, is_plain_name, is_run_file};
use serde::{Deserialize, Serialize};

/// What the list is called.
pub(super) const MANIFEST: &str = "manifest.json";
/// What every list says of itself.
pub(super) const FORMAT: &str = "pipe-run";
/// Version of its form.
pub(super) const VERSION: u32 = 1;
/// Bytes of the longest list that is read.
pub(super) const LONGEST_MANIFEST: u64 = 32 << 20;
/// The most files of an archive.
pub(super) const MOST_FILES: usize = 100_000;

/// The list of what is in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub(super) format: String,
    pub(super) version: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// The number that the run had.
    pub run_number: u32,
    pub pipeline: String,
    pub stage: String,
    /// The folder of numbered runs that it was in, relative to its project; unset if it was in
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<String>,
    pub files: Vec<ArchivedFile>,
}

/// A file of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedFile {
    /// Relative to the run's folder, with `/`.
    pub path: String,
    pub bytes: u64,
    /// `sha256:…`, with the digits that `sha256sum` gives it.
    pub digest: String,
    /// The file before this one of which it is another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

impl Manifest {
    /// The folder of the run in the archive.
    pub(super) fn folder(&self) -> String {
        format!("run_{}", RunNumber(self.run_number))
    }

    /// Bytes that the files take, further names not counted.
    ///
    /// # Errors
    /// No disk has so many.
    pub(super) fn bytes(&self) -> Result<u64, String> {
        let mut sizes = self.files.iter().filter(|f| f.link.is_none()).map(|f| f.bytes);
        let sum = sizes.try_fold(0u64, |sum, bytes| sum.checked_add(bytes));
        sum.ok_or_else(|| "its files would take more bytes than there are".to_owned())
    }

    /// Reads a list, and refuses one that names anything but the files of a run, each once.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(text)
            .map_err(|e| format!("its {MANIFEST} is not valid: {e}"))?;
        if manifest.format != FORMAT {
            return Err(format!("it is no archive of a run: its format is {:?}", manifest.format));
        }
        if manifest.version > VERSION {
            return Err(format!(
                "it was written by a newer version of the program, {:?}",
                manifest.program
            ));
        }
        if manifest.run_number == 0 {
            return Err("runs are counted from 1, and it is of run 0".to_owned());
        }
        if manifest.files.len() > MOST_FILES {
            return Err(format!("it lists more than {MOST_FILES} files"));
        }
        manifest.bytes()?;
        let (mut names, mut plain) = (BTreeSet::new(), BTreeSet::new());
        for file in &manifest.files {
            let (path, shown) = (file.path.as_str(), format!("{:?}", file.path));
            if !is_run_file(path) {
                return Err(format!("it lists {shown}, which is no file of a run"));
            }
            // Some file systems take both for one name.
            if !names.insert(path.to_lowercase()) {
                return Err(format!("it lists {shown} twice"));
            }
            match &file.link {
                None => _ = plain.insert(path),
                Some(target) if plain.contains(target.as_str()) => {}
                Some(target) => {
                    return Err(format!("{shown} links to {target:?}, no file before it"));
                }
            }
        }
        if plain.contains("metadata.json") {
            Ok(manifest)
        } else {
            Err("it lists no metadata.json, so nobody knows what the run is".to_owned())
        }
    }

    /// The folder of runs that it was in, if that is one where this program keeps them unasked.
    pub fn usual_folder(&self) -> Option<&str> {
        let folder = self.runs.as_deref()?;
        folder.strip_prefix("checkpoints/").filter(|name| is_plain_name(name)).map(|_| folder)
    }
}
