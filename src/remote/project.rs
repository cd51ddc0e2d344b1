//! What of a project's folder is the state of one pipeline: the records of its stages, its numbered
//! runs, and the files that its stages put elsewhere. Caches, locks, logs of jobs, half files and
//! what was set aside are not.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};

use pipe_engine::graph::Graph;
use pipe_engine::state::record_is_held;
use pipe_fs::{ProjectRoot, modified};
use pipe_runs::Runs;
use pipe_runs::checkpoint::header_beside;

use crate::error::RemoteError;
use crate::state_paths::{StatePath, StatePaths};

/// A pipeline in its folder.
#[derive(Debug, Clone)]
pub struct Project {
    pub root: ProjectRoot,
    pub pipeline: String,
    places: StatePaths,
}

/// A file as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStat {
    pub bytes: u64,
    pub modified: u64,
}

/// The files of the state, and the folders and files that another process is changing.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub files: BTreeMap<String, FileStat>,
    pub busy: Vec<String>,
    /// Files that a repair wrote in the place of what was lost, and that are still as it wrote
    /// them.
    pub repaired: BTreeSet<String>,
}

impl Project {
    /// What the stages of a pipeline keep. Outputs of commands are not among it: they may be
    /// anything, and are made again where they are missed.
    pub fn of(root: &ProjectRoot, graph: &Graph) -> Self {
        let runs = graph.stages().filter_map(|stage| stage.stage.runs());
        let written = |is_of: fn(&str) -> bool| {
            let stages = graph.stages().filter(move |stage| is_of(&stage.kind));
            stages.flat_map(|stage| stage.files.writes.iter().map(|(_, path)| path.clone()))
        };
        let outputs = written(|kind| kind != "command");
        let copies = written(|kind| kind == "copy_best");
        let Self { root, pipeline, places } = Self::new(root, &graph.pipeline.name, runs, outputs);
        Self { root, pipeline, places: places.with_copies(copies) }
    }

    /// A pipeline with these folders of numbered runs, and stages that were told to write these
    /// files.
    pub fn new(
        root: &ProjectRoot,
        pipeline: &str,
        runs: impl IntoIterator<Item = PathBuf>,
        outputs: impl IntoIterator<Item = PathBuf>,
    ) -> Self {
        let places = StatePaths::new(pipeline, runs, outputs);
        Self { root: root.to_owned(), pipeline: pipeline.to_owned(), places }
    }

    /// A file's path as the index has it, or that of a run's folder; none if it is no part of the
    /// state.
    pub(crate) fn relative(&self, path: &Path) -> Option<String> {
        let relative = index_path(path.strip_prefix(&self.root).ok()?)?;
        self.places.covers(&relative).then_some(relative)
    }

    /// The path that an index lists, if it is one of the state. All that is fetched, looked at and
    /// removed because an index says so comes through here.
    pub(crate) fn state_path(&self, path: &str) -> Option<StatePath> {
        self.places.path(path)
    }

    /// Where a file is that an index lists.
    pub(crate) fn locate(&self, path: &str) -> Result<PathBuf, RemoteError> {
        let wrong = || RemoteError::local(format!("{path:?} is no file of a pipeline's state"));
        Ok(self.state_path(path).ok_or_else(wrong)?.within(&self.root)?)
    }

    /// Looks at all that there is.
    pub(crate) fn scan(&self) -> Scan {
        let mut scan = Scan::default();
        for folder in self.places.runs() {
            for run in Runs::at(self.root.disk(), self.root.join(folder)).list() {
                let Ok(metadata) = run.metadata() else { continue };
                if metadata.pipeline != self.pipeline {
                    continue;
                }
                if run.holder().is_some() {
                    scan.busy.extend(self.relative(&run.folder));
                    continue;
                }
                files_below(&run.folder).iter().for_each(|path| self.add(path, &mut scan.files));
            }
        }
        let listed =
            |folder| std::fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        for entry in self.places.records().flat_map(listed) {
            let path = entry.path();
            if record_is_held(&self.root, &self.pipeline, &entry.file_name().to_string_lossy()) {
                scan.busy.extend(self.relative(&path))
            } else {
                self.add(&path, &mut scan.files)
            }
        }
        for output in self.places.outputs() {
            self.add(&self.root.join(output), &mut scan.files);
        }
        for copy in self.places.copies() {
            let copy = self.root.join(copy);
            self.add(&header_beside(&copy), &mut scan.files);
            files_below(&copy).iter().for_each(|path| self.add(path, &mut scan.files));
        }
        scan
    }

    fn add(&self, path: &Path, files: &mut BTreeMap<String, FileStat>) {
        if let (Some(standing), Some(relative)) = (file_stat(path), self.relative(path)) {
            files.insert(relative, standing);
        }
    }
}

/// The files in a folder and below it.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// A relative path as an index has it; none for one that leads out of the folder that it begins in,
/// or is no text.
pub(crate) fn index_path(path: &Path) -> Option<String> {
    let part = |part| match part {
        Component::Normal(part) => OsStr::to_str(part),
        _ => None,
    };
    path.components().map(part).collect::<Option<Vec<&str>>>().map(|parts| parts.join("/"))
}

/// The file as it stands, if there is one.
pub(crate) fn file_stat(path: &Path) -> Option<FileStat> {
    let metadata = std::fs::metadata(path).ok().filter(Metadata::is_file)?;
    Some(FileStat { bytes: metadata.len(), modified: modified(&metadata) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_state_of_the_pipeline_counts() {
        let root = &ProjectRoot::from(Path::new("/project"));
        let project = Project::new(root, "a b", ["checkpoints/x".into()], ["out/grid.png".into()]);
        let of = |path: &str| project.relative(&root.join(path));
        for kept in [
            "checkpoints/x/run_001/checkpoints/best.ckpt",
            ".pipe/records/a_b/base@seed=1.json",
            "out/grid.png",
        ] {
            assert_eq!(of(kept).as_deref(), Some(kept));
        }
        let not = [
            ".pipe/records/other/base.json",
            ".pipe/cache/x",
            ".pipe/store/a_b.json",
            ".pipe/events.jsonl",
            "checkpoints/x/run_001/run.lock",
            "checkpoints/x/run_001/metadata.json.previous",
            "checkpoints/x/.best.ckpt.tmp-1-2",
            "checkpoints/x/run_001/hooks/post-checkout",
            "checkpoints/y/run_001/metadata.json",
            "out/other.png",
            "tools/evaluate.py",
            "../elsewhere/x",
        ];
        for path in not {
            assert_eq!(of(path), None, "{path}");
        }
        assert_eq!(project.relative(Path::new("/other/x")), None);
    }
}
