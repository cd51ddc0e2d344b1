//! Images that lie packed in a file: unpacked once to the project's cache.
//!
//! Everything is unpacked beside its target, synced and renamed at the end, so that an error or a
//! power cut leaves nothing half-written behind.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pipe_fs::{Disk, atomic};

use super::{lock, parquet_rows, unzip};
use crate::archive::unpack::{Limits, remove};
use crate::cache::CacheFolder;
use crate::cache::file_digests::{ContentDigest, FileDigests};
use crate::digest::{FieldDigest, hex};
use crate::error::DataError;
use crate::folder::scan;

/// Images hardly shrink: a file may unpack to so many times its size, and to a GiB in any case.
const MAX_RATIO: u64 = 20;
const MAX_ENTRIES: usize = 10_000_000;

/// How much files of so many bytes may hold.
fn limits(size: u64) -> Limits {
    Limits { bytes: size.saturating_mul(MAX_RATIO).max(1 << 30), entries: MAX_ENTRIES }
}

/// What images are packed in.
pub(crate) enum Packed {
    Zip(PathBuf),
    /// Not empty, in the order of their names.
    Parquet(Vec<PathBuf>),
}

impl Packed {
    /// What lies at `root`; `None` if that is a folder of images, or not there.
    ///
    /// # Errors
    /// A file of another kind, and a folder that cannot be read.
    pub fn at(root: &Path) -> Result<Option<Self>, DataError> {
        if root.is_dir() {
            return Ok(parquet_in(root)?.map(Self::Parquet));
        }
        if !root.is_file() {
            return Ok(None);
        }
        if has_extension(root, "zip") {
            return Ok(Some(Self::Zip(root.to_owned())));
        }
        if has_extension(root, PARQUET) {
            return Ok(Some(Self::Parquet(vec![root.to_owned()])));
        }
        let reason = "it is a file; set `root` to a folder, or to a .zip or .parquet file";
        Err(DataError::folder(root, reason))
    }

    /// Paths and glob patterns of what may lie packed at `root`.
    pub fn paths(root: &Path) -> Vec<PathBuf> {
        if has_extension(root, "zip") || has_extension(root, PARQUET) {
            return vec![root.to_owned()];
        }
        vec![root.join("*.parquet")]
    }

    /// The folder that it is unpacked in, after it was unpacked if need be. That goes by the
    /// content of the files.
    ///
    /// # Errors
    /// Files that cannot be read, are damaged, hold more than they may, or change meanwhile; a
    /// disk that is full.
    pub fn unpacked(&self, cache: &CacheFolder) -> Result<PathBuf, DataError> {
        let files = self.files();
        let digests = contents(files, cache)?;
        let target = cache.join("unpacked").join(self.name(&digests));
        if !target.is_dir() {
            let _lock = lock::beside(cache.disk(), &target)?;
            if !target.is_dir() {
                let is_unchanged = || Ok(contents(files, cache)? == digests);
                self.put_in_place(cache.disk(), &target, is_unchanged)?;
            }
        }
        match self {
            Self::Zip(_) => top(&target),
            Self::Parquet(_) => Ok(target),
        }
    }

    fn files(&self) -> &[PathBuf] {
        match self {
            Self::Zip(file) => std::slice::from_ref(file),
            Self::Parquet(files) => files,
        }
    }

    /// The name of the folder, by the content of the files.
    fn name(&self, digests: &[ContentDigest]) -> String {
        if let (Self::Zip(_), [only]) = (self, digests) {
            return hex(&only[..16]);
        }
        // Another number where rows become files in another way.
        let mut digest = FieldDigest::new("parquet 1");
        digests.iter().for_each(|content| digest.field(content));
        digest.finish()[..32].to_owned()
    }

    /// Unpacks to `target`, if the files are afterwards what they were before.
    fn put_in_place(
        &self,
        disk: &Disk,
        target: &Path,
        is_unchanged: impl FnOnce() -> Result<bool, DataError>,
    ) -> Result<(), DataError> {
        let partial = target.with_extension("part");
        remove(&partial)?; // left by a process that was killed
        let sizes = self
            .files()
            .iter()
            .map(|file| file.metadata().map(|m| m.len()).map_err(DataError::io("look at", file)));
        let limits = limits(sizes.sum::<Result<u64, DataError>>()?);
        fs::create_dir_all(&partial).map_err(DataError::io("create the folder", &partial))?;
        let unpacked = match self {
            Self::Zip(file) => unzip::unpack(file, &partial, limits),
            Self::Parquet(files) => parquet_rows::unpack(files, &partial, limits),
        };
        let result = unpacked.and_then(|()| {
            if is_unchanged()? {
                Ok(atomic::put_in_place(disk, &partial, target)?)
            } else {
                Err(DataError::Changed { file: self.files()[0].clone() })
            }
        });
        remove(&partial)?;
        result
    }
}

/// Whether `root` is a file, or a folder of files, that images are packed in.
///
/// # Errors
/// A file of another kind, and a folder that cannot be read.
pub fn is_packed(root: &Path) -> Result<bool, DataError> {
    Ok(Packed::at(root)?.is_some())
}

const PARQUET: &str = "parquet";

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|of_path| of_path.eq_ignore_ascii_case(extension))
}

/// The parquet files of a folder that has no images of its own: in it, or in its only folder
/// `data`, as Hugging Face's hub lays a data set out. Of several splits that of `train`.
///
/// # Errors
/// Several splits without one of that name.
fn parquet_in(root: &Path) -> Result<Option<Vec<PathBuf>>, DataError> {
    let mut folder = root.to_owned();
    // Ends at the first image: a folder may hold a million of them.
    for entry in fs::read_dir(root).map_err(DataError::io("read the folder", root))? {
        let entry = entry.map_err(DataError::io("read the folder", root))?;
        let (name, path) = (entry.file_name(), entry.path());
        if scan::is_hidden(&name) {
            continue;
        }
        if path.is_dir() {
            if folder != root || name != OsStr::new("data") {
                return Ok(None);
            }
            folder = path;
        } else if scan::is_image(&name) && path.is_file() {
            return Ok(None);
        }
    }
    let read = fs::read_dir(&folder).map_err(DataError::io("read the folder", &folder))?;
    let paths = read.flatten().map(|entry| entry.path());
    let is_read = |path: &PathBuf| {
        let is_hidden = path.file_name().is_some_and(scan::is_hidden);
        has_extension(path, PARQUET) && !is_hidden && path.is_file()
    };
    let mut files: Vec<PathBuf> = paths.filter(is_read).collect();
    files.sort();
    let mut splits: Vec<Option<String>> = files.iter().map(|file| split(file)).collect();
    splits.sort();
    splits.dedup();
    if splits.len() > 1 {
        files.retain(|file| split(file).as_deref() == Some("train"));
        if files.is_empty() {
            let splits: Vec<String> = splits.into_iter().flatten().collect();
            let reason = format!(
                "it holds parquet files of several splits ({}), and none is `train`; set `root` to \
                 one of the files",
                splits.join(", ")
            );
            return Err(DataError::folder(&folder, reason));
        }
    }
    Ok((!files.is_empty()).then_some(files))
}

/// `train` of `train-00000-of-00002.parquet` and of `train.parquet`; `None` of other names.
fn split(file: &Path) -> Option<String> {
    const USUAL: [&str; 6] = ["train", "test", "validation", "valid", "val", "dev"];
    let stem = file.file_stem()?.to_str()?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let of_shard = stem.rsplit_once("-of-").and_then(|(start, count)| {
        let (split, number) = start.rsplit_once('-')?;
        (is_number(count) && is_number(number)).then_some(split)
    });
    of_shard.or_else(|| USUAL.contains(&stem).then_some(stem)).map(str::to_owned)
}

fn contents(files: &[PathBuf], cache: &CacheFolder) -> Result<Vec<ContentDigest>, DataError> {
    files.iter().map(|file| content(file, cache)).collect()
}

fn content(file: &Path, cache: &CacheFolder) -> Result<ContentDigest, DataError> {
    let path = file.canonicalize().map_err(DataError::io("open", file))?;
    let (folder, name) = (path.parent().unwrap_or(&path), path.file_name().unwrap_or_default());
    let digest = FileDigests::new(cache, &path).digests(folder, &[name.into()], &|| {}).pop();
    digest.unwrap_or(Err(io::ErrorKind::NotFound.into())).map_err(DataError::io("read", file))
}

/// The folder that holds the class folders: many archives have one folder around everything.
fn top(folder: &Path) -> Result<PathBuf, DataError> {
    let outer = scan::entries(folder, true)?;
    if let ([only], []) = (&outer.folders[..], &outer.images[..])
        && !folder.join("dataset.json").exists()
    {
        let inner = folder.join(only);
        if !scan::entries(&inner, true)?.folders.is_empty() || inner.join("dataset.json").exists() {
            return Ok(inner);
        }
    }
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_have_the_name_of_their_split() {
        let name = |file: &str| split(Path::new(file));
        assert_eq!(name("data/train-00000-of-00002.parquet").as_deref(), Some("train"));
        assert_eq!(name("my-test-01-of-2.parquet").as_deref(), Some("my-test"));
        assert_eq!(name("validation.parquet").as_deref(), Some("validation"));
        assert_eq!((name("pets.parquet"), name("one-of-many.parquet")), (None, None));
    }

    #[test]
    fn a_large_file_may_hold_more() {
        assert_eq!((limits(10).bytes, limits(1 << 40).bytes), (1 << 30, 20 << 40));
    }
}
