//! `pipe init [DIR]`

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use pipe_core::shell;
use pipe_core::shell::CommandLine;
use pipe_fs::{Disk, STATE_FOLDER, atomic};

use super::{CliError, ExitCode, Kinds};
use crate::report::stdout::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe init my_project\n  pipe init my_project --template chain\n  cd my_project && pipe run pipelines/base_to_lora.yaml"
)]
pub struct InitArguments {
    /// Folder of the new project; made if it is not there
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// What the project trains
    #[arg(short, long, value_enum, default_value = "base")]
    template: Template,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Template {
    /// A base model on drawn shapes
    Base,
    /// A base model, LoRA fine-tuning, image grids from both
    Chain,
    /// A base model on a folder of your own images
    Folder,
}

const CONFIG: &str = include_str!("../../configs/training/base_training.yaml");
const IGNORED: &str = "/checkpoints\n/data\n/samples\n/.pipe\n";

/// A pipeline file of ours.
struct Shipped {
    file: &'static str,
    text: &'static str,
    /// What is to be done before its first run, if anything.
    first: &'static str,
}

impl Template {
    fn shipped(self) -> Shipped {
        match self {
            Template::Base => Shipped {
                file: "pipelines/base_training.yaml",
                text: include_str!("../../pipelines/base_training.yaml"),
                first: "",
            },
            Template::Chain => Shipped {
                file: "pipelines/base_to_lora.yaml",
                text: include_str!("../../pipelines/base_to_lora.yaml"),
                first: "",
            },
            Template::Folder => Shipped {
                file: "pipelines/image_folder.yaml",
                text: include_str!("../../pipelines/image_folder.yaml"),
                first: "put your images into data/my_images/CLASS/, a folder for each class, or all into data/my_images/\n",
            },
        }
    }
}

pub fn init(arguments: InitArguments, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let Shipped { file, text, first } = arguments.template.shipped();
    let disk = Disk::default();
    let template = arguments.template.to_possible_value();
    let template = template.map(|value| format!("--template={}", value.get_name()));
    let command = CommandLine::new(["pipe", "init"]).options(template);
    let mut files = vec![
        (file.to_owned(), text.to_owned()),
        ("configs/training/base_training.yaml".to_owned(), CONFIG.to_owned()),
        (".gitignore".to_owned(), IGNORED.to_owned()),
    ];
    for (name, schema) in pipe_engine::schema::all(kinds) {
        files.push((format!("schemas/{name}.schema.json"), pipe_engine::schema::to_text(&schema)));
    }
    let taken: Vec<&str> = files
        .iter()
        .filter(|(name, text)| is_taken(&arguments.dir.join(name), text))
        .map(|(name, _)| name.as_str())
        .collect();
    if !taken.is_empty() {
        let (dir, list) = (arguments.dir.display(), taken.join(", "));
        let elsewhere = command.path(&free_beside(&arguments.dir));
        return Err(CliError::usage(format!(
            "{dir} holds files of these names already: {list}\n  move them away, or choose another folder: {elsewhere}"
        )));
    }
    for (name, text) in &files {
        let path = arguments.dir.join(name);
        // What stands there is the same, or the user's own list.
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
    say!("wrote {} (for editors)\n", arguments.dir.join("schemas").display());
    // So that a project is found that lies inside another one.
    atomic::create_folder(&disk, &arguments.dir.join(STATE_FOLDER)).map_err(CliError::failed)?;
    let run = CommandLine::new(["pipe", "run", file]).to_string();
    let next =
        if arguments.dir == Path::new(".") { run } else { shell::inside(&arguments.dir, &run) };
    say!("{first}next: {next}");
    Ok(ExitCode::SUCCESS)
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
