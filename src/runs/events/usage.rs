//! What a training takes of its machine, as its log has it: `cpu_percent`, 100 for each core that
//! was busy, and `memory_bytes`. Both are of the whole process, whatever else it does. The first is read
//! from `/proc`: other systems do not tell it. They are never part of an identity or a checkpoint.

use std::time::{Duration, Instant};

/// Metrics by name.
pub type Usage = Vec<(&'static str, f64)>;

/// Inside an epoch they are looked at so often at most.
const EVERY: Duration = Duration::from_secs(10);

/// A second has so many ticks in `/proc`, on every architecture that Linux has.
const TICKS: f64 = 100.0;

/// Reads what this process takes.
pub struct UsageMeter {
    since: Instant,
    /// Seconds of all cores up to then.
    cpu: Option<f64>,
}

impl UsageMeter {
    /// Begins to count.
    pub fn start() -> Self {
        Self { since: Instant::now(), cpu: cpu_seconds() }
    }

    /// What was taken since it was last asked; empty where the system does not say.
    pub fn take(&mut self) -> Usage {
        let before = std::mem::replace(self, Self::start());
        let seconds = (self.since - before.since).as_secs_f64();
        let busy = self.cpu.zip(before.cpu).map(|(now, then)| (now - then).max(0.0));
        let cpu = busy.map(|busy| 100.0 * busy / seconds).filter(|percent| percent.is_finite());
        let named = [("cpu_percent", cpu), ("memory_bytes", memory_bytes())];
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The same if it was last asked a while ago, else nothing.
    pub fn take_if_due(&mut self) -> Usage {
        if self.since.elapsed() < EVERY { Usage::new() } else { self.take() }
    }
}

/// Seconds that all cores have worked for this process.
fn cpu_seconds() -> Option<f64> {
    cpu_of(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Of a process, by its `stat`: fields 14 and 15 of proc_pid_stat(5). The name in the second field
/// may hold spaces and brackets, so fields are counted from its end.
fn cpu_of(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(|field| field.parse::<f64>().ok());
    Some((ticks.next()?? + ticks.next()??) / TICKS)
}

/// Bytes of main memory that this process has.
fn memory_bytes() -> Option<f64> {
    Some(memory_stats::memory_stats()?.physical_mem as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 100";
        assert_eq!(cpu_of(stat), Some(3.0));
        assert_eq!(cpu_of("7 (a) S 1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_busy_core_is_seen() {
        let mut meter = UsageMeter::start();
        let started = Instant::now();
        let mut number = 1u64;
        while started.elapsed() < Duration::from_millis(300) {
            number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005));
        }
        assert!(meter.take_if_due().is_empty(), "it was asked just now");
        let taken = meter.take();
        let value = |name| taken.iter().find(|(n, _)| *n == name).unwrap().1;
        // Other tests share the process and the machine.
        assert!(value("cpu_percent") > 5.0, "{taken:?}");
        assert!(value("memory_bytes") > 1e6, "{taken:?}");
    }
}
