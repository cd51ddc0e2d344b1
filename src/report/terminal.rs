//! Progress for people, on stderr: lines as the reference workflow prints them, and on a terminal
//! one more line for each running stage. Where stderr is no terminal, as in CI, there are lines
//! only and no control characters.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pipe_core::progress::{Event, EventListener, Unit};
use pipe_engine::kind::StageId;
use unicode_width::UnicodeWidthStr;

use super::narrator::{Manner, Narrator};
use super::progress_line::{self, segment};
use super::{Reporter, stderr, style, table};

pub struct Terminal {
    quiet: bool,
    interactive: bool,
    /// Stages run at once: each line says whose it is.
    concurrent: bool,
    bars: MultiProgress,
    running: Mutex<BTreeMap<StageId, Running>>,
    narrator: Mutex<Narrator>,
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
        let manner = Manner { verbose, concurrent, colours: style::colours() };
        Self {
            quiet,
            interactive,
            concurrent,
            bars: MultiProgress::new(),
            running: Mutex::default(),
            narrator: Mutex::new(Narrator::new(manner)),
        }
    }

    fn narrator(&self) -> MutexGuard<'_, Narrator> {
        self.narrator.lock().unwrap_or_else(PoisonError::into_inner)
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
            text.trim().lines().map(|line| format!("{} | {line}\n", label(stage))).collect()
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
        let label = if self.concurrent { format!("{} | ", label(stage)) } else { String::new() };
        let mut all = self.running();
        let running = all.entry(stage.clone()).or_default();
        let text = text(running, width().saturating_sub(label.width()));
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
            let best = running.best.map(|(value, epoch)| {
                let value = table::number(value);
                format!("best {value} ({epoch})")
            });
            let segments = vec![
                segment(
                    3,
                    if steps > 0 { format!("{step}/{steps}") } else { format!("step {step}") },
                ),
                segment(
                    1,
                    loss.map(|loss| format!("loss {}", table::number(loss))).unwrap_or_default(),
                ),
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
}

impl EventListener for Terminal {
    fn event(&self, stage: &StageId, event: &Event) {
        // Taken away before lines are printed where it stood.
        match event {
            Event::Finished { .. } | Event::Failed { .. } | Event::Retrying { .. } => {
                self.end(stage);
            }
            Event::Round { .. } => self.clear(stage),
            Event::NewBest { value, position, .. } => {
                if let Some(running) = self.running().get_mut(stage) {
                    running.best = Some((*value, *position));
                }
            }
            _ => {}
        }
        let lines = self.narrator().tell(stage, event);
        lines.iter().for_each(|line| self.line(stage, line));
        match event {
            Event::Preparing { .. } => self.preparing(stage, event),
            Event::Step { .. } => self.step(stage, event),
            _ => {}
        }
    }
}

impl Reporter for Terminal {
    fn finish(&self) {
        let rest = self.narrator().rest();
        rest.iter().for_each(|(stage, line)| self.line(stage, line));
        self.running().clear();
        let _ = self.bars.clear();
    }
}

/// What stands before the lines of a stage: its name, with the last word of each setting in which it
/// differs from others of its matrix, where that says which setting is meant.
fn label(stage: &StageId) -> String {
    let full = stage.as_str();
    let Some((name, values)) = full.split_once('@') else { return full.to_owned() };
    let pairs: Option<Vec<(&str, &str)>> =
        values.split(',').map(|pair| pair.split_once('=')).collect();
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    match pairs {
        Some(pairs)
            if pairs.iter().map(|(key, _)| last(key)).collect::<BTreeSet<_>>().len()
                == pairs.len() =>
        {
            let short = pairs.iter().map(|(key, value)| format!("{}={value}", last(key)));
            format!("{name}@{}", short.collect::<Vec<_>>().join(","))
        }
        _ => full.to_owned(),
    }
}

/// How much of a preparation is done: `1.5 MB`, `9/16 images`.
fn amount(done: u64, total: Option<u64>, unit: Unit) -> String {
    match (unit, total) {
        (Unit::Bytes, _) => table::bytes(done),
        (Unit::Items, Some(total)) => format!("{done}/{total} images"),
        (Unit::Items, None) => format!("{done} images"),
        (Unit::Steps, Some(total)) => format!("step {done} of {total}"),
        (Unit::Steps, None) => format!("step {done}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_not_shown_in_bytes() {
        assert_eq!(amount(9, Some(16), Unit::Items), "9/16 images");
        assert_eq!(amount(9, None, Unit::Items), "9 images");
        assert_eq!(amount(9, Some(36), Unit::Steps), "step 9 of 36");
        assert_eq!(amount(9_000, Some(16), Unit::Bytes), "9.0 kB");
    }

    #[test]
    fn labels_are_no_longer_than_they_must_be() {
        let of = |values: &str| label(&StageId::new("base").unwrap().member(values));
        assert_eq!(label(&StageId::new("base").unwrap()), "base");
        assert_eq!(of("objective.p_mean=1,seed=2"), "base@p_mean=1,seed=2");
        assert_eq!(of("a.lr=1,b.lr=2"), "base@a.lr=1,b.lr=2");
        assert_eq!(of("model.depths=1,2"), "base@model.depths=1,2");
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
