//! Files that grow while they are read: `.pipe/events.jsonl`, where the jobs tell what they do, and
//! the end of a log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use pipe_core::ids::StageId;
use pipe_core::progress::Event;
use pipe_fs::STATE_FOLDER;
use serde::Deserialize;

/// The events of some stages of one pipeline, as they come.
pub(super) struct Tail {
    path: PathBuf,
    pipeline: String,
    /// The stages, and since when.
    stages: BTreeMap<StageId, DateTime<Utc>>,
    at: u64,
    /// A line whose end is not there yet.
    rest: Vec<u8>,
}

/// A line of the file, without the event itself.
#[derive(Deserialize)]
struct Whose {
    pipeline: String,
    stage: StageId,
    time: DateTime<Utc>,
}

impl Tail {
    pub fn new(root: &Path, pipeline: &str, stages: BTreeMap<StageId, DateTime<Utc>>) -> Self {
        let path = root.join(STATE_FOLDER).join("events.jsonl");
        Self { path, pipeline: pipeline.to_owned(), stages, at: 0, rest: Vec::new() }
    }

    /// What was written since the last call. What cannot be read now may be at the next one.
    pub fn read(&mut self) -> Vec<(StageId, Event)> {
        let mut found = Vec::new();
        while let Some(piece) = self.piece() {
            self.rest.extend(piece);
            let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines: Vec<u8> = self.rest.drain(..end).collect();
            found.extend(lines.split(|byte| *byte == b'\n').filter_map(|line| self.event(line)));
        }
        found
    }

    /// What follows in the file, not more than is good for the memory.
    fn piece(&mut self) -> Option<Vec<u8>> {
        let mut file = File::open(&self.path).ok()?;
        file.seek(SeekFrom::Start(self.at)).ok()?;
        let mut piece = Vec::new();
        file.take(MOST).read_to_end(&mut piece).ok().filter(|read| *read > 0)?;
        self.at += piece.len() as u64;
        Some(piece)
    }

    fn event(&self, line: &[u8]) -> Option<(StageId, Event)> {
        let Whose { pipeline, stage, time } = serde_json::from_slice(line).ok()?;
        let since = self.stages.get(&stage)?;
        (pipeline == self.pipeline && time >= *since).then_some(())?;
        Some((stage, serde_json::from_slice(line).ok()?))
    }
}

/// Bytes that are read at once; further back nothing is read of a log.
const MOST: u64 = 1 << 20;

/// The last lines of a text file, at most `count`.
pub fn last_lines(path: &Path, count: usize) -> std::io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(MOST);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first one may be half a line.
    let lines: Vec<&str> = text.lines().skip(usize::from(skipped > 0)).collect();
    Ok(lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use pipe_core::progress::to_json;

    use super::*;

    #[test]
    fn events_come_once_whole_and_only_those_that_are_meant() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(STATE_FOLDER)).unwrap();
        let stage = |name: &str| StageId::new(name).unwrap();
        let line = |pipeline: &str, name: &str, event: &Event| {
            let mut object = to_json(&stage(name), event);
            object.insert("pipeline".into(), pipeline.into());
            serde_json::Value::Object(object).to_string() + "\n"
        };
        let text = |text: &str| Event::Message { text: text.into() };
        let mut tail = Tail::new(folder.path(), "p", BTreeMap::from([(stage("base"), Utc::now())]));
        assert!(tail.read().is_empty(), "there is no file yet");
        let mut file = File::create(&tail.path).unwrap();
        let mut write = |piece: &str| file.write_all(piece.as_bytes()).unwrap();
        let metrics = BTreeMap::from([("train_loss".to_owned(), 0.5)]);
        let epoch = Event::Round { position: 1, target: 2, metrics, seconds: 1.0, rate: 2.0 };
        write(&line("p", "base", &epoch));
        write(&line("q", "base", &text("another pipeline")));
        write(&line("p", "best", &text("another stage")));
        write("half of a line, torn by a crash\n");
        let next = line("p", "base", &text("é"));
        let middle = next.find('é').unwrap() - 4;
        write(&next[..middle]);
        assert_eq!(tail.read(), [(stage("base"), epoch.clone())]);
        assert!(tail.read().is_empty());
        write(&next[middle..]);
        assert_eq!(tail.read(), [(stage("base"), text("é"))]);
        let mut later =
            Tail::new(folder.path(), "p", BTreeMap::from([(stage("base"), Utc::now())]));
        assert!(later.read().is_empty(), "before it was submitted");
    }

    #[test]
    fn the_end_of_a_log_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(last_lines(&path, 2).is_err());
        std::fs::write(&path, "one\ntwo\nthree").unwrap();
        assert_eq!(last_lines(&path, 2).unwrap(), ["two", "three"]);
        assert_eq!(last_lines(&path, 9).unwrap().len(), 3);
        let long: String = (0..200_000).map(|i| format!("line {i}\n")).collect();
        std::fs::write(&path, long).unwrap();
        assert_eq!(last_lines(&path, 1).unwrap(), ["line 199999"]);
    }
}
