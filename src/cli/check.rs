//! `pipe check [FILE…]`

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use pipe_core::error::SpecError;
use pipe_core::number_text::counted;
use pipe_engine::graph::Graph;
use pipe_engine::pipeline_file::environment;
use serde_json::{Value, json};

use super::error::Message;
use super::pipeline_args::SettingArgs;
use super::pipeline_name::{self, HERE};
use super::{CliError, ExitCode, Kinds, project};
use crate::report::message;
use crate::report::stdout::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe check pipelines/base_training.yaml\n  pipe check pipelines/base_training.yaml pipelines/sweep.yaml\n  pipe check --format github\n  pipe check pipelines/base_training.yaml --epochs 20 --set base.optimizer.weight_decay=0.1"
)]
pub struct CheckArguments {
    /// Pipeline files, or their names; all of the project if there is none
    files: Vec<PathBuf>,
    /// How to say what is wrong: for people, as one JSON document, or as marks at the lines of a pull
    /// request on GitHub
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    format: Format,
    #[command(flatten)]
    settings: SettingArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Github,
}

/// What was found in files.
#[derive(Default)]
struct Found {
    /// Files without mistakes, each with the number of its stages.
    valid: Vec<(PathBuf, usize)>,
    warnings: Vec<SpecError>,
    errors: Vec<CliError>,
}

pub fn check(arguments: CheckArguments, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let format = arguments.format;
    let (mut found, mut files) = (Found::default(), Vec::new());
    for typed in arguments.files {
        match pipeline_name::resolve(&typed) {
            Ok(file) => files.push(file),
            Err(error) => found.errors.push(error),
        }
    }
    if files.is_empty() && found.errors.is_empty() {
        files = pipeline_name::all(Path::new(HERE));
        if files.is_empty() {
            found.errors.extend(pipeline_name::resolve(Path::new(HERE)).err());
        }
    }
    for file in &files {
        match load(file, &arguments.settings, kinds) {
            Ok(graph) => {
                let (stages, warnings) = (graph.stages().count(), &graph.pipeline.warnings);
                if format == Format::Text {
                    tell(file, stages, warnings);
                }
                found.warnings.extend(warnings.iter().cloned());
                found.valid.push((file.clone(), stages));
            }
            Err(error) => found.errors.push(error),
        }
    }
    match format {
        Format::Text => {}
        Format::Json => say!("{:#}", found.to_json()),
        Format::Github => found.each(|level, message| say!("{}", github(level, message))),
    }
    match (CliError::all(found.errors), format) {
        (None, _) => Ok(ExitCode::SUCCESS),
        (Some(error), Format::Text) => Err(error),
        // It has been said.
        (Some(error), _) => Ok(error.exit_code()),
    }
}

/// Says that a file is valid, and what may not be meant in it.
fn tell(file: &Path, stages: usize, warnings: &[SpecError]) {
    warnings.iter().for_each(|warning| message::warning(&warning.to_string()));
    let doubts = match warnings.len() {
        0 => String::new(),
        n => format!(", {}", counted(n, "warning")),
    };
    say!("{}: valid, {}{doubts}", file.display(), counted(stages, "stage"));
}

fn load(file: &Path, settings: &SettingArgs, kinds: &Kinds) -> Result<Graph, CliError> {
    project::enter(Some(file))?;
    settings.load(&project::root()?, &project::path(file), environment::settings(), kinds)
}

impl Found {
    fn each(&self, mut tell: impl FnMut(&str, &Message)) {
        let warnings = self.warnings.iter().cloned().map(Message::from);
        warnings.for_each(|message| tell("warning", &message));
        let errors = self.errors.iter().flat_map(CliError::messages);
        errors.for_each(|message| tell("error", message));
    }

    fn to_json(&self) -> Value {
        let mut findings = Vec::new();
        self.each(|level, message| {
            let mut finding = match &message.spec {
                None => json!({"message": message.text}),
                Some(spec) => {
                    let (line, column) = spec.position().unzip();
                    let (file, key) = (file(spec), spec.key());
                    json!({"file": file, "line": line, "column": column, "key": key,
                           "message": spec.message(), "notes": spec.notes()})
                }
            };
            finding["level"] = level.into();
            findings.push(finding);
        });
        let valid = self.valid.iter().map(|(file, stages)| json!({"file": file, "stages": stages}));
        json!({"valid": valid.collect::<Vec<_>>(), "findings": findings})
    }
}

/// The file of an error, as seen from where the program was started.
fn file(spec: &SpecError) -> Option<String> {
    Some(project::from_root(spec.file()?).display().to_string())
}

/// A workflow command of GitHub: `::error file=F,line=L,col=C,title=KEY::MESSAGE`.
///
/// See "Workflow commands for GitHub Actions", "Setting an error message", of GitHub's documentation.
fn github(level: &str, message: &Message) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let Some(spec) = &message.spec else {
        return format!("::{level}::{}", data(&message.text));
    };
    let (line, column) = spec.position().unzip();
    let key = Some(spec.key()).filter(|key| !key.is_empty());
    let properties = [
        ("file", file(spec)),
        ("line", line.map(|line| line.to_string())),
        ("col", column.map(|column| column.to_string())),
        ("title", key),
    ];
    let properties: Vec<String> = properties
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", property(&value?))))
        .collect();
    let text = std::iter::once(spec.message()).chain(spec.notes().iter().map(String::as_str));
    let text = data(&text.collect::<Vec<_>>().join("\n"));
    let gap = if properties.is_empty() { "" } else { " " };
    format!("::{level}{gap}{}::{text}", properties.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_workflow_command_is_escaped() {
        let message = Message::from("50% of\na, b: c".to_owned());
        assert_eq!(github("error", &message), "::error::50%25 of%0Aa, b: c");
        let spec = SpecError::plain("wrong: 1, 2").note("try\nthis");
        assert_eq!(github("warning", &spec.into()), "::warning::wrong: 1, 2%0Atry%0Athis");
    }
}
