//! Where settings from outside belong: parameters, settings of stages, what a stage is made of, the
//! executor, the store.

mod unknown;

use std::collections::BTreeMap;

use pipe_core::error::{Gathered, SpecError};
use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use crate::pipeline_file::declared::Kinds;
use crate::pipeline_file::layers::{Layer, Origin};
use crate::pipeline_file::origin::Given;
use crate::pipeline_file::overrides::{
    Override, OverrideSource, Precedence, QUOTES, overrides_for_others,
};
use crate::pipeline_file::params::{Names, Used, fill_ours};
use crate::pipeline_file::paths::Place;
use crate::pipeline_file::pipeline::{PipelineFile, StageDeclaration};
use crate::pipeline_file::sections::TIME_LIMITS;
use crate::pipeline_file::{executor, matrix_conflicts, resolve_params, stage_bodies, swept};
use crate::policy::Hooks;

/// Overrides for stage settings, by stage, weakest first.
pub(super) type ByStage = BTreeMap<StageId, Vec<Layer>>;

/// What overrides come to.
#[derive(Default)]
pub(super) struct Applied {
    pub for_stages: ByStage,
    pub for_executor: Vec<Layer>,
    /// What is to be in the place of `store:`.
    pub for_store: Option<Override>,
    /// What is to be in the place of `fsync:`.
    pub for_fsync: Option<Override>,
    /// What is to be in the place of `budget:` and `until:` of the pipeline.
    pub for_time: BTreeMap<String, Override>,
    /// On top of `on:` of the pipeline.
    pub for_hooks: Vec<Layer>,
    /// What is now in the place of something in the file.
    pub given: Vec<Given>,
}

/// What an override is about.
enum Target {
    /// Below `params:`
    Parameter(Vec<String>),
    Settings(Vec<StageId>, Vec<String>),
    /// One of [`stage_bodies::KEYS`].
    Stage(StageId, Vec<String>),
    Executor(Vec<String>),
    Store,
    Fsync,
    /// One of [`TIME_LIMITS`] of a pipeline that has it.
    Time(&'static str),
    /// Below `on:` of the pipeline.
    Hooks(Vec<String>),
}

/// Sorts overrides into where they belong. Parameters and what stages are made of are changed in
/// `file` itself.
pub(super) fn apply(
    file: &mut PipelineFile,
    kinds: &Kinds,
    overrides: &[Override],
    used: &Used,
    (errors, warnings): (&mut Gathered, &mut Vec<SpecError>),
) -> Applied {
    let mut applied = Applied::default();
    let mut for_all = Vec::new();
    let settings = |given: &&Override| given.profiles(!file.profiles.is_empty()).is_empty();
    for given in overrides.iter().filter(settings).collect::<Vec<_>>() {
        let finder = Finder { file, kinds, given };
        let Some(target) = finder.target() else {
            match given.strength {
                Precedence::CommandLine => errors.push(finder.unknown()),
                Precedence::Environment => warnings.extend(finder.likely_misspelt()),
            }
            continue;
        };
        if let Err(why) = &given.value {
            let error = SpecError::plain(format!("{}: {why}", given.by.shown)).note(QUOTES);
            errors.push(foreign(error, given));
            continue;
        }
        if given.is_sweep {
            let given = errors.take(sweep(file, kinds, given, target));
            applied.given.extend(given.unwrap_or_default());
            continue;
        }
        let layer = |path: &[String]| Layer {
            origin: Origin::Outside(given.by.clone()),
            values: given.nested(path),
        };
        match target {
            Target::Parameter(path) => {
                file.scope_of_parameter.remove(&path[0]);
                stage_bodies::merge(&mut file.params, given.nested(&path));
                let at = [&["params".to_owned()], path.as_slice()].concat();
                applied.given.push(Given { at, by: given.by.clone() });
            }
            Target::Settings(stages, path) => {
                let is_for_all = path.len() == given.path.len();
                let by = OverrideSource { is_for_all, ..given.by.clone() };
                for stage in &stages {
                    let (origin, values) = (Origin::Outside(by.clone()), given.nested(&path));
                    let layers = applied.for_stages.entry(stage.clone()).or_default();
                    layers.push(Layer { origin, values });
                }
                for_all.push((given, stages, path));
            }
            Target::Stage(stage, path) => {
                if let Some(declared) = file.stages.iter_mut().find(|s| s.id == stage) {
                    errors.take(stage_bodies::change(declared, &path, given));
                }
                let at = [&["stages".to_owned(), stage.to_string()], path.as_slice()].concat();
                applied.given.push(Given { at, by: given.by.clone() });
            }
            Target::Executor(path) if path.is_empty() => {
                let block = executor::as_block(given.value.clone().unwrap_or_default());
                let given = Override { value: Ok(block), ..given.clone() };
                let origin = Origin::Outside(given.by.clone());
                applied.for_executor.push(Layer { origin, values: given.nested(&[]) });
            }
            Target::Executor(path) => applied.for_executor.push(layer(&path)),
            Target::Store => applied.for_store = Some(given.clone()),
            Target::Fsync => applied.for_fsync = Some(given.clone()),
            Target::Time(key) => {
                applied.for_time.insert(key.to_owned(), given.clone());
            }
            Target::Hooks(path) => applied.for_hooks.push(layer(&path)),
        }
    }
    errors.take(resolve_params::resolve(file));
    fill_in(&mut applied, &file.params, used, errors);
    for (given, stages, path) in for_all {
        let swept = matrix_conflicts::against(file, kinds, used, given, &stages, &path);
        errors.extend(swept.into_iter().map(|error| foreign(error, given)));
    }
    applied
}

/// Sweeps over the values that were given.
fn sweep(
    file: &mut PipelineFile,
    kinds: &Kinds,
    given: &Override,
    target: Target,
) -> Result<Vec<Given>, SpecError> {
    match target {
        Target::Settings(stages, path) => Ok(swept::over(file, kinds, given, (&stages, &path))),
        Target::Parameter(path) => Err(swept::refused_parameter(file, given, &path)),
        _ => Err(swept::refused(given, "this")),
    }
}

/// Parameters in what was given for the executor, the store, syncing, time and hooks. For stages it happens when
/// they are read.
fn fill_in(applied: &mut Applied, params: &Map<String, Value>, used: &Used, errors: &mut Gathered) {
    let names = Names { params, prefix: "", matrix: &Map::new(), used };
    for layer in applied.for_executor.iter_mut().chain(&mut applied.for_hooks) {
        let Origin::Outside(by) = &layer.origin else { continue };
        let filled = fill_ours(&Value::Object(std::mem::take(&mut layer.values)), names);
        if let Some(Value::Object(values)) =
            errors.take(filled.map_err(|bad| bad.outside(by, names)))
        {
            layer.values = values;
        }
    }
    let single = applied.for_store.iter_mut().chain(&mut applied.for_fsync);
    for given in single.chain(applied.for_time.values_mut()) {
        let filled = given.value.as_ref().map(|value| fill_ours(value, names));
        match filled {
            Ok(Ok(value)) => given.value = Ok(value),
            Ok(Err(bad)) => errors.push(bad.outside(&given.by, names)),
            Err(_) => {}
        }
    }
}

/// What to do about an error that a variable caused: it may be another program's.
fn foreign(error: SpecError, given: &Override) -> SpecError {
    match given.strength {
        Precedence::CommandLine => error,
        Precedence::Environment => error.note(overrides_for_others(&given.by)),
    }
}

/// Finds what one override is about.
struct Finder<'a> {
    file: &'a PipelineFile,
    kinds: &'a Kinds<'a>,
    given: &'a Override,
}

impl Finder<'_> {
    fn target(&self) -> Option<Target> {
        let path = &self.given.path;
        let (first, rest) = path.split_first()?;
        if rest.is_empty()
            && let Some(parameter) = self.parameter(path)
        {
            return Some(Target::Parameter(parameter));
        }
        // A stage's own keys before those inside a parameter of its name.
        let stage = self.stage(first).filter(|_| !rest.is_empty());
        if let Some(target) = stage.and_then(|stage| self.in_stage(stage, rest)) {
            return Some(target);
        }
        let inside = if first.eq_ignore_ascii_case("params") { rest } else { path };
        if let Some(parameter) = self.parameter(inside) {
            return Some(Target::Parameter(parameter));
        }
        match self.plain(first).as_str() {
            "executor" => return self.in_executor(rest).map(Target::Executor),
            "store" if rest.is_empty() => return Some(Target::Store),
            "fsync" if rest.is_empty() => return Some(Target::Fsync),
            "on" if !rest.is_empty() => return self.in_hooks(rest).map(Target::Hooks),
            key => {
                let all = TIME_LIMITS.into_iter();
                let own = all.filter(|own| rest.is_empty() && *own == key);
                if let Some(own) = { own }.find(|own| self.file.time_limits.contains_key(*own)) {
                    return Some(Target::Time(own));
                }
            }
        }
        let mut knowing: Vec<(&StageDeclaration, Vec<String>)> = self
            .file
            .stages
            .iter()
            .filter_map(|s| Some((s, self.setting(&s.kind, path)?)))
            .collect();
        if knowing.is_empty() {
            // Keys of programs' own, where no stage has a setting of that name.
            let passed =
                self.file.stages.iter().filter_map(|s| Some((s, self.passed_on(s, path)?)));
            knowing.extend(passed);
        }
        let spelt = knowing.first()?.1.clone();
        Some(Target::Settings(
            knowing.into_iter().map(|(stage, _)| stage.id.clone()).collect(),
            spelt,
        ))
    }

    /// The parameter at a path, and where inside it.
    fn parameter(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let name = self.pick(self.file.params.keys().map(String::as_str), first)?;
        let mut spelt = vec![name.to_owned()];
        let mut inside = self.file.params.get(name);
        for key in rest {
            let known = inside.and_then(Value::as_object);
            let name = known.and_then(|map| self.pick(map.keys().map(String::as_str), key));
            let name = name.map_or_else(|| self.plain(key), str::to_owned);
            inside = known.and_then(|map| map.get(&name));
            spelt.push(name);
        }
        Some(spelt)
    }

    fn stage(&self, name: &str) -> Option<&StageDeclaration> {
        let name = self.pick(self.file.stages.iter().map(|s| s.id.as_str()), name)?;
        self.file.stage(name)
    }

    fn in_stage(&self, stage: &StageDeclaration, path: &[String]) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        let id = stage.id.clone();
        match (self.plain(first).as_str(), rest) {
            ("matrix", [random, inside @ ..]) if random == "random" && !inside.is_empty() => {
                let path = ["matrix".to_owned(), random.clone(), inside.join(".")];
                Some(Target::Stage(id, path.to_vec()))
            }
            ("matrix", [_, ..]) => {
                // A key of a matrix may name a setting inside another one, with a dot.
                let setting =
                    self.setting(&stage.kind, rest).unwrap_or_else(|| rest.to_vec()).join(".");
                let axes = stage.body.get("matrix").and_then(Value::as_object);
                let is_axis = axes.is_some_and(|axes| axes.contains_key(&setting));
                if self.by_environment() && !is_axis && self.setting(&stage.kind, rest).is_none() {
                    return None;
                }
                Some(Target::Stage(id, vec!["matrix".to_owned(), setting]))
            }
            (key, []) if stage_bodies::KEYS.contains(&key) => {
                Some(Target::Stage(id, vec![key.to_owned()]))
            }
            _ if self.by_environment() => {
                let spelt = self.setting(&stage.kind, path).or_else(|| self.conduct(path))?;
                Some(Target::Settings(vec![id], spelt))
            }
            // What is wrong with it is said when the stage is read.
            _ => {
                let path = self.passed_on(stage, path).unwrap_or_else(|| path.to_vec());
                Some(Target::Settings(vec![id], path))
            }
        }
    }

    /// A setting of a kind as it is spelt there. On the command line the outermost key decides.
    fn setting(&self, kind: &str, path: &[String]) -> Option<Vec<String>> {
        self.walk(Place::root(self.kinds.schema(kind)?), path)
    }

    /// The path of a key that a stage declares for its program.
    fn passed_on(&self, stage: &StageDeclaration, path: &[String]) -> Option<Vec<String>> {
        let below = self.kinds.passed_on(stage, path.first()?)?;
        Some(std::iter::once(below.to_owned()).chain(path.iter().cloned()).collect())
    }

    fn conduct(&self, path: &[String]) -> Option<Vec<String>> {
        self.walk(Place::root(self.kinds.option_schema()), path)
    }

    fn walk(&self, root: Place, path: &[String]) -> Option<Vec<String>> {
        if !self.by_environment() {
            return root.at(path.first()?).map(|_| path.to_vec());
        }
        let (mut place, mut spelt) = (Some(root), Vec::new());
        for key in path {
            let here = place?;
            match self.pick(here.keys(), key) {
                Some(name) => {
                    spelt.push(name.to_owned());
                    place = here.at(name);
                }
                None if here.is_open() && !key.is_empty() => {
                    spelt.push(key.clone());
                    place = None;
                }
                None => return None,
            }
        }
        Some(spelt)
    }

    fn in_executor(&self, path: &[String]) -> Option<Vec<String>> {
        match path {
            [key] if self.by_environment() => {
                let keys = executor::keys();
                self.pick(keys.iter().map(String::as_str), key).map(|key| vec![key.to_owned()])
            }
            [_, _, ..] if self.by_environment() => None,
            path => Some(path.to_vec()),
        }
    }

    fn in_hooks(&self, path: &[String]) -> Option<Vec<String>> {
        if self.by_environment() {
            return self.walk(Place::root(schemars::schema_for!(Hooks).as_value()), path);
        }
        // What is wrong with it is said when it is read.
        Some(path.to_vec())
    }

    /// The name that is meant: as it is; of a variable in any case, and with `_` for `-`.
    fn pick<'n>(&self, names: impl Iterator<Item = &'n str>, wanted: &str) -> Option<&'n str> {
        let names: Vec<&str> = names.collect();
        let exact = |wanted: &str| names.iter().find(|name| **name == wanted).copied();
        if let Some(name) = exact(wanted) {
            return Some(name);
        }
        if !self.by_environment() {
            return None;
        }
        let loose = |name: &str| name.to_lowercase().replace('-', "_");
        exact(&wanted.to_lowercase()).or_else(|| {
            let mut alike = names.iter().filter(|name| loose(name) == loose(wanted));
            alike.next().filter(|_| alike.next().is_none()).copied()
        })
    }

    fn by_environment(&self) -> bool {
        self.given.strength == Precedence::Environment
    }

    fn plain(&self, key: &str) -> String {
        if self.by_environment() { key.to_lowercase() } else { key.to_owned() }
    }

    fn key(&self) -> String {
        self.given.path.iter().map(|key| self.plain(key)).collect::<Vec<_>>().join(".")
    }
}
