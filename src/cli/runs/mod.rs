//! `pipe runs [list]`, `show N`, `compare N M…`, `path N`, `note N TEXT`, `tag N TAG…`, `prune --keep
//! K`, `thin N… --keep K`, `rm N`, `export N`, `import FILE`

mod archive;
mod compare;
mod curve;
mod entry;
mod form;
mod labels;
mod list;
pub(super) mod named;
mod over_seeds;
mod path;
mod select;
mod show;
mod summary;
mod thin;

use std::path::PathBuf;

use self::compare::compare;
use self::form::Form;
use self::list::{Which, list};
use self::named::{Name, one};
use self::path::{Wanted, path};
use self::show::show;
use self::thin::thin;
use super::run_folders::{folders, to_clean};
use super::{CliError, ExitCode, clean, project};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe runs --sort best --filter status=completed --filter 'best<0.2'\n  pipe runs compare 1 2 --csv\n  pipe runs note 3 'lower learning rate'\n  pipe runs show 3 --curve\n  pipe runs path 3 --last\n  pipe runs thin 1 2 --keep 1 --dry-run\n  pipe runs export 3 -o run.tar\n  pipe runs import run.tar --to checkpoints/base_training"
)]
pub struct RunsArguments {
    #[command(subcommand)]
    command: Option<RunsCommand>,
    /// Folder of numbered runs; all of the project if unset
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// As JSON
    #[arg(long, global = true)]
    json: bool,
    /// As comma-separated values (`list` and `compare`)
    #[arg(long, global = true, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    which: Which,
}

#[derive(clap::Subcommand)]
enum RunsCommand {
    /// List the runs
    List,
    /// Show one run
    Show {
        /// Its number; `STAGE/N` or `FOLDER/N` where several have it
        #[arg(value_name = "RUN")]
        run: Name,
        /// Plot each metric over the epochs
        #[arg(long)]
        curve: bool,
    },
    /// Show where runs differ: settings and results, a column a run
    Compare {
        /// Their numbers; `STAGE/N` or `FOLDER/N` where several have one
        #[arg(required = true, num_args = 2.., value_name = "RUN")]
        runs: Vec<Name>,
    },
    /// Print the path of a checkpoint of a run, for scripts
    Path {
        /// Its number; `STAGE/N` or `FOLDER/N` where several have one
        #[arg(value_name = "RUN")]
        run: Name,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Write a note beside a run; without a text, remove it
    Note {
        /// Its number; `STAGE/N` or `FOLDER/N` where several have one
        #[arg(value_name = "RUN")]
        run: Name,
        /// The note
        text: Option<String>,
    },
    /// Give a run tags
    Tag {
        /// Its number; `STAGE/N` or `FOLDER/N` where several have one
        #[arg(value_name = "RUN")]
        run: Name,
        /// Words without spaces
        #[arg(required = true, value_name = "TAG")]
        tags: Vec<String>,
        /// Take them off instead
        #[arg(long)]
        remove: bool,
    },
    /// Remove old runs that nothing needs
    Prune {
        /// How many of the newest runs of each stage stay
        #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
        keep: u32,
        /// Say what would go, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove checkpoints of completed runs: all but the newest, the best, and those that
    /// something was made from
    Thin {
        /// Their numbers; `STAGE/N` or `FOLDER/N` where several have one
        #[arg(required = true, value_name = "RUN")]
        runs: Vec<Name>,
        /// How many of the newest checkpoints of each run stay
        #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
        keep: u32,
        /// Say what would go, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove one run
    Rm {
        /// Its number; `STAGE/N` or `FOLDER/N` where several have one
        #[arg(value_name = "RUN")]
        run: Name,
        /// Even if a stage's record refers to it
        #[arg(long)]
        force: bool,
    },
    /// Write a run as one archive, a plain tar file
    Export {
        /// Its number; `STAGE/N` or `FOLDER/N` where several have one
        #[arg(value_name = "RUN")]
        run: Name,
        /// File to write; `-` for stdout
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Write over a file that exists
        #[arg(long)]
        overwrite: bool,
    },
    /// Take a run in from such an archive, as a new run
    Import {
        /// The archive; `-` for stdin
        file: PathBuf,
        /// Folder of numbered runs that it goes to; the one that it was in if that lies in
        /// `checkpoints/`
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
        /// A number of your own instead of the next free one
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        run_number: Option<u32>,
    },
}

pub fn runs(arguments: RunsArguments) -> Result<ExitCode, CliError> {
    project::enter(None)?;
    let folders = folders(arguments.dir.as_deref())?;
    let form = match (arguments.json, arguments.csv) {
        (true, _) => Form::Json,
        (_, true) => Form::Csv,
        _ => Form::Table,
    };
    match arguments.command.unwrap_or(RunsCommand::List) {
        RunsCommand::List => list(&folders, &arguments.which, form)?,
        RunsCommand::Show { run, curve } => show(&folders, &run, curve, arguments.json)?,
        RunsCommand::Compare { runs } => compare(&folders, &runs, form)?,
        RunsCommand::Path { run, wanted } => {
            return path(&one(&folders, &run)?, &wanted, arguments.json);
        }
        RunsCommand::Note { run, text } => return labels::note(&one(&folders, &run)?, text),
        RunsCommand::Tag { run, tags, remove } => {
            return labels::tag(&one(&folders, &run)?, tags, remove);
        }
        RunsCommand::Prune { keep, dry_run } => {
            return clean::prune(&to_clean(arguments.dir.as_deref())?, keep as usize, dry_run);
        }
        RunsCommand::Thin { runs, keep, dry_run } => {
            return thin(&folders, &runs, keep as usize, dry_run);
        }
        RunsCommand::Rm { run, force } => {
            return clean::remove(one(&folders, &run)?, &folders, force);
        }
        RunsCommand::Export { run, output, overwrite } => {
            return archive::export(&one(&folders, &run)?, &output, overwrite);
        }
        RunsCommand::Import { file, to, run_number } => {
            return archive::import(&file, to.as_deref(), run_number);
        }
    }
    Ok(ExitCode::SUCCESS)
}
