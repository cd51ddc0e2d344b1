//! How long a training takes where no run tells it: a few steps of it are timed, in a folder of their
//! own, on drawn images of the same size.
//!
//! The program runs itself, as a training does, so that what is timed is what will run. Only the time
//! that reading images from the disk takes is not in it.

use std::collections::HashMap;

use pipe_engine::exec::InspectedStage;
use pipe_engine::forecast::PlanForecast;
use pipe_engine::graph::{Graph, LoadedStage};
use pipe_engine::kind::{Forecast, StageId};
use pipe_train::stages::artifacts::dataset_images;
use serde_json::{Map, Value, json};

use super::{CliError, bench};
use crate::report::stderr;

/// Steps of an epoch, if they take long enough.
const STEPS: u64 = 2;
/// The first one warms up.
const EPOCHS: u64 = 2;
/// Seconds of steps that say enough.
const ENOUGH: f64 = 4.0;
const MOST_STEPS: u64 = 50;

/// What changes no step, or is about what comes before and behind it.
const LEFT_OUT: [&str; 19] = [
    "learning_rate",
    "seed",
    "init",
    "experiment_name",
    "epochs",
    "schedule_epochs",
    "schedule",
    "max_steps",
    "early_stopping",
    "max_time",
    "budget",
    "until",
    "sample_every_n_epochs",
    "sample_every_n_steps",
    "validate_every_n_steps",
    "checkpoint",
    "dataset",
    "base",
    "log_every_n_steps",
];

/// Times trainings of a plan of which nothing is known, and notes in `found` what they take.
pub fn measure(
    graph: &Graph,
    forecast: &PlanForecast,
    found: &mut HashMap<StageId, InspectedStage>,
) -> Result<(), CliError> {
    let mut known: Vec<(Value, Measured)> = Vec::new();
    for id in &forecast.unknown {
        let Some(stage) = graph.stage(id) else { continue };
        let Some(trial) = Trial::of(graph, stage, found) else { continue };
        // Members of a matrix often differ in nothing that takes time.
        let pipeline = trial.pipeline(STEPS);
        let earlier = known.iter().find(|(earlier, _)| *earlier == pipeline);
        let measured = match earlier {
            Some((_, measured)) => *measured,
            None => {
                stderr::line(format!("timing some steps of {id}"));
                let mut measured = trial.run(STEPS)?;
                if measured.step * STEPS as f64 <= ENOUGH {
                    let steps = (ENOUGH / measured.step.max(1e-6)).ceil() as u64;
                    measured = trial.run(steps.clamp(STEPS, MOST_STEPS))?;
                }
                known.push((pipeline, measured));
                measured
            }
        };
        if let Some(stage) = found.get_mut(id) {
            stage.inspection.forecast = Some(trial.forecast(measured));
        }
    }
    Ok(())
}

/// What was measured of a trial.
#[derive(Clone, Copy)]
struct Measured {
    /// Seconds of a step, with its share of the validation.
    step: f64,
    /// Of a checkpoint.
    bytes: u64,
    /// Of main memory, at most.
    memory: u64,
}

/// A short training that stands for a stage.
struct Trial {
    /// Without `num_images`.
    stages: Value,
    /// Images of a step.
    batch: u64,
    /// The share of the images that are for validation.
    validation: f64,
    /// Steps of an epoch of the stage.
    steps: f64,
    epochs: u64,
    /// Checkpoints that stand at once, at most.
    kept: u64,
}

impl Trial {
    /// `None` for a stage that does not train, or whose images nobody has counted yet.
    fn of(
        graph: &Graph,
        stage: &LoadedStage,
        found: &HashMap<StageId, InspectedStage>,
    ) -> Option<Self> {
        let input = |stage: &LoadedStage, name: &str| {
            let input = stage.inputs.iter().find(|input| input.name == name)?;
            graph.stage(&input.stage)
        };
        let settings = stage.stage.settings();
        let data = input(stage, "dataset")?;
        let images = found.get(&data.id)?.inspection.artifact.as_ref();
        let images = images.and_then(dataset_images)? as f64;
        let data = data.stage.settings();
        let base = match stage.kind.as_str() {
            "train" => None,
            "lora" => Some(whole_model(graph, input(stage, "base")?)?),
            _ => return None,
        };
        let number = |key: &str| settings.get(key).and_then(Value::as_u64);
        let batch = number("batch_size")? * number("accumulate_grad_batches").unwrap_or(1);
        let validation = data.get("val_split").and_then(Value::as_f64).unwrap_or(0.0);
        let steps = (images * (1.0 - validation) / batch.max(1) as f64).ceil().max(1.0);
        let by_steps = number("max_steps").map(|most| (most as f64 / steps).ceil() as u64);
        let epochs = by_steps.into_iter().chain(number("epochs")).min()?;
        let of_data = |key: &str| data.get(key).cloned().unwrap_or_default();
        let mut stages = json!({
            "data": {"kind": "dataset", "source": "shapes", "image_size": of_data("image_size"),
                     "val_split": validation},
            "trial": of_settings(&settings, &stage.kind, EPOCHS),
        });
        let augmentation = of_data("augmentation");
        if !augmentation.is_null() {
            stages["data"]["augmentation"] = augmentation;
        }
        if let Some(base) = base {
            stages["base"] = of_settings(&base, "train", 1);
            stages["trial"]["base"] = json!("base");
        }
        let saved = settings.get("checkpoint");
        let saved = |key: &str| saved.and_then(|policy| policy.get(key)).and_then(Value::as_u64);
        let all = epochs.div_ceil(saved("save_every_n_epochs").unwrap_or(1).max(1));
        let kept = saved("keep_last_n").map(|newest| newest + saved("keep_top_k").unwrap_or(1) + 1);
        Some(Self {
            stages,
            batch,
            validation,
            steps,
            epochs,
            kept: kept.map_or(all, |kept| kept.min(all)),
        })
    }

    /// With epochs of so many steps.
    fn pipeline(&self, steps: u64) -> Value {
        let mut stages = self.stages.clone();
        let images = ((steps * self.batch) as f64 / (1.0 - self.validation)).ceil().max(1.0);
        stages["data"]["num_images"] = json!(images as u64);
        json!({"name": "trial", "stages": stages})
    }

    fn run(&self, steps: u64) -> Result<Measured, CliError> {
        let folder = tempfile::tempdir().map_err(CliError::failed)?;
        let file = folder.path().join("trial.yaml");
        std::fs::write(file, self.pipeline(steps).to_string()).map_err(CliError::failed)?;
        let events = bench::run(folder.path(), "trial.yaml", &[])?;
        let of = |kind: &'static str| {
            let trial = events.iter().map(|(_, event)| event);
            trial.filter(move |event| event["event"] == kind && event["stage"] == "trial")
        };
        let seconds = |event: &Value| event["seconds"].as_f64();
        let measured: Vec<f64> = of("epoch").skip(1).filter_map(seconds).collect();
        if measured.is_empty() {
            return Err(CliError::failed("the training told nothing that could be measured"));
        }
        let bytes = of("saved").filter_map(|event| event["bytes"].as_u64()).max();
        let memory = of("step").filter_map(|event| event["memory"].as_u64()).max();
        Ok(Measured {
            step: measured.iter().sum::<f64>() / (measured.len() as f64 * steps as f64),
            bytes: bytes.unwrap_or(0),
            memory: memory.unwrap_or(0),
        })
    }

    fn forecast(&self, measured: Measured) -> Forecast {
        Forecast {
            seconds: Some(measured.step * self.steps * self.epochs as f64),
            bytes: Some(measured.bytes * self.kept).filter(|bytes| *bytes > 0),
            memory: Some(measured.memory).filter(|memory| *memory > 0),
            from: "some steps, timed now".to_owned(),
        }
    }
}

/// The settings of the training whose model a stage hands on, itself or from before it.
fn whole_model(graph: &Graph, stage: &LoadedStage) -> Option<Value> {
    if stage.kind == "train" {
        return Some(stage.stage.settings());
    }
    stage.inputs.iter().filter_map(|input| graph.stage(&input.stage)).find_map(|before| {
        let makes_model = before.makes == stage.makes && before.id != stage.id;
        makes_model.then(|| whole_model(graph, before)).flatten()
    })
}

/// The settings of a stage for a short training.
fn of_settings(settings: &Value, kind: &str, epochs: u64) -> Value {
    let mut all: Map<String, Value> = settings.as_object().cloned().unwrap_or_default();
    all.retain(|key, value| !LEFT_OUT.contains(&key.as_str()) && !value.is_null());
    all.insert("kind".to_owned(), kind.into());
    all.insert("dataset".to_owned(), "data".into());
    all.insert("epochs".to_owned(), epochs.into());
    all.insert("log_every_n_steps".to_owned(), 1.into());
    all.insert("checkpoint".to_owned(), json!({"save_every_n_epochs": EPOCHS}));
    Value::Object(all)
}
