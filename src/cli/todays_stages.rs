//! The stages that the pipelines of a project have now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pipe_engine::graph::Graph;
use pipe_engine::pipeline_file::environment;
use pipe_engine::state::Record;
use pipe_fs::ProjectRoot;

use super::Kinds;
use super::pipeline_args::SettingArgs;
use super::pipeline_name::{self, HERE};

/// The names of the stages, by pipeline.
#[derive(Debug, Default)]
pub struct TodaysStages(BTreeMap<String, BTreeSet<String>>);

impl TodaysStages {
    /// Those of the project in which this process is, as its files have them, and those of `named`.
    /// None where a file cannot be read: it could be the one that has a stage.
    pub fn of(root: &ProjectRoot, named: Option<&Graph>, kinds: &Kinds) -> Self {
        let mut all = Self::default();
        for file in pipeline_name::all(Path::new(HERE)) {
            let overrides = environment::settings();
            match SettingArgs::default().load(root, &file, overrides, kinds) {
                Ok(graph) => all.add(&graph),
                Err(_) => return Self::default(),
            }
        }
        named.into_iter().for_each(|graph| all.add(graph));
        all
    }

    fn add(&mut self, graph: &Graph) {
        let stages = graph.stages().map(|stage| stage.id.to_string());
        self.0.entry(graph.pipeline.name.clone()).or_default().extend(stages);
    }

    /// Whether the pipeline of a record is known, and has the stage no more.
    pub fn lack(&self, record: &Record) -> bool {
        self.0.get(&record.pipeline).is_some_and(|stages| !stages.contains(&record.stage))
    }
}
