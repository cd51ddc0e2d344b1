//! A scripted stage behind the engine's trait: it succeeds, fails, is interrupted or panics as its
//! settings say.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use figment::Figment;
use pipe_core::error::SpecErrors;
use pipe_core::progress::{Event, EventListener};
use pipe_core::stop::Signal;
use pipe_engine::graph::Graph;
use pipe_engine::kind::*;
use pipe_engine::pipeline_file::{self, Override};
use pipe_fs::ProjectRoot;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Stage to read from
    pub dataset: Option<String>,
    pub learning_rate: f64,
    #[schemars(extend("x-class" = "extend"))]
    pub epochs: u64,
    /// succeed, fail, interrupt, panic, wait (until stopped), train (telling of each epoch), or
    /// failures in turn: `command signal input`
    #[schemars(extend("x-class" = "runtime"))]
    pub ends: String,
    pub classes: Vec<String>,
    /// Stands for the content of what the stage makes
    #[schemars(extend("x-class" = "runtime"))]
    pub content: String,
    pub checkpoint: Checkpoint,
}

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    #[schemars(extend("x-class" = "runtime"))]
    pub keep_last_n: u64,
    pub mode: Mode,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Min,
    Max,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dataset: None,
            learning_rate: 1e-3,
            epochs: 5,
            ends: "succeed".into(),
            classes: Vec::new(),
            content: String::new(),
            checkpoint: Checkpoint::default(),
        }
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { keep_last_n: 3, mode: Mode::Min }
    }
}

/// What every fake stage makes, and takes from another one.
const EPOCHS: ArtifactType = ArtifactType::new("epoch count");

/// A kind whose stages keep their epoch in a file of their name.
pub struct Fake {
    pub name: &'static str,
    pub transient: bool,
    pub counts: DependencyMode,
    pub many: bool,
}

impl StageKind for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn makes(&self) -> ArtifactType {
        EPOCHS
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(Settings)
    }

    fn policies(&self) -> &'static [&'static str] {
        &["checkpoint"]
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings: Settings = settings.extract()?;
        if settings.epochs == 0 {
            return Err(Rejection::value("epochs", "expected at least 1"));
        }
        Ok(Arc::new(FakeStage {
            settings,
            transient: self.transient,
            counts: self.counts,
            many: self.many,
        }))
    }
}

struct FakeStage {
    settings: Settings,
    transient: bool,
    counts: DependencyMode,
    many: bool,
}

impl FakeStage {
    /// Tells what a training tells, each epoch being the best.
    fn train(&self, c: &RunContext) {
        c.event(Event::WorkOpened {
            number: 7,
            title: "t".into(),
            directory: "runs/run_007".into(),
            device: "cpu".into(),
            size: 1,
            changing: 1,
        });
        for position in 1..=self.settings.epochs {
            let value = 1.0 / position as f64;
            let metrics = std::collections::BTreeMap::from([("loss".to_owned(), value)]);
            let target = self.settings.epochs;
            c.event(Event::Round { position, target, metrics, seconds: 0.0, rate: 1.0 });
            let file = format!("epoch_{position:03}.ckpt");
            c.event(Event::Saved { file, bytes: 1, seconds: 0.0, blocked: 0.0 });
            c.event(Event::NewBest { monitor: "loss".into(), value, position });
        }
    }

    fn artifact(&self) -> Option<Artifact> {
        Some(Artifact::new(self.settings.epochs, Some(self.settings.content.clone())))
    }
}

fn file(root: &Path, stage: &StageId, identity: &str) -> PathBuf {
    root.join(format!("{stage}-{}", &identity[7..15]))
}

impl Stage for FakeStage {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap()
    }

    fn references(&self) -> Vec<Reference> {
        let reference = |stage: &String| Reference {
            key: "dataset",
            stage: stage.clone(),
            wants: EPOCHS,
            mode: self.counts,
            many: self.many,
            passes_over_failed: self.many,
        };
        self.settings.dataset.iter().map(reference).collect()
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        if self.transient {
            return Ok(StageState::Transient.into());
        }
        let Ok(text) = std::fs::read_to_string(file(o.root, o.stage, o.identity)) else {
            return Ok(StageState::absent("never run").into());
        };
        let (done, total): (u64, u64) = (text.parse().unwrap(), self.settings.epochs);
        if done < total {
            return Ok(StageState::Partial { done, total, reason: "interrupted".into() }.into());
        }
        Ok(Inspection::new(StageState::Done { reason: "up to date".into() }, self.artifact()))
    }

    fn run(&self, c: &RunContext) -> Result<Outcome, StageError> {
        if self.settings.dataset.is_some() && c.inputs.is_empty() {
            c.event(Event::Message { text: "no artifact".into() });
        }
        let (micro_batch_splits, lost) =
            (c.adjustment.micro_batch_splits, c.adjustment.lost_devices);
        let inputs: Vec<&str> = c.inputs.keys().map(String::as_str).collect();
        let text = format!(
            "gpu {:?}, micro_batch_splits {micro_batch_splits}, lost {lost}, inputs {}",
            c.gpu,
            inputs.join(" ")
        );
        c.event(Event::Message { text });
        let interrupt = |signal| {
            std::fs::write(file(&c.root, &c.stage, &c.identity), "2").unwrap();
            Err(StageError::new(Failure::Interrupted(signal), "stopped"))
        };
        // One attempt in front of each line of the file.
        let log = c.root.join(format!("{}.attempts", c.stage));
        let mut attempts = std::fs::read_to_string(&log).unwrap_or_default();
        attempts.push_str(if c.request.force { "forced\n" } else { "\n" });
        std::fs::write(&log, &attempts).unwrap();
        match self.settings.ends.as_str() {
            "succeed" => {}
            "fail" => return Err(StageError::new(Failure::Input, "scripted failure")),
            "panic" => panic!("scripted panic"),
            "train" => self.train(c),
            "interrupt" => {
                c.stop.request(Signal::Terminate);
                return interrupt(Signal::Terminate);
            }
            "wait" => {
                c.stop.sleep(std::time::Duration::from_secs(60));
                return interrupt(c.stop.requested().unwrap());
            }
            "meet" => {
                // Waits for another stage that does the same.
                for _ in 0..2000 {
                    let met = std::fs::read_dir(&c.root).unwrap().flatten();
                    if met.filter(|e| e.path().extension().is_some_and(|x| x == "attempts")).count()
                        >= 2
                    {
                        break;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            }
            failures => {
                let failure = failures.split_whitespace().nth(attempts.lines().count() - 1);
                if failure == Some("signal") {
                    c.stop.request(Signal::Terminate);
                    return interrupt(Signal::Terminate);
                }
                if let Some(name) = failure {
                    let failure: Failure = serde_json::from_value(name.into()).unwrap();
                    return Err(StageError::new(failure, format!("scripted {name}")));
                }
            }
        }
        if !self.transient {
            std::fs::write(file(&c.root, &c.stage, &c.identity), self.settings.epochs.to_string())
                .unwrap();
        }
        Ok(Outcome { artifact: self.artifact(), summary: "done".into(), next: None })
    }
}

pub fn kinds() -> Vec<Arc<dyn StageKind>> {
    vec![
        Arc::new(Fake {
            name: "source",
            transient: true,
            counts: DependencyMode::Fingerprint,
            many: false,
        }),
        Arc::new(Fake {
            name: "work",
            transient: false,
            counts: DependencyMode::Fingerprint,
            many: false,
        }),
        Arc::new(Fake {
            name: "follow",
            transient: false,
            counts: DependencyMode::Content,
            many: false,
        }),
        Arc::new(pipe_engine::command::CommandKind),
        Arc::new(Fake {
            name: "gather",
            transient: false,
            counts: DependencyMode::Content,
            many: true,
        }),
    ]
}

/// Files are bytes, and folders that are called `run_…` belong to stages.
pub struct FakeFiles;

impl FileFormats for FakeFiles {
    fn digest(&self, file: &Path, known: Option<&str>) -> std::io::Result<String> {
        PlainFiles.digest(file, known)
    }

    fn is_work_folder(&self, folder: &Path) -> bool {
        folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("run_"))
    }

    fn saved_file(&self, work_folder: &Path, name: &str) -> PathBuf {
        work_folder.join("saved").join(name)
    }
}

/// Collects what stages say.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<String>>);

impl EventListener for Heard {
    fn event(&self, stage: &StageId, event: &Event) {
        self.0.lock().unwrap().push(format!("{stage}: {event:?}"));
    }
}

/// A folder with a pipeline file, as a user has it.
pub struct Project {
    pub folder: tempfile::TempDir,
    pub root: ProjectRoot,
    pub sets: Vec<Override>,
}

impl Project {
    pub fn new(pipeline: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.yaml"), pipeline).unwrap();
        Self { root: folder.path().into(), folder, sets: Vec::new() }
    }

    pub fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    pub fn set(mut self, text: &str) -> Self {
        self.sets.push(Override::parse(text, format!("--set {text}")).unwrap());
        self
    }

    pub fn sweep(mut self, text: &str) -> Self {
        self.sets.push(Override::several(text, format!("--sweep {text}")).unwrap());
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.sets.extend(pipeline_file::environment::among([(name.into(), value.into())]));
        self
    }

    pub fn load(&self) -> Result<Graph, SpecErrors> {
        let pipeline =
            pipeline_file::load(self.folder.path(), Path::new("p.yaml"), &kinds(), &self.sets)?;
        Graph::build(pipeline)
    }

    #[track_caller]
    pub fn error(&self) -> String {
        match self.load() {
            Ok(_) => panic!("the pipeline was accepted"),
            Err(error) => error.to_string(),
        }
    }

    /// The resolved settings of a stage.
    #[track_caller]
    pub fn settings(&self, stage: &str) -> Value {
        let graph = self.load().unwrap_or_else(|e| panic!("{e}"));
        let found =
            graph.stages().find(|s| s.id.as_str() == stage).unwrap_or_else(|| panic!("no {stage}"));
        found.stage.settings()
    }
}
