//! What happens to stages, as lines of text for people. An epoch and its checkpoint are one line,
//! though the checkpoint is written while the next epoch is under way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anstyle::Style;
use pipe_core::progress::Event;
use pipe_engine::kind::{Failure, StageId};

use super::{style, table};

/// How long the line of an epoch waits for its checkpoint.
const PATIENCE: Duration = Duration::from_secs(3);

/// How lines are told.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub verbose: bool,
    /// Lines of several stages stand among each other, each with its stage's name before it.
    pub concurrent: bool,
    pub colours: bool,
}

/// Puts events into words.
pub struct Narrator {
    manner: Manner,
    held: BTreeMap<StageId, Held>,
}

/// The line of an epoch that waits for its checkpoint.
struct Held {
    epoch: u64,
    line: String,
    since: Instant,
    is_saved: bool,
    /// What was said meanwhile.
    behind: Vec<String>,
}

impl Held {
    fn waits(&self) -> bool {
        !self.is_saved && self.since.elapsed() < PATIENCE
    }

    fn lines(self) -> Vec<String> {
        std::iter::once(self.line).chain(self.behind).collect()
    }
}

impl Narrator {
    pub fn new(manner: Manner) -> Self {
        Self { manner, held: BTreeMap::new() }
    }

    /// What there is to say now, line by line.
    pub fn tell(&mut self, stage: &StageId, event: &Event) -> Vec<String> {
        if self.belongs_to_held(stage, event) {
            return Vec::new();
        }
        let mut lines = self.held.remove(stage).map(Held::lines).unwrap_or_default();
        if let Event::Round { position: epoch, target, metrics, seconds, rate } = event {
            let images = if *rate > 0.0 { format!(", {rate:.0} images/s") } else { String::new() };
            let line = format!(
                "Epoch {epoch}/{target}: {} ({seconds:.1} s{images})",
                table::metrics(metrics)
            );
            let held = Held {
                epoch: *epoch,
                line,
                since: Instant::now(),
                is_saved: false,
                behind: Vec::new(),
            };
            self.held.insert(stage.clone(), held);
        } else {
            lines.extend(self.line(stage, event));
        }
        lines
    }

    /// The lines that still wait.
    pub fn rest(&mut self) -> Vec<(StageId, String)> {
        let held = std::mem::take(&mut self.held).into_iter();
        held.flat_map(|(stage, held)| {
            held.lines().into_iter().map(move |line| (stage.clone(), line))
        })
        .collect()
    }

    /// Whether an event is part of the epoch's line, or leaves it waiting.
    fn belongs_to_held(&mut self, stage: &StageId, event: &Event) -> bool {
        let manner = self.manner;
        let Some(held) = self.held.get_mut(stage) else { return false };
        match event {
            Event::Saved { file, bytes, seconds, blocked } if number(file) == Some(held.epoch) => {
                held.line.push_str(&format!(", {file}{}", manner.cost(*bytes, *seconds, *blocked)));
                held.is_saved = true;
                true
            }
            Event::NewBest { position, .. } if *position == held.epoch && held.is_saved => {
                held.line.push_str(&format!(", {}", manner.paint(style::GOOD, "best so far")));
                true
            }
            Event::Step { .. } | Event::Preparing { .. } => held.waits(),
            Event::Message { text } if held.waits() => {
                held.behind.push(text.clone());
                true
            }
            _ => false,
        }
    }

    /// The line of every other event; some have none.
    fn line(&self, stage: &StageId, event: &Event) -> Option<String> {
        let manner = self.manner;
        // Where the stage's name stands before each line, no line begins with it.
        let whose = if manner.concurrent { String::new() } else { format!("{stage}: ") };
        Some(match event {
            Event::Started { action, reason } => {
                let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
                format!("{whose}{action}{reason}")
            }
            Event::Finished { summary, seconds } => {
                return manner.verbose.then(|| format!("{stage}: {summary} ({seconds:.1} s)"));
            }
            Event::Skipped { reason } => format!("{whose}skip ({reason})"),
            // The first failure is told at the end; when several stages run, now is when it can be
            // understood.
            Event::Failed { failure: Failure::Interrupted(_), message } => {
                return manner.concurrent.then(|| message.clone());
            }
            Event::Failed { message, .. } => {
                let failed = || format!("{}: {message}", manner.paint(style::ERROR, "failed"));
                return manner.concurrent.then(failed);
            }
            Event::Retrying { attempt, message, wait_seconds, change, .. } => {
                let wait = if *wait_seconds > 0.0 {
                    format!(" in {wait_seconds:.0} s")
                } else {
                    String::new()
                };
                format!("{stage}: {message}; attempt {attempt}{wait}, {change}")
            }
            Event::Output { line } => line.clone(),
            Event::Message { text } => text.clone(),
            Event::Warning { text } => {
                format!("{} {text}", manner.paint(style::WARNING, "warning:"))
            }
            Event::WorkOpened { .. } => manner.run_opened(event)?,
            Event::Resumed { .. } => resumed(event)?,
            Event::Saved { file, bytes, seconds, blocked } => {
                format!("Saved checkpoint: {file}{}", manner.cost(*bytes, *seconds, *blocked))
            }
            Event::NewBest { monitor, value, .. } => {
                let mark = manner.paint(style::GOOD, "New best checkpoint!");
                format!("   {mark} {monitor}={}", table::number(*value))
            }
            Event::Completed { best, monitor, value } => {
                let done = format!("\n{}", manner.paint(style::GOOD, "Training completed!"));
                match (best, value) {
                    (Some(epoch), Some(value)) => format!(
                        "{done}\nBest checkpoint: Epoch {epoch}, {monitor}={}\n",
                        table::number(*value)
                    ),
                    _ => done,
                }
            }
            Event::Round { .. }
            | Event::Step { .. }
            | Event::Preparing { .. }
            | Event::Judged { .. } => return None,
        })
    }
}

impl Manner {
    fn paint(self, style: Style, text: &str) -> String {
        if self.colours { style::styled(style, text) } else { text.to_owned() }
    }

    /// What a checkpoint cost, for who wants to know.
    fn cost(self, bytes: u64, seconds: f64, blocked: f64) -> String {
        if self.verbose {
            let size = table::bytes(bytes);
            format!(" ({size}, {seconds:.2} s; training waited {blocked:.2} s)")
        } else {
            String::new()
        }
    }

    /// A training has its run.
    fn run_opened(self, event: &Event) -> Option<String> {
        let Event::WorkOpened { number, title, directory, device, size, changing } = event else {
            return None;
        };
        let adapter = changing < size;
        // Of a training whose model only its own program knows, nothing is counted.
        let what = match (size, adapter) {
            (0, _) => "Training",
            (_, true) => "LoRA Fine-tuning",
            (_, false) => "Base Model Training",
        };
        let what = self.paint(style::STRONG, &format!("{what} - Run {number:03}"));
        let share = 100.0 * *changing as f64 / (*size).max(1) as f64;
        let trained =
            if adapter { format!(", {changing} trainable ({share:.2}%)") } else { String::new() };
        let counted = if *size == 0 { String::new() } else { format!(", {size} parameters") };
        Some(format!(
            "\n{what}\nExperiment: {title}\nRun Directory: {directory}\n\
             Device: {device}{counted}{trained}\n"
        ))
    }
}

/// A training goes on from a checkpoint.
fn resumed(event: &Event) -> Option<String> {
    let Event::Resumed { file, position: epoch, step, metrics } = event else { return None };
    let within = if *step > 0 { format!(", step {step} of the next") } else { String::new() };
    let before = if metrics.is_empty() {
        String::new()
    } else {
        format!("   Previous metrics: {}\n", table::metrics(metrics))
    };
    Some(format!("Resuming from checkpoint: {file}\nResumed from epoch {epoch}{within}\n{before}"))
}

/// The last number in a file's name: the epoch of a checkpoint.
fn number(file: &str) -> Option<u64> {
    let stem = file.rsplit('/').next()?.split('.').next()?;
    let digits = stem.len() - stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    stem[stem.len() - digits..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(events: &[Event]) -> Vec<String> {
        let manner = Manner { verbose: false, concurrent: false, colours: false };
        let stage = StageId::new("base").unwrap();
        let mut narrator = Narrator::new(manner);
        let mut lines: Vec<String> =
            events.iter().flat_map(|event| narrator.tell(&stage, event)).collect();
        lines.extend(narrator.rest().into_iter().map(|(_, line)| line));
        lines
    }

    fn epoch(position: u64) -> Event {
        let metrics = BTreeMap::from([("train_loss".to_owned(), 0.5)]);
        Event::Round { position, target: 3, metrics, seconds: 2.0, rate: 64.0 }
    }

    fn saved(file: &str) -> Event {
        Event::Saved { file: file.into(), bytes: 1, seconds: 0.1, blocked: 0.0 }
    }

    fn best(position: u64) -> Event {
        Event::NewBest { monitor: "train_loss".into(), value: 0.5, position }
    }

    fn step(position: u64) -> Event {
        Event::Step { position, target: 3, step: 1, steps: 8, value: None, rate: 1.0, memory: None }
    }

    #[test]
    fn an_epoch_its_checkpoint_and_that_it_is_the_best_are_one_line() {
        let events = [
            epoch(1),
            step(2),
            saved("epoch_001.ckpt"),
            best(1),
            step(2),
            epoch(2),
            Event::Message { text: "picture".to_owned() },
            saved("epoch_002.ckpt"),
            step(3),
            epoch(3),
        ];
        assert_eq!(
            told(&events),
            [
                "Epoch 1/3: train_loss=0.5000 (2.0 s, 64 images/s), epoch_001.ckpt, best so far",
                "Epoch 2/3: train_loss=0.5000 (2.0 s, 64 images/s), epoch_002.ckpt",
                "picture",
                "Epoch 3/3: train_loss=0.5000 (2.0 s, 64 images/s)",
            ]
        );
    }

    #[test]
    fn a_checkpoint_of_another_epoch_or_inside_one_has_a_line_of_its_own() {
        let events = [epoch(1), saved("step_00000074.ckpt"), saved("epoch_001.ckpt"), best(1)];
        assert_eq!(
            told(&events),
            [
                "Epoch 1/3: train_loss=0.5000 (2.0 s, 64 images/s)",
                "Saved checkpoint: step_00000074.ckpt",
                "Saved checkpoint: epoch_001.ckpt",
                "   New best checkpoint! train_loss=0.5000",
            ]
        );
    }
}
