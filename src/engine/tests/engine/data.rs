//! Data that no setting decides: a stage that keeps nothing says what it would hand on, and that
//! counts for those behind it, at the plan and when their turn comes.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use pipe_core::progress::NullListener;
use pipe_core::stop::Stop;
use pipe_engine::exec::{Execution, execute, inspect, inspect_for_display};
use pipe_engine::graph::{Graph, Selection, Targets};
use pipe_engine::kind::*;
use pipe_engine::plan::{self, Plan};
use pipe_engine::{identity, pipeline_file};
use serde_json::{Value, json};

const DATA: ArtifactType = ArtifactType::new("dataset");

/// Hands on the text of `data.txt`, or uses it: a file of its own for each identity.
struct Kind(&'static str);

impl StageKind for Kind {
    fn name(&self) -> &'static str {
        self.0
    }

    fn makes(&self) -> ArtifactType {
        if self.0 == "data" { DATA } else { ArtifactType::FILES }
    }

    fn schema(&self) -> schemars::Schema {
        schemars::json_schema!({"type": "object", "properties": {"dataset": {"type": "string"}}})
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings: BTreeMap<String, Value> = settings.extract()?;
        let from = settings.get("dataset").and_then(Value::as_str).map(str::to_owned);
        Ok(Arc::new(Fake { from }))
    }
}

struct Fake {
    /// The stage whose data is used; the data itself without one.
    from: Option<String>,
}

fn data(root: &Path) -> Result<Artifact, StageError> {
    let text = std::fs::read_to_string(root.join("data.txt"));
    let text = text.map_err(|_| StageError::new(Failure::Input, "data.txt is not there"))?;
    Ok(Artifact::new(text.clone(), Some(format!("sha256:{text}"))))
}

fn file(root: &Path, identity: &str) -> PathBuf {
    root.join(format!("used-{}", &identity[7..15]))
}

impl Stage for Fake {
    fn settings(&self) -> Value {
        json!({ "dataset": self.from })
    }

    fn references(&self) -> Vec<Reference> {
        let to = |stage: &String| {
            Reference::of_type(DATA, "dataset", stage, DependencyMode::FingerprintAndContent)
        };
        self.from.iter().map(to).collect()
    }

    fn content(&self, at: &ContentContext) -> Result<BTreeMap<String, String>, StageError> {
        let read =
            std::fs::read_to_string(at.root.join("start.txt")).ok().filter(|_| self.from.is_some());
        Ok(read.into_iter().map(|text| ("start".to_owned(), text)).collect())
    }

    fn files(&self) -> Files {
        let reads = if self.from.is_none() {
            vec![("root".to_owned(), "data.txt".to_owned())]
        } else {
            Vec::new()
        };
        Files { reads, writes: Vec::new() }
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        if self.from.is_none() {
            let artifact = if o.pending { None } else { Some(data(o.root)?) };
            return Ok(Inspection::new(StageState::Transient, artifact));
        }
        Ok(if file(o.root, o.identity).exists() {
            StageState::Done { reason: "up to date".into() }
        } else {
            StageState::absent(format!("unknown: {}", o.unknown.join(" ")))
        }
        .into())
    }

    fn run(&self, c: &RunContext) -> Result<Outcome, StageError> {
        if self.from.is_none() {
            return Ok(Outcome { artifact: Some(data(&c.root)?), ..Outcome::default() });
        }
        std::fs::write(file(&c.root, &c.identity), "").unwrap();
        Ok(Outcome::default())
    }
}

struct Project(tempfile::TempDir);

impl Project {
    fn new(stages: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.yaml"), format!("name: p\nstages:\n{stages}"))
            .unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    /// The plan, or the error; then, if `run`, carried out.
    fn plan(&self, run: bool) -> Result<Plan, String> {
        let kinds: Vec<Arc<dyn StageKind>> = vec![
            Arc::new(Kind("data")),
            Arc::new(Kind("use")),
            Arc::new(pipe_engine::command::CommandKind),
        ];
        let loaded = pipeline_file::load(self.0.path(), Path::new("p.yaml"), &kinds, &[]);
        let graph = Graph::build(loaded.unwrap_or_else(|e| panic!("{e}")))
            .unwrap_or_else(|e| panic!("{e}"));
        let (manifests, stop) = (identity::manifests(&graph), Stop::default());
        let root = self.0.path().into();
        let execution = Execution::new(&root, &graph, &manifests, &stop, &NullListener);
        let selection: Selection = graph.select(&Targets::default()).unwrap();
        let observed =
            inspect(&execution, &selection.stages).map_err(|(stage, e)| format!("{stage}: {e}"));
        if observed.is_err() {
            let shown = inspect_for_display(&execution, &selection.stages)
                .unwrap_or_else(|(_, e)| panic!("{e}"));
            assert_eq!(shown.keys().collect::<HashSet<_>>(), selection.stages.iter().collect());
        }
        let observed = observed?;
        let plan = plan::plan(&graph, &selection, &Default::default(), &observed);
        if run {
            let summary = execute(&execution, &plan, observed).unwrap();
            assert!(summary.failed.is_empty(), "{:?}", summary.failed);
        }
        Ok(plan)
    }

    /// The plan in a line: `data skip, used run`.
    fn planned(&self, run: bool) -> String {
        let plan = self.plan(run).unwrap_or_else(|e| panic!("{e}"));
        plan.steps
            .iter()
            .map(|s| format!("{} {}", s.stage, s.action))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn uses(&self) -> usize {
        let all = std::fs::read_dir(self.0.path()).unwrap().flatten();
        all.filter(|e| e.file_name().to_string_lossy().starts_with("used-")).count()
    }
}

const USE: &str = "  data: { kind: data }\n  used: { kind: use, dataset: data }\n";

#[test]
fn other_content_of_data_is_another_identity_and_the_old_one_stays() {
    let project = Project::new(USE);
    project.write("data.txt", "one");
    assert_eq!(project.planned(true), "data run, used run");
    assert_eq!(project.planned(true), "data skip, used skip");
    project.write("data.txt", "two");
    assert_eq!(project.planned(true), "data run, used run");
    project.write("data.txt", "one");
    assert_eq!(project.planned(true), "data skip, used skip");
    assert_eq!(project.uses(), 2);
}

#[test]
fn the_content_of_a_file_that_a_setting_names_counts() {
    let project = Project::new(USE);
    project.write("data.txt", "one");
    project.planned(true);
    project.write("start.txt", "a checkpoint");
    assert_eq!(project.planned(true), "data run, used run");
    assert_eq!(project.planned(true), "data skip, used skip");
}

#[test]
fn data_that_is_gone_is_an_error_of_the_plan_and_can_be_shown() {
    let project = Project::new(USE);
    assert_eq!(project.plan(false).unwrap_err(), "data: data.txt is not there");
}

#[test]
fn data_behind_a_stage_that_runs_is_looked_at_when_that_has_ended() {
    let make = "  make: { kind: command, run: cp from.txt data.txt, inputs: [from.txt], outputs: [data.txt] }\n";
    let project = Project::new(&format!("{USE}{make}"));
    project.write("from.txt", "one");
    assert_eq!(project.planned(true), "make run, data run, used run", "the data is not there yet");
    assert_eq!(project.planned(true), "make skip, data skip, used skip");
    project.write("from.txt", "two, and longer");
    assert_eq!(project.planned(true), "make run, data run, used run");
    assert_eq!(project.uses(), 2, "not the content of before");
    project.write("data.txt", "somebody else's");
    assert_eq!(project.planned(true), "make run, data run, used run");
    assert_eq!(project.uses(), 2, "made anew, it is as good as before");
}
