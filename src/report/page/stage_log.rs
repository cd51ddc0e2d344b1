//! What the stages of a pipeline last told, for the page: from `.pipe/events.jsonl`, from what
//! their programs printed, and from the logs of their jobs.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, FixedOffset};
use pipe_core::progress::Event;
use pipe_core::secret;
use pipe_engine::exec::slurm::last_lines;
use pipe_engine::kind::Failure;
use pipe_engine::state::{Jobs, logs_folder};
use pipe_fs::STATE_FOLDER;
use serde::Serialize;
use serde_json::Value;

/// Lines of a stage that the page gets.
const LINES: usize = 60;

/// A line of a stage's log.
#[derive(Debug, PartialEq, Serialize)]
pub struct LogLine {
    /// As RFC 3339 has it; unset for lines of a program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    pub text: String,
}

impl LogLine {
    fn moment(&self) -> Option<DateTime<FixedOffset>> {
        DateTime::parse_from_rfc3339(self.time.as_deref()?).ok()
    }
}

/// The newest lines of each stage of a pipeline, by its name.
pub fn stage_logs(root: &Path, pipeline: &str) -> HashMap<String, Vec<LogLine>> {
    let mut logs: HashMap<String, Vec<LogLine>> = HashMap::new();
    for line in last_lines(&events(root), usize::MAX).unwrap_or_default() {
        if let Some((stage, line)) = told(&line, pipeline) {
            logs.entry(stage).or_default().push(line);
        }
    }
    let printed = std::fs::read_dir(logs_folder(root, pipeline)).into_iter().flatten().flatten();
    for file in printed {
        for line in last_lines(&file.path(), LINES).unwrap_or_default() {
            if let Some((stage, line)) = told(&line, pipeline) {
                logs.entry(stage).or_default().push(line);
            }
        }
    }
    logs.values_mut().for_each(|log| log.sort_by_key(LogLine::moment));
    // A list of jobs from elsewhere could name any file, and the page is handed on.
    let is_own = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    for (stage, job) in Jobs::load(root, pipeline).iter() {
        if !Path::new(&job.log).components().all(is_own) {
            continue;
        }
        let lines = last_lines(&root.join(&job.log), LINES).unwrap_or_default();
        let line = |text: String| LogLine { time: None, text: secret::told(&text) };
        logs.entry(stage.to_string()).or_default().extend(lines.into_iter().map(line));
    }
    for log in logs.values_mut() {
        log.drain(..log.len().saturating_sub(LINES));
    }
    logs
}

fn events(root: &Path) -> PathBuf {
    root.join(STATE_FOLDER).join("events.jsonl")
}

/// Bytes of the log of events: it grows with each.
pub fn log_bytes(root: &Path) -> Option<u64> {
    Some(std::fs::metadata(events(root)).ok()?.len())
}

/// A line of a log of events: the stage, and what is worth reading of it.
fn told(line: &str, pipeline: &str) -> Option<(String, LogLine)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let key = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
    if key("pipeline")? != pipeline {
        return None;
    }
    let (stage, time) = (key("stage")?, key("time"));
    let text = in_words(&serde_json::from_value(value).ok()?)?;
    Some((stage, LogLine { time, text }))
}

fn in_words(event: &Event) -> Option<String> {
    let text = match event {
        Event::Started { action, reason } => format!("{action}: {reason}"),
        Event::Finished { summary, seconds } => format!("done in {seconds:.1} s: {summary}"),
        Event::Failed { failure: Failure::Interrupted(_), message } => message.clone(),
        Event::Failed { message, .. } => format!("failed: {message}"),
        Event::Retrying { attempt, message, wait_seconds, .. } => {
            format!("attempt {attempt} failed, again in {wait_seconds:.0} s: {message}")
        }
        Event::Message { text } | Event::Output { line: text } => text.clone(),
        Event::Warning { text } => format!("warning: {text}"),
        Event::WorkOpened { directory, device, size, .. } => {
            format!("{directory} on {device}, {size} parameters")
        }
        Event::Resumed { file, position, .. } => format!("goes on from {file}, epoch {position}"),
        Event::Round { position, target, metrics, seconds, .. } => {
            let metrics = metrics.iter().map(|(name, value)| format!("{name}={value:.5}, "));
            format!("epoch {position}/{target}: {}{seconds:.1} s", metrics.collect::<String>())
        }
        Event::NewBest { monitor, value, position } => {
            format!("best up to now: {monitor}={value:.5} of epoch {position}")
        }
        Event::Skipped { .. }
        | Event::Preparing { .. }
        | Event::Step { .. }
        | Event::Saved { .. }
        | Event::Judged { .. }
        | Event::Completed { .. } => return None,
    };
    Some(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_lines_of_each_stage_are_told_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(STATE_FOLDER)).unwrap();
        let event = |pipeline: &str, stage: &str, text: String| {
            json!({"event": "message", "text": text, "stage": stage, "pipeline": pipeline,
                   "time": "2026-01-02T03:04:05Z", "pid": 7})
        };
        let mut lines: Vec<Value> =
            (0..100).map(|i| event("p", "base", format!("line {i}\n"))).collect();
        lines.push(event("other", "base", "of another pipeline".into()));
        lines.push(json!({"event": "epoch", "epoch": 3, "epochs": 4, "seconds": 1.25,
            "metrics": {"loss": 0.5}, "images_per_second": 9.0, "stage": "two", "pipeline": "p"}));
        lines.push(json!({"event": "of a later version", "stage": "two", "pipeline": "p"}));
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(folder.path().join(STATE_FOLDER).join("events.jsonl"), text).unwrap();
        let logs = stage_logs(folder.path(), "p");
        assert_eq!(logs["base"].len(), LINES);
        let time = Some("2026-01-02T03:04:05Z".to_owned());
        assert_eq!(logs["base"].last(), Some(&LogLine { time, text: "line 99".into() }));
        let text = "epoch 3/4: loss=0.50000, 1.2 s".to_owned();
        assert_eq!(logs["two"], [LogLine { time: None, text }]);
        assert!(stage_logs(folder.path(), "none").is_empty());

        // What its program printed stands among it, by the time.
        let printed = logs_folder(folder.path(), "p");
        std::fs::create_dir_all(&printed).unwrap();
        let line = |second: u32| {
            let time = format!("2026-01-02T03:04:{second:02}Z");
            json!({"event": "output", "line": format!("printed {second}"), "stage": "base",
                   "pipeline": "p", "time": time})
        };
        let text = [line(4), line(6)].map(|line| format!("{line}\n")).concat();
        std::fs::write(printed.join("base.jsonl"), text).unwrap();
        let logs = stage_logs(folder.path(), "p");
        let texts: Vec<&str> = logs["base"].iter().map(|line| line.text.as_str()).collect();
        assert_eq!(
            (texts.len(), texts[LINES - 2], texts[LINES - 1]),
            (LINES, "line 99", "printed 6")
        );
        let text = "epoch 3/4: loss=0.50000, 1.2 s".to_owned();
        assert_eq!(logs["two"], [LogLine { time: None, text }]);
    }
}
