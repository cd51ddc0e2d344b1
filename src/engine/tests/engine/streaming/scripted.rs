//! Scripted stages: one makes parts, one looks at each of them, one takes what is handed on.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use figment::Figment;
use pipe_core::progress::Event;
use pipe_engine::kind::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const PARTS: ArtifactType = ArtifactType::new("parts");

/// What the three kinds have in common.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    from: Option<String>,
    /// The stage that decides which part is handed on.
    judge: Option<String>,
    #[schemars(extend("x-class" = "extend"))]
    parts: u64,
    /// Waits behind each part until this stage has looked at it.
    #[schemars(extend("x-class" = "runtime"))]
    waits_for: Option<String>,
    /// The part at which it fails, counted from 1.
    #[schemars(extend("x-class" = "runtime"))]
    fails_at: Option<u64>,
    /// Takes a while for each part.
    #[schemars(extend("x-class" = "runtime"))]
    slow: bool,
    /// Counts for the part with the highest value.
    values: Vec<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        let (from, judge, waits_for, fails_at) = (None, None, None, None);
        Self { from, judge, parts: 3, waits_for, fails_at, slow: false, values: Vec::new() }
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum What {
    /// Makes parts, one after the other.
    Make,
    /// Looks at each part.
    Watch,
    /// Takes what the maker hands on.
    Take,
}

pub struct Kind(pub &'static str, pub What);

impl StageKind for Kind {
    fn name(&self) -> &'static str {
        self.0
    }

    fn makes(&self) -> ArtifactType {
        if self.1 == What::Make { PARTS } else { ArtifactType::FILES }
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(Settings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        Ok(Arc::new(Scripted { what: self.1, settings: settings.extract()? }))
    }
}

struct Scripted {
    what: What,
    settings: Settings,
}

/// The parts that a stage has made, looked at or taken, in their order.
pub fn parts(root: &Path, stage: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(root.join(format!("{stage}.parts"))).unwrap_or_default();
    text.split_whitespace().map(|part| part.parse().unwrap()).collect()
}

pub fn write(root: &Path, stage: &str, parts: &[u64]) {
    let text: Vec<String> = parts.iter().map(u64::to_string).collect();
    std::fs::write(root.join(format!("{stage}.parts")), text.join(" ")).unwrap();
}

impl Scripted {
    /// The part that is handed on: the one that the judge has chosen, or else the newest.
    fn artifact(&self, root: &Path, stage: &StageId) -> Artifact {
        let chosen = self.settings.judge.as_ref().and_then(|judge| {
            std::fs::read_to_string(root.join(format!("{judge}.chosen"))).ok()?.parse().ok()
        });
        let part: u64 = chosen.or(parts(root, stage.as_str()).last().copied()).unwrap_or_default();
        Artifact::new(part, Some(format!("part {part}")))
    }

    fn make(&self, c: &RunContext) -> Result<(), StageError> {
        let own = c.stage.as_str();
        for part in parts(&c.root, own).len() as u64 + 1..=self.settings.parts {
            if self.settings.fails_at == Some(part) {
                return Err(StageError::new(Failure::Input, "scripted failure"));
            }
            let mut all = parts(&c.root, own);
            all.push(part);
            write(&c.root, own, &all);
            let Some(other) = &self.settings.waits_for else { continue };
            let until = Instant::now() + Duration::from_secs(20);
            while !parts(&c.root, other).contains(&part) {
                if Instant::now() > until {
                    return Err(StageError::new(Failure::Bug, "nobody looked"));
                }
                if let Some(signal) = c.stop.requested() {
                    return Err(StageError::new(Failure::Interrupted(signal), "stopped"));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }

    fn watch(&self, c: &RunContext) -> Result<(), StageError> {
        let (own, from) = (c.stage.as_str(), self.settings.from.as_deref().unwrap());
        c.event(Event::Message { text: format!("gpu {:?}", c.gpu) });
        loop {
            let upstream = c.upstream("from");
            let seen = parts(&c.root, own);
            if let Some(next) = parts(&c.root, from).into_iter().find(|part| !seen.contains(part)) {
                c.note_place(Path::new(&format!("{own}.parts")))?;
                c.note_place(Path::new(&format!("{own}/{next}")))?;
                if self.settings.fails_at == Some(next) {
                    return Err(StageError::new(Failure::Input, "scripted failure"));
                }
                if self.settings.slow {
                    std::thread::sleep(Duration::from_millis(30));
                }
                let seen: Vec<u64> = seen.into_iter().chain([next]).collect();
                let value = |part: &u64| self.settings.values.get(*part as usize - 1).copied();
                if let Some(best) = seen.iter().max_by_key(|part| value(part)) {
                    std::fs::write(c.root.join(format!("{own}.chosen")), best.to_string()).unwrap();
                }
                write(&c.root, own, &seen);
                continue;
            }
            match upstream {
                Upstream::Running => std::thread::sleep(Duration::from_millis(2)),
                Upstream::Ended(_) => match c.upstream_judges() {
                    None | Some(Upstream::Ended(_)) => return Ok(()),
                    Some(Upstream::Running) => std::thread::sleep(Duration::from_millis(2)),
                    Some(Upstream::Failed(why)) => {
                        return Err(StageError::new(Failure::Input, why));
                    }
                },
                Upstream::Failed(why) => return Err(StageError::new(Failure::Input, why)),
            }
            if let Some(signal) = c.stop.requested() {
                return Err(StageError::new(Failure::Interrupted(signal), "stopped"));
            }
        }
    }
}

impl Stage for Scripted {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap()
    }

    fn references(&self) -> Vec<Reference> {
        let mode = match self.what {
            What::Watch => DependencyMode::Streaming,
            _ => DependencyMode::Content,
        };
        let from = self.settings.from.iter();
        from.map(|from| Reference::of_type(PARTS, "from", from, mode)).collect()
    }

    fn judge(&self) -> Option<Judge> {
        let stage = self.settings.judge.clone()?;
        Some(Judge { key: "judge", stage, advice: "a stage of kind `watch` judges" })
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let own = parts(o.root, o.stage.as_str());
        let (is_done, artifact) = match self.what {
            What::Make => {
                let done = own.len() as u64 >= self.settings.parts;
                (done, done.then(|| self.artifact(o.root, o.stage)))
            }
            What::Watch => {
                let from = self.settings.from.as_deref().unwrap();
                (o.inputs.contains_key("from") && own == parts(o.root, from), None)
            }
            What::Take => {
                let now = o.inputs.get("from").and_then(|from| from.get::<u64>());
                (now.is_some_and(|now| own.last() == Some(&*now)), None)
            }
        };
        let state = if is_done {
            StageState::Done { reason: "up to date".into() }
        } else {
            StageState::absent("not all is there")
        };
        Ok(Inspection::new(state, artifact))
    }

    fn run(&self, c: &RunContext) -> Result<Outcome, StageError> {
        match self.what {
            What::Make => self.make(c)?,
            What::Watch => self.watch(c)?,
            What::Take => {
                let part = c.inputs["from"].get::<u64>().unwrap();
                write(&c.root, c.stage.as_str(), &[*part]);
            }
        }
        let artifact = (self.what == What::Make).then(|| self.artifact(&c.root, &c.stage));
        Ok(Outcome { artifact, summary: "done".into(), next: None })
    }
}
