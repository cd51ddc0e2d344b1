//! `metrics.jsonl`: a JSON object a line, `{"step": …, "epoch": …, "wall_time": …, "train_loss":
//! …}`.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use pipe_fs::Disk;
use pipe_fs::atomic::{self, Log, WriteError};

/// Appends metrics.
pub struct MetricsFile(Arc<Log>);

impl MetricsFile {
    /// Opens the file to go on after optimizer step `step`: lines of later steps, which will be
    /// done again, and a last line that a crash cut off, are removed.
    pub fn open(disk: &Disk, path: &Path, step: u64) -> Result<Self, WriteError> {
        if let Ok(bytes) = std::fs::read(path) {
            let text = String::from_utf8_lossy(&bytes);
            let keep = |line: &&str| {
                let value: Option<Value> = serde_json::from_str(line).ok();
                value.and_then(|v| v.get("step")?.as_u64()).is_some_and(|s| s <= step)
            };
            let kept: String = text.lines().filter(keep).flat_map(|line| [line, "\n"]).collect();
            if kept != text {
                atomic::write(disk, path, |out| out.write_all(kept.as_bytes()))?;
            }
        }
        Ok(Self(Arc::new(Log::open(disk, path)?)))
    }

    /// What is written so far, to be made durable by another thread.
    pub fn log(&self) -> Arc<Log> {
        self.0.clone()
    }

    /// Adds one line.
    pub fn append<'a>(
        &mut self,
        step: u64,
        epoch: u64,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<(), WriteError> {
        let wall_time = chrono::Utc::now().timestamp_micros() as f64 / 1e6;
        let mut object = Map::new();
        object.insert("step".into(), step.into());
        object.insert("epoch".into(), epoch.into());
        object.insert("wall_time".into(), wall_time.into());
        object.extend(values.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
        self.0.append(format!("{}\n", Value::Object(object)).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_on_removes_what_will_be_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&Disk::default(), &path, 0).unwrap();
        for step in 1..=4 {
            file.append(step, 1, [("train_loss", 0.1 * step as f64)]).unwrap();
        }
        file.0.append(b"{\"step\": 5, \"ep").unwrap();
        let mut file = MetricsFile::open(&Disk::default(), &path, 2).unwrap();
        file.append(3, 1, [("train_loss", 9.0)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let steps: Vec<u64> = text
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap()["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, [1, 2, 3]);
        assert!(text.lines().last().unwrap().contains("9.0"));
    }
}
