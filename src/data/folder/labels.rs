//! Files that say of which class each image of a folder is: `dataset.json` of EDM's dataset tool, and
//! `metadata.jsonl` as Hugging Face's `imagefolder` has it.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Deserializer};

use crate::error::DataError;

/// The file of labels that EDM's dataset tool writes (NVlabs/edm, `dataset_tool.py`).
const OF_EDM: &str = "dataset.json";

/// A line for each image, with `file_name` and further columns, of which `label` is the class.
/// Hugging Face `datasets`, "Create an image dataset".
const OF_HUGGING_FACE: &str = "metadata.jsonl";

/// A file of labels that was read.
pub(super) struct LabelFile {
    pub name: &'static str,
    /// The label of each image, by its path in the folder; `None` if none has one.
    pub labels: Option<Vec<(String, Label)>>,
}

/// What an image is of. Numbers in their order come before names in theirs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(untagged)]
pub(super) enum Label {
    Number(u32),
    Name(String),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// What a file of labels in `root` says, if there is one. In a folder of one's own such files may
/// mean anything, and count if they have the form.
pub(super) fn read(root: &Path, is_archive: bool) -> Result<Option<LabelFile>, DataError> {
    match of_edm(root, is_archive)? {
        Some(file) => Ok(Some(file)),
        None => of_hugging_face(root),
    }
}

fn content(path: &Path) -> Result<Option<Vec<u8>>, DataError> {
    let bytes = path.is_file().then(|| fs::read(path)).transpose();
    bytes.map_err(DataError::io("read", path))
}

#[derive(Deserialize)]
struct EdmFile {
    #[serde(deserialize_with = "present")]
    labels: Option<Vec<(String, u32)>>,
}

/// Without it a key that is missing would be as good as null.
fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<(String, u32)>>, D::Error> {
    Option::deserialize(deserializer)
}

fn of_edm(root: &Path, is_archive: bool) -> Result<Option<LabelFile>, DataError> {
    let path = root.join(OF_EDM);
    let Some(bytes) = content(&path)? else { return Ok(None) };
    match serde_json::from_slice::<EdmFile>(&bytes) {
        Ok(EdmFile { labels }) => {
            let label = |(image, label)| (image, Label::Number(label));
            let labels = labels.map(|labels| labels.into_iter().map(label).collect());
            Ok(Some(LabelFile { name: OF_EDM, labels }))
        }
        Err(error) if is_archive => {
            let reason = format!(
                "expected {{\"labels\": [[\"00000/img00000000.png\", 6], …]}} or null: {error}"
            );
            Err(DataError::archive(&path, "labels", reason))
        }
        Err(_) => Ok(None),
    }
}

#[derive(Deserialize)]
struct Line {
    file_name: String,
    label: Option<Label>,
}

/// Without a `label` in any line, the file says nothing of classes. In some lines and not in others
/// it is a mistake.
fn of_hugging_face(root: &Path) -> Result<Option<LabelFile>, DataError> {
    let path = root.join(OF_HUGGING_FACE);
    let Some(bytes) = content(&path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().zip(1_u32..).filter(|(line, _)| !line.trim().is_empty());
    let read = lines.map(|(line, number)| (serde_json::from_str::<Line>(line), number));
    let read: Vec<(Result<Line, _>, u32)> = read.collect();
    let has_label = |line: &Result<Line, _>| line.as_ref().is_ok_and(|line| line.label.is_some());
    if !read.iter().any(|(line, _)| has_label(line)) {
        return Ok(None);
    }
    let mut labels = Vec::with_capacity(read.len());
    for (line, number) in read {
        let wrong = |reason: String| DataError::archive(&path, format!("line {number}"), reason);
        let line = line.map_err(|e| {
            wrong(format!("expected {{\"file_name\": \"0001.png\", \"label\": \"cat\"}}: {e}"))
        })?;
        let label =
            line.label.ok_or_else(|| wrong("it has no `label`, as others have".to_owned()))?;
        labels.push((line.file_name, label));
    }
    Ok(Some(LabelFile { name: OF_HUGGING_FACE, labels: Some(labels) }))
}
