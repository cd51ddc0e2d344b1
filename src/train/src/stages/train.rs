//! `kind: train`: which numbered run a training belongs to, and the way into the loop and out of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use figment::Figment;
use pipe_engine::identity::{Difference, differences};
use pipe_engine::kind::{
    Failure, Observer, Outcome, Reference, Rejection, Request, RunContext, Stage, StageError, StageKind,
    State,
};
use pipe_engine::progress::Event;
use pipe_engine::store::{DatasetRecord, Keeper, Metadata, Run, Runs, SCHEMA_VERSION, Status, atomic};
use serde_json::{Map, Value};

use crate::data::{Dataset, Split};
use crate::device;
use crate::fit::{Job, Position, Recorder, TrainSettings, TrainState, fit, storage};

pub struct TrainKind;

impl StageKind for TrainKind {
    fn name(&self) -> &'static str {
        "train"
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(TrainSettings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings: TrainSettings = settings.extract()?;
        settings.validate()?;
        Ok(Arc::new(TrainStage { settings }))
    }
}

struct TrainStage {
    settings: TrainSettings,
}

/// The run that a training goes on with, or the wish for a new one.
enum Choice {
    /// A new run, with this number if one was asked for. The reason is for the plan.
    New { number: Option<u32>, reason: String },
    /// An existing run with the same identity.
    Existing(Box<(Run, Metadata)>),
    /// A run's folder without metadata: its process ended before it wrote any.
    Empty(Run),
}

impl Stage for TrainStage {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn derived(&self) -> BTreeMap<String, Value> {
        self.settings.derived()
    }

    fn references(&self) -> Vec<Reference> {
        vec![Reference { key: "dataset", stage: self.settings.dataset.clone(), kinds: &["dataset"] }]
    }

    fn observe(&self, o: &Observer) -> Result<State, StageError> {
        let choice = self.choose(o.root, o.request, o.stage.as_str(), o.manifest)?;
        let (run, metadata) = match choice {
            Choice::New { reason, .. } => return Ok(State::Absent { reason }),
            Choice::Empty(run) => {
                return Ok(State::Absent { reason: format!("run {} has no checkpoint yet", run.number) });
            }
            Choice::Existing(existing) => *existing,
        };
        let total = self.settings.epochs;
        let done = completed_epochs(&run, &metadata);
        Ok(if done >= total {
            State::Done { reason: format!("up to date, run {}", run.number) }
        } else if done >= metadata.epochs {
            State::Extendable { from: done, to: total }
        } else {
            let message = metadata.message.unwrap_or_else(|| match metadata.status {
                Status::Running => "ended without a word".to_owned(),
                other => other.name().to_owned(),
            });
            State::Partial { done, total, reason: format!("run {}: {message}", run.number) }
        })
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let settings = &self.settings;
        let Some(dataset) = context.inputs.get("dataset").and_then(|a| a.clone().downcast::<Dataset>().ok())
        else {
            return Err(StageError::new(Failure::Bug, "the data set did not reach the training"));
        };
        let setting = |message: String| StageError::new(Failure::Setting, message);
        let config = settings.model.config(dataset.image_size(), dataset.class_names().len());
        config.validate().map_err(|e| setting(format!("model: {e}")))?;
        if settings.checkpoint.monitor == "val_loss" && dataset.indices(Split::Validation).is_empty() {
            return Err(setting(
                "checkpoint.monitor is val_loss, and the data set has no validation images; set its val_split to a \
                 share such as 0.1, or monitor train_loss"
                    .into(),
            ));
        }
        device::watch();
        let device = device::resolve(settings.device).map_err(|e| setting(e.to_string()))?;
        if !settings.precision.runs_on(&device.device) {
            let (precision, name) = (settings.precision.name(), &device.name);
            return Err(setting(format!("precision: {name} cannot compute with {precision}; use f32")));
        }
        let autodiff = device.device.clone().autodiff();

        // The run: an old one to go on with, or a new one.
        let choice =
            self.choose(&context.root, &context.request, context.stage.as_str(), &context.manifest)?;
        let mut keeper = self.open_run(context, choice, &dataset, &device.name)?;
        let directory = keeper.run().folder.strip_prefix(&context.root).unwrap_or(&keeper.run().folder);
        let directory = directory.display().to_string();
        write_config(&keeper, context)?;

        // Where to begin: the run's newest good checkpoint, a file that was named, or the seed.
        let found = keeper.newest_good();
        for passed in &found.passed_over {
            context.event(Event::Warning { text: format!("passed over a damaged checkpoint: {passed}") });
        }
        if found.checkpoint.is_none() && !found.passed_over.is_empty() {
            return Err(StageError::new(
                Failure::Storage,
                format!(
                    "run {} has no good checkpoint left; start a new run with --force",
                    keeper.run().number
                ),
            ));
        }
        let mut start = found.checkpoint;
        if start.is_none()
            && let Some(file) = &settings.checkpoint.resume_checkpoint
        {
            let opened = pipe_engine::store::Checkpoint::open(&context.root.join(file))
                .and_then(|c| c.verify().map(|()| c));
            start = Some(opened.map_err(|e| setting(format!("checkpoint.resume_checkpoint: {e}")))?);
        }
        let (mut state, position) = match &start {
            Some(checkpoint) => {
                let header = checkpoint.header();
                let sums = serde_json::from_value(header.loop_state["sums"].clone()).unwrap_or_default();
                let position = Position {
                    epoch: header.epoch,
                    global_step: header.global_step,
                    step_in_epoch: header.step_in_epoch,
                    sums,
                };
                (TrainState::restore(checkpoint, &config, settings, &autodiff)?, position)
            }
            None => (TrainState::fresh(&config, settings, &autodiff)?, Position::default()),
        };

        let parameters: u64 = crate::diffit::param_paths(&state.model)
            .iter()
            .map(|(.., shape)| shape.iter().product::<usize>() as u64)
            .sum();
        context.event(Event::RunOpened {
            number: keeper.run().number.0,
            experiment: keeper.metadata().experiment_name.clone(),
            directory: directory.clone(),
            device: device.name.clone(),
            parameters,
        });
        if let Some(checkpoint) = &start {
            let history = &keeper.metadata().history;
            let previous = history.iter().rfind(|e| e.epoch == position.epoch).map(|e| e.metrics.clone());
            let path = checkpoint.path().strip_prefix(&context.root).unwrap_or(checkpoint.path());
            context.event(Event::Resumed {
                checkpoint: path.display().to_string(),
                epoch: position.epoch,
                step_in_epoch: position.step_in_epoch,
                metrics: previous.unwrap_or_else(|| checkpoint.header().metrics.clone()),
            });
        }

        let (epochs, experiment) = (settings.epochs, settings.experiment_name.clone());
        keeper
            .update(|m| {
                m.status = Status::Running;
                m.message = None;
                m.epochs = epochs;
                m.device = device.name.clone();
                if let Some(name) = experiment {
                    m.experiment_name = name;
                }
            })
            .map_err(storage)?;
        let classes = dataset.class_names().to_vec();
        let model_config = serde_json::to_value(&config).unwrap_or_default();
        let mut recorder = Recorder::open(context, settings, keeper, &position, model_config, classes)?;
        let job = Job { settings, config: &config, dataset, device: autodiff, context };
        match fit(&job, &mut state, position, &mut recorder) {
            Ok(()) => recorder.end(Status::Completed, None)?,
            Err(error) => {
                let status = match error.failure {
                    Failure::Interrupted(_) => Status::Interrupted,
                    _ => Status::Failed,
                };
                // The first error is the one to report.
                let _ = recorder.end(status, Some(error.message.clone()));
                return Err(error);
            }
        }
        let best = recorder.keeper().metadata().best_checkpoint.clone();
        let monitor = settings.checkpoint.monitor.clone();
        let value = best.as_ref().and_then(|b| b.metrics.get(&monitor).copied());
        context.event(Event::Completed {
            best_epoch: best.as_ref().map(|b| b.epoch),
            monitor: monitor.clone(),
            value,
        });
        let best = match (&best, value) {
            (Some(best), Some(value)) => {
                format!(", best {monitor} {value:.4} at epoch {}: {directory}/{}", best.epoch, best.path)
            }
            _ => String::new(),
        };
        Ok(Outcome {
            artifact: None,
            summary: format!("run {:03}, {epochs} epochs{best}", recorder.keeper().run().number.0),
        })
    }
}

impl TrainStage {
    /// Decides which run is meant. Looks at the disk and changes nothing.
    fn choose(
        &self,
        root: &Path,
        request: &Request,
        stage: &str,
        manifest: &BTreeMap<String, Value>,
    ) -> Result<Choice, StageError> {
        let policy = &self.settings.checkpoint;
        let runs = Runs::at(root.join(&policy.base_dir));
        let resume = request.resume || (policy.resume_from_run.is_some() && !request.force);
        let number = request.run_number.or(policy.run_number).or(policy.resume_from_run);
        let setting = |message: String| StageError::new(Failure::Setting, message);

        if let Some(number) = number {
            let Some(run) = runs.find(number) else {
                let reason = match resume {
                    true => format!("no checkpoint found for run {number}; starting new training"),
                    false => format!("run {number} is new"),
                };
                return Ok(Choice::New { number: Some(number), reason });
            };
            if request.force {
                return Err(setting(format!(
                    "run {number} exists; `--force` needs a number that is free, or none"
                )));
            }
            if !run.metadata_path().exists() {
                return Ok(Choice::Empty(run));
            }
            let metadata = run.metadata().map_err(storage)?;
            let different = differences(&metadata.manifest, manifest);
            return match different.is_empty() {
                true => Ok(Choice::Existing(Box::new((run, metadata)))),
                false => Err(setting(self.refusal(number, &different))),
            };
        }

        let mine = |run: Run| run.metadata().ok().filter(|m| m.stage == stage).map(|m| (run, m));
        let mut known: Vec<(Run, Metadata)> = runs.list().into_iter().filter_map(mine).collect();
        if request.force {
            return Ok(Choice::New { number: None, reason: "forced".into() });
        }
        if resume && let Some((run, metadata)) = known.pop() {
            let different = differences(&metadata.manifest, manifest);
            return match different.is_empty() {
                true => Ok(Choice::Existing(Box::new((run, metadata)))),
                false => Err(setting(self.refusal(run.number.0, &different))),
            };
        }
        let same = known.iter().rposition(|(_, m)| differences(&m.manifest, manifest).is_empty());
        if let Some(index) = same {
            return Ok(Choice::Existing(Box::new(known.swap_remove(index))));
        }
        let reason = match known.last() {
            None if resume => "no checkpoint found; starting new training".to_owned(),
            None => "no run yet".to_owned(),
            Some((run, m)) => {
                let all: Vec<String> =
                    differences(&m.manifest, manifest).iter().map(Difference::to_string).collect();
                format!("{} (run {} had it otherwise)", all.join(", "), run.number)
            }
        };
        Ok(Choice::New { number: None, reason })
    }

    /// Why a run cannot be gone on with.
    fn refusal(&self, number: u32, different: &[Difference]) -> String {
        let all: Vec<String> = different.iter().map(Difference::to_string).collect();
        let horizon = different.iter().find(|d| d.key == "<schedule horizon>");
        let help = match horizon.and_then(|d| d.old.clone()) {
            Some(old) => format!(
                "a {:?} schedule depends on its length: keep it with `schedule_epochs: {old}`, or start a new run",
                self.settings.schedule.kind
            )
            .to_lowercase(),
            None => "go on with the settings it was begun with, or start a new run by leaving the number out".into(),
        };
        format!("run {number} was trained with other settings: {}; {help}", all.join(", "))
    }

    fn open_run(
        &self,
        context: &RunContext,
        choice: Choice,
        dataset: &Dataset,
        device: &str,
    ) -> Result<Keeper, StageError> {
        let policy = self.settings.checkpoint.clone();
        let runs = Runs::at(context.root.join(&policy.base_dir));
        let run = match choice {
            Choice::Existing(existing) => {
                let (run, metadata) = *existing;
                if metadata.dataset.digest != dataset.digest() {
                    return Err(StageError::new(
                        Failure::Input,
                        format!(
                            "the images have changed since run {} was begun; start a new run with --force, or put the \
                             old images back",
                            run.number
                        ),
                    ));
                }
                return Keeper::reopen(run, policy).map_err(storage);
            }
            Choice::Empty(run) => run,
            Choice::New { number: Some(number), reason } => {
                if context.request.resume {
                    context.event(Event::Message { text: capitalized(&reason) });
                }
                let created = runs.create_numbered(number).map_err(|e| storage(e.into()))?;
                created.ok_or_else(|| {
                    StageError::new(
                        Failure::Setting,
                        format!("run {number} was just begun by another process"),
                    )
                })?
            }
            Choice::New { number: None, reason } => {
                if context.request.resume {
                    context.event(Event::Message { text: capitalized(&reason) });
                }
                runs.create().map_err(|e| storage(e.into()))?
            }
        };
        let metadata = self.first_metadata(context, &run, dataset, device);
        Keeper::begin(run, policy, metadata).map_err(storage)
    }

    fn first_metadata(&self, context: &RunContext, run: &Run, dataset: &Dataset, device: &str) -> Metadata {
        let now = chrono::Utc::now();
        Metadata {
            schema_version: SCHEMA_VERSION,
            run_number: run.number.0,
            experiment_name: self
                .settings
                .experiment_name
                .clone()
                .unwrap_or_else(|| context.pipeline.clone()),
            pipeline: context.pipeline.clone(),
            stage: context.stage.to_string(),
            status: Status::Running,
            message: None,
            created_at: now,
            updated_at: now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git_commit: git_commit(&context.root),
            device: device.to_owned(),
            seed: self.settings.seed,
            epochs: self.settings.epochs,
            identity: context.identity.clone(),
            manifest: context.manifest.clone(),
            settings: self.settings(),
            dataset: DatasetRecord {
                source: dataset.source().name().to_owned(),
                digest: dataset.digest().to_owned(),
                classes: dataset.class_names().to_vec(),
                train_images: dataset.indices(Split::Train).len() as u64,
                validation_images: dataset.indices(Split::Validation).len() as u64,
            },
            resumed_from: self.settings.checkpoint.resume_checkpoint.clone(),
            checkpoints: Vec::new(),
            best_checkpoint: None,
            partial_checkpoint: None,
            history: Vec::new(),
            other: Map::new(),
        }
    }
}

/// The epochs whose result stands on disk.
fn completed_epochs(run: &Run, metadata: &Metadata) -> u64 {
    let stands =
        |path: &str, bytes: u64| std::fs::metadata(run.folder.join(path)).is_ok_and(|m| m.len() == bytes);
    let saved = metadata.checkpoints.iter().filter(|c| stands(&c.path, c.bytes)).map(|c| c.epoch);
    let partial = metadata.partial_checkpoint.iter().filter(|p| stands(&p.path, p.bytes)).map(|p| p.epoch);
    // Without checkpoints there is nothing to look at but the word of the metadata.
    let switched_off = metadata.settings["checkpoint"]["enabled"] == Value::Bool(false);
    let word = (switched_off && metadata.status == Status::Completed).then_some(metadata.epochs);
    saved.chain(partial).chain(word).max().unwrap_or(0)
}

/// `config.yaml`: a pipeline file that repeats the run.
fn write_config(keeper: &Keeper, context: &RunContext) -> Result<(), StageError> {
    let text = format!(
        "# The resolved settings of this run. It can be repeated with: pipe run {}\n{}",
        keeper
            .run()
            .config_path()
            .strip_prefix(&context.root)
            .unwrap_or(&keeper.run().config_path())
            .display(),
        context.resolved
    );
    atomic::write(&keeper.run().config_path(), |out| out.write_all(text.as_bytes()))
        .map_err(|e| storage(e.into()))
}

fn git_commit(root: &Path) -> Option<String> {
    let output =
        std::process::Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
