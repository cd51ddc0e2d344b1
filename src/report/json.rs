//! Events as JSON lines on stderr, one object a line, for programs that watch a run.

use pipe_engine::kind::StageId;
use pipe_engine::progress::{Event, Report};

use super::Reporter;

pub struct JsonLines;

impl Report for JsonLines {
    fn event(&self, stage: &StageId, event: &Event) {
        let mut value = serde_json::to_value(event).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            object.insert("stage".into(), stage.as_str().into());
            object.insert("time".into(), chrono::Utc::now().to_rfc3339().into());
        }
        eprintln!("{value}");
    }
}

impl Reporter for JsonLines {}
