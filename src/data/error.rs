//! What can go wrong with data. Each message names the file or the key, and what to do next.

use std::io;
use std::path::{Path, PathBuf};

use pipe_fs::atomic::WriteError;

/// An error of a data set, its download, or its loader.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A setting is out of its range, or names something that does not exist.
    #[error("failed to accept `{key}`: {reason}")]
    Setting { key: &'static str, reason: String },

    /// A file or folder could not be read or written.
    #[error("failed to {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    /// The disk did not take something in.
    #[error(transparent)]
    Write(#[from] WriteError),

    /// The data is not there, and downloading is switched off.
    #[error("failed to find {}: set `download: true`, or get {url} and put it at that path", path.display())]
    Missing { path: PathBuf, url: String },

    /// A download did not come to its end.
    #[error(
        "failed to download {url}: {reason}; without a network, get this file elsewhere and put it at {}",
        path.display()
    )]
    Download { url: String, path: PathBuf, reason: String },

    /// A downloaded file is not the published one.
    #[error(
        "failed to verify {url}: its MD5 is {found}, but {expected} is published; nothing was kept. Try again, \
         or get the file elsewhere and put it at {}",
        path.display()
    )]
    Checksum { url: String, path: PathBuf, expected: String, found: String },

    /// An archive, or a file out of one, is truncated, corrupt, or not what its name says.
    #[error("failed to read {}: {at}: {reason}", file.display())]
    Archive { file: PathBuf, at: String, reason: String },

    /// An image could not be decoded.
    #[error("failed to decode the image {}: {reason}; replace or remove the file", file.display())]
    Image { file: PathBuf, reason: String },

    /// Several images could not be read.
    #[error("{}", of_many(root, bad, *total, list.as_deref()))]
    Images {
        root: PathBuf,
        bad: Vec<BadImage>,
        /// Images that were looked at.
        total: usize,
        /// A file that names all of the bad ones.
        list: Option<PathBuf>,
    },

    /// The check of the images was stopped by [`super::Progress::stopped`].
    #[error("the check of the images was stopped; what was checked is remembered")]
    Stopped,

    /// A file is not what it was when the data set was opened.
    #[error("failed to read the image {}: it changed since the data set was opened; run again", file.display())]
    Changed { file: PathBuf },

    /// A folder of images is not laid out as one folder for each class.
    #[error("failed to read the image folder {}: {reason}", path.display())]
    Folder { path: PathBuf, reason: String },

    /// A thread of the loader could not be started, or ended without a batch.
    #[error("failed to load batch {batch}: {reason}")]
    Worker { batch: usize, reason: String },
}

/// An image that cannot be read, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadImage {
    pub file: PathBuf,
    pub reason: String,
}

impl BadImage {
    /// One line, with the file's path below `root`.
    pub fn line(&self, root: &Path) -> String {
        let file = self.file.strip_prefix(root).unwrap_or(&self.file).display().to_string();
        // Names may hold line breaks and what moves a terminal's cursor.
        format!("{file}: {}", self.reason).replace(char::is_control, "\u{fffd}")
    }
}

/// Bad images that a message names, at most.
const MAX_SHOWN: usize = 10;

fn of_many(root: &Path, bad: &[BadImage], total: usize, list: Option<&Path>) -> String {
    let mut text =
        format!("failed to decode {} of {total} images in {}:", bad.len(), root.display());
    for image in bad.iter().take(MAX_SHOWN) {
        text.push_str("\n  ");
        text.push_str(&image.line(root));
    }
    if let Some(more) = bad.len().checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
        let all = list.map_or(String::new(), |list| format!("; {} names them all", list.display()));
        text.push_str(&format!("\n  and {more} more{all}"));
    }
    text.push_str(
        "\nreplace or remove these files; `pipe data` looks at all images and trains nothing",
    );
    text
}

impl DataError {
    pub(crate) fn setting(key: &'static str, reason: impl Into<String>) -> Self {
        Self::Setting { key, reason: reason.into() }
    }

    /// For `map_err`: `File::open(path).map_err(DataError::io("open", path))`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn archive(file: &Path, at: impl Into<String>, reason: impl ToString) -> Self {
        Self::Archive { file: file.to_owned(), at: at.into(), reason: reason.to_string() }
    }

    pub(crate) fn folder(path: &Path, reason: impl Into<String>) -> Self {
        Self::Folder { path: path.to_owned(), reason: reason.into() }
    }
}
