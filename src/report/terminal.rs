//! Progress for people, on stderr: lines as the reference workflow prints them, and on a terminal one bar for the
//! running epoch.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pipe_engine::kind::StageId;
use pipe_engine::progress::{Event, Report};

use super::{Reporter, stderr, table};

pub struct Terminal {
    quiet: bool,
    verbose: bool,
    interactive: bool,
    /// Stages run at once: each line says whose it is.
    several: bool,
    bars: MultiProgress,
    running: Mutex<BTreeMap<StageId, ProgressBar>>,
}

impl Terminal {
    pub fn new(quiet: bool, verbose: bool, several: bool) -> Self {
        let interactive = std::io::stderr().is_terminal() && !quiet;
        Self { quiet, verbose, interactive, several, bars: MultiProgress::new(), running: Mutex::default() }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<StageId, ProgressBar>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, stage: &StageId, text: impl AsRef<str>) {
        if self.quiet {
            return;
        }
        let text = text.as_ref();
        let labelled: String = match self.several {
            // Blank lines set one stage's blocks apart; between those of several they would only tear them.
            true if text.trim().is_empty() => return,
            true => text.trim().lines().map(|line| format!("{stage} | {line}\n")).collect(),
            false => format!("{text}\n"),
        };
        let labelled = labelled.strip_suffix('\n').unwrap_or(&labelled);
        match self.interactive {
            // Between two pictures of the bars, so at once.
            true => self.bars.suspend(|| drop(writeln!(std::io::stderr(), "{labelled}"))),
            false => stderr::line(labelled),
        }
    }

    fn clear(&self, stage: &StageId) {
        if let Some(bar) = self.running().remove(stage) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    /// Moves the stage's bar; makes it first if there is none.
    fn advance(&self, stage: &StageId, template: &str, at: Progress) {
        if !self.interactive {
            return;
        }
        let Progress { prefix, done, total, message } = at;
        let mut running = self.running();
        let bar = running.entry(stage.clone()).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(total.unwrap_or(0)));
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            bar
        });
        if let Some(total) = total {
            bar.set_length(total);
        }
        let label = if self.several { format!("{stage} | ") } else { String::new() };
        bar.set_prefix(format!("{label}{prefix}"));
        bar.set_message(message);
        bar.set_position(done);
    }
}

/// Where a bar stands.
struct Progress {
    prefix: String,
    done: u64,
    total: Option<u64>,
    message: String,
}

const EPOCH_BAR: &str = "{prefix} [{bar:24}] {pos}/{len} {msg} eta {eta}";
const PREPARE_BAR: &str = "{prefix} [{bar:24}] {percent}% {msg}";

impl Report for Terminal {
    fn event(&self, stage: &StageId, event: &Event) {
        match event {
            Event::Started { action, reason } => {
                let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
                let whose = if self.several { String::new() } else { format!("{stage}: ") };
                self.line(stage, format!("{whose}{action}{reason}"));
            }
            Event::Finished { summary, seconds } => {
                self.clear(stage);
                if self.verbose {
                    self.line(stage, format!("{stage}: {summary} ({seconds:.1} s)"));
                }
            }
            Event::Skipped { reason } => {
                let whose = if self.several { String::new() } else { format!("{stage}: ") };
                self.line(stage, format!("{whose}skip ({reason})"));
            }
            Event::Failed { message, .. } => {
                self.clear(stage);
                // The first failure is told at the end; when several run, now is when it can be understood.
                if self.several {
                    self.line(stage, format!("failed: {message}"));
                }
            }
            Event::Retrying { attempt, message, wait_seconds, change, .. } => {
                self.clear(stage);
                let wait =
                    if *wait_seconds > 0.0 { format!(" in {wait_seconds:.0} s") } else { String::new() };
                self.line(stage, format!("{stage}: {message}; attempt {attempt}{wait}, {change}"));
            }
            Event::Output { line } => self.line(stage, line),
            Event::Message { text } => self.line(stage, text),
            Event::Warning { text } => self.line(stage, format!("warning: {text}")),
            Event::Preparing { what, done, total } => {
                let (prefix, message) = (format!("{stage}: {what}"), table::bytes(*done));
                self.advance(stage, PREPARE_BAR, Progress { prefix, done: *done, total: *total, message });
                if *total == Some(*done) {
                    self.clear(stage);
                }
            }
            Event::RunOpened { number, experiment, directory, device, parameters, trainable } => {
                let adapter = trainable < parameters;
                let title = if adapter { "LoRA Fine-tuning" } else { "Base Model Training" };
                self.line(stage, format!("\n{title} - Run {number:03}"));
                self.line(stage, format!("Experiment: {experiment}"));
                self.line(stage, format!("Run Directory: {directory}"));
                let share = 100.0 * *trainable as f64 / (*parameters).max(1) as f64;
                let trained =
                    if adapter { format!(", {trainable} trainable ({share:.2}%)") } else { String::new() };
                self.line(stage, format!("Device: {device}, {parameters} parameters{trained}\n"));
            }
            Event::Resumed { checkpoint, epoch, step_in_epoch, metrics } => {
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
            Event::Step { epoch, epochs, step, steps, loss, images_per_second } => {
                let loss = loss.map(|l| format!("loss {l:.4} ")).unwrap_or_default();
                let message = format!("{loss}{images_per_second:.0} images/s");
                let prefix = format!("Epoch {epoch}/{epochs}");
                self.advance(
                    stage,
                    EPOCH_BAR,
                    Progress { prefix, done: *step, total: Some(*steps), message },
                );
            }
            Event::Epoch { epoch, epochs, metrics, seconds, images_per_second } => {
                self.clear(stage);
                let speed = format!("{seconds:.1} s, {images_per_second:.0} images/s");
                self.line(stage, format!("Epoch {epoch}/{epochs}: {} ({speed})", show(metrics)));
            }
            Event::Saved { file, bytes, seconds } => {
                let detail = if self.verbose {
                    format!(" ({}, {seconds:.2} s)", table::bytes(*bytes))
                } else {
                    String::new()
                };
                self.line(stage, format!("Saved checkpoint: {file}{detail}"));
            }
            Event::NewBest { monitor, value } => {
                self.line(stage, format!("   New best checkpoint! {monitor}={value:.4}"))
            }
            Event::Completed { best_epoch, monitor, value } => {
                self.line(stage, "\nTraining completed!");
                if let (Some(epoch), Some(value)) = (best_epoch, value) {
                    self.line(stage, format!("Best checkpoint: Epoch {epoch}, {monitor}={value:.4}\n"));
                }
            }
        }
    }
}

impl Reporter for Terminal {
    fn finish(&self) {
        self.running().clear();
        let _ = self.bars.clear();
    }
}

fn show(metrics: &BTreeMap<String, f64>) -> String {
    metrics.iter().map(|(name, value)| format!("{name}={value:.4}")).collect::<Vec<_>>().join(", ")
}
