//! What lies in the folder of a data set and is no image of it: counted by kind, so that nothing is
//! left out in silence.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use pipe_core::number_text::{counted, plural};

/// Letters of an extension that is shown as it is.
const LONGEST: usize = 12;

/// Why an entry of a folder is no image of the data set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// A file whose extension is none of an image that is read; lower case, with its dot, or empty
    /// if it has none.
    Extension(String),
    /// A folder below a class folder.
    DeeperFolder,
    /// A folder beside the images of a flat folder that holds no image itself.
    EmptyFolder,
    /// An image beside the class folders.
    BesideClasses,
    /// An image that the file of labels does not name.
    Unlabelled,
    /// A folder that is read already under another name, or that leads back to one above it.
    ReadAlready,
    /// A device, a socket or a pipe.
    Special,
    /// A hidden entry, or one that an operating system made for itself.
    Hidden,
}

/// Counts of what was skipped. Shown as `6 .heic, 3 deeper folders`; hidden entries are counted
/// and not shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkippedEntries(BTreeMap<SkipReason, usize>);

impl SkipReason {
    /// The kind of a file by its extension.
    pub(crate) fn of_file(name: &OsStr) -> Self {
        let extension = extension(name);
        let plain =
            extension.chars().all(char::is_alphanumeric) && extension.chars().count() <= LONGEST;
        let is_shown = plain && !extension.is_empty();
        Self::Extension(if is_shown { format!(".{extension}") } else { String::new() })
    }

    /// What can be done about it; `None` if nothing need be.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Extension(e)
                if matches!(
                    e.as_str(),
                    ".heic" | ".heif" | ".avif" | ".jxl" | ".jp2" | ".psd" | ".svg"
                ) =>
            {
                Some("this format is not read: convert the files to JPEG or PNG")
            }
            Self::Extension(e) if matches!(e.as_str(), ".zip" | ".tar" | ".gz" | ".tgz") => Some(
                "an archive inside a folder is not read: unpack it, or make a zip file the `root`",
            ),
            Self::DeeperFolder => Some("`recursive: true` reads them"),
            Self::BesideClasses => Some("move them into a class folder"),
            Self::Unlabelled => Some("dataset.json or metadata.jsonl gives them no label"),
            Self::Extension(_)
            | Self::EmptyFolder
            | Self::ReadAlready
            | Self::Special
            | Self::Hidden => None,
        }
    }

    /// One word for programs: an extension with its dot, or the kind.
    pub fn name(&self) -> String {
        match self {
            Self::Extension(extension) if extension.is_empty() => "other_file",
            Self::Extension(extension) => extension,
            Self::DeeperFolder => "deeper_folder",
            Self::EmptyFolder => "folder_without_images",
            Self::BesideClasses => "beside_classes",
            Self::Unlabelled => "unlabelled",
            Self::ReadAlready => "read_already",
            Self::Special => "special",
            Self::Hidden => "hidden",
        }
        .to_owned()
    }

    fn named(&self, count: usize) -> String {
        match self {
            Self::Extension(extension) if extension.is_empty() => counted(count, "other file"),
            Self::Extension(extension) => format!("{count} {extension}"),
            Self::DeeperFolder => counted(count, "deeper folder"),
            Self::EmptyFolder => format!("{} without images", counted(count, "folder")),
            Self::BesideClasses => format!("{} beside the class folders", counted(count, "image")),
            Self::Unlabelled => format!("{} without a label", counted(count, "image")),
            Self::ReadAlready => format!("{} to what is read already", counted(count, "link")),
            Self::Special => format!("{} or {}", counted(count, "device"), plural(&count, "pipe")),
            Self::Hidden => format!("{count} hidden"),
        }
    }
}

impl SkippedEntries {
    /// Every kind with its count, the hidden ones too.
    pub fn iter(&self) -> impl Iterator<Item = (&SkipReason, usize)> {
        self.0.iter().map(|(kind, count)| (kind, *count))
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.0.keys().all(|kind| *kind == SkipReason::Hidden)
    }

    /// Entries of all kinds.
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    pub(crate) fn count(&mut self, kind: SkipReason) {
        self.add(kind, 1);
    }

    pub(crate) fn add(&mut self, kind: SkipReason, count: usize) {
        if count > 0 {
            *self.0.entry(kind).or_default() += count;
        }
    }

    /// Takes one of a kind out again: it was read after all.
    pub(crate) fn take(&mut self, kind: &SkipReason) {
        if let Some(count) = self.0.get_mut(kind) {
            *count -= 1;
        }
        self.0.retain(|_, count| *count > 0);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        other.0.into_iter().for_each(|(kind, count)| self.add(kind, count));
    }
}

impl fmt::Display for SkippedEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown: Vec<_> =
            self.iter().filter(|(kind, _)| **kind != SkipReason::Hidden).collect();
        shown.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let words: Vec<String> = shown.iter().map(|(kind, count)| kind.named(*count)).collect();
        f.write_str(&words.join(", "))
    }
}

/// The extension of a file's name in lower case, without its dot.
pub(crate) fn extension(name: &OsStr) -> String {
    Path::new(name).extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_by_kind_the_most_first() {
        let mut skipped = SkippedEntries::default();
        assert!(skipped.is_empty());
        for name in ["a.HEIC", "b.heic", "README", "x.\u{1b}[31m", ".."] {
            skipped.count(SkipReason::of_file(OsStr::new(name)));
        }
        skipped.add(SkipReason::DeeperFolder, 1);
        skipped.add(SkipReason::Hidden, 7);
        assert_eq!(skipped.to_string(), "3 other files, 2 .heic, 1 deeper folder");
        assert_eq!(skipped.total(), 13);
    }
}
