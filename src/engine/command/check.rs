//! Whether the settings of a program make sense, before anything runs.

use std::collections::BTreeMap;
use std::path::Path;

use figment::Figment;
use pipe_core::secret;
use serde_json::Value;

use super::{CommandSettings, Program};
use crate::kind::{Rejection, is_inside_project};

/// The settings, if they make sense.
pub(super) fn read_settings(settings: &Figment) -> Result<CommandSettings, Rejection> {
    learn_environment(settings);
    let settings: CommandSettings = settings.extract()?;
    let CommandSettings { run, inputs, env, working_dir, .. } = &settings;
    check_program(run, inputs, env, working_dir.as_deref())?;
    let inside = "a path inside the project, without `..`";
    for (index, path) in settings.outputs.iter().enumerate() {
        Rejection::unless(format!("outputs.{index}"), is_inside_project(path), inside)?;
    }
    if let Some(path) = &settings.metrics {
        let is_file = is_inside_project(path) && path.file_name().is_some();
        let inside = "the path of a file inside the project, without `..`";
        Rejection::unless("metrics", is_file, inside)?;
    }
    Ok(settings)
}

/// Takes note of the values of `env`: whatever is wrong with them, no message may repeat them.
pub fn learn_environment(settings: &Figment) {
    if let Ok(env) = settings.extract_inner::<Value>("env") {
        learn(&env);
    }
}

/// Checks what settings say of a program: what is started, where, and what it reads.
pub fn check_program(
    program: &Program,
    inputs: &[String],
    env: &BTreeMap<String, String>,
    working_dir: Option<&Path>,
) -> Result<(), Rejection> {
    let name = match program {
        Program::Shell(line) => line.trim(),
        Program::Arguments(list) => list.first().map_or("", String::as_str),
    };
    let words = "a program with its arguments, or a line for the shell";
    Rejection::unless("run", !name.is_empty(), words)?;
    for (index, pattern) in inputs.iter().enumerate() {
        let key = format!("inputs.{index}");
        let inside = "a path inside the project, without `..`";
        Rejection::unless(&key, is_inside_project(Path::new(pattern)), inside)?;
        glob::Pattern::new(pattern)
            .map_err(|e| Rejection::value(&key, format!("not a pattern: {e}")))?;
    }
    let inside = "a folder inside the project, without `..`";
    Rejection::unless("working_dir", working_dir.is_none_or(is_inside_project), inside)?;
    secret::learn_addresses(&program.shown());
    for (name, value) in env {
        let told = "the value itself: `***` stands for one in what is shown";
        Rejection::unless(format!("env.{name}"), value != secret::MASK, told)?;
        let good = !name.is_empty() && !name.contains(['=', '\0']);
        Rejection::unless(format!("env.{name}"), good, "the name of a variable")?;
    }
    Ok(())
}

/// Takes note of every text in a value. The path of what is there is no secret, and stands in
/// messages.
fn learn(value: &Value) {
    match value {
        Value::String(text) if !Path::new(text).exists() => secret::learn(text),
        Value::Array(items) => items.iter().for_each(learn),
        Value::Object(map) => map.values().for_each(learn),
        _ => {}
    }
}
