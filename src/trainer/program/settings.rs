//! The settings of a `trainer` stage.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pipe_engine::command::{Program, Word, digests, words};
use pipe_engine::kind::names_file;
use pipe_engine::policy::{Span, Until};
use pipe_runs::policy::{CheckpointPolicy, EarlyStopping};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::budget::TimeLimits;
use crate::stopping::StoppingRules;

/// Trains with a program of one's own.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainerSettings {
    /// The program and its arguments as a list, or one line for the shell (`sh -c`).
    #[schemars(example = vec!["python", "train.py"])]
    #[schemars(extend("x-known-as" = ["command", "cmd", "script", "shell"]))]
    pub run: Program,
    /// What the program is told, in any form. Another value of any of them is another experiment.
    /// A matrix, `--set` and flags may name a key here without `settings.` before it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(extend("x-passes-on" = true))]
    pub settings: Map<String, Value>,
    /// Files, folders or patterns (`data/*.csv`) that it reads, relative to the project. Another
    /// content of them is another experiment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = vec!["train.py", "data/photos"])]
    pub inputs: Vec<String>,
    /// Weights to begin with: a stage that makes checkpoints, or a file of the project (with a `/`
    /// or a `.` in its path).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"pretrained")]
    pub init: Option<String>,
    /// Name shown in the list of runs; the pipeline's name if unset.
    #[serde(default)]
    #[schemars(extend("x-class" = "runtime"))]
    pub experiment_name: Option<String>,
    /// Epochs in all, not "more".
    #[schemars(range(min = 1), extend("x-class" = "extend"))]
    #[schemars(extend("x-known-as" = ["num_epochs", "max_epochs", "num_train_epochs", "n_epochs"]))]
    pub epochs: u64,
    /// Optimizer steps in all, after which the training ends, inside an epoch too. Of this and
    /// `epochs`, what is reached first ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-class" = "extend"))]
    #[schemars(example = 100_000)]
    pub max_steps: Option<u64>,
    /// Ends the training when a metric gets no better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-class" = "extend"))]
    pub early_stopping: Option<EarlyStopping>,
    /// Training time in all, `30m` or `2h`, after which the training ends and is saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-class" = "extend"))]
    #[schemars(example = &"2h")]
    pub max_time: Option<Span>,
    /// Training time in all, `30m` or `8h`, in which the training has come to its end. The program's
    /// schedule is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-class" = "extend"))]
    #[schemars(example = &"8h")]
    pub budget: Option<Span>,
    /// The same by the clock: `07:00`, `2026-12-01 07:00`, or `walltime` for the end of the job of
    /// Slurm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-class" = "extend"))]
    #[schemars(example = &"07:00")]
    pub until: Option<Until>,
    /// Seed that the program is told.
    #[serde(default = "default_seed")]
    #[schemars(extend("x-known-as" = ["random_seed", "seed_everything"]))]
    pub seed: u64,
    #[serde(default)]
    pub checkpoint: CheckpointPolicy,
    /// Whether it can go on from a checkpoint. One that cannot is started anew each time, in another
    /// run.
    #[serde(default = "yes")]
    #[schemars(extend("x-class" = "runtime"))]
    pub resumable: bool,
    /// Time between the request to stop and the end by force: long enough for a checkpoint.
    #[serde(default = "default_grace")]
    #[schemars(extend("x-class" = "runtime"))]
    #[schemars(example = &"2m")]
    pub grace: Span,
    /// Environment variables besides those that `pipe` was started with. Their values are written
    /// down nowhere: a record holds their digests.
    #[serde(default, serialize_with = "digests", deserialize_with = "words")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Word>")]
    pub env: BTreeMap<String, String>,
    /// Where it is started, relative to the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<PathBuf>,
}

fn default_seed() -> u64 {
    42
}

fn default_grace() -> Span {
    Span(Duration::from_secs(30))
}

fn yes() -> bool {
    true
}

impl TrainerSettings {
    /// The stage that `init` names; `None` if it is a file.
    pub fn init_stage(&self) -> Option<&str> {
        self.init.as_deref().filter(|init| !names_file(init))
    }

    /// The file that `init` names.
    pub fn init_file(&self) -> Option<&str> {
        self.init.as_deref().filter(|init| names_file(init))
    }

    /// What ends the training before its last epoch.
    pub fn stopping(&self) -> StoppingRules {
        let Self { early_stopping, max_steps, max_time, checkpoint, .. } = self;
        StoppingRules::of(early_stopping.as_ref(), *max_steps, *max_time, checkpoint)
            .within(TimeLimits::new(self.budget, self.until))
    }

    /// What it reads of the project: its inputs, and the file that it begins from.
    pub fn patterns(&self) -> Vec<String> {
        self.inputs.iter().map(String::as_str).chain(self.init_file()).map(str::to_owned).collect()
    }
}
