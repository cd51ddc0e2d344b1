//! Which files the paths, folders and patterns in a stage's settings mean now. What follows from
//! the pipeline itself is left out of folders: a stage's own outputs, and of the whole project its
//! state, its runs and what other stages make.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::path::{Component, Path, PathBuf};

use pipe_core::failure::{Failure, StageError};
use pipe_core::ids::StageId;
use pipe_fs::{ProjectRoot, STATE_FOLDER, Stamp, sync};

use crate::file_formats::FileFormats;
use crate::graph::{Graph, Targets};
use crate::state::Output;

/// The folder of git, which changes when somebody looks at the state of a project.
const GIT_FOLDER: &str = ".git";

/// A file of the project as it was found.
pub(super) struct Found {
    pub path: PathBuf,
    pub metadata: Metadata,
    /// The path of the output that it belongs to is a link.
    link: Option<Stamp>,
    /// A link to a folder leads there.
    pub linked: bool,
}

impl Found {
    /// What of the file is another one after it was written.
    pub fn stamp(&self) -> Stamp {
        let target = Stamp::of(&self.metadata);
        match &self.link {
            // A link that was made anew was written, whatever it leads to.
            Some(link) => Stamp {
                changed: target.changed.max(link.changed),
                inode: target.inode ^ link.inode.rotate_left(32),
                ..target
            },
            None => target,
        }
    }
}

/// The files that a stage reads and writes, and those of others.
pub(super) struct Files<'a> {
    pub root: &'a Path,
    pub graph: &'a Graph,
    pub formats: &'a dyn FileFormats,
    pub stage: &'a StageId,
    /// What the stage writes.
    pub own: &'a [PathBuf],
    /// What stages make that it does not wait for, and folders of runs.
    pub others: OnceCell<Vec<PathBuf>>,
}

/// A folder that is being looked through.
struct Walk<'w> {
    /// Real folders, each with a link in it that was followed to get here.
    behind: Vec<PathBuf>,
    left_out: &'w dyn Fn(&Path) -> bool,
    /// Only what matches it is taken.
    pattern: Option<&'w glob::Pattern>,
}

impl Files<'_> {
    /// The files that an input means: a path, or else a pattern. `false` if there is none.
    pub fn read(&self, input: &str, files: &mut Vec<Found>) -> Result<bool, StageError> {
        let path = plain(Path::new(input));
        let whole = path.as_os_str().is_empty();
        let left_out = |found: &Path| {
            self.is_made_by_itself(found, &path) || (whole && self.is_no_source(found))
        };
        let mut walk = Walk { behind: Vec::new(), left_out: &left_out, pattern: None };
        if self.collect(&path, &mut walk, files)? {
            return Ok(true);
        }
        let before = files.len();
        self.matching(input, files)?;
        Ok(files.len() > before)
    }

    /// The files at and below an output; `false` if there is nothing.
    pub fn written(&self, output: &Path, files: &mut Vec<Found>) -> Result<bool, StageError> {
        let output = plain(output);
        // A stage may write into the folder of another one.
        let left_out = |found: &Path| self.is_written_by_others(found);
        let mut walk = Walk { behind: Vec::new(), left_out: &left_out, pattern: None };
        let first = files.len();
        let is_there = self.collect(&output, &mut walk, files)?;
        let link =
            std::fs::symlink_metadata(self.root.join(&output)).ok().filter(Metadata::is_symlink);
        if let Some(link) = link.map(|link| Stamp::of(&link)) {
            files.iter_mut().skip(first).for_each(|file| file.link = Some(link));
        }
        Ok(is_there)
    }

    /// Whether a path is one of the stage's outputs, and not only inside one.
    pub fn is_output(&self, path: &Path) -> bool {
        self.own.iter().any(|own| plain(own) == path)
    }

    /// Whether a file that an earlier version counted among the inputs is one that is left out.
    pub fn was_left_out(&self, inputs: &[String], path: &Path) -> bool {
        let is_wide = |input: &String| plain_part(input).as_os_str().is_empty();
        let own = inputs.iter().all(|input| self.is_made_by_itself(path, &plain_part(input)));
        own || (inputs.iter().any(is_wide) && self.is_no_source(path))
    }

    fn matching(&self, input: &str, files: &mut Vec<Found>) -> Result<(), StageError> {
        let wrong = |error: glob::PatternError| {
            StageError::new(Failure::Setting, error.to_string()).at("inputs")
        };
        let pattern = plain(Path::new(input));
        let pattern = glob::Pattern::new(&pattern.to_string_lossy()).map_err(wrong)?;
        let from = plain_part(input);
        let whole = from.as_os_str().is_empty();
        let left_out =
            |found: &Path| self.is_made_by_itself(found, &from) || (whole && self.is_state(found));
        let mut walk = Walk { behind: Vec::new(), left_out: &left_out, pattern: Some(&pattern) };
        if input.contains("**") {
            self.collect(&from, &mut walk, files)?;
            return Ok(());
        }
        walk.pattern = None;
        let escaped = format!("{}/{input}", glob::Pattern::escape(&self.root.to_string_lossy()));
        for found in glob::glob(&escaped).map_err(wrong)?.flatten() {
            let Ok(path) = found.strip_prefix(self.root) else { continue };
            if left_out(path) {
                continue;
            }
            if found.is_symlink() && found.is_dir() {
                self.follow(found.parent().unwrap_or(self.root), path, &mut walk, files)?
            } else {
                self.collect(path, &mut walk, files)?;
            }
        }
        Ok(())
    }

    /// A file at a path, or all files under it; `false` if there is nothing.
    fn collect(
        &self,
        path: &Path,
        walk: &mut Walk,
        files: &mut Vec<Found>,
    ) -> Result<bool, StageError> {
        let whole = self.root.join(path);
        let unreadable = |e: io::Error| {
            StageError::new(Failure::Input, format!("failed to read {}: {e}", path.display()))
        };
        let metadata = match std::fs::metadata(&whole) {
            Ok(metadata) => metadata,
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                return Ok(false);
            }
            Err(e) => return Err(unreadable(e)),
        };
        if !metadata.is_dir() {
            let taken = walk.pattern.is_none_or(|pattern| matches(pattern, path));
            if metadata.is_file() && taken {
                let linked = !walk.behind.is_empty();
                files.push(Found { path: path.to_owned(), metadata, link: None, linked });
            }
            return Ok(true);
        }
        let taken = walk.pattern.filter(|pattern| matches(pattern, path)).is_some();
        let pattern = if taken { walk.pattern.take() } else { walk.pattern };
        for entry in std::fs::read_dir(&whole).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let inner = path.join(entry.file_name());
            if (walk.left_out)(&inner) {
                continue;
            }
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_symlink() && entry.path().is_dir() {
                self.follow(&whole, &inner, walk, files)?;
            } else {
                self.collect(&inner, walk, files)?;
            }
        }
        walk.pattern = pattern;
        Ok(true)
    }

    /// Goes on in the folder that a link leads to, unless that is one through which the way came
    /// here.
    fn follow(
        &self,
        from: &Path,
        link: &Path,
        walk: &mut Walk,
        files: &mut Vec<Found>,
    ) -> Result<(), StageError> {
        let (Ok(here), Ok(there)) = (from.canonicalize(), self.root.join(link).canonicalize())
        else {
            return Ok(());
        };
        let state = self.root.canonicalize().map(|root| root.join(STATE_FOLDER));
        let is_circle =
            here.starts_with(&there) || walk.behind.iter().any(|one| one.starts_with(&there));
        if is_circle || state.is_ok_and(|state| there.starts_with(state)) {
            return Ok(());
        }
        walk.behind.push(here);
        let collected = self.collect(link, walk, files);
        walk.behind.pop();
        collected.map(drop)
    }

    /// Whether a path is an output of the stage itself. One that is looked for at `asked`, inside
    /// such an output, is meant.
    fn is_made_by_itself(&self, found: &Path, asked: &Path) -> bool {
        self.own
            .iter()
            .map(|own| plain(own))
            .any(|own| found.starts_with(&own) && !asked.starts_with(&own))
    }

    /// Whether a path is an output of another stage.
    pub fn is_written_by_others(&self, found: &Path) -> bool {
        self.graph.writers().get(found).is_some_and(|writer| writer != self.stage)
    }

    /// Whether a path is no source of a project: what the pipeline keeps and makes.
    fn is_no_source(&self, found: &Path) -> bool {
        self.is_state(found) || self.others().iter().any(|other| found.starts_with(other))
    }

    fn is_state(&self, found: &Path) -> bool {
        let work = |path: &Path| self.formats.is_work_folder(&self.root.join(path));
        found.starts_with(STATE_FOLDER)
            || found.starts_with(GIT_FOLDER)
            || found.ancestors().any(work)
    }

    fn others(&self) -> &[PathBuf] {
        self.others.get_or_init(|| {
            let wanted = Targets { until: vec![self.stage.to_string()], ..Targets::default() };
            let before = self.graph.select(&wanted).unwrap_or_default().stages;
            let runs = self.graph.stages().filter_map(|stage| stage.stage.runs());
            let others = self.graph.stages().filter(|stage| !before.contains(&stage.id));
            let made =
                others.flat_map(|stage| stage.files.writes.iter().map(|(_, path)| path.clone()));
            runs.chain(made).map(|path| plain(&path)).collect()
        })
    }
}

fn matches(pattern: &glob::Pattern, path: &Path) -> bool {
    let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
    pattern.matches_path_with(path, options)
}

/// A path without what means nothing in it, such as `./`.
pub(super) fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// The folders in front of the first part of a pattern that stands for several names.
fn plain_part(pattern: &str) -> PathBuf {
    let path = plain(Path::new(pattern));
    let is_plain = |part: &Component| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    path.components().take_while(is_plain).collect()
}

/// Makes what a program wrote durable. It need not have done so itself, and what is recorded is not
/// looked at again.
pub(super) fn sync(root: &ProjectRoot, files: &[Found]) -> Result<(), StageError> {
    let files: Vec<PathBuf> = files.iter().map(|file| root.join(&file.path)).collect();
    Ok(sync::files(root.disk(), root, &files)?)
}

/// The files with their digests, by name; `known` saves reading those that did not change.
pub(super) fn digested(
    root: &Path,
    formats: &dyn FileFormats,
    mut files: Vec<Found>,
    known: &[Output],
) -> Result<Vec<Output>, StageError> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    let known: BTreeMap<&str, &Output> = known.iter().map(|o| (o.path.as_str(), o)).collect();
    let now = |Found { path, metadata, .. }: &Found| {
        let name = path.to_string_lossy();
        match known.get(&*name) {
            Some(old) => old.restamped(root, metadata, formats),
            None => Output::of(root, &name, None, formats),
        }
    };
    Ok(files.iter().map(now).collect::<Result<_, _>>()?)
}
