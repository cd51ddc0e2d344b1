//! `pipe graph [FILE]`

use std::path::PathBuf;

use pipe_engine::pipeline_file::environment;

use super::pipeline_args::SettingArgs;
use super::pipeline_name::{self, HERE};
use super::{CliError, ExitCode, Kinds, project};
use crate::report::stdout::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe graph pipelines/base_to_lora.yaml\n  pipe graph pipelines/base_to_lora.yaml --dot | dot -Tsvg -o graph.svg\n  pipe graph pipelines/base_to_lora.yaml --mermaid\n  pipe graph pipelines/sweep.yaml --set 'base.matrix.learning_rate=[1e-4, 1e-3]'"
)]
pub struct GraphArguments {
    /// Pipeline file, or its name; the project's only one if there is none
    #[arg(default_value = HERE, hide_default_value = true)]
    file: PathBuf,
    #[command(flatten)]
    settings: SettingArgs,
    /// Graphviz instead of text
    #[arg(long)]
    dot: bool,
    /// A Mermaid flowchart instead of text
    #[arg(long, conflicts_with = "dot")]
    mermaid: bool,
}

pub fn graph(arguments: GraphArguments, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let file = pipeline_name::resolve(&arguments.file)?;
    project::enter(Some(&file))?;
    let file = project::path(&file);
    let graph =
        arguments.settings.load(&project::root()?, &file, environment::settings(), kinds)?;
    let text = match (arguments.dot, arguments.mermaid) {
        (true, _) => graph.to_dot(),
        (_, true) => graph.to_mermaid(),
        _ => graph.to_text(),
    };
    say!("{}", text.trim_end());
    Ok(ExitCode::SUCCESS)
}
