//! Parameters whose values refer to other parameters.

use std::collections::BTreeSet;

use pipe_core::error::{Gathered, SpecErrors};
use serde_json::{Map, Value};

use crate::pipeline_file::params::{BadReference, Names, Used, fill_ours, names_in};
use crate::pipeline_file::pipeline::PipelineFile;
use crate::pipeline_file::values::error_at;
use crate::source::Part;

/// Fills in the parameters that the values of other parameters refer to.
///
/// # Errors
/// All that refer to nothing, or to themselves by a way round.
pub(crate) fn resolve(file: &mut PipelineFile) -> Result<(), SpecErrors> {
    let written = std::mem::take(&mut file.params);
    let mut resolving = Resolving { written: &written, done: Map::new(), open: Vec::new() };
    let mut errors = Gathered::default();
    for name in written.keys() {
        if let Err((name, bad)) = resolving.parameter(name) {
            let path = [vec!["params".to_owned(), name], bad.path.clone()].concat();
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let names =
                Names { params: &written, prefix: "", matrix: &Map::new(), used: &Used::default() };
            let mut error = error_at(&file.source, &path, Part::Value, bad.message.clone());
            if bad.message.ends_with("under `matrix:`") {
                error = error
                    .note("a parameter is the same for all stages: `${matrix.NAME}` belongs into the stage");
            }
            errors.push(bad.help(error, names));
            resolving.open.clear();
        }
    }
    file.params = resolving.done;
    file.written_params = written;
    for scope in &mut file.scopes {
        let value = |name: &String| {
            let value = file.params.get(&format!("{}{name}", scope.prefix))?;
            Some((name.clone(), value.clone()))
        };
        scope.values = scope.parameters.iter().filter_map(value).collect();
    }
    errors.or(())
}

struct Resolving<'a> {
    written: &'a Map<String, Value>,
    done: Map<String, Value>,
    /// Those that wait for what they refer to, the outermost first.
    open: Vec<String>,
}

impl Resolving<'_> {
    /// The name in an error is that of the parameter in which it stands.
    fn parameter(&mut self, name: &str) -> Result<(), (String, BadReference)> {
        let Some(value) = self.written.get(name).filter(|_| !self.done.contains_key(name)) else {
            return Ok(());
        };
        if let Some(at) = self.open.iter().position(|open| open == name) {
            let circle: Vec<&str> =
                self.open[at..].iter().map(String::as_str).chain([name]).collect();
            let message =
                format!("parameters refer to each other in a circle: {}", circle.join(" -> "));
            let bad = BadReference { path: Vec::new(), message, unknown: None, note: None };
            // Said once, whatever led to it.
            let circle = self.open[at..].to_vec();
            self.done.extend(circle.into_iter().map(|name| (name, Value::Null)));
            return Err((name.to_owned(), bad));
        }
        let mut inner = BTreeSet::new();
        names_in(value, &mut inner);
        if inner.is_empty()
            && !value.to_string().contains("${matrix.")
            && !value.to_string().contains("$${")
        {
            self.done.insert(name.to_owned(), value.clone());
            return Ok(());
        }
        self.open.push(name.to_owned());
        for other in &inner {
            self.parameter(other)?;
        }
        self.open.pop();
        let names =
            Names { params: &self.done, prefix: "", matrix: &Map::new(), used: &Used::default() };
        let filled = fill_ours(value, names);
        let value = filled.as_ref().ok().cloned().unwrap_or_default();
        self.done.insert(name.to_owned(), value);
        filled.map(drop).map_err(|bad| (name.to_owned(), bad))
    }
}
