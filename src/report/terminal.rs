//! Progress for people, on stderr: lines as the reference workflow prints them, and on a terminal one bar for the
//! running epoch.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pipe_engine::kind::StageId;
use pipe_engine::progress::{Event, Report};

use super::{Reporter, table};

pub struct Terminal {
    quiet: bool,
    verbose: bool,
    interactive: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Terminal {
    pub fn new(quiet: bool, verbose: bool) -> Self {
        let interactive = std::io::stderr().is_terminal() && !quiet;
        Self { quiet, verbose, interactive, bar: Mutex::new(None) }
    }

    fn bar(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, text: impl AsRef<str>) {
        if self.quiet {
            return;
        }
        match &*self.bar() {
            Some(bar) => bar.suspend(|| eprintln!("{}", text.as_ref())),
            None => eprintln!("{}", text.as_ref()),
        }
    }

    fn clear(&self) {
        if let Some(bar) = self.bar().take() {
            bar.finish_and_clear();
        }
    }

    /// Moves the bar; makes it first if there is none.
    fn advance(&self, template: &str, prefix: String, done: u64, total: Option<u64>, message: String) {
        if !self.interactive {
            return;
        }
        let mut slot = self.bar();
        let bar = slot.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            bar
        });
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_prefix(prefix);
        bar.set_message(message);
        bar.set_position(done);
    }
}

const EPOCH_BAR: &str = "{prefix} [{bar:24}] {pos}/{len} {msg} eta {eta}";
const PREPARE_BAR: &str = "{prefix} [{bar:24}] {percent}% {msg}";

impl Report for Terminal {
    fn event(&self, stage: &StageId, event: &Event) {
        match event {
            Event::Started { action, reason } => {
                let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
                self.line(format!("{stage}: {action}{reason}"));
            }
            Event::Finished { summary, seconds } => {
                self.clear();
                if self.verbose {
                    self.line(format!("{stage}: {summary} ({seconds:.1} s)"));
                }
            }
            Event::Skipped { reason } => self.line(format!("{stage}: skip ({reason})")),
            Event::Failed { .. } => self.clear(),
            Event::Message { text } => self.line(text),
            Event::Warning { text } => self.line(format!("warning: {text}")),
            Event::Preparing { what, done, total } => {
                self.advance(PREPARE_BAR, format!("{stage}: {what}"), *done, *total, table::bytes(*done));
                if *total == Some(*done) {
                    self.clear();
                }
            }
            Event::RunOpened { number, experiment, directory, device, parameters, trainable } => {
                let adapter = trainable < parameters;
                let title = if adapter { "LoRA Fine-tuning" } else { "Base Model Training" };
                self.line(format!("\n{title} - Run {number:03}"));
                self.line(format!("Experiment: {experiment}"));
                self.line(format!("Run Directory: {directory}"));
                let share = 100.0 * *trainable as f64 / (*parameters).max(1) as f64;
                let trained =
                    if adapter { format!(", {trainable} trainable ({share:.2}%)") } else { String::new() };
                self.line(format!("Device: {device}, {parameters} parameters{trained}\n"));
            }
            Event::Resumed { checkpoint, epoch, step_in_epoch, metrics } => {
                self.line(format!("Resuming from checkpoint: {checkpoint}"));
                let within = if *step_in_epoch > 0 {
                    format!(", step {step_in_epoch} of the next")
                } else {
                    String::new()
                };
                self.line(format!("Resumed from epoch {epoch}{within}"));
                if !metrics.is_empty() {
                    self.line(format!("   Previous metrics: {}", show(metrics)));
                }
                self.line("");
            }
            Event::Step { epoch, epochs, step, steps, loss, images_per_second } => {
                let loss = loss.map(|l| format!("loss {l:.4} ")).unwrap_or_default();
                let message = format!("{loss}{images_per_second:.0} images/s");
                self.advance(EPOCH_BAR, format!("Epoch {epoch}/{epochs}"), *step, Some(*steps), message);
            }
            Event::Epoch { epoch, epochs, metrics, seconds, images_per_second } => {
                self.clear();
                let speed = format!("{seconds:.1} s, {images_per_second:.0} images/s");
                self.line(format!("Epoch {epoch}/{epochs}: {} ({speed})", show(metrics)));
            }
            Event::Saved { file, bytes, seconds } => {
                let detail = if self.verbose {
                    format!(" ({}, {seconds:.2} s)", table::bytes(*bytes))
                } else {
                    String::new()
                };
                self.line(format!("Saved checkpoint: {file}{detail}"));
            }
            Event::NewBest { monitor, value } => {
                self.line(format!("   New best checkpoint! {monitor}={value:.4}"))
            }
            Event::Completed { best_epoch, monitor, value } => {
                self.line("\nTraining completed!");
                if let (Some(epoch), Some(value)) = (best_epoch, value) {
                    self.line(format!("Best checkpoint: Epoch {epoch}, {monitor}={value:.4}\n"));
                }
            }
        }
    }
}

impl Reporter for Terminal {
    fn finish(&self) {
        self.clear();
    }
}

fn show(metrics: &BTreeMap<String, f64>) -> String {
    metrics.iter().map(|(name, value)| format!("{name}={value:.4}")).collect::<Vec<_>>().join(", ")
}
