//! Which pipeline file is meant by what was typed: the file itself, a name of one that the project
//! has, or a folder, which means the only pipeline of the project there.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use pipe_core::error::{SpecError, nearest};
use pipe_core::shell::CommandLine;
use pipe_engine::pipeline_file::PipelineFile;
use pipe_engine::source;

use super::{CliError, project, templates};

/// What stands for a pipeline file that was left out.
pub const HERE: &str = ".";
/// Folders of a project where its pipelines are looked for.
const FOLDERS: [&str; 2] = ["", "pipelines"];
/// What the name of a pipeline file may end with.
const ENDINGS: [&str; 4] = ["", ".yaml", ".yml", ".pipe.yaml"];
/// The most names in a message.
const MOST: usize = 8;

/// The pipeline file that is meant, as seen from where the program was started.
///
/// # Errors
/// A name that no pipeline has; a folder whose project has none, or several.
pub fn resolve(typed: &Path) -> Result<PathBuf, CliError> {
    match fs::metadata(typed) {
        Ok(found) if found.is_dir() => only(typed),
        Ok(_) => Ok(typed.to_owned()),
        Err(_) => named(typed),
    }
}

/// The pipeline files of the project in a folder, as seen from where the program was started. A file
/// that is meant to be one and has a mistake in it counts, so that the mistake is told.
pub fn all(folder: &Path) -> Vec<PathBuf> {
    let (root, shown) = project_of(folder);
    let mut found: Vec<Candidate> = Vec::new();
    for below in FOLDERS {
        let Ok(entries) = fs::read_dir(root.join(below)) else { continue };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        let paths = names.iter().map(|name| Path::new(below).join(name));
        found.extend(paths.filter_map(|path| Candidate::read(&root, path)));
    }
    let included = |one: &Candidate| {
        let name = one.path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        found.iter().any(|other| other.path != one.path && other.text.contains(name))
    };
    let meant = found.iter().filter(|one| one.is_pipeline || !included(one));
    meant.map(|one| shown.join(&one.path)).collect()
}

/// A file that may be a pipeline.
struct Candidate {
    /// As seen from the project
    path: PathBuf,
    text: String,
    /// Or else it may be a part of one, which a pipeline names in its `include`.
    is_pipeline: bool,
}

impl Candidate {
    fn read(root: &Path, path: PathBuf) -> Option<Self> {
        let name = path.file_name().and_then(OsStr::to_str)?;
        if !(name.ends_with(".yaml") || name.ends_with(".yml")) || !root.join(&path).is_file() {
            return None;
        }
        let has_its_folder = path.components().count() > 1;
        let full = root.join(&path);
        let Ok(source) = source::read(&full, &full) else {
            let text = String::new();
            return has_its_folder.then_some(Self { path, text, is_pipeline: true });
        };
        let text = source.text().to_owned();
        let has = |key: &str| text.lines().any(|line| line.starts_with(key));
        let schema = text.lines().take_while(|line| line.starts_with('#'));
        let schema =
            schema.filter_map(|line| line.split_once("$schema=")).map(|(_, schema)| schema);
        let schema = schema.map(|schema| schema.trim().ends_with("pipeline.schema.json")).next();
        let is_pipeline = match schema {
            Some(is_pipeline) => is_pipeline,
            None => {
                let named = has("name:") && has("stages:") || name.ends_with(".pipe.yaml");
                named || PipelineFile::parse(source).is_ok()
            }
        };
        let may_be_one = schema.is_none() && has_its_folder && (has("name:") || has("stages:"));
        (is_pipeline || may_be_one).then_some(Self { path, text, is_pipeline })
    }
}

/// What makes the first run of a project.
pub fn first_run_hint() -> String {
    let parses = |path: &PathBuf| {
        source::read(path, path).is_ok_and(|source| PipelineFile::parse(source).is_ok())
    };
    match all(Path::new(HERE)).into_iter().find(parses) {
        Some(file) => {
            let line = CommandLine::new(["pipe", "run"]).path(&file);
            format!("`{}` makes the first", project::from_start_folder(&line.to_string()))
        }
        None => "`pipe init my_project` makes a project with a pipeline to run".to_owned(),
    }
}

/// The project of a folder: its root, and how that is typed where the program was started.
fn project_of(folder: &Path) -> (PathBuf, PathBuf) {
    let shown = if folder == Path::new(HERE) { PathBuf::new() } else { folder.to_owned() };
    let Ok(place) = folder.canonicalize() else { return (folder.to_owned(), shown) };
    match project::nearest(&place) {
        Some(root) => {
            let below = place.strip_prefix(&root).map_or(0, |below| below.components().count());
            let cut = shown.ancestors().nth(below).map(Path::to_owned);
            let is_root =
                |path: &PathBuf| Path::new(HERE).join(path).canonicalize().is_ok_and(|p| p == root);
            let shown = match cut.filter(is_root) {
                Some(shown) => shown,
                // A link may lead into it.
                None => (0..below).fold(shown, |path, _| path.join("..")),
            };
            (root, shown)
        }
        None => (place, shown),
    }
}

/// The only pipeline of the project in a folder.
fn only(folder: &Path) -> Result<PathBuf, CliError> {
    let mut found = all(folder);
    match (found.len(), folder == Path::new(HERE)) {
        (1, _) => Ok(found.remove(0)),
        (0, true) => {
            let projects = projects_below(|_| true);
            Err(go_there(CliError::usage(NONE), "there are projects in", &projects))
        }
        (0, false) => {
            Err(CliError::usage(format!("there is no pipeline file in {}", folder.display())))
        }
        (count, _) => {
            let error = CliError::usage(format!("which of {count} pipelines is meant?"));
            Err(error.note(format!("name one of: {}", list(&found))))
        }
    }
}

/// Folders here that have pipelines, among them one that is meant.
fn projects_below(is_meant: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(HERE).into_iter().flatten().flatten();
    let folders = entries.map(|entry| PathBuf::from(entry.file_name()));
    let has_it = |folder: &PathBuf| folder.is_dir() && all(folder).iter().any(|p| is_meant(p));
    let mut found: Vec<PathBuf> = folders.filter(has_it).take(MOST).collect();
    found.sort();
    found
}

/// An error with the projects where something is, as far as there are any.
fn go_there(error: CliError, what: &str, projects: &[PathBuf]) -> CliError {
    let Some(first) = projects.first() else { return error };
    let all: Vec<_> = projects.iter().map(|p| p.display().to_string()).collect();
    let line = CommandLine::new(["cd"]).path(first);
    error.note(format!("{what} {}: go there first, such as with {line}", all.join(", ")))
}

const NONE: &str = "there is no pipeline file here; `pipe init` makes a project with one";

/// The pipeline that a name means, which is no file where the program was started.
fn named(typed: &Path) -> Result<PathBuf, CliError> {
    let (root, shown) = project_of(Path::new(HERE));
    let places = FOLDERS.iter().flat_map(|folder| ENDINGS.map(|ending| (folder, ending)));
    let mut paths = places.map(|(folder, ending)| {
        let mut name = typed.as_os_str().to_owned();
        name.push(ending);
        Path::new(folder).join(name)
    });
    if let Some(path) = paths.find(|path| root.join(path).is_file()) {
        return Ok(shown.join(path));
    }
    let template = templates::template_of(&with_ending(typed));
    // A file in a folder that was named is looked for there, by whoever reads it.
    if typed.components().count() > 1 && template.is_none() {
        return Ok(typed.to_owned());
    }
    Err(unknown(typed, template))
}

/// The error of a name that no pipeline of the project here has, with what may be meant.
fn unknown(typed: &Path, template: Option<String>) -> CliError {
    let error = SpecError::plain(format!("{}: no such file", typed.display()));
    if typed == Path::new("=") {
        return error.note("no space stands before or after the `=`: `--set KEY=VALUE`").into();
    }
    let (all, stem) = (all(Path::new(HERE)), stem(typed));
    if all.is_empty() {
        let below = projects_below(|path| self::stem(path) == stem);
        if !below.is_empty() {
            return go_there(error.into(), "it is in", &below);
        }
    }
    if let Some(template) = template {
        let command = format!("pipe init --template {template}");
        return error.note(format!("`{command}` puts it into the project here")).into();
    }
    let stems: Vec<String> = all.iter().map(|path| self::stem(path)).collect();
    let near = nearest(&stem, stems.iter().map(String::as_str));
    let near = all.iter().find(|path| near.is_some_and(|near| near == self::stem(path)));
    let error = match (near, with_stage(&all, &stem)) {
        _ if all.is_empty() => error.note(NONE),
        (_, Some(file)) => {
            error.note(format!("it is a stage of {}: name that file before it", file.display()))
        }
        (Some(near), None) => error.note(format!("did you mean `{}`?", near.display())),
        (None, None) => error.note(format!("the pipelines here: {}", list(&all))),
    };
    error.into()
}

/// The pipeline of the project here that has a stage of this name, or of whose matrix it is one;
/// `line`: what was typed before the stage.
///
/// # Errors
/// Several have it; or none has, and there are several.
pub fn with_stage_named(name: &str, line: CommandLine) -> Result<PathBuf, CliError> {
    let all = all(Path::new(HERE));
    let declared = name.split('@').next().unwrap_or(name);
    let having: Vec<&PathBuf> = all.iter().filter(|path| has_stage(path, declared)).collect();
    match having[..] {
        [one] => Ok(one.clone()),
        [] => only(Path::new(HERE)),
        [first, ..] => {
            let error = CliError::usage(format!("which of {} pipelines is meant?", having.len()));
            Err(error.note(format!("type for instance: {}", line.path(first).word(name))))
        }
    }
}

/// The first pipeline that has a stage of this name.
fn with_stage<'a>(all: &'a [PathBuf], name: &str) -> Option<&'a PathBuf> {
    all.iter().find(|path| has_stage(path, name))
}

fn has_stage(path: &Path, name: &str) -> bool {
    let parsed = source::read(path, path).ok().map(PipelineFile::parse);
    let parsed = parsed.and_then(Result::ok);
    parsed.is_some_and(|file| file.stages.iter().any(|stage| stage.id.as_str() == name))
}

/// A name as that of a file: `sweep` may be typed for `sweep.yaml`.
fn with_ending(typed: &Path) -> PathBuf {
    if typed.extension().is_some() { typed.to_owned() } else { typed.with_extension("yaml") }
}

/// A file's name without what pipeline files end with.
fn stem(path: &Path) -> String {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let ending = ENDINGS.iter().rev().find(|ending| name.ends_with(**ending));
    ending.and_then(|ending| name.strip_suffix(ending)).unwrap_or(name).to_owned()
}

/// The first few.
fn list(files: &[PathBuf]) -> String {
    let shown: Vec<_> = files.iter().take(MOST).map(|path| path.display().to_string()).collect();
    let more = match files.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    shown.join(", ") + &more
}

/// The name of a data set is a parameter, or else the source of the `dataset` stage.
pub fn dataset_key(root: &Path, file: &Path) -> Result<&'static str, CliError> {
    let file = PipelineFile::parse(source::read(&root.join(file), file)?)?;
    Ok(if file.params.contains_key("dataset") { "dataset" } else { "source" })
}
