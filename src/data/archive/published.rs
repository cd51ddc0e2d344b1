//! The published archives: their names, addresses and checksums, and having one of them at hand.

use std::path::{Path, PathBuf};

use super::download;
use crate::error::DataError;
use crate::progress::Progress;
use crate::source::{Location, SourceOptions};

/// An archive that its authors publish.
pub(crate) struct PublishedArchive {
    pub file: &'static str,
    pub url: &'static str,
    pub md5: &'static str,
}

impl PublishedArchive {
    /// The path of the archive in the data set's folder: the one that is there, or a download of
    /// it.
    ///
    /// A download must have the published checksum. A file that was already there need not: see
    /// [`PublishedArchive::warn_if_modified`].
    pub fn find_or_download(
        &self,
        options: &SourceOptions<'_>,
        location: &Location<'_>,
        progress: &dyn Progress,
    ) -> Result<PathBuf, DataError> {
        let path = location.root.join(self.file);
        let url = options.url.unwrap_or(self.url);
        if path.is_file() {
            return Ok(path);
        }
        if !options.download {
            return Err(DataError::Missing { path, url: url.to_owned() });
        }
        download::fetch(location.cache.disk(), url, &path, Some(self.md5), progress)?;
        Ok(path)
    }

    /// Warns when a file is not the published one. Whether it can be used, its structure decides.
    pub fn warn_if_modified(&self, path: &Path, md5: &str) {
        if md5 != self.md5 {
            tracing::warn!(
                "{} is not the published archive: its MD5 is {md5}, not {}; its own images and classes are used",
                path.display(),
                self.md5
            );
        }
    }
}
