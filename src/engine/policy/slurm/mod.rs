//! What a stage asks of Slurm when its job is submitted. Pure: settings in, arguments of `sbatch`
//! out. Nothing of it is part of a stage's identity.

mod values;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;
pub use values::{Extra, Walltime, Word};

/// What a stage's job gets. A key that is unset has the value under `executor:`, and Slurm's own
/// without one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Slurm {
    /// The partition, or several with commas between them.
    #[schemars(extend("x-class" = "runtime"), example = &"gpu")]
    pub partition: Option<Word>,
    /// The account that pays.
    #[schemars(extend("x-class" = "runtime"))]
    pub account: Option<Word>,
    /// The quality of service.
    #[schemars(extend("x-class" = "runtime"))]
    pub qos: Option<Word>,
    /// GPUs, such as `1` or `a100:1`. Unset, a stage with `resources: {gpu: 1}` asks for one, and
    /// one with `devices: [0, 1]` for two.
    #[schemars(extend("x-class" = "runtime"))]
    pub gpus: Option<Word>,
    /// Processor cores.
    #[schemars(extend("x-class" = "runtime"), range(min = 1))]
    pub cpus: Option<u32>,
    /// Memory, such as `16G`; a bare number is in megabytes.
    #[schemars(extend("x-class" = "runtime"), example = &"16G")]
    pub mem: Option<Word>,
    /// The walltime: `8h`, Slurm's `1-12:00:00`, or a number of minutes. A training that needs
    /// longer is requeued.
    #[schemars(extend("x-class" = "runtime"), example = &"8h")]
    pub time: Option<Walltime>,
    /// How long before the end of the walltime the job is told to save and stop; 2 minutes if
    /// unset. Slurm may do so a minute early.
    #[schemars(extend("x-class" = "runtime"), example = &"2m")]
    pub signal_before: Option<Span>,
    /// Further arguments of `sbatch`, such as `--constraint=a100`.
    #[schemars(extend("x-class" = "runtime"), extend("examples" = [["--constraint=a100"]]))]
    pub extra: Option<Vec<Extra>>,
}

const SIGNAL_BEFORE: Duration = Duration::from_secs(120);
/// `--signal` takes no more seconds.
const MOST_BEFORE: Duration = Duration::from_secs(65_535);

impl Slurm {
    /// With the values of `below` where this has none.
    pub fn or(self, below: &Self) -> Self {
        let below = below.clone();
        Self {
            partition: self.partition.or(below.partition),
            account: self.account.or(below.account),
            qos: self.qos.or(below.qos),
            gpus: self.gpus.or(below.gpus),
            cpus: self.cpus.or(below.cpus),
            mem: self.mem.or(below.mem),
            time: self.time.or(below.time),
            signal_before: self.signal_before.or(below.signal_before),
            extra: self.extra.or(below.extra),
        }
    }

    /// How long before the end of its walltime a job is told.
    pub fn signal_before(&self) -> Duration {
        self.signal_before.map_or(SIGNAL_BEFORE, |span| span.0)
    }

    /// The key whose value makes no sense beside the others, and what was expected.
    pub fn wrong(&self) -> Option<(&'static str, String)> {
        let before = self.signal_before();
        if before > MOST_BEFORE || before.is_zero() {
            return Some((
                "signal_before",
                "expected a second or more, and at most 18 hours".into(),
            ));
        }
        let Walltime(time) = self.time?;
        let (time, before) = (Span(time), Span(before));
        (time.0 <= before.0).then(|| {
            let key = if self.signal_before.is_some() { "signal_before" } else { "time" };
            (
                key,
                format!(
                    "a walltime of {time} ends before the job could be told {before} ahead of that"
                ),
            )
        })
    }

    /// As arguments of `sbatch`. `needed`: the GPUs that the stage takes while it runs.
    pub fn arguments(&self, needed: u32) -> Vec<String> {
        let mut all = vec![format!("--signal=B:TERM@{}", self.signal_before().as_secs().max(1))];
        let gpus = match &self.gpus {
            Some(gpus) => Some(gpus.as_str().to_owned()).filter(|gpus| gpus != "0"),
            None => (needed > 0).then(|| needed.to_string()),
        };
        let words = [
            ("partition", self.partition.as_ref().map(Word::as_str)),
            ("account", self.account.as_ref().map(Word::as_str)),
            ("qos", self.qos.as_ref().map(Word::as_str)),
            ("gpus", gpus.as_deref()),
            ("mem", self.mem.as_ref().map(Word::as_str)),
        ];
        all.extend(words.into_iter().filter_map(|(key, word)| Some(format!("--{key}={}", word?))));
        all.extend(self.cpus.map(|cpus| format!("--cpus-per-task={cpus}")));
        all.extend(self.time.map(|time| format!("--time={time}")));
        all.extend(self.extra.iter().flatten().map(|extra| extra.as_str().to_owned()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slurm(text: &str) -> Slurm {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn settings_become_arguments() {
        let all = "{partition: gpu, account: lab, qos: high, gpus: 'a100:2', cpus: 8, mem: 16G, time: 8h, \
                    signal_before: 5m, extra: [--constraint=fast, --exclusive]}";
        assert_eq!(
            slurm(all).arguments(0),
            [
                "--signal=B:TERM@300",
                "--partition=gpu",
                "--account=lab",
                "--qos=high",
                "--gpus=a100:2",
                "--mem=16G",
                "--cpus-per-task=8",
                "--time=0-08:00:00",
                "--constraint=fast",
                "--exclusive"
            ]
        );
        assert_eq!(Slurm::default().arguments(0), ["--signal=B:TERM@120"]);
        assert_eq!(
            slurm("{mem: 4000}").arguments(1),
            ["--signal=B:TERM@120", "--gpus=1", "--mem=4000"]
        );
        assert_eq!(slurm("{cpus: 2}").arguments(2)[1], "--gpus=2");
        assert_eq!(
            slurm("{gpus: 0}").arguments(1),
            ["--signal=B:TERM@120"],
            "none, though the stage has one"
        );
    }

    #[test]
    fn a_stage_is_stronger_than_the_executor() {
        let below = slurm("{partition: cpu, time: 1h, extra: [--exclusive]}");
        let both = slurm("{partition: gpu, extra: []}").or(&below);
        assert_eq!(both, slurm("{partition: gpu, time: 1h, extra: []}"));
    }

    #[test]
    fn a_walltime_leaves_room_for_the_signal() {
        assert_eq!(slurm("{time: 1m}").wrong().unwrap().0, "time");
        assert_eq!(slurm("{time: 1m, signal_before: 60s}").wrong().unwrap().0, "signal_before");
        assert_eq!(slurm("{time: 1m, signal_before: 20s}").wrong(), None);
        assert_eq!(slurm("{signal_before: 20h}").wrong().unwrap().0, "signal_before");
    }
}
