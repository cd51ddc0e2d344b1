//! `fsync:` of a pipeline file: what the disk is asked to keep through a power cut.

use pipe_core::error::{Gathered, SpecError};
use pipe_fs::sync::Level;
use serde_json::Value;

use crate::pipeline_file::overrides::Override;
use crate::pipeline_file::params::{Names, filled_value};
use crate::pipeline_file::pipeline::PipelineFile;
use crate::pipeline_file::values::error_at;
use crate::pipeline_file::words::describe;
use crate::source::Part;

/// What `fsync:` says, or what the environment or the command line says in its place.
pub(super) fn read(
    file: &PipelineFile,
    names: Names,
    over: Option<Override>,
    errors: &mut Gathered,
) -> Level {
    let written = file
        .fsync
        .as_ref()
        .map(|written| filled_value(&file.source, &["fsync".into()], written, names));
    let written = written.and_then(|filled| errors.take(filled));
    let given = over.as_ref().and_then(|over| over.value.clone().ok());
    let value = match given.or(written) {
        None | Some(Value::Null) => return Level::default(),
        // How YAML 1.1 reads it.
        Some(Value::Bool(false)) => return Level::Off,
        Some(value) => value,
    };
    serde_json::from_value(value.clone()).unwrap_or_else(|_| {
        let message = "expected `full`, `data` or `off`";
        let found = value.as_str().map_or_else(|| describe(&value), |word| format!("{word:?}"));
        let message = format!("{message}, found {found}");
        errors.push(match &over {
            Some(over) => {
                SpecError::plain(format!("{}: {message}", over.by.shown)).hiding(&over.by.hidden)
            }
            None => error_at(&file.source, &["fsync"], Part::Value, message),
        });
        Level::default()
    })
}
