//! What a stage asks of Slurm when its job is submitted. Pure: settings in, arguments of `sbatch`
//! out. Nothing of it is part of a stage's identity.

mod tasks;
mod values;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;
pub use tasks::Tasks;
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
    /// GPUs of each node, such as `4` or `a100:4`, in the place of `gpus`. A `trainer`'s program is
    /// started once for each.
    #[schemars(extend("x-class" = "runtime"), example = &4)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus_per_node: Option<Word>,
    /// Nodes. Several are for `kind: trainer`, whose program is started on each of them.
    #[schemars(extend("x-class" = "runtime"), range(min = 1), example = &2)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    /// Processes of a `trainer`'s program on each node; unset, one for each of `gpus_per_node`, and
    /// one without.
    #[schemars(extend("x-class" = "runtime"), range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ntasks_per_node: Option<u32>,
    /// Processor cores of each process.
    #[schemars(extend("x-class" = "runtime"), range(min = 1))]
    pub cpus: Option<u32>,
    /// Memory of each node, such as `16G`; a bare number is in megabytes.
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
        let mut below = below.clone();
        // They are two ways to say one thing.
        if self.gpus.is_some() || self.gpus_per_node.is_some() {
            (below.gpus, below.gpus_per_node) = (None, None);
        }
        Self {
            partition: self.partition.or(below.partition),
            account: self.account.or(below.account),
            qos: self.qos.or(below.qos),
            gpus: self.gpus.or(below.gpus),
            gpus_per_node: self.gpus_per_node.or(below.gpus_per_node),
            nodes: self.nodes.or(below.nodes),
            ntasks_per_node: self.ntasks_per_node.or(below.ntasks_per_node),
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
        let counts = [("nodes", self.nodes), ("ntasks_per_node", self.ntasks_per_node)];
        if let Some((key, _)) = counts.into_iter().find(|(_, number)| *number == Some(0)) {
            return Some((key, "expected 1 or more".into()));
        }
        if self.gpus.is_some() && self.gpus_per_node.is_some() {
            let text =
                "`gpus` counts those of all nodes and `gpus_per_node` those of each: keep one";
            return Some(("gpus_per_node", text.into()));
        }
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

    /// As arguments of `sbatch`. `needed`: the GPUs that the stage takes on each node while it runs.
    pub fn arguments(&self, needed: u32) -> Vec<String> {
        let mut all = vec![format!("--signal=B:TERM@{}", self.signal_before().as_secs().max(1))];
        let written = |gpus: &Option<Word>| {
            let text = gpus.as_ref().map(|gpus| gpus.as_str().to_owned());
            text.filter(|gpus| gpus != "0")
        };
        let needed = (needed > 0).then(|| needed.to_string());
        let (gpus, gpus_per_node) = match (&self.gpus, &self.gpus_per_node) {
            (None, None) if self.nodes.is_some_and(|nodes| nodes > 1) => (None, needed),
            (None, None) => (needed, None),
            (gpus, per_node) => (written(gpus), written(per_node)),
        };
        let words = [
            ("partition", self.partition.as_ref().map(Word::as_str)),
            ("account", self.account.as_ref().map(Word::as_str)),
            ("qos", self.qos.as_ref().map(Word::as_str)),
            ("gpus", gpus.as_deref()),
            ("gpus-per-node", gpus_per_node.as_deref()),
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
    fn gpus_are_counted_by_job_or_by_node() {
        let gpus = |text: &str, needed| slurm(text).arguments(needed)[1..].to_vec();
        assert_eq!(gpus("{gpus_per_node: 'a100:4', nodes: 2}", 0), ["--gpus-per-node=a100:4"]);
        assert_eq!(gpus("{gpus: 8, nodes: 2}", 1), ["--gpus=8"]);
        assert_eq!(gpus("{nodes: 2}", 1), ["--gpus-per-node=1"], "one would not do for two nodes");
        assert_eq!(gpus("{gpus_per_node: 0, nodes: 2}", 1), [] as [&str; 0]);
        let below = slurm("{gpus: 1, nodes: 2}");
        assert_eq!(slurm("{gpus_per_node: 2}").or(&below), slurm("{gpus_per_node: 2, nodes: 2}"));
        assert_eq!(slurm("{gpus: 1, gpus_per_node: 1}").wrong().unwrap().0, "gpus_per_node");
        assert_eq!(slurm("{nodes: 0}").wrong().unwrap().0, "nodes");
        assert_eq!(slurm("{ntasks_per_node: 0}").wrong().unwrap().0, "ntasks_per_node");
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
