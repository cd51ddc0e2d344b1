//! A file that a stage made or read, as a record has it: by which digest it counts, and by which
//! stamp it is known again without being read.

use std::path::Path;
use std::time::SystemTime;

use pipe_fs::{FileError, Stamp};
use serde::{Deserialize, Serialize};

use crate::file_formats::FileFormats;

/// A file that a stage made or read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Relative to the project.
    pub path: String,
    /// `sha256:…` of the file.
    pub digest: String,
    pub bytes: u64,
    /// When the file was last changed, in nanoseconds since 1970; 0 if that is not known yet.
    #[serde(default)]
    pub modified: u64,
    /// [`Stamp::changed`]; 0 where the file's times did not tell yet whether it is still the same,
    /// and in records of earlier versions. Such a file is read again.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub changed: u64,
    /// [`Stamp::inode`]
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub inode: u64,
}

impl Output {
    /// A file that is about to be written.
    pub fn expected(path: &str, digest: &str, bytes: u64) -> Self {
        let (path, digest) = (path.to_owned(), digest.to_owned());
        Self { path, digest, bytes, modified: 0, changed: 0, inode: 0 }
    }

    /// The file as it is on disk now. Where its digest is to be compared with a `known` one, it is
    /// of the same form.
    pub(crate) fn of(
        root: &Path,
        path: &str,
        known: Option<&str>,
        formats: &dyn FileFormats,
    ) -> Result<Self, FileError> {
        let file = root.join(path);
        let look = || std::fs::metadata(&file).map(|metadata| Stamp::of(&metadata));
        let begun = SystemTime::now();
        let before = look().map_err(FileError::reading(&file))?;
        let digest = formats.digest(&file, known).map_err(FileError::reading(&file))?;
        let stamp = look().map_err(FileError::reading(&file))?;
        let told = stamp == before && stamp.tells(begun);
        let (changed, inode) = if told { (stamp.changed, stamp.inode) } else { (0, 0) };
        Ok(Self {
            path: path.to_owned(),
            digest,
            bytes: stamp.bytes,
            modified: stamp.modified,
            changed,
            inode,
        })
    }

    /// The file as it is on disk now, `metadata`; read only if it may be another one.
    pub(crate) fn restamped(
        &self,
        root: &Path,
        metadata: &std::fs::Metadata,
        formats: &dyn FileFormats,
    ) -> Result<Self, FileError> {
        let Self { bytes, modified, changed, inode, .. } = *self;
        if changed != 0 && Stamp::of(metadata) == (Stamp { bytes, modified, changed, inode }) {
            Ok(self.clone())
        } else {
            Self::of(root, &self.path, Some(&self.digest), formats)
        }
    }

    /// The file as it is on disk now, if it still has its content. It is read again only if it may
    /// be another one.
    pub(crate) fn if_unchanged(&self, root: &Path, formats: &dyn FileFormats) -> Option<Self> {
        let metadata = std::fs::metadata(root.join(&self.path)).ok()?;
        let again = || self.restamped(root, &metadata, formats).ok();
        (metadata.len() == self.bytes).then(again).flatten().filter(|now| now.digest == self.digest)
    }
}

fn is_nothing(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_formats::PlainFiles;

    #[test]
    fn an_output_stands_until_its_content_changes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "one").unwrap();
        let output = Output::of(folder.path(), "f", None, &PlainFiles).unwrap();
        let is_unchanged =
            |output: &Output| output.if_unchanged(folder.path(), &PlainFiles).is_some();
        assert!(is_unchanged(&output));
        let touched = Output { modified: 1, ..output.clone() };
        assert!(is_unchanged(&touched), "another time, the same content");
        let old = serde_json::json!({"path": "f", "digest": output.digest, "bytes": 3, "modified": output.modified});
        let old: Output = serde_json::from_value(old).unwrap();
        assert!(is_unchanged(&old), "a record of an earlier version");
        std::fs::write(folder.path().join("f"), "two").unwrap();
        assert!(!is_unchanged(&touched));
        std::fs::remove_file(folder.path().join("f")).unwrap();
        assert!(!is_unchanged(&output));
    }
}
