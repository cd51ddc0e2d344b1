//! What a data set is made of, for a plan: its digest and its counts, without decoding an image.
//!
//! Drawn sets are decided by their settings. Of a folder every file is looked at, and read only if
//! it changed. Archives are read once, and then again only if they changed. What is not there and
//! may be downloaded is not known yet.
//!
//! What was seen is kept in the project's cache folder: a note for each data set, and for each
//! digest a list of the files, so that a change can be told in words. Nothing there decides a
//! result.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::foundation::{STATE_FOLDER, atomic, checksummed_json};
use serde::{Deserialize, Serialize};

use super::classes::ClassSelection;
use super::dataset::{Dataset, of_drawn};
use super::digest::FieldDigest;
use super::error::DataError;
use super::images::Listed;
use super::index::Stamp;
use super::progress::Progress;
use super::settings::{DatasetSettings, Source};
use super::split::Split;
use super::walk::EXTENSIONS;
use super::{cifar, imagenette};

/// Images of a data set whose files are listed, at most.
const LISTED: usize = 200_000;
/// Lists that are kept.
const LISTS: usize = 16;

/// What is known of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// [`Dataset::digest`]
    pub digest: String,
    pub images: u64,
    pub classes: Vec<String>,
    /// The settings alone decide all of it.
    pub by_settings: bool,
}

impl Seen {
    pub fn of(dataset: &Dataset) -> Self {
        let images = dataset.indices(Split::Train).len() + dataset.indices(Split::Validation).len();
        Self {
            digest: dataset.digest().to_owned(),
            images: images as u64,
            classes: dataset.class_names().to_vec(),
            by_settings: matches!(dataset.source(), Source::Shapes | Source::Trees),
        }
    }
}

/// What stands in the cache about a data set.
#[derive(Serialize, Deserialize)]
struct Note {
    seen: Seen,
    /// The files that it was read from, where those are few; none if they may change without a new
    /// time.
    files: Vec<(PathBuf, Stamp)>,
}

/// Paths and patterns that a data set is read from, as its `root` has them. Of an `image_folder`
/// the class folders and the images in the places that are read: other files beside them are none
/// of its business.
pub fn paths(settings: &DatasetSettings) -> Vec<PathBuf> {
    let root = &settings.root;
    match settings.source {
        Source::Shapes | Source::Trees => Vec::new(),
        Source::Cifar10 => cifar::paths(&cifar::CIFAR10).map(|path| root.join(path)).to_vec(),
        Source::Cifar100 => cifar::paths(&cifar::CIFAR100).map(|path| root.join(path)).to_vec(),
        Source::Imagenette => imagenette::PATHS.map(|path| root.join(path)).to_vec(),
        Source::ImageFolder => {
            let names = match &settings.classes {
                Some(ClassSelection::Names(names)) => names.as_slice(),
                _ => &[],
            };
            let classes = names.iter().map(|name| root.join(name));
            let flat = EXTENSIONS.iter().map(|extension| root.join(format!("*.{extension}")));
            let deep = settings.recursive.then(|| root.join("**").join("*"));
            let is_zip =
                root.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
            let zip = is_zip.then(|| root.clone());
            classes.chain([root.join("*").join("*")]).chain(flat).chain(deep).chain(zip).collect()
        }
    }
}

/// What the data set that `settings` describe is made of now; a relative `root` starts at
/// `project`. Downloads and unpacks nothing: `None` if it has to be first. `as_last_seen` takes
/// what was last seen for it, if it was seen.
///
/// # Errors
/// Data that is missing and may not be downloaded, and what [`Dataset::open`] fails on before it
/// decodes a photo.
pub fn look(
    settings: &DatasetSettings,
    project: &Path,
    as_last_seen: bool,
    progress: &dyn Progress,
) -> Result<Option<Seen>, DataError> {
    settings.validate()?;
    if let Some((classes, digest)) = of_drawn(settings)? {
        let images = settings.num_images as u64;
        return Ok(Some(Seen { digest, images, classes, by_settings: true }));
    }
    let root = settings.root_in(project);
    let note = Note::load(settings, project);
    if as_last_seen && let Some(note) = note {
        return Ok(Some(note.seen));
    }
    let is_there = match settings.source {
        Source::Cifar10 | Source::Cifar100 => {
            let files = archives(settings, &root);
            if let Some(note) = note.filter(|note| !files.is_empty() && note.files == files) {
                return Ok(Some(note.seen));
            }
            !files.is_empty()
        }
        Source::Imagenette => {
            if !imagenette::is_unpacked(&root) && imagenette::is_there(&root) {
                return Ok(None);
            }
            imagenette::is_there(&root)
        }
        Source::ImageFolder | Source::Shapes | Source::Trees => true,
    };
    if !is_there && settings.download {
        return Ok(None);
    }
    let dataset = Dataset::open(settings, project, progress)?;
    remember(settings, project, &dataset);
    Ok(Some(Seen::of(&dataset)))
}

/// Keeps what was seen of a data set.
pub fn remember(settings: &DatasetSettings, project: &Path, dataset: &Dataset) {
    let seen = Seen::of(dataset);
    if seen.by_settings {
        return;
    }
    let list = list(project, dataset.digest());
    if !list.exists()
        && let Some(files) = dataset.listing(LISTED)
    {
        keep(&list, &list_bytes(&files));
        thin(list.parent().unwrap_or(project));
    }
    let mut files = archives(settings, &settings.root_in(project));
    if !files.iter().all(|(_, stamp)| stamp.is_settled()) {
        files.clear();
    }
    keep(
        &Note::path(settings, project),
        checksummed_json::to_text(&Note { seen, files }).as_bytes(),
    );
}

impl Note {
    fn path(settings: &DatasetSettings, project: &Path) -> PathBuf {
        let mut key = FieldDigest::new("data set note");
        key.field(serde_json::to_vec(settings).unwrap_or_default());
        key.field(settings.root_in(project).as_os_str().as_encoded_bytes());
        folder(project).join(&key.finish()[..32]).with_added_extension("json")
    }

    fn load(settings: &DatasetSettings, project: &Path) -> Option<Self> {
        checksummed_json::from_bytes(&fs::read(Self::path(settings, project)).ok()?).ok()
    }
}

/// The files of a data set that is read as a whole.
fn archives(settings: &DatasetSettings, root: &Path) -> Vec<(PathBuf, Stamp)> {
    let files = match settings.source {
        Source::Cifar10 => cifar::files(&cifar::CIFAR10, root),
        Source::Cifar100 => cifar::files(&cifar::CIFAR100, root),
        _ => Vec::new(),
    };
    let stamp =
        |path: PathBuf| fs::metadata(&path).ok().map(|metadata| (path, Stamp::of(&metadata)));
    files.into_iter().filter_map(stamp).collect()
}

fn folder(project: &Path) -> PathBuf {
    project.join(STATE_FOLDER).join("cache").join("data")
}

fn list(project: &Path, digest: &str) -> PathBuf {
    folder(project).join(digest).with_added_extension("files")
}

/// Writes a file of the cache. One that cannot be written is as good as lost.
fn keep(path: &Path, bytes: &[u8]) {
    let temporary = path.with_added_extension(format!("tmp-{}", std::process::id()));
    let written = atomic::create_needless_folder(path.parent().unwrap_or(path))
        .and_then(|()| fs::write(&temporary, bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        tracing::debug!("{} could not be written: {error}", path.display());
    }
}

/// Removes the oldest lists.
fn thin(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let lists = entries.filter(|path| path.extension().is_some_and(|e| e == "files"));
    let written = |path: &PathBuf| fs::metadata(path).and_then(|m| m.modified()).ok();
    let mut lists: Vec<PathBuf> = lists.collect();
    lists.sort_by_key(written);
    for old in &lists[..lists.len().saturating_sub(LISTS)] {
        let _ = fs::remove_file(old);
    }
}

/// Bytes of a content digest that are kept: enough to tell files apart.
const KEPT: usize = 8;

/// For each file the beginning of its digest (8 bytes), the length of its name (4, little-endian)
/// and the name; at the end the CRC-32C of all before it (4).
fn list_bytes(files: &[Listed]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, digest) in files {
        bytes.extend(&digest[..KEPT]);
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend(name);
    }
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// Names and digests of a list's files.
fn files_of(bytes: &[u8]) -> Option<BTreeMap<&[u8], &[u8]>> {
    let (mut rest, crc) = bytes.split_last_chunk()?;
    let (mut files, whole) = (BTreeMap::new(), crc32c::crc32c(rest) == u32::from_le_bytes(*crc));
    while whole && !rest.is_empty() {
        let (digest, after) = rest.split_at_checked(KEPT)?;
        let (length, after) = after.split_first_chunk()?;
        let (name, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        files.insert(name, digest);
        rest = after;
    }
    whole.then_some(files)
}

/// What is different from the data set that a run was trained on, such as `34 images instead of 9:
/// 25 added`.
pub fn in_words(project: &Path, old: &Seen, new: &Seen) -> String {
    let before = old.images;
    let mut details = Vec::new();
    for class in new.classes.iter().filter(|class| !old.classes.contains(class)) {
        details.push(format!("class {class} is new"));
    }
    for class in old.classes.iter().filter(|class| !new.classes.contains(class)) {
        details.push(format!("class {class} is gone"));
    }
    let read = |digest: &str| fs::read(list(project, digest)).unwrap_or_default();
    let (then, now) = (read(&old.digest), read(&new.digest));
    if let (Some(then), Some(now)) = (files_of(&then), files_of(&now)) {
        let counts = [
            (now.keys().filter(|name| !then.contains_key(*name)).count(), "added"),
            (then.keys().filter(|name| !now.contains_key(*name)).count(), "removed"),
            (
                now.iter()
                    .filter(|(name, digest)| then.get(*name).is_some_and(|d| d != *digest))
                    .count(),
                "replaced",
            ),
        ];
        details
            .extend(counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
    }
    let plural = if new.images == 1 { "" } else { "s" };
    let counts = match new.images == before {
        true => format!("{} image{plural} as before", new.images),
        false => format!("{} image{plural} instead of {before}", new.images),
    };
    match details.is_empty() {
        false => format!("{counts}: {}", details.join(", ")),
        true if new.images != before => counts,
        true if new.by_settings => format!("{counts}, drawn by another version of this program"),
        true => format!("{counts}, with another content"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A project with a folder of files that nobody decodes.
    struct Project(tempfile::TempDir);

    impl Project {
        fn new(files: &[&str]) -> Self {
            let project = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|file| project.put(file, file));
            project
        }

        fn put(&self, file: &str, content: &str) {
            let path = self.0.path().join("data").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn look(&self, as_last_seen: bool) -> Seen {
            look(&settings(), self.0.path(), as_last_seen, &()).unwrap().unwrap()
        }

        fn words(&self, old: &Seen, new: &Seen) -> String {
            in_words(self.0.path(), old, new)
        }
    }

    fn settings() -> DatasetSettings {
        DatasetSettings { source: Source::ImageFolder, ..DatasetSettings::default() }
    }

    #[test]
    fn a_list_comes_back_whole_or_not_at_all() {
        let files = [(b"a/1.png".to_vec(), [1; 32]), (b"b/\n.png".to_vec(), [2; 32])];
        let bytes = list_bytes(&files);
        let read = files_of(&bytes).unwrap();
        assert_eq!(read[&b"b/\n.png"[..]], [2; KEPT]);
        assert_eq!(read.len(), 2);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(files_of(&damaged), None, "byte {at}");
            assert_eq!(files_of(&bytes[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn what_is_drawn_is_known_without_drawing_it() {
        for source in [Source::Shapes, Source::Trees] {
            let settings = DatasetSettings { source, num_images: 12, image_size: 8, ..settings() };
            let place = tempfile::tempdir().unwrap();
            let seen = look(&settings, place.path(), false, &()).unwrap().unwrap();
            assert_eq!(seen, Seen::of(&Dataset::open(&settings, place.path(), &()).unwrap()));
            assert!(seen.by_settings);
            assert!(fs::read_dir(place.path()).unwrap().next().is_none(), "nothing is kept of it");
        }
    }

    #[test]
    fn a_folder_is_looked_at_each_time_unless_it_is_to_be_taken_as_last_seen() {
        let project = Project::new(&["a/1.png", "b/1.png"]);
        let first = project.look(true);
        assert_eq!(first, Seen::of(&Dataset::open(&settings(), project.0.path(), &()).unwrap()));
        assert_eq!((first.images, first.by_settings), (2, false));
        project.put("a/2.png", "more");
        assert_eq!(project.look(true), first);
        let second = project.look(false);
        assert_ne!(second.digest, first.digest);
        assert_eq!(project.look(true), second);
        assert!(
            !project.0.path().join(".pipe/cache/images").exists(),
            "no image is decoded for it"
        );
    }

    #[test]
    fn a_change_is_told_by_what_was_added_removed_and_replaced() {
        let project = Project::new(&["a/1.png", "a/2.png", "b/1.png"]);
        let first = project.look(false);
        project.put("a/2.png", "another");
        project.put("a/3.png", "more");
        project.put("a/4.png", "more");
        fs::remove_file(project.0.path().join("data/a/1.png")).unwrap();
        let second = project.look(false);
        assert_eq!(
            project.words(&first, &second),
            "4 images instead of 3: 2 added, 1 removed, 1 replaced"
        );
        assert_eq!(
            project.words(&second, &first),
            "3 images instead of 4: 1 added, 2 removed, 1 replaced"
        );
        fs::remove_dir_all(project.0.path().join("data/b")).unwrap();
        let third = project.look(false);
        assert_eq!(
            project.words(&second, &third),
            "3 images instead of 4: class b is gone, 1 removed"
        );
        fs::remove_dir_all(folder(project.0.path())).unwrap();
        assert_eq!(
            project.words(&first, &third),
            "3 images as before: class b is gone",
            "by what a run notes"
        );
    }

    #[test]
    fn of_the_lists_the_newest_stay() {
        let project = Project::new(&["a/1.png"]);
        for i in 0..LISTS + 3 {
            project.put("a/1.png", &"x".repeat(i + 20));
            project.look(false);
        }
        let lists = fs::read_dir(folder(project.0.path())).unwrap().flatten().map(|e| e.path());
        assert_eq!(
            lists.filter(|path| path.extension().is_some_and(|e| e == "files")).count(),
            LISTS
        );
    }
}
