//! Paths of a pipeline's state. What an index, a `metadata.json`, a record or any other file from
//! elsewhere names is read, written and removed only if it is one of these: a record, a file that
//! this program keeps in a numbered run, or a file that a stage was told to write, with the header
//! beside a copy of a program's checkpoint. So whoever can
//! write such a file can change the state, and nothing beside it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use pipe_core::names;
use pipe_fs::{FileError, STATE_FOLDER};
use pipe_runs::checkpoint::header_beside;
use pipe_runs::{CHECKPOINTS, is_plain_name, is_run_file, is_run_subfolder, number_of};

/// Where a pipeline keeps its state in the folder of a project. All of it is relative to that
/// folder, with `/` between the parts.
#[derive(Debug, Clone, Default)]
pub struct StatePaths {
    records: BTreeSet<String>,
    runs: BTreeSet<String>,
    outputs: BTreeSet<String>,
    copies: BTreeSet<String>,
}

/// The path of a file of the state, relative to the project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatePath {
    text: String,
    /// Bytes of it that name a folder or file which the pipeline's settings chose. Links up to
    /// there are the user's.
    chosen: usize,
}

impl StatePaths {
    /// Of the folders of numbered runs and the files that the stages of a pipeline were told to
    /// write. Those outside of the project are left out.
    pub fn new(
        pipeline: &str,
        runs: impl IntoIterator<Item = PathBuf>,
        outputs: impl IntoIterator<Item = PathBuf>,
    ) -> Self {
        let named = [names::of_pipeline(pipeline), names::plain_name(pipeline)];
        Self {
            records: named.map(|name| format!("{STATE_FOLDER}/records/{name}")).into(),
            runs: runs.into_iter().filter_map(|path| inside(&path)).collect(),
            outputs: outputs.into_iter().filter_map(|path| inside(&path)).collect(),
            copies: BTreeSet::new(),
        }
    }

    /// With outputs that can be copies of checkpoints. What a program wrote has its header in a file
    /// beside it, and can be a folder: all of it is the state, or none of it is of use.
    pub fn with_copies(self, copies: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { copies: copies.into_iter().filter_map(|path| inside(&path)).collect(), ..self }
    }

    /// Outputs that can be copies of checkpoints.
    pub fn copies(&self) -> impl Iterator<Item = &str> {
        self.copies.iter().map(String::as_str)
    }

    /// Folders of numbered runs, relative to the project.
    pub fn runs(&self) -> impl Iterator<Item = &str> {
        self.runs.iter().map(String::as_str)
    }

    /// Files that stages were told to write.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(String::as_str)
    }

    /// Folders of the pipeline's records; with the one that earlier versions had, where that is
    /// another.
    pub fn records(&self) -> impl Iterator<Item = &str> {
        self.records.iter().map(String::as_str)
    }

    /// The path of a file of the state; `None` for every other text.
    pub fn path(&self, text: &str) -> Option<StatePath> {
        let of = |chosen: usize| Some(StatePath { text: text.to_owned(), chosen });
        if self.outputs.contains(text) {
            return of(text.len());
        }
        if let Some(chosen) = self.in_copy(text) {
            return of(chosen);
        }
        if let Some((folder, name)) = text.rsplit_once('/')
            && self.records.contains(folder)
        {
            return name
                .strip_suffix(".json")
                .filter(|_| is_plain_name(name))
                .and_then(|_| of(folder.len()));
        }
        let (folder, file) = self.in_run(text)?;
        is_run_file(file).then(|| of(folder.len()))?
    }

    /// Whether a path is that of a file of the state, or of a folder that holds only such files.
    pub fn covers(&self, text: &str) -> bool {
        let folder = || self.in_run(text).is_some_and(|(_, rest)| is_run_subfolder(rest));
        folder() || self.path(text).is_some()
    }

    /// For the header beside a copy and the files in it: how much of the path settings chose.
    fn in_copy(&self, text: &str) -> Option<usize> {
        if self.copies.iter().any(|copy| header_beside(Path::new(copy)) == Path::new(text)) {
            return Some(text.len());
        }
        self.copies.iter().find_map(|copy| {
            let inner = text.strip_prefix(copy.as_str())?.strip_prefix('/')?;
            // A copy holds what a checkpoint of a run holds.
            is_run_file(&format!("{CHECKPOINTS}/copy.ckpt/{inner}")).then_some(copy.len())
        })
    }

    /// The folder of runs, and what stands behind the number of the run.
    fn in_run<'a>(&self, text: &'a str) -> Option<(&'a str, &'a str)> {
        let ends = text.match_indices('/').map(|(at, _)| at);
        let mut folders = std::iter::once("").chain(ends.map(|end| &text[..end]));
        folders.find_map(|folder| {
            let rest = match folder {
                "" => text,
                folder => text.strip_prefix(folder)?.strip_prefix('/')?,
            };
            let (run, file) = rest.split_once('/').unwrap_or((rest, ""));
            (self.runs.contains(folder) && number_of(run).is_some()).then_some((folder, file))
        })
    }
}

/// A path that settings chose as text; `None` if it leads out of the project.
fn inside(path: &Path) -> Option<String> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    let parts: Option<Vec<&str>> = parts
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect();
    parts.map(|parts| parts.join("/"))
}

impl StatePath {
    /// Where the file is in the project `root`, to be read, written or removed there.
    ///
    /// # Errors
    /// A link on the way leads out of the project. Folders that settings chose may be links, and
    /// lead anywhere.
    pub fn within(&self, root: &Path) -> Result<PathBuf, FileError> {
        let (chosen, rest) = self.text.split_at(self.chosen);
        let chosen = root.join(chosen);
        let mut path = chosen.clone();
        for part in rest.split('/').filter(|part| !part.is_empty()) {
            path.push(part);
            if path.is_symlink() && ![&chosen, root].iter().any(|folder| leads_into(&path, folder))
            {
                let message =
                    "a link that leads out of the project: remove it, or give `checkpoint.base_dir` the \
                               folder that it leads to"
                        .to_owned();
                return Err(FileError::Damaged { path, message });
            }
        }
        Ok(path)
    }
}

fn leads_into(link: &Path, folder: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().ok();
    whole(link).zip(whole(folder)).is_some_and(|(target, folder)| target.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> StatePaths {
        let runs = ["runs", "./deep/er", "/outside", "a/../b"].map(PathBuf::from);
        StatePaths::new("a b", runs, ["out/best.ckpt", "../x", "/etc/passwd"].map(PathBuf::from))
    }

    #[test]
    fn records_files_of_runs_and_declared_outputs_are_the_state() {
        let record = format!(".pipe/records/{}/base@seed=1.json", names::of_pipeline("a b"));
        for path in [
            record.as_str(),
            ".pipe/records/a_b/base.json",
            "runs/run_001/metadata.json",
            "runs/run_001/config.yaml",
            "runs/run_001/labels.json",
            "runs/run_001/base_model.ckpt",
            "runs/run_1000/checkpoints/epoch_003.ckpt",
            "runs/run_001/checkpoints/step_00000016.ckpt",
            "runs/run_001/checkpoints/best.ckpt",
            "runs/run_001/checkpoints/epoch_003.of_another_run_1.ckpt",
            "runs/run_001/checkpoints/epoch_003_my_favourite.ckpt",
            "runs/run_001/checkpoints/epoch_003.ckpt.json",
            "runs/run_001/checkpoints/epoch_003.ckpt/state/weights.bin",
            "runs/run_001/checkpoints/epoch_003.ckpt/.metadata",
            "runs/run_001/logs/metrics.jsonl",
            "runs/run_001/logs/events.out.tfevents.000.host.1",
            "runs/run_001/samples/epoch_001.png",
            "runs/run_001/adapter/adapter_model.safetensors",
            "deep/er/run_001/metadata.json",
            "out/best.ckpt",
        ] {
            assert_eq!(places().path(path).map(|p| p.text), Some(path.to_owned()), "{path}");
            assert!(places().covers(path));
        }
        assert!(places().covers("runs/run_001") && places().covers("runs/run_001/checkpoints"));
    }

    #[test]
    fn nothing_else_is() {
        for path in [
            "",
            "/",
            "p.yaml",
            "tools/evaluate.py",
            ".git/hooks/post-checkout",
            ".envrc",
            "out",
            "out/best.ckpt/x",
            "out//best.ckpt",
            "./out/best.ckpt",
            "OUT/best.ckpt",
            "/outside/run_001/metadata.json",
            "b/run_001/metadata.json",
            "a/../b/run_001/metadata.json",
            "../x",
            "/etc/passwd",
            "runs",
            "runs/metadata.json",
            "runs/run_1/metadata.json",
            "runs/run_001/run.lock",
            "runs/run_001/metadata.json.previous",
            "runs/run_001/HEAD",
            "runs/run_001/hooks/post-checkout",
            "runs/run_001/.git/config",
            "runs/run_001/sitecustomize.py",
            "runs/run_001/checkpoints/.best.ckpt.tmp-1-2",
            "runs/run_001/checkpoints/.hidden.ckpt",
            "runs/run_001/logs/events.out.tfevents.000.host.1.damaged",
            "runs/run_001/checkpoints/a/b.ckpt",
            "runs/run_001/checkpoints/best.ckpt/state",
            "runs/run_001/checkpoints/epoch_003.ckpt/.git/config",
            "runs/run_001/checkpoints/epoch_003.ckpt/../../run.lock",
            "runs/run_001/checkpoints/epoch_003.ckpt/.w.bin.tmp-1-2",
            "runs/run_001/checkpoints/epoch_003.ckpt/",
            "runs/run_001/checkpoints/..",
            "runs/run_001/checkpoints/a\\b.ckpt",
            "runs/run_001/checkpoints/a\0.ckpt",
            "runs/run_001/checkpoints/a\x1b[2J.ckpt",
            "runs/run_001/checkpoints/../../../p.ckpt",
            "runs/run_001//metadata.json",
            "runs\\run_001\\metadata.json",
            "c:/runs/run_001/metadata.json",
            ".pipe/records/a_b/x",
            ".pipe/records/a_b/x/y.json",
            ".pipe/records/a_b/.x.json.tmp-1-1",
            ".pipe/records/other/base.json",
            ".pipe/store/a_b.json",
            ".pipe/events.jsonl",
            ".PIPE/records/a_b/base.json",
        ] {
            assert_eq!(places().path(path), None, "{path:?}");
        }
        let long = format!("runs/run_001/checkpoints/{}.ckpt", "x".repeat(300));
        assert_eq!(places().path(&long), None);
        assert!(
            !places().covers("runs") && !places().covers("") && !places().covers("runs/run_001/x")
        );
        let top = StatePaths::new("p", [PathBuf::from(".")], []);
        assert!(top.path("run_001/metadata.json").is_some() && top.path("metadata.json").is_none());
    }

    #[test]
    fn of_a_copy_its_header_and_all_that_is_in_it_are_the_state() {
        let places = places().with_copies(["out/model".into(), "./b.ckpt".into()]);
        for path in ["out/model.json", "b.ckpt.json", "out/model/w.bin", "out/model/in/.metadata"] {
            assert_eq!(places.path(path).map(|p| p.text), Some(path.to_owned()), "{path}");
            assert!(places.covers(path));
        }
        let not = [
            "out/best.ckpt.json",
            "out/model.json.json",
            "out/model/",
            "out/model/../x",
            "out/model/.git/config",
            "out/model.d/x",
            "out/model2.json",
        ];
        for path in not {
            assert_eq!(places.path(path), None, "{path:?}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn links_lead_where_the_user_said_and_nowhere_else() {
        use std::os::unix::fs::symlink;
        let (project, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (root, big) = (project.path(), disk.path());
        let within = |text: &str| places().path(text).unwrap().within(root);
        let path = "runs/run_001/checkpoints/best.ckpt";
        assert_eq!(within(path).unwrap(), root.join(path), "nothing is there yet");

        std::fs::create_dir_all(big.join("run_001")).unwrap();
        symlink(big, root.join("runs")).unwrap();
        symlink(big, root.join("out")).unwrap();
        within(path).unwrap();
        within("out/best.ckpt").unwrap();
        symlink(root, big.join("run_001/checkpoints")).unwrap();
        within(path).unwrap();

        for target in [Path::new("/"), Path::new("../../.."), Path::new("nowhere")] {
            std::fs::remove_file(big.join("run_001/checkpoints")).unwrap();
            symlink(target, big.join("run_001/checkpoints")).unwrap();
            let error = within(path).unwrap_err().to_string();
            assert!(error.contains("run_001/checkpoints: a link that leads out"), "{error}");
        }
        symlink("/etc/hostname", big.join("run_001/metadata.json")).unwrap();
        within("runs/run_001/metadata.json").unwrap_err();
    }
}
