//! `--run-number N --resume`: a run goes on with the settings that it was begun with. Those that
//! the command line or the environment gives now count, too; where they say something else, the
//! stage refuses and names the difference.

use std::collections::BTreeMap;

use pipe_engine::graph::Graph;
use pipe_engine::identity::{self, Difference};
use pipe_engine::kind::StageId;
use pipe_engine::pipeline_file::{Input, LoadedStage, Override};
use pipe_fs::ProjectRoot;
use pipe_runs::{Metadata, Runs, Status};
use pipe_trainer::later_setting;
use serde_json::Value;

/// A pipeline as it was read twice.
pub struct ResumeContext<'a> {
    /// Of the files alone.
    pub from_files: &'a Graph,
    /// With all that was given besides.
    pub with_overrides: &'a Graph,
    pub overrides: &'a [Override],
}

impl ResumeContext<'_> {
    /// What is to be set so that every stage which has run `number` goes on with that run's
    /// settings, where nothing else was asked for.
    pub fn settings_of_run(&self, root: &ProjectRoot, number: u32) -> Vec<Override> {
        let single = |stage: &&LoadedStage| stage.id.as_str() == stage.id.declared();
        let stages = self.with_overrides.stages().filter(single);
        let mut all: Vec<Override> = Vec::new();
        for stage in stages {
            let runs = stage.stage.runs().map(|folder| Runs::at(root.disk(), root.join(folder)));
            let run = runs.and_then(|runs| runs.find(number));
            let Some(metadata) = run.and_then(|run| run.metadata().ok()) else { continue };
            if metadata.stage == stage.id.as_str() {
                all.extend(self.of_stage(stage, &metadata));
            }
        }
        all
    }

    fn of_stage(&self, stage: &LoadedStage, run: &Metadata) -> Vec<Override> {
        let set = |key: String, value: Value| {
            let shown = format!("{key} {value}");
            Override::value(&key, value, shown)
        };
        let today = manifest(self.with_overrides, &stage.id);
        let alone = manifest(self.from_files, &stage.id);
        let different = identity::differences(&run.manifest, &today);
        let changes_later = different.iter().any(|d| later_setting(&d.key).is_some());
        let mut own: Vec<Override> = different
            .into_iter()
            .filter(|d| !self.is_given(&d.key, alone.get(&d.key) != today.get(&d.key)))
            .filter_map(|d| {
                // What counts by its content has a digest there, and is a name among the settings.
                let named = run.settings.get(&d.key).cloned();
                Some(set(place(stage, &d)?, named.or(d.old).unwrap_or_default()))
            })
            .collect();
        if changes_later && !self.given("then", stage) {
            let then =
                run.settings.get("then").cloned().unwrap_or_else(|| Vec::<Value>::new().into());
            own.push(set(format!("{}.then", stage.id), then));
        }
        own.extend(
            self.length(stage, run)
                .into_iter()
                .map(|(key, value)| set(format!("{}.{key}", stage.id), value)),
        );
        own
    }

    /// How long the run is to be: as long as it was to be, or longer if the file says so by now.
    fn length(&self, stage: &LoadedStage, run: &Metadata) -> Vec<(&'static str, Value)> {
        let setting = |graph: &Graph, key: &str| setting(graph, stage, key);
        let given = |key| self.given(key, stage);
        let Some(today) = setting(self.with_overrides, "epochs").as_u64() else {
            return Vec::new();
        };
        if given("epochs") {
            return Vec::new();
        }
        let horizon = run.manifest.get("schedule horizon").and_then(Value::as_u64);
        let epochs = if horizon.is_none() && run.status == Status::Completed {
            run.epochs.max(today)
        } else {
            run.epochs
        };
        let mut all = vec![("epochs", Value::from(epochs))];
        if horizon.is_some() && !given("schedule_epochs") {
            all.push(("schedule_epochs", horizon.filter(|h| *h != epochs).into()));
        }
        all.retain(|(key, value)| setting(self.with_overrides, key) != *value);
        all
    }

    /// Whether a setting of a stage was given outside of the files.
    fn given(&self, key: &str, stage: &LoadedStage) -> bool {
        let [files, all] =
            [self.from_files, self.with_overrides].map(|graph| setting(graph, stage, key));
        self.is_given(key, files != all)
    }

    /// Whether a setting was given outside of the files: it is another one for it, or was named.
    fn is_given(&self, key: &str, differs: bool) -> bool {
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let named = |given: &Override| {
            given.path.last().is_some_and(|name| name.eq_ignore_ascii_case(&last(key)))
        };
        differs || self.overrides.iter().any(named)
    }
}

fn setting(graph: &Graph, stage: &LoadedStage, key: &str) -> Value {
    let settings = graph.stage(&stage.id).map(|stage| stage.stage.settings());
    settings.and_then(|settings| settings.get(key).cloned()).unwrap_or_default()
}

fn manifest(graph: &Graph, stage: &StageId) -> BTreeMap<String, Value> {
    let own = graph.stage(stage).map(|stage| &stage.manifest);
    let all = identity::manifests(graph);
    all.get(stage).or(own).map(|manifest| manifest.record().clone()).unwrap_or_default()
}

/// The key of a setting, from the pipeline's top; `None` for what is no setting by itself.
fn place(stage: &LoadedStage, difference: &Difference) -> Option<String> {
    let key = difference.key.as_str();
    if stage.inputs.iter().any(|input| input.name == key) {
        return None;
    }
    let of_input = |input: &Input| {
        Some((input.stage.clone(), key.strip_prefix(&input.name)?.strip_prefix('.')?))
    };
    let (stage, key) = stage.inputs.iter().find_map(of_input).unwrap_or((stage.id.clone(), key));
    (key != "kind" && !key.contains(' ')).then(|| format!("{stage}.{key}"))
}
