//! The index of a pipeline's state: which files there are, what each one holds, and which object
//! has it. It is what makes a change of the store count.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use pipe_fs::checksummed_json;
use serde::{Deserialize, Serialize};

use crate::digest;

const SCHEMA_VERSION: u32 = 1;

/// The state of a pipeline at one moment: which files there are, and which object holds each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    schema_version: u32,
    pub pipeline: String,
    /// Set when the first index was made: one of another line knows nothing of this one.
    #[serde(rename = "line")]
    pub lineage: String,
    /// Counts up; each number is given out once.
    pub generation: u64,
    /// Unlike that of any other index.
    pub commit: String,
    pub written_at: DateTime<Utc>,
    /// `pid 7 on host`
    pub written_by: String,
    /// By path in the project's folder.
    pub files: BTreeMap<String, Entry>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// 64 hexadecimal digits.
    pub sha256: String,
    pub bytes: u64,
    /// When the file was last changed, in nanoseconds since 1970.
    pub modified: u64,
    /// What is in the key of its own object besides the digest.
    #[serde(rename = "mark", default, skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// The object of another file that has the same content; it has none of its own then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
}

impl Entry {
    /// The key of the object that has the content of the file `path`.
    pub fn key(&self, path: &str) -> String {
        self.object.clone().unwrap_or_else(|| key(path, &self.sha256, &self.nonce))
    }
}

/// An object's key: the file's path, with the beginning of the content's digest and a mark in its
/// name. A person finds the file, and no key is ever used twice: so nobody who removes an old
/// object, however late, removes a newer one.
pub fn key(path: &str, sha256: &str, nonce: &str) -> String {
    let digest = format!("{}{nonce}", sha256.get(..8).unwrap_or(sha256));
    let (folder, name) = path.rsplit_once('/').map_or(("", path), |(folder, name)| (folder, name));
    let slash = if folder.is_empty() { "" } else { "/" };
    match name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()) {
        Some((stem, end)) => format!("{folder}{slash}{stem}-{digest}.{end}"),
        None => format!("{folder}{slash}{name}-{digest}"),
    }
}

impl Index {
    /// One that lists nothing, for a state that the store does not have yet.
    pub fn empty(pipeline: &str) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pipeline: pipeline.to_owned(),
            lineage: unique_id(),
            generation: 0,
            commit: String::new(),
            written_at: Utc::now(),
            written_by: String::new(),
            files: BTreeMap::new(),
        }
    }

    /// The next one, with these files.
    pub fn next(&self, files: BTreeMap<String, Entry>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            generation: self.generation + 1,
            commit: unique_id(),
            written_at: Utc::now(),
            written_by: format!("pid {} on {}", std::process::id(), pipe_fs::host()),
            files,
            pipeline: self.pipeline.clone(),
            lineage: self.lineage.clone(),
        }
    }

    pub fn to_text(&self) -> String {
        checksummed_json::to_text(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let index: Self = checksummed_json::from_bytes(bytes)?;
        match index.schema_version {
            SCHEMA_VERSION => Ok(index),
            other => {
                Err(format!("written in form {other}, and this program knows {SCHEMA_VERSION}"))
            }
        }
    }

    /// The keys of all objects, with the bytes of each.
    pub fn objects(&self) -> BTreeMap<String, u64> {
        self.files.iter().map(|(path, entry)| (entry.key(path), entry.bytes)).collect()
    }

    /// Who wrote it and when, for messages.
    pub fn origin(&self) -> String {
        format!("{} at {}", self.written_by, self.written_at.format("%Y-%m-%d %H:%M:%S UTC"))
    }
}

/// The mark of an object that is about to be put.
pub fn nonce() -> String {
    let random = unique_id();
    digest::of_bytes(random.as_bytes()).get(..8).unwrap_or_default().to_owned()
}

/// Text that no other process, on whatever machine, comes up with.
fn unique_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = Utc::now().timestamp_nanos_opt().unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Keys of a hash map are drawn by the system for each process.
    let random = RandomState::new().hash_one((now, std::process::id(), count));
    format!("{now:x}-{random:016x}-{count}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_and_which() {
        let key = |path| key(path, "0123456789abcdef0123", "55667788");
        assert_eq!(key("a/b/epoch_001.ckpt"), "a/b/epoch_001-0123456755667788.ckpt");
        assert_eq!(key("metadata"), "metadata-0123456755667788");
        assert_eq!(key("a/.hidden"), "a/.hidden-0123456755667788");
        assert_ne!(nonce(), nonce());
    }

    #[test]
    fn an_index_comes_back_and_damage_is_found() {
        let mut files = BTreeMap::new();
        let entry =
            Entry { sha256: "ab".into(), bytes: 3, modified: 7, nonce: nonce(), object: None };
        files.insert("a".to_owned(), entry);
        let index = Index::empty("p").next(files);
        assert_eq!(Index::from_bytes(index.to_text().as_bytes()), Ok(index.clone()));
        let torn = index.to_text().replace("\"ab\"", "\"ac\"");
        assert!(Index::from_bytes(torn.as_bytes()).is_err());
        assert_ne!(Index::empty("p").lineage, Index::empty("p").lineage);
    }
}
