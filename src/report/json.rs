//! Events as JSON lines on stderr, one object a line, for programs that watch a run.

use pipe_core::progress;
use pipe_core::progress::{Event, EventListener};
use pipe_engine::kind::StageId;

use super::{Reporter, stderr};

pub struct JsonLines;

impl EventListener for JsonLines {
    fn event(&self, stage: &StageId, event: &Event) {
        stderr::line(serde_json::Value::Object(progress::to_json(stage, event)).to_string());
    }
}

impl Reporter for JsonLines {}
