//! `pipe schema [NAME]`

use super::{CliError, ExitCode, Kinds};
use crate::report::stdout;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  pipe schema > pipeline.schema.json\n  pipe schema train")]
pub struct SchemaArguments {
    /// `pipeline` for pipeline files, or a stage kind for its config files
    #[arg(default_value = "pipeline")]
    name: String,
}

pub fn schema(arguments: SchemaArguments, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let schemas = pipe_engine::schema::all(kinds);
    let names = || schemas.iter().map(|(name, _)| name.as_str());
    let Some((_, schema)) = schemas.iter().find(|(name, _)| *name == arguments.name) else {
        let error =
            pipe_core::error::SpecError::plain(format!("no schema is called `{}`", arguments.name));
        return Err(error.candidates(&arguments.name, names()).into());
    };
    stdout::document(pipe_engine::schema::to_text(schema).trim_end());
    Ok(ExitCode::SUCCESS)
}
