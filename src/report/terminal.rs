//! Progress for people, on stderr: lines as the reference workflow prints them, and on a terminal
//! one more line for each running stage. Where stderr is no terminal, as in CI, there are lines
//! only and no control characters.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pipe_core::progress::{Event, EventListener, Unit};
use pipe_engine::kind::StageId;

use super::progress_line::{self, segment};
use super::style::{self, paint};
use super::{Reporter, stderr, table};

pub struct Terminal {
    quiet: bool,
    verbose: bool,
    interactive: bool,
    /// Stages run at once: each line says whose it is.
    concurrent: bool,
    bars: MultiProgress,
    running: Mutex<BTreeMap<StageId, Running>>,
}

/// What is known of a running stage.
#[derive(Default)]
struct Running {
    /// Its line, while it has one.
    bar: Option<ProgressBar>,
    /// When the first step was seen, and how many steps were done then.
    since: Option<(Instant, u64)>,
    /// Value and epoch of the best checkpoint.
    best: Option<(f64, u64)>,
}

impl Running {
    /// Seconds to the end, when `done` of `total` steps are done; nothing before there is something
    /// to go by.
    fn seconds_left(&mut self, done: u64, total: u64) -> Option<f64> {
        let (start, first) = *self.since.get_or_insert_with(|| (Instant::now(), done));
        let steps = done.checked_sub(first).filter(|steps| *steps > 0)?;
        Some(start.elapsed().as_secs_f64() / steps as f64 * total.saturating_sub(done) as f64)
    }
}

/// Cells of a terminal that does not say how wide it is.
const WIDTH: usize = 80;

/// One less than there are: some terminals begin a new line after the last cell.
fn width() -> usize {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    size.map_or(WIDTH, |(width, _)| usize::from(width.0)).saturating_sub(1)
}

impl Terminal {
    pub fn new(quiet: bool, verbose: bool, concurrent: bool) -> Self {
        let interactive = std::io::stderr().is_terminal() && !quiet;
        Self {
            quiet,
            verbose,
            interactive,
            concurrent,
            bars: MultiProgress::new(),
            running: Mutex::default(),
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<StageId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, stage: &StageId, text: impl AsRef<str>) {
        if self.quiet {
            return;
        }
        let text = text.as_ref();
        if self.concurrent && text.trim().is_empty() {
            // Blank lines set one stage's blocks apart; between those of several they would only
            // tear them.
            return;
        }
        let labelled: String = if self.concurrent {
            text.trim().lines().map(|line| format!("{stage} | {line}\n")).collect()
        } else {
            format!("{text}\n")
        };
        let labelled = labelled.strip_suffix('\n').unwrap_or(&labelled);
        if self.interactive {
            // Between two pictures of the bars, so at once.
            let shown = stderr::sanitized(labelled);
            self.bars.suspend(|| drop(writeln!(std::io::stderr(), "{shown}")));
        } else {
            stderr::line(labelled);
        }
    }

    /// Takes the stage's line away.
    fn clear(&self, stage: &StageId) {
        if let Some(bar) = self.running().get_mut(stage).and_then(|running| running.bar.take()) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    /// Forgets a stage that has ended.
    fn end(&self, stage: &StageId) {
        self.clear(stage);
        self.running().remove(stage);
    }

    /// Shows the stage's line; `text` makes it for a width.
    fn show(&self, stage: &StageId, text: impl FnOnce(&mut Running, usize) -> String) {
        if !self.interactive {
            return;
        }
        let label = if self.concurrent { format!("{stage} | ") } else { String::new() };
        let mut all = self.running();
        let running = all.entry(stage.clone()).or_default();
        let text = text(running, width().saturating_sub(label.chars().count()));
        let bar = running.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bars.add(ProgressBar::new_spinner().with_style(style))
        });
        bar.set_message(stderr::sanitized(&format!("{label}{text}")));
    }

    /// An optimizer step was done.
    fn step(&self, stage: &StageId, event: &Event) {
        let &Event::Step {
            position: epoch,
            target: epochs,
            step,
            steps,
            value: loss,
            rate,
            memory,
        } = event
        else {
            return;
        };
        self.show(stage, |running, width| {
            let done = epoch.saturating_sub(1) * steps + step;
            let left = running.seconds_left(done, epochs * steps);
            let best = running.best.map(|(value, epoch)| format!("best {value:.4} ({epoch})"));
            let segments = vec![
                segment(
                    3,
                    if steps > 0 { format!("{step}/{steps}") } else { format!("step {step}") },
                ),
                segment(1, loss.map(|loss| format!("loss {loss:.4}")).unwrap_or_default()),
                segment(4, if rate > 0.0 { format!("{rate:.0} images/s") } else { String::new() }),
                segment(5, best.unwrap_or_default()),
                segment(6, memory.map(table::bytes).unwrap_or_default()),
                segment(
                    2,
                    left.map(|left| format!("{} left", progress_line::duration(left)))
                        .unwrap_or_default(),
                ),
            ];
            let share = (steps > 0).then(|| step as f64 / steps as f64);
            progress_line::render(width, &format!("Epoch {epoch}/{epochs}"), share, segments)
        });
    }

    /// An attempt failed, and another one will follow.
    fn retrying(&self, stage: &StageId, event: &Event) {
        let Event::Retrying { attempt, message, wait_seconds, change, .. } = event else {
            return;
        };
        self.end(stage);
        let wait =
            if *wait_seconds > 0.0 { format!(" in {wait_seconds:.0} s") } else { String::new() };
        self.line(stage, format!("{stage}: {message}; attempt {attempt}{wait}, {change}"));
    }

    /// Data are made ready.
    fn preparing(&self, stage: &StageId, event: &Event) {
        let Event::Preparing { what, done, total, unit } = event else {
            return;
        };
        self.show(stage, |_, width| {
            let share = total.map(|total| *done as f64 / total.max(1) as f64);
            let segments = vec![
                segment(1, share.map(|share| format!("{:.0}%", 100.0 * share)).unwrap_or_default()),
                segment(2, amount(*done, *total, *unit)),
            ];
            progress_line::render(width, &format!("{stage}: {what}"), share, segments)
        });
        if *total == Some(*done) {
            self.clear(stage);
        }
    }

    /// A training has its run.
    fn run_opened(&self, stage: &StageId, event: &Event) {
        let Event::WorkOpened {
            number,
            title: experiment,
            directory,
            device,
            size: parameters,
            changing: trainable,
        } = event
        else {
            return;
        };
        let adapter = trainable < parameters;
        // Of a training whose model only its own program knows, nothing is counted.
        let title = match (parameters, adapter) {
            (0, _) => "Training",
            (_, true) => "LoRA Fine-tuning",
            (_, false) => "Base Model Training",
        };
        let title = paint(style::STRONG, format!("{title} - Run {number:03}"));
        self.line(stage, format!("\n{title}"));
        self.line(stage, format!("Experiment: {experiment}"));
        self.line(stage, format!("Run Directory: {directory}"));
        let share = 100.0 * *trainable as f64 / (*parameters).max(1) as f64;
        let trained =
            if adapter { format!(", {trainable} trainable ({share:.2}%)") } else { String::new() };
        let counted =
            if *parameters == 0 { String::new() } else { format!(", {parameters} parameters") };
        self.line(stage, format!("Device: {device}{counted}{trained}\n"));
    }

    /// A training goes on from a checkpoint.
    fn resumed(&self, stage: &StageId, event: &Event) {
        let Event::Resumed { file: checkpoint, position: epoch, step: step_in_epoch, metrics } =
            event
        else {
            return;
        };
        self.line(stage, format!("Resuming from checkpoint: {checkpoint}"));
        let within = if *step_in_epoch > 0 {
            format!(", step {step_in_epoch} of the next")
        } else {
            String::new()
        };
        self.line(stage, format!("Resumed from epoch {epoch}{within}"));
        if !metrics.is_empty() {
            self.line(stage, format!("   Previous metrics: {}", show(metrics)));
        }
        self.line(stage, "");
    }

    /// A checkpoint stands.
    fn saved(&self, stage: &StageId, event: &Event) {
        let Event::Saved { file, bytes, seconds, blocked } = event else {
            return;
        };
        let detail = if self.verbose {
            format!(" ({}, {seconds:.2} s; training waited {blocked:.2} s)", table::bytes(*bytes))
        } else {
            String::new()
        };
        self.line(stage, format!("Saved checkpoint: {file}{detail}"));
    }

    /// A training has reached its last epoch.
    fn completed(&self, stage: &StageId, event: &Event) {
        let Event::Completed { best: best_epoch, monitor, value } = event else {
            return;
        };
        self.line(stage, format!("\n{}", paint(style::GOOD, "Training completed!")));
        if let (Some(epoch), Some(value)) = (best_epoch, value) {
            self.line(stage, format!("Best checkpoint: Epoch {epoch}, {monitor}={value:.4}\n"));
        }
    }
}

impl EventListener for Terminal {
    fn event(&self, stage: &StageId, event: &Event) {
        match event {
            Event::Started { action, reason } => {
                let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
                let whose = if self.concurrent { String::new() } else { format!("{stage}: ") };
                self.line(stage, format!("{whose}{action}{reason}"));
            }
            Event::Finished { summary, seconds } => {
                self.end(stage);
                if self.verbose {
                    self.line(stage, format!("{stage}: {summary} ({seconds:.1} s)"));
                }
            }
            Event::Skipped { reason } => {
                let whose = if self.concurrent { String::new() } else { format!("{stage}: ") };
                self.line(stage, format!("{whose}skip ({reason})"));
            }
            Event::Failed { message, .. } => {
                self.end(stage);
                // The first failure is told at the end; when several run, now is when it can be
                // understood.
                if self.concurrent {
                    self.line(stage, format!("{}: {message}", paint(style::ERROR, "failed")));
                }
            }
            Event::Retrying { .. } => self.retrying(stage, event),
            Event::Output { line } => self.line(stage, line),
            Event::Message { text } => self.line(stage, text),
            Event::Warning { text } => {
                self.line(stage, format!("{} {text}", paint(style::WARNING, "warning:")));
            }
            Event::Preparing { .. } => self.preparing(stage, event),
            Event::WorkOpened { .. } => self.run_opened(stage, event),
            Event::Resumed { .. } => self.resumed(stage, event),
            Event::Step { .. } => self.step(stage, event),
            Event::Round { position: epoch, target: epochs, metrics, seconds, rate } => {
                self.clear(stage);
                let images =
                    if *rate > 0.0 { format!(", {rate:.0} images/s") } else { String::new() };
                let speed = format!("{seconds:.1} s{images}");
                self.line(stage, format!("Epoch {epoch}/{epochs}: {} ({speed})", show(metrics)));
            }
            Event::Saved { .. } => self.saved(stage, event),
            Event::NewBest { monitor, value, position } => {
                if let Some(running) = self.running().get_mut(stage) {
                    running.best = Some((*value, *position));
                }
                let mark = paint(style::GOOD, "New best checkpoint!");
                self.line(stage, format!("   {mark} {monitor}={value:.4}"));
            }
            Event::Completed { .. } => self.completed(stage, event),
        }
    }
}

impl Reporter for Terminal {
    fn finish(&self) {
        self.running().clear();
        let _ = self.bars.clear();
    }
}

/// How much of a preparation is done: `1.5 MB`, `9/16 images`.
fn amount(done: u64, total: Option<u64>, unit: Unit) -> String {
    match (unit, total) {
        (Unit::Bytes, _) => table::bytes(done),
        (Unit::Items, Some(total)) => format!("{done}/{total} images"),
        (Unit::Items, None) => format!("{done} images"),
    }
}

fn show(metrics: &BTreeMap<String, f64>) -> String {
    metrics.iter().map(|(name, value)| format!("{name}={value:.4}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_not_shown_in_bytes() {
        assert_eq!(amount(9, Some(16), Unit::Items), "9/16 images");
        assert_eq!(amount(9, None, Unit::Items), "9 images");
        assert_eq!(amount(9_000, Some(16), Unit::Bytes), "9.0 kB");
    }

    #[test]
    fn the_best_is_that_of_its_own_epoch() {
        let terminal = Terminal::new(false, false, false);
        let stage = StageId::new("base").unwrap();
        terminal.running().insert(stage.clone(), Running::default());
        // A checkpoint is written while the next epoch is under way.
        let step = Event::Step {
            position: 3,
            target: 5,
            step: 1,
            steps: 8,
            value: None,
            rate: 1.0,
            memory: None,
        };
        terminal.event(&stage, &step);
        terminal.event(
            &stage,
            &Event::NewBest { monitor: "train_loss".into(), value: 0.5, position: 2 },
        );
        assert_eq!(terminal.running()[&stage].best, Some((0.5, 2)));
    }
}
