//! What a data set is made of, for a plan: its digest and its counts, without decoding an image.
//!
//! Synthetic sets are decided by their settings. Of a folder every file is looked at, and read only
//! if it changed. Archives are read once, and then again only if they changed. What is not there
//! and may be downloaded is not known yet.
//!
//! The last summary is kept in the project's cache folder, one file for each data set, and for each
//! digest a list of the files, so that a change can be described. Nothing there decides a result.

use std::fs;
use std::path::{Path, PathBuf};

use pipe_core::number_text::counted;
use pipe_fs::{ProjectRoot, STATE_FOLDER, checksummed_json};
use serde::{Deserialize, Serialize};

use crate::cache::file_digests::Stamp;
use crate::cache::file_lists;
use crate::cache::write::write;
use crate::dataset::{self, Dataset};
use crate::digest::FieldDigest;
use crate::error::DataError;
use crate::progress::Progress;
use crate::settings::DatasetSettings;
use crate::source::{Availability, Fingerprint};
use crate::split::Split;

/// Images of a data set whose files are listed, at most.
const MAX_LISTED: usize = 200_000;

/// What is known of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSummary {
    /// [`Dataset::digest`]
    pub digest: String,
    pub images: u64,
    pub classes: Vec<String>,
    /// The settings alone decide all of it.
    #[serde(rename = "by_settings")]
    pub is_synthetic: bool,
}

impl DatasetSummary {
    pub fn of(dataset: &Dataset) -> Self {
        let images = dataset.indices(Split::Train).len() + dataset.indices(Split::Validation).len();
        Self {
            digest: dataset.digest().to_owned(),
            images: images as u64,
            classes: dataset.class_names().to_vec(),
            is_synthetic: dataset.source().is_synthetic(),
        }
    }
}

/// A summary as it is kept.
#[derive(Serialize, Deserialize)]
struct CachedSummary {
    #[serde(rename = "seen")]
    summary: DatasetSummary,
    /// The files that it was read from, where those are few; none if they may change without a new
    /// time.
    files: Vec<(PathBuf, Stamp)>,
}

/// Paths and patterns that a data set is read from, as its `root` has them.
pub fn input_paths(settings: &DatasetSettings) -> Vec<PathBuf> {
    settings.source.input_paths(&settings.source_options(), &settings.root)
}

/// What the data set that `settings` describe is made of now; a relative `root` starts at
/// `project`. Downloads and unpacks nothing: `None` if it has to be first. `as_last_seen` takes
/// what was last seen for it, if it was seen.
///
/// # Errors
/// Data that is missing and may not be downloaded, and what [`Dataset::open`] fails on before it
/// decodes a photo. Files that are missing or cannot be read, together with images that cannot be
/// decoded.
pub fn summarize(
    settings: &DatasetSettings,
    project: &ProjectRoot,
    as_last_seen: bool,
    progress: &dyn Progress,
) -> Result<Option<DatasetSummary>, DataError> {
    settings.validate()?;
    let (source, options) = (settings.source, settings.source_options());
    if let Some(fingerprint) = source.fingerprint(&options)? {
        let Fingerprint { class_names, images, digest } = fingerprint;
        let labels = options.classes.labels(&class_names, source.superclasses())?;
        return Ok(Some(DatasetSummary {
            digest: dataset::digest_of(settings, &class_names, &labels, &digest),
            images: images as u64,
            classes: labels.names,
            is_synthetic: source.is_synthetic(),
        }));
    }
    let root = settings.root_in(project);
    let files = whole_files(settings, &root);
    let is_current =
        |cached: &CachedSummary| as_last_seen || !files.is_empty() && cached.files == files;
    if let Some(cached) = CachedSummary::load(settings, project).filter(is_current) {
        return Ok(Some(cached.summary));
    }
    match source.availability(&options, &root) {
        Availability::Packed => return Ok(None),
        Availability::Missing if settings.download => return Ok(None),
        Availability::Missing | Availability::Ready => {}
    }
    let dataset = Dataset::open(settings, project, progress)?;
    // They count in no digest, so that all else may be as it was.
    dataset.check_files(progress)?;
    save_summary(settings, project, &dataset);
    Ok(Some(DatasetSummary::of(&dataset)))
}

/// Keeps the summary of a data set for the next plan.
pub fn save_summary(settings: &DatasetSettings, project: &ProjectRoot, dataset: &Dataset) {
    let summary = DatasetSummary::of(dataset);
    if summary.is_synthetic {
        return;
    }
    let listing = || dataset.listing(MAX_LISTED);
    file_lists::save(project.disk(), &folder(project), dataset.digest(), listing);
    let mut files = whole_files(settings, &settings.root_in(project));
    if !files.iter().all(|(_, stamp)| stamp.is_settled()) {
        files.clear();
    }
    let text = checksummed_json::to_text(&CachedSummary { summary, files });
    write(project.disk(), &CachedSummary::path(settings, project), text.as_bytes());
}

impl CachedSummary {
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
fn whole_files(settings: &DatasetSettings, root: &Path) -> Vec<(PathBuf, Stamp)> {
    let stamp =
        |path: PathBuf| fs::metadata(&path).ok().map(|metadata| (path, Stamp::of(&metadata)));
    settings
        .source
        .whole_files(&settings.source_options(), root)
        .into_iter()
        .filter_map(stamp)
        .collect()
}

fn folder(project: &Path) -> PathBuf {
    project.join(STATE_FOLDER).join("cache").join("data")
}

/// What is different from the data set that a run was trained on, such as `34 images instead of 9:
/// 25 added`.
pub fn describe_change(project: &Path, old: &DatasetSummary, new: &DatasetSummary) -> String {
    let mut details = Vec::new();
    for class in new.classes.iter().filter(|class| !old.classes.contains(class)) {
        details.push(format!("class {class} is new"));
    }
    for class in old.classes.iter().filter(|class| !new.classes.contains(class)) {
        details.push(format!("class {class} is gone"));
    }
    if let Some(files) = file_lists::compare(&folder(project), &old.digest, &new.digest) {
        let counts =
            [(files.added, "added"), (files.removed, "removed"), (files.replaced, "replaced")];
        details
            .extend(counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
    }
    let images = counted(new.images, "image");
    let counts = if new.images == old.images {
        format!("{images} as before")
    } else {
        format!("{images} instead of {}", old.images)
    };
    if !details.is_empty() {
        format!("{counts}: {}", details.join(", "))
    } else if new.images != old.images {
        counts
    } else if new.is_synthetic {
        format!("{counts}, drawn by another version of this program")
    } else {
        format!("{counts}, with another content")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::file_lists::MAX_LISTS;
    use crate::sources::registry::RegisteredSource;

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

        fn look(&self, as_last_seen: bool) -> DatasetSummary {
            summarize(&settings(), &self.0.path().into(), as_last_seen, &()).unwrap().unwrap()
        }

        fn words(&self, old: &DatasetSummary, new: &DatasetSummary) -> String {
            describe_change(self.0.path(), old, new)
        }
    }

    fn settings() -> DatasetSettings {
        DatasetSettings { source: "image_folder".parse().unwrap(), ..DatasetSettings::default() }
    }

    #[test]
    fn a_synthetic_set_is_known_without_drawing_it() {
        for source in RegisteredSource::all().filter(|source| source.is_synthetic()) {
            let settings = DatasetSettings { source, num_images: 12, image_size: 8, ..settings() };
            let place = tempfile::tempdir().unwrap();
            let seen = summarize(&settings, &place.path().into(), false, &()).unwrap().unwrap();
            assert_eq!(
                seen,
                DatasetSummary::of(&Dataset::open(&settings, &place.path().into(), &()).unwrap())
            );
            assert!(seen.is_synthetic);
            assert!(fs::read_dir(place.path()).unwrap().next().is_none(), "nothing is kept of it");
        }
    }

    #[test]
    fn a_folder_is_looked_at_each_time_unless_it_is_to_be_taken_as_last_seen() {
        let project = Project::new(&["a/1.png", "b/1.png"]);
        let first = project.look(true);
        assert_eq!(
            first,
            DatasetSummary::of(&Dataset::open(&settings(), &project.0.path().into(), &()).unwrap())
        );
        assert_eq!((first.images, first.is_synthetic), (2, false));
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
        for i in 0..MAX_LISTS + 3 {
            project.put("a/1.png", &"x".repeat(i + 20));
            project.look(false);
        }
        let lists = fs::read_dir(folder(project.0.path())).unwrap().flatten().map(|e| e.path());
        assert_eq!(
            lists.filter(|path| path.extension().is_some_and(|e| e == "files")).count(),
            MAX_LISTS
        );
    }
}
