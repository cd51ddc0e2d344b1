//! `pipe init [DIR]`

mod pictures;
mod proposal;
mod told;
mod written;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use pipe_core::names::plain_name;
use pipe_core::shell;
use pipe_core::shell::CommandLine;
use pipe_fs::{Disk, STATE_FOLDER, atomic};
use pipe_train::device;
use serde_json::json;

use self::pictures::Pictures;
use self::proposal::{Known, Proposal, Shapes};
use self::written::Written;
use super::templates::{Shipped, Template};
use super::{CliError, ExitCode, Kinds, bench, pipeline_name};
use crate::report::Output;
use crate::report::stdout::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe init my_project\n  pipe init my_project --template chain\n  pipe init pets --images ~/Pictures/pets\n  cd my_project && pipe run pipelines/base_to_lora.yaml"
)]
pub struct InitArguments {
    /// Folder of the new project; made if it is not there
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// What the project trains
    #[arg(short, long, value_enum, default_value = "base")]
    template: Template,
    /// A folder of your own pictures, a zip file or parquet files: looks at them, and writes a
    /// training that fits them and this machine
    #[arg(long, value_name = "FOLDER", conflicts_with = "template")]
    images: Option<PathBuf>,
}

const CONFIG: &str = include_str!("../../configs/training/base_training.yaml");
const IGNORED: &str = "/checkpoints\n/data\n/samples\n/.pipe\n";

pub fn init(
    arguments: InitArguments,
    output: &Output,
    kinds: &Kinds,
) -> Result<ExitCode, CliError> {
    if let Some(images) = &arguments.images {
        return for_pictures(&arguments.dir, images, output, kinds);
    }
    let Shipped { file, text, first } = arguments.template.shipped();
    let template = arguments.template.to_possible_value();
    let template = template.map(|value| format!("--template={}", value.get_name()));
    let mut files = vec![
        (file.to_owned(), text.to_owned()),
        ("configs/training/base_training.yaml".to_owned(), CONFIG.to_owned()),
    ];
    files.extend(in_every_project(kinds));
    refuse_taken(&arguments.dir, &files, |line| line.options(template))?;
    write(&arguments.dir, &files)?;
    let run = CommandLine::new(["pipe", "run", file]).to_string();
    say!("{first}next: {}", inside(&arguments.dir, &run));
    Ok(ExitCode::SUCCESS)
}

/// A project with a training on pictures of one's own.
fn for_pictures(
    dir: &Path,
    images: &Path,
    output: &Output,
    kinds: &Kinds,
) -> Result<ExitCode, CliError> {
    let project = absolute(dir)?;
    let name = name_of(&project);
    let file = format!("pipelines/{name}.yaml");
    let mut files = in_every_project(kinds);
    files.push((file.clone(), String::new()));
    refuse_taken(dir, &files, |line| line.options(["--images"]).path(images))?;
    let pictures = Pictures::find(images, &project)?;
    let Some(shapes) = Shapes::of(&pictures.survey.headers) else {
        let text = format!("none of the pictures in {} can be read", images.display());
        return Err(CliError::usage(text));
    };
    let has_gpu = device::gpus() > 0;
    let count = pictures.survey.classes.iter().map(|class| class.images).sum();
    let (image_size, val_split) = (shapes.image_size(has_gpu), proposal::val_split(count));
    let disk = Disk::default();
    atomic::create_folder(&disk, &dir.join(STATE_FOLDER)).map_err(CliError::failed)?;
    let opened = pictures.open(&project, (image_size, val_split), output)?;
    let known = Known {
        classes: pictures.class_count(),
        train: opened.train,
        validation: opened.validation,
        image_size,
        has_photographs: shapes.has_photographs,
        has_gpu,
    };
    let proposal = Proposal::of(&known);
    say!("{}\n", told::found(&name, &pictures, &shapes, &opened));
    say!("{}", told::proposed(&known, &shapes, &proposal));
    let (pictures, known, proposal) = (&pictures, &known, &proposal);
    let written = Written { name: &name, pictures, shapes, known, proposal, val_split };
    files.retain(|(name, _)| *name != file);
    files.insert(0, (file.clone(), written.text()));
    say!("");
    write(dir, &files)?;
    let model = json!({"arch": "unet", "preset": "unet_tiny", "dim": proposal.dim});
    let took = bench::step(&model, image_size, proposal.batch_size);
    say!("{}\n", told::time(proposal, known, took.as_ref()));
    let mut run = CommandLine::new(["pipe", "run"]);
    if pipeline_name::all(dir).len() > 1 {
        run = run.path(Path::new(&file));
    }
    let look = run.clone().options([format!("--epochs={}", proposal.epochs.div_ceil(10))]);
    if !opened.bad.is_empty() {
        say!("first: replace or remove what cannot be read");
    }
    say!("a first look in a tenth of the time: {}", inside(dir, &look.to_string()));
    say!("next: {}", inside(dir, &run.to_string()));
    Ok(ExitCode::SUCCESS)
}

/// A command for a project in a folder.
fn inside(dir: &Path, command: &str) -> String {
    if dir == Path::new(".") { command.to_owned() } else { shell::inside(dir, command) }
}

/// A path of what may not be there yet, without links in it.
fn absolute(dir: &Path) -> Result<PathBuf, CliError> {
    let failed =
        |e: std::io::Error| CliError::usage(format!("failed to find {}: {e}", dir.display()));
    let path = std::path::absolute(dir).map_err(failed)?;
    let there = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let below = path.strip_prefix(there).unwrap_or(Path::new(""));
    let there = there.canonicalize().map_err(failed)?;
    // An empty path would end it with a slash.
    Ok(if below.as_os_str().is_empty() { there } else { there.join(below) })
}

/// The name of a pipeline after the project's folder.
fn name_of(project: &Path) -> String {
    let name = project.file_name().map(|name| plain_name(&name.to_string_lossy()));
    let is_word = |name: &String| name.chars().any(|c| c.is_ascii_alphanumeric());
    name.filter(is_word).unwrap_or_else(|| "pictures".to_owned())
}

/// What editors and git are told in every project.
fn in_every_project(kinds: &Kinds) -> Vec<(String, String)> {
    let mut files = vec![(".gitignore".to_owned(), IGNORED.to_owned())];
    for (name, schema) in pipe_engine::schema::all(kinds) {
        files.push((format!("schemas/{name}.schema.json"), pipe_engine::schema::to_text(&schema)));
    }
    files
}

/// Refuses a folder with other files of these names; `options` adds what was asked for.
fn refuse_taken(
    dir: &Path,
    files: &[(String, String)],
    options: impl FnOnce(CommandLine) -> CommandLine,
) -> Result<(), CliError> {
    let taken = files.iter().filter(|(name, text)| is_taken(&dir.join(name), text));
    let taken: Vec<&str> = taken.map(|(name, _)| name.as_str()).collect();
    if taken.is_empty() {
        return Ok(());
    }
    let (shown, list) = (dir.display(), taken.join(", "));
    let elsewhere = options(CommandLine::new(["pipe", "init"])).path(&free_beside(dir));
    Err(CliError::usage(format!(
        "{shown} holds files of these names already: {list}\n  move them away, or choose another folder: {elsewhere}"
    )))
}

/// Writes what is not there yet. What is there is the same, or the user's own list.
fn write(dir: &Path, files: &[(String, String)]) -> Result<(), CliError> {
    let disk = Disk::default();
    for (name, text) in files {
        let path = dir.join(name);
        if path.exists() {
            continue;
        }
        atomic::create_folder(&disk, path.parent().unwrap_or(Path::new(".")))
            .map_err(CliError::failed)?;
        atomic::write(&disk, &path, |out| out.write_all(text.as_bytes()))
            .map_err(CliError::failed)?;
        if !name.starts_with("schemas/") {
            say!("wrote {}", path.display());
        }
    }
    say!("wrote {} (for editors)\n", dir.join("schemas").display());
    // So that a project is found that lies inside another one.
    atomic::create_folder(&disk, &dir.join(STATE_FOLDER)).map_err(CliError::failed)
}

/// A folder that is not there yet.
fn free_beside(dir: &Path) -> PathBuf {
    let name = dir
        .file_name()
        .map_or_else(|| "my_project".into(), |name| name.to_string_lossy().into_owned());
    let numbered = (2..).map(|n| dir.with_file_name(format!("{name}_{n}")));
    let mut names = std::iter::once(dir.with_file_name(&name)).chain(numbered);
    names.find(|path| !path.exists()).unwrap_or_else(|| dir.to_owned())
}

/// Whether another file stands there. A list of ignored files is the user's own business.
fn is_taken(path: &Path, text: &str) -> bool {
    let own = path.file_name().is_some_and(|name| name == ".gitignore");
    !own && path.exists() && std::fs::read(path).map_or(true, |found| found != text.as_bytes())
}
