//! What of a project's folder is the state of one pipeline: the records of its stages, its numbered runs, and the files
//! that its stages put elsewhere. Caches, locks, logs of jobs and half files are not.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Component, Path, PathBuf};

use pipe_engine::graph::Graph;
use pipe_engine::store::{
    Runs, STATE_FOLDER, atomic, former_records_folder, modified, record_is_held, records_folder,
};

/// A pipeline in its folder.
#[derive(Debug, Clone)]
pub struct Project {
    pub root: PathBuf,
    pub pipeline: String,
    /// Folders of numbered runs.
    pub runs: Vec<PathBuf>,
    /// Files that stages put elsewhere.
    pub outputs: Vec<PathBuf>,
}

/// A file as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub bytes: u64,
    pub modified: u64,
}

/// The files of the state, and the folders and files that another process is changing.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub files: BTreeMap<String, Standing>,
    pub busy: Vec<String>,
}

impl Project {
    /// What the stages of a pipeline keep. Outputs of commands are not among it: they may be anything, and are made again
    /// where they are missed.
    pub fn of(root: &Path, graph: &Graph) -> Self {
        let mut runs: Vec<PathBuf> = graph.stages().filter_map(|stage| stage.stage.runs()).collect();
        runs.sort();
        runs.dedup();
        let stages = graph.stages().filter(|stage| stage.kind != "command");
        let outputs =
            stages.flat_map(|stage| stage.files.writes.iter().map(|(_, path)| path.clone())).collect();
        Self { root: root.to_owned(), pipeline: graph.pipeline.name.clone(), runs, outputs }
    }

    /// A file's path as the index has it; none if it is no part of the state.
    pub(crate) fn relative(&self, path: &Path) -> Option<String> {
        let relative = path.strip_prefix(&self.root).ok()?;
        let name = relative.file_name()?.to_str()?;
        if !is_kept(name) {
            return None;
        }
        let parts: Option<Vec<&str>> = relative
            .components()
            .map(|part| match part {
                Component::Normal(part) => part.to_str(),
                _ => None,
            })
            .collect();
        let parts = parts?;
        let ours = parts[0] != STATE_FOLDER || self.records().iter().any(|folder| path.starts_with(folder));
        ours.then(|| parts.join("/"))
    }

    /// Folders of the pipeline's records; with the one that earlier versions had, where that is another.
    fn records(&self) -> Vec<PathBuf> {
        let mut folders = vec![
            records_folder(&self.root, &self.pipeline),
            former_records_folder(&self.root, &self.pipeline),
        ];
        folders.dedup();
        folders
    }

    /// Looks at all that there is.
    pub(crate) fn scan(&self) -> Scan {
        let mut scan = Scan::default();
        for folder in &self.runs {
            for run in Runs::at(self.root.join(folder)).list() {
                let Ok(metadata) = run.metadata() else { continue };
                if metadata.pipeline != self.pipeline {
                    continue;
                }
                if run.holder().is_some() {
                    scan.busy.extend(self.relative(&run.folder));
                    continue;
                }
                self.add_all(&run.folder, &mut scan.files);
            }
        }
        let folders = self.records();
        for entry in
            folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten())
        {
            let path = entry.path();
            match record_is_held(&self.root, &self.pipeline, &entry.file_name().to_string_lossy()) {
                true => scan.busy.extend(self.relative(&path)),
                false => self.add(&path, &mut scan.files),
            }
        }
        for output in &self.outputs {
            self.add(&self.root.join(output), &mut scan.files);
        }
        scan
    }

    fn add_all(&self, folder: &Path, files: &mut BTreeMap<String, Standing>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.add_all(&entry.path(), files),
                Ok(kind) if kind.is_file() => self.add(&entry.path(), files),
                _ => {}
            }
        }
    }

    fn add(&self, path: &Path, files: &mut BTreeMap<String, Standing>) {
        if let (Some(standing), Some(relative)) = (standing(path), self.relative(path)) {
            files.insert(relative, standing);
        }
    }
}

/// Whether a file of that name is to be kept: no half file, no lock, and no copy of what is kept in another way.
pub(crate) fn is_kept(name: &str) -> bool {
    !atomic::is_temporary(name) && !name.ends_with(".lock") && !name.ends_with(".previous")
}

/// The file as it stands, if there is one.
pub(crate) fn standing(path: &Path) -> Option<Standing> {
    let metadata = std::fs::metadata(path).ok().filter(Metadata::is_file)?;
    Some(Standing { bytes: metadata.len(), modified: modified(&metadata) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_state_of_the_pipeline_counts() {
        let root = Path::new("/project");
        let project = Project { root: root.into(), pipeline: "a b".into(), runs: vec![], outputs: vec![] };
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
            "../elsewhere/x",
        ];
        for path in not {
            assert_eq!(of(path), None, "{path}");
        }
        assert_eq!(project.relative(Path::new("/other/x")), None);
    }
}
