//! Trainings and what chooses among them, as far as freshness sees them: a training keeps its
//! epochs in a file of its own, and hands on a best checkpoint that more epochs may or may not
//! change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use pipe_engine::kind::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::world::World;

const CHECKPOINT: ArtifactType = ArtifactType::new("checkpoint");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainSettings {
    rate: u64,
    #[schemars(extend("x-class" = "extend"))]
    epochs: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChooseSettings {
    over: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopySettings {
    from: String,
    to: PathBuf,
}

/// A kind whose settings are a `T`, which makes the stage itself.
pub struct Kind<T>(pub &'static str, pub Arc<World>, pub fn(T, Arc<World>) -> Arc<dyn Stage>);

impl<T: JsonSchema + for<'a> Deserialize<'a>> StageKind for Kind<T> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn makes(&self) -> ArtifactType {
        CHECKPOINT
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(T)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        Ok((self.2)(settings.extract()?, self.1.clone()))
    }
}

pub fn kinds(world: &Arc<World>) -> Vec<Arc<dyn StageKind>> {
    vec![
        Arc::new(Kind::<TrainSettings>("train", world.clone(), |s, w| Arc::new(Train(s, w)))),
        Arc::new(Kind::<ChooseSettings>("choose", world.clone(), |s, w| Arc::new(Choose(s, w)))),
        Arc::new(Kind::<CopySettings>("copy", world.clone(), |s, w| Arc::new(Copy(s, w)))),
    ]
}

struct Train(TrainSettings, Arc<World>);

impl Train {
    fn file(root: &Path, stage: &StageId, identity: &str) -> PathBuf {
        root.join(".runs").join(format!("{stage}-{}", &identity[7..15]))
    }

    /// The best checkpoint after so many epochs: after the third one there is no better one.
    fn best(&self, epochs: u64) -> Artifact {
        let content = format!("rate {} epoch {}", self.0.rate, epochs.min(3));
        Artifact::new(content.clone(), Some(content))
    }
}

impl Stage for Train {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.0).unwrap()
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let Ok(text) = std::fs::read_to_string(Self::file(o.root, o.stage, o.identity)) else {
            return Ok(StageState::absent("no run yet").into());
        };
        let (from, to) = (text.parse().unwrap(), self.0.epochs);
        if from < to {
            return Ok(StageState::Extendable { from, to }.into());
        }
        Ok(Inspection::new(StageState::Done { reason: "up to date".into() }, Some(self.best(from))))
    }

    fn run(&self, c: &RunContext) -> Result<Outcome, StageError> {
        self.1.begins(c, &format!("{} {}", c.identity, self.0.epochs), &[])?;
        let file = Self::file(&c.root, &c.stage, &c.identity);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, self.0.epochs.to_string()).unwrap();
        Ok(Outcome { artifact: Some(self.best(self.0.epochs)), ..Outcome::default() })
    }
}

/// As `select_best`: keeps nothing but its record.
struct Choose(ChooseSettings, Arc<World>);

impl Choose {
    fn choice<'a>(inputs: impl Iterator<Item = &'a Artifact>) -> Option<Artifact> {
        inputs.min_by_key(|artifact| artifact.content.clone()).cloned()
    }
}

impl Stage for Choose {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.0).unwrap()
    }

    fn references(&self) -> Vec<Reference> {
        let over = Reference::of_type(CHECKPOINT, "over", &self.0.over, DependencyMode::Content);
        vec![Reference { many: true, ..over }]
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let Some(made) = o.made.filter(|_| o.unknown.is_empty()) else {
            return Ok(StageState::absent("not chosen yet").into());
        };
        let changes = o.changes_since(&made.manifest);
        if !changes.is_empty() {
            return Ok(StageState::changed(changes).into());
        }
        let artifact = Self::choice(o.inputs.values());
        Ok(Inspection::new(StageState::Done { reason: "up to date".into() }, artifact))
    }

    fn run(&self, c: &RunContext) -> Result<Outcome, StageError> {
        self.1.begins(c, &c.identity, &[])?;
        c.record_outputs(Vec::new(), Vec::new(), Vec::new())?;
        Ok(Outcome { artifact: Self::choice(c.inputs.values()), ..Outcome::default() })
    }
}

/// As `copy_best`: what it hands on is known before its file is there.
struct Copy(CopySettings, Arc<World>);

impl Stage for Copy {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.0).unwrap()
    }

    fn references(&self) -> Vec<Reference> {
        vec![Reference::of_type(CHECKPOINT, "from", &self.0.from, DependencyMode::Content)]
    }

    fn files(&self) -> Files {
        Files { reads: Vec::new(), writes: vec![("to".to_owned(), self.0.to.clone())] }
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let Some(content) = o.inputs.get("from").and_then(|a| a.content.clone()) else {
            let state = if o.made.is_some() && o.root.join(&self.0.to).exists() {
                StageState::Done { reason: "up to date".into() }
            } else {
                StageState::absent("not copied yet")
            };
            return Ok(state.into());
        };
        let found = std::fs::read_to_string(o.root.join(&self.0.to)).ok();
        let state = if found == Some(content.clone()) && o.made.is_some() {
            StageState::Done { reason: "up to date".into() }
        } else {
            StageState::absent("another checkpoint is selected now")
        };
        Ok(Inspection::new(state, Some(Artifact::new(content.clone(), Some(content)))))
    }

    fn run(&self, c: &RunContext) -> Result<Outcome, StageError> {
        let path = self.0.to.display().to_string();
        self.1.begins(c, &c.identity, std::slice::from_ref(&path))?;
        let content = c.inputs["from"].content.clone().unwrap();
        self.1.writes(c, &path, &content);
        let output = c.output(&path, None)?;
        c.record_outputs(vec![output], Vec::new(), Vec::new())?;
        Ok(Outcome {
            artifact: Some(Artifact::new(content.clone(), Some(content))),
            ..Outcome::default()
        })
    }
}
