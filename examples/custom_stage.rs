//! `pipe` with a stage kind of one's own: `kind: word_count` counts the words of a file.
//!
//! `cargo run --release --example custom_stage -- run p.yaml`, with a stage in `p.yaml` such as
//! `words: { kind: word_count, from: README.md, to: words.txt }`. Everything else is `pipe`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use burn_pipe::pipe_engine::figment::Figment;
use burn_pipe::pipe_engine::kind::*;
use burn_pipe::pipe_engine::schemars;
use burn_pipe::pipe_engine::state::Outputs;
use burn_pipe::pipe_fs::atomic;
use burn_pipe::pipe_runs::file_digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Its settings. The comments are the descriptions in its schema: `pipe schema word_count`.
#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "burn_pipe::pipe_engine::schemars")]
struct WordCount {
    /// The file whose words are counted, relative to the project.
    from: PathBuf,
    /// The file to write the number to.
    to: PathBuf,
}

struct WordCountKind;

impl StageKind for WordCountKind {
    fn name(&self) -> &'static str {
        "word_count"
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(WordCount)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        Ok(Arc::new(settings.extract::<WordCount>()?))
    }
}

impl Stage for WordCount {
    fn settings(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }

    fn files(&self) -> Files {
        let reads = vec![("from".to_owned(), self.from.display().to_string())];
        Files { reads, writes: vec![("to".to_owned(), self.to.clone())] }
    }

    /// What it reads counts by content: another text is another count.
    fn content(&self, at: &ContentContext) -> Result<BTreeMap<String, String>, StageError> {
        let digest = file_digest(&at.root.join(&self.from)).ok();
        Ok(digest.map(|digest| ("from.content".to_owned(), digest)).into_iter().collect())
    }

    fn inspect(&self, context: &InspectContext) -> Result<Inspection, StageError> {
        let Some(made) = context.made else {
            return Ok(StageState::absent("not counted yet").into());
        };
        let changes = context.changes_since(&made.manifest);
        let outputs: Option<Vec<_>> =
            made.outputs.iter().map(|output| context.if_unchanged(output)).collect();
        Ok(match outputs {
            _ if !changes.is_empty() => StageState::changed(changes).into(),
            None => StageState::absent(format!("{} was changed", self.to.display())).into(),
            Some(outputs) => {
                context.confirm(Outputs { outputs, ..made.clone() });
                StageState::Done { reason: "up to date".into() }.into()
            }
        })
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let text = std::fs::read_to_string(context.root.join(&self.from)).map_err(|e| {
            StageError::new(Failure::Input, format!("{}: {e}", self.from.display()))
        })?;
        let count = text.split_whitespace().count();
        let (disk, to) = (context.root.disk(), context.root.join(&self.to));
        atomic::write(disk, &to, |out| writeln!(out, "{count}"))?;
        let output = context.output(&self.to.display().to_string(), None)?;
        context.record_outputs(vec![output], Vec::new(), Vec::new())?;
        Ok(Outcome { summary: format!("{count} words"), ..Outcome::default() })
    }
}

fn main() {
    let architectures = burn_pipe::Architectures::builtin();
    let mut kinds = burn_pipe::kinds(&architectures);
    kinds.push(Arc::new(WordCountKind));
    burn_pipe::main_with(kinds, architectures);
}
