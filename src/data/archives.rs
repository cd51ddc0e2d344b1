//! The published archives: their names, addresses and checksums, and having one of them at hand.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

use super::digest::hex;
use super::download;
use super::error::DataError;
use super::progress::Progress;
use super::settings::DatasetSettings;

/// An archive that its authors publish.
pub(crate) struct Published {
    pub file: &'static str,
    pub url: &'static str,
    pub md5: &'static str,
}

impl Published {
    /// The path of the archive in `root`: the one that is there, or a download of it.
    ///
    /// A download must have the published checksum. A file that was already there need not: see
    /// [`Published::compare`].
    pub fn obtain(
        &self,
        settings: &DatasetSettings,
        root: &Path,
        progress: &dyn Progress,
    ) -> Result<PathBuf, DataError> {
        let path = root.join(self.file);
        let url = settings.url.as_deref().unwrap_or(self.url);
        if path.is_file() {
            return Ok(path);
        }
        if !settings.download {
            return Err(DataError::Missing { path, url: url.to_owned() });
        }
        download::fetch(url, &path, Some(self.md5), progress)?;
        Ok(path)
    }

    /// Warns when a file is not the published one. Whether it can be used, its structure decides.
    pub fn compare(&self, path: &Path, md5: &str) {
        if md5 != self.md5 {
            tracing::warn!(
                "{} is not the published archive: its MD5 is {md5}, not {}; its own images and classes are used",
                path.display(),
                self.md5
            );
        }
    }
}

/// Reads a file and takes the MD5 of what is read.
pub(crate) struct HashedFile {
    file: File,
    digest: Md5,
}

impl HashedFile {
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::io("open", path))?;
        Ok(Self { file, digest: Md5::new() })
    }

    /// Reads to the end of the file; the MD5 of all of it.
    pub fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(hex(&self.digest.finalize()))
    }
}

impl Read for HashedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.digest.update(&buffer[..read]);
        Ok(read)
    }
}
