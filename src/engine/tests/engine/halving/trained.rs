//! A training as far as halving sees it: epochs in a file of its own, a value for each of them, and
//! a log of every epoch that was trained.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use figment::Figment;
use pipe_core::stop::Signal;
use pipe_engine::kind::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub const CHECKPOINT: ArtifactType = ArtifactType::new("checkpoint");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    rate: u64,
    #[schemars(extend("x-class" = "extend"))]
    epochs: u64,
    /// The epoch in which it fails, as long as there is a file `broken`.
    #[serde(default)]
    #[schemars(extend("x-class" = "runtime"))]
    fails_in: Option<u64>,
    /// The epoch after which it ends by itself.
    #[serde(default)]
    ends_after: Option<u64>,
}

/// Epochs that are trained before a signal comes.
pub type Fuse = Arc<AtomicI64>;

pub struct Train(pub Fuse);

impl StageKind for Train {
    fn name(&self) -> &'static str {
        "train"
    }

    fn makes(&self) -> ArtifactType {
        CHECKPOINT
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(Settings)
    }

    fn length(&self) -> Option<&'static str> {
        Some("epochs")
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        Ok(Arc::new(Training(settings.extract()?, self.0.clone())))
    }
}

struct Training(Settings, Fuse);

fn file(root: &Path, stage: &StageId, identity: &str) -> PathBuf {
    root.join(".runs").join(format!("{stage}-{}", &identity[7..15]))
}

/// What an epoch of a training comes to: a number that its rate and the epoch decide.
pub fn value(rate: u64, epoch: u64) -> f64 {
    let mixed = (rate * 1_000_003 + epoch).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    mixed as f64 / (1u64 << 24) as f64
}

impl Training {
    fn epochs(&self, root: &Path, stage: &StageId, identity: &str) -> u64 {
        let text = std::fs::read_to_string(file(root, stage, identity));
        text.map_or(0, |text| text.parse().unwrap())
    }

    fn target(&self, request: &Request) -> u64 {
        let until = request.until.unwrap_or(self.0.epochs).min(self.0.epochs);
        self.0.ends_after.map_or(until, |end| until.min(end))
    }

    fn artifact(&self, epochs: u64) -> Option<Artifact> {
        Some(Artifact::new(epochs, Some(format!("rate {} epoch {epochs}", self.0.rate))))
    }
}

impl Stage for Training {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.0).unwrap()
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        if o.request.force {
            return Ok(StageState::absent("forced").into());
        }
        let done = self.epochs(o.root, o.stage, o.identity);
        let to = self.target(o.request);
        let state = match done {
            0 => StageState::absent("no run yet"),
            _ if done < to => StageState::Extendable { from: done, to },
            _ => StageState::Done { reason: "up to date".into() },
        };
        let artifact = self.artifact(done).filter(|_| done >= to);
        let values: BTreeMap<u64, f64> = match o.request.monitor.as_deref() {
            Some("loss") => (1..=done).map(|epoch| (epoch, value(self.0.rate, epoch))).collect(),
            _ => BTreeMap::new(),
        };
        Ok(Inspection { values, ..Inspection::new(state, artifact) })
    }

    fn run(&self, c: &RunContext) -> Result<Outcome, StageError> {
        let file = file(&c.root, &c.stage, &c.identity);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let from = if c.request.force { 0 } else { self.epochs(&c.root, &c.stage, &c.identity) };
        let to = self.target(&c.request);
        for epoch in from + 1..=to {
            if c.stop.requested().is_some() || self.1.fetch_sub(1, Ordering::SeqCst) <= 0 {
                c.stop.request(Signal::Terminate);
                return Err(StageError::new(Failure::Interrupted(Signal::Terminate), "stopped"));
            }
            if self.0.fails_in == Some(epoch) && c.root.join("broken").exists() {
                return Err(StageError::new(Failure::Input, "scripted failure"));
            }
            let log = c.root.join(".trained");
            let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
            let line = format!("{} {epoch}\n", c.stage);
            std::io::Write::write_all(&mut log, line.as_bytes()).unwrap();
            std::fs::write(&file, epoch.to_string()).unwrap();
        }
        let summary = format!("{} epochs", from.max(to));
        Ok(Outcome { artifact: self.artifact(from.max(to)), summary, next: None })
    }
}

/// Takes what every member of a matrix makes.
pub struct Gather;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatherSettings {
    over: String,
}

impl StageKind for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn makes(&self) -> ArtifactType {
        CHECKPOINT
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(GatherSettings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        Ok(Arc::new(Gathering(settings.extract()?)))
    }
}

struct Gathering(GatherSettings);

impl Gathering {
    fn text(inputs: &BTreeMap<String, Artifact>) -> String {
        let one = |(name, artifact): (&String, &Artifact)| {
            format!("{name}: {}", artifact.content.clone().unwrap_or_default())
        };
        inputs.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}

impl Stage for Gathering {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.0).unwrap()
    }

    fn references(&self) -> Vec<Reference> {
        let over = Reference::of_type(CHECKPOINT, "over", &self.0.over, DependencyMode::Content);
        vec![Reference { many: true, passes_over_failed: true, ..over }]
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let text = std::fs::read_to_string(o.root.join(".gathered")).unwrap_or_default();
        if !o.unknown.is_empty() || text != Self::text(o.inputs) {
            return Ok(StageState::absent("not gathered yet").into());
        }
        let artifact = Some(Artifact::new(text.clone(), Some(text)));
        Ok(Inspection::new(StageState::Done { reason: "up to date".into() }, artifact))
    }

    fn run(&self, c: &RunContext) -> Result<Outcome, StageError> {
        let text = Self::text(&c.inputs);
        std::fs::write(c.root.join(".gathered"), &text).unwrap();
        Ok(Outcome {
            artifact: Some(Artifact::new(text.clone(), Some(text))),
            ..Outcome::default()
        })
    }
}
