//! What a training program hands over: checkpoints and pictures, which are moved into its run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pipe_core::progress::Event;
use pipe_fs::atomic;
use pipe_runs::{Content, Header, Saved, StoreError, checkpoint};

use super::super::message::{Metrics, Reply};
use super::{Position, Refusal, Session, broken, ok};
use crate::training::shown;

/// A picture is not larger.
const LARGEST_SAMPLE: u64 = 64 << 20;

impl Session<'_> {
    /// A path that the program names: it must lie in its own folder.
    pub(super) fn in_scratch(&self, path: &str) -> Result<PathBuf, Refusal> {
        let whole = self.scratch.join(path);
        let inside = whole.parent().and_then(|above| above.canonicalize().ok());
        let own = self.scratch.canonicalize().unwrap_or_else(|_| self.scratch.clone());
        match (inside, whole.file_name()) {
            (Some(above), Some(name)) if above.starts_with(&own) => {
                let found = above.join(name);
                if std::fs::symlink_metadata(&found).is_ok() {
                    Ok(found)
                } else {
                    broken(format!("{path} is not there"))
                }
            }
            _ => broken(format!("{path} is not inside `scratch`, where checkpoints are written")),
        }
    }

    pub(super) fn save_epoch(
        &mut self,
        path: &Path,
        epoch: u64,
        step: Option<u64>,
        metrics: Metrics,
    ) -> Result<Reply, Refusal> {
        if epoch != self.position.epoch || self.position.step_in_epoch > 0 {
            self.complete(epoch, step, metrics)?;
        } else {
            self.warn_of(&metrics);
            self.epoch_metrics.values.extend(metrics.values);
        }
        let header = self.header(self.position, self.epoch_metrics.clone());
        let started = Instant::now();
        if !self.manager.wants(&header, self.is_final()) {
            let is_due = self.is_save_due || self.context.stop.requested().is_some();
            if self.policy.enabled && is_due {
                let partial = Header { metrics: BTreeMap::new(), ..header };
                return self.save_partial(path, &partial);
            }
            checkpoint::remove(self.manager.run().disk(), path)?;
            self.manager.update(|_| ())?;
            return Ok(Reply { kept: Some(false), ..ok() });
        }
        self.sync()?;
        let content = || Ok::<_, StoreError>(Content::Program(path.to_owned()));
        let saved = self.manager.save_epoch(&header, self.is_final(), content)?;
        let Some(saved) = saved else { return Ok(Reply { kept: Some(false), ..ok() }) };
        self.saved = self.position;
        let value = header.metrics.get(&self.policy.monitor).copied();
        self.tell_saved(&saved, started);
        if let (true, Some(value)) = (saved.is_best, value) {
            let monitor = self.policy.monitor.clone();
            self.context.event(Event::NewBest { monitor, value, position: epoch });
        }
        Ok(self.kept(&saved))
    }

    /// Saves a state inside an epoch.
    pub(super) fn save_inside(&mut self, path: &Path, at: Position) -> Result<Reply, Refusal> {
        if at.epoch != self.position.epoch {
            let complete = self.position.epoch;
            return broken(format!(
                "a state behind epoch {}, and {complete} are complete",
                at.epoch
            ));
        }
        let step = if at.step == 0 { self.epoch_step + at.step_in_epoch } else { at.step };
        if step < self.position.step || step <= self.epoch_step {
            return broken(format!(
                "a checkpoint of step {step} after step {}",
                self.position.step
            ));
        }
        self.position = Position { step, ..at };
        if !self.policy.enabled {
            checkpoint::remove(self.manager.run().disk(), path)?;
            return Ok(Reply { kept: Some(false), ..ok() });
        }
        let header = self.header(self.position, Metrics::default());
        self.save_partial(path, &header)
    }

    fn save_partial(&mut self, path: &Path, header: &Header) -> Result<Reply, Refusal> {
        let started = Instant::now();
        self.sync()?;
        let saved = self.manager.save_partial(header, &Content::Program(path.to_owned()))?;
        self.saved = self.position;
        self.tell_saved(&saved, started);
        Ok(self.kept(&saved))
    }

    fn tell_saved(&mut self, saved: &Saved, started: Instant) {
        self.is_save_due = false;
        let Saved { file, bytes, seconds, .. } = saved.clone();
        let blocked = started.elapsed().as_secs_f64();
        self.context.event(Event::Saved { file, bytes, seconds, blocked });
    }

    fn kept(&self, saved: &Saved) -> Reply {
        let path = self.manager.run().checkpoints().join(&saved.file);
        Reply {
            kept: Some(true),
            best: Some(saved.is_best),
            path: Some(path.to_string_lossy().into_owned()),
            ..ok()
        }
    }

    pub(super) fn sample(&mut self, path: &str, epoch: Option<u64>) -> Result<Reply, Refusal> {
        let found = self.in_scratch(path)?;
        let length =
            std::fs::symlink_metadata(&found).map_or(0, |m| if m.is_file() { m.len() } else { 0 });
        if length == 0 || length > LARGEST_SAMPLE {
            return broken(format!("{path} is no picture: empty, too large, or no file"));
        }
        let bytes = std::fs::read(&found).unwrap_or_default();
        let Some(size) = png_size(&bytes) else {
            return broken(format!("{path} is no PNG; a sample is one"));
        };
        let epoch = epoch.unwrap_or(self.position.epoch);
        let folder = self.manager.run().folder.join("samples");
        let disk = self.manager.run().disk().clone();
        atomic::create_folder(&disk, &folder)?;
        self.is_sample_due = false;
        self.events.image(self.position.step, "samples", size, &bytes)?;
        let file = folder.join(format!("epoch_{epoch:03}.png"));
        atomic::write(&disk, &file, |out| std::io::Write::write_all(out, &bytes))?;
        atomic::remove(&disk, &found)?;
        let text = format!("Sampled {}", shown(&file, self.context));
        self.context.event(Event::Message { text });
        Ok(ok())
    }
}

/// Width and height of a PNG (PNG specification, 11.2.2 IHDR).
fn png_size(bytes: &[u8]) -> Option<[u32; 2]> {
    bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    let number = |at: usize| {
        let field: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(field))
    };
    (bytes.get(12..16)? == b"IHDR").then_some([number(16)?, number(20)?])
}
