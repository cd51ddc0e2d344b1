//! One stage of a pipeline file: its layers, and typed settings out of them. What is wrong is left
//! out and the rest is read on, so that a stage with several errors says them all.

use std::path::Path;
use std::sync::Arc;

use pipe_core::error::{Gathered, SpecError, SpecErrors, nearest};
use serde_json::{Map, Value};

use crate::diagnostic::Diagnostic;
use crate::graph::LoadedStage;
use crate::identity;
use crate::kind::{Stage, StageKind};
use crate::pipeline_file::apply::ByStage;
use crate::pipeline_file::branches::beside;
use crate::pipeline_file::declared::{Declared, Kinds, Single, makes};
use crate::pipeline_file::executor::ExecutorSettings;
use crate::pipeline_file::full_names::Renamed;
use crate::pipeline_file::layers::{Layer, Origin, StageLayers};
use crate::pipeline_file::matrix::Portion;
use crate::pipeline_file::params::{Used, fill_ours};
use crate::pipeline_file::paths::Place;
use crate::pipeline_file::pipeline::{PipelineFile, StageDeclaration};
use crate::pipeline_file::stage_layers::{LeftOut, config_layers, filled, name_policies};
use crate::pipeline_file::time_limits::TimeLimits;
use crate::pipeline_file::typing::Typing;
use crate::pipeline_file::values::error_at;
use crate::pipeline_file::{OPTION_KEYS, dependencies, halved, matrix};
use crate::policy::{ExecutionOptions, Slurm};
use crate::reference::Reference;
use crate::rejection::Rejection;
use crate::source::Part;

/// What loading a stage looks at.
pub(super) struct Loading<'a> {
    pub root: &'a Path,
    pub file: &'a PipelineFile,
    pub kinds: &'a Kinds<'a>,
    pub used: &'a Used,
    pub overrides: &'a ByStage,
    pub executor: &'a ExecutorSettings,
    pub time_limits: &'a TimeLimits,
}

/// The layers of a stage, as far as they can be read.
struct Read {
    layers: StageLayers,
    needs: Option<Value>,
    left_out: LeftOut,
}

impl Loading<'_> {
    /// The stage, or all that is wrong with it.
    pub fn stage(&self, single: &Single, all: &Declared) -> Result<LoadedStage, SpecErrors> {
        let Loading { file, kinds, .. } = self;
        let declared = single.declared;
        let mut errors = Gathered::default();
        let Some((kind, schema)) = kinds.get(&declared.kind) else {
            return Err(self.unknown_kind(declared).into());
        };
        let Read { mut layers, needs, mut left_out } = self.read(single, &mut errors);
        halved::fill_in_length(*kind, &mut layers);
        self.time_limits.fill_in(single, &mut layers);
        let of_conduct = |key: &str| OPTION_KEYS.contains(&key);
        let required = schema.get("required").and_then(Value::as_array);
        let required: Vec<&str> =
            required.into_iter().flatten().filter_map(Value::as_str).collect();
        let typing = Typing {
            kind: &declared.kind,
            place: Place::root(schema.as_value()),
            elsewhere: &|key| {
                let own = self.of_the_program(declared, key);
                own.or_else(|| self.of_another_stage(&declared.kind, key))
            },
            layers: &mut layers,
            left_out: &mut left_out,
            errors: &mut errors,
        };
        let mut stage =
            typing.all(|key| !of_conduct(key), &required, |settings| kind.resolve(settings));
        let renamed = stage.as_ref().map(|stage| file.renamed(declared, stage.as_ref(), &layers));
        if let Some(renamed) = renamed.filter(|renamed| !renamed.is_empty()) {
            renamed.iter().for_each(|renamed| renamed.write(&mut layers));
            stage = self.again(*kind, &mut layers, &mut errors);
        }
        if let Some(layer) =
            stage.as_ref().and_then(|stage| beside(single, stage.as_ref(), &layers, all))
        {
            layers.layers.push(layer);
            stage = self.again(*kind, &mut layers, &mut errors);
        }
        let mut conduct = if layers.layers.iter().any(|l| l.values.keys().any(|k| of_conduct(k))) {
            let typing = Typing {
                kind: &declared.kind,
                place: Place::root(kinds.option_schema()),
                elsewhere: &|_| None,
                layers: &mut layers,
                left_out: &mut left_out,
                errors: &mut errors,
            };
            typing.all(of_conduct, &[], ExecutionOptions::read).unwrap_or_default()
        } else {
            ExecutionOptions::default()
        };
        if let (Some(stage), Some(halving)) = (&stage, &conduct.halving) {
            errors.extend(halved::check(halving, *kind, (single, stage.as_ref()), &layers));
        }
        let spans_nodes = stage.as_ref().is_none_or(|stage| stage.spans_nodes());
        conduct.slurm =
            self.slurm(conduct.slurm, (&declared.kind, spans_nodes), &layers, &mut errors);
        let mut found = dependencies::Needed::default();
        if let Some(stage) = &stage {
            dependencies::referred(&layers, stage.as_ref(), (all, kinds), &mut found, &mut errors);
        }
        dependencies::listed((file, declared), &layers, needs, all, &mut found, &mut errors);
        let Some(stage) = stage else {
            return errors.or(None).and_then(|none| none.ok_or_else(|| lost(&layers)));
        };
        errors.or(LoadedStage {
            id: single.id.clone(),
            kind: declared.kind.clone(),
            makes: makes(*kind, stage.as_ref()).0,
            files: stage.files(),
            manifest: identity::of_settings(&declared.kind, stage.as_ref(), schema),
            stage,
            options: conduct,
            inputs: found.inputs,
            needs: found.needs,
            layers: layers.beyond_the_file(),
        })
    }

    fn unknown_kind(&self, declared: &StageDeclaration) -> SpecError {
        let at = ["stages", declared.id.as_str(), "kind"];
        let message = format!("unknown kind `{}`", declared.kind);
        error_at(&self.file.source, &at, Part::Value, message)
            .candidates(&declared.kind, self.kinds.names())
    }

    /// The stage once more, with other names of stages in its settings.
    fn again(
        &self,
        kind: &dyn StageKind,
        layers: &mut StageLayers,
        errors: &mut Gathered,
    ) -> Option<Arc<dyn Stage>> {
        let wanted = |key: &str| !OPTION_KEYS.contains(&key);
        let again = layers.typed(wanted, |settings| kind.resolve(settings));
        errors.take(again.map_err(|rejection| layers.explain(rejection)))
    }

    /// The key that a stage declares for its program and that somebody means who writes `key`.
    fn of_the_program(&self, declared: &StageDeclaration, key: &str) -> Option<String> {
        let (setting, known) = self.kinds.of_program(declared)?;
        nearest(key, known).map(|meant| format!("`{setting}.{meant}`"))
    }

    /// The setting of a stage of another kind that somebody means who writes `key` here.
    fn of_another_stage(&self, kind: &str, key: &str) -> Option<String> {
        let others = self.file.stages.iter().filter(|stage| stage.kind != kind);
        let mut meant = others.filter_map(|stage| {
            let meant = Place::root(self.kinds.schema(&stage.kind)?).suggestion(key)?;
            let [key] = meant[..] else { return None };
            Some(format!("`{key}` of stage `{}`", stage.id))
        });
        meant.next()
    }

    /// What a stage's job asks for: its own settings on those of the executor.
    fn slurm(
        &self,
        own: Slurm,
        (kind, spans_nodes): (&str, bool),
        layers: &StageLayers,
        errors: &mut Gathered,
    ) -> Slurm {
        let mut below = self.executor.slurm.clone();
        if !spans_nodes {
            if let Some(key) = own.asks_for_several() {
                let message = format!(
                    "a stage of kind `{kind}` runs as one process; several nodes need `kind: trainer`"
                );
                errors.push(layers.error_at(&["slurm", key].map(str::to_owned), message));
            }
            below = below.on_one_node();
        }
        let both = own.or(&below);
        if let Some((key, message)) = both.wrong() {
            let own = ["slurm", key].map(str::to_owned);
            // The other one of the two may be the stage's.
            let place = if layers.has(&own) { own } else { ["slurm", "time"].map(str::to_owned) };
            errors.push(layers.error_at(&place, message));
        }
        both
    }

    /// What the settings of a stage refer to; nothing if they are wrong.
    pub fn references(&self, single: &Single) -> Vec<Reference> {
        let Some((kind, _)) = self.kinds.get(&single.declared.kind) else { return Vec::new() };
        let mut layers = self.read(single, &mut Gathered::default()).layers;
        let wanted = |key: &str| !OPTION_KEYS.contains(&key);
        let stage = layers.typed(wanted, |settings| kind.resolve(settings));
        let Ok(stage) = stage else { return Vec::new() };
        let renamed = self.file.renamed(single.declared, stage.as_ref(), &layers);
        let mut references = stage.references();
        for reference in &mut references {
            let is_it = |renamed: &&Renamed| renamed.is_of(reference.key, &reference.stage);
            if let Some(renamed) = renamed.iter().find(is_it) {
                reference.stage.clone_from(&renamed.full);
            }
        }
        references
    }

    /// A diagnostic of a stage, at the place that it is about.
    pub fn about(&self, single: &Single, diagnostic: &Diagnostic) -> SpecError {
        let read = self.read(single, &mut Gathered::default());
        let error = read.layers.explain(Rejection::value(&diagnostic.key, &diagnostic.message));
        match &diagnostic.note {
            Some(note) => error.note(note),
            None => error,
        }
    }

    /// Parameters filled in, layers put on each other, policies in the place of their names.
    fn read(&self, single: &Single, errors: &mut Gathered) -> Read {
        let Loading { root, file, used, overrides, .. } = self;
        let declared = single.declared;
        let id = declared.id.as_str();
        let source = &file.source;
        let mut left_out = LeftOut::default();

        // The stage's own keys.
        let base = vec!["stages".to_owned(), id.to_owned()];
        let names = file.names(declared.scope, &single.values, used);
        let own = declared.body.iter().filter(|(key, _)| *key != "matrix");
        let mut body = filled(source, &base, own, names, &mut left_out, errors);
        let needs = body.remove("needs");

        // Layers, weakest first: config file, stage, environment and command line.
        let config = body.remove("config");
        let mut layers = config_layers((root, file), id, config, names, &mut left_out, errors);
        left_out.config |= left_out.keys.contains("config");
        layers.push(Layer {
            origin: Origin::File { source: source.clone(), base, moved: Vec::new() },
            values: body,
        });
        for mut layer in overrides.get(&declared.id).cloned().unwrap_or_default() {
            let Origin::Outside(by) = &layer.origin else { continue };
            let filled = fill_ours(&Value::Object(std::mem::take(&mut layer.values)), names);
            if let Some(Value::Object(values)) =
                errors.take(filled.map_err(|bad| bad.outside(by, names)))
            {
                layer.values = values;
            }
            layers.push(layer);
        }
        for portion in &single.portions {
            let below = |at: &[String]| [&["stages", id, "matrix"].map(str::to_owned), at].concat();
            let moved = portion.moved.iter();
            let moved = moved.map(|(key, at)| (key.clone(), source.clone(), below(at))).collect();
            let origin = match &portion.by {
                Some(by) => Origin::Outside(by.clone()),
                None => Origin::File { source: source.clone(), base: below(&portion.at), moved },
            };
            layers.push(Layer {
                origin,
                values: matrix::nested(self.settings_of(single, portion, errors)),
            });
        }
        for layer in &mut layers {
            name_policies(
                (file, declared),
                &self.kinds.policy_keys,
                names,
                layer,
                &mut left_out,
                errors,
            );
        }
        let mut layers =
            StageLayers { stage: declared.id.clone(), pipeline: source.clone(), layers };
        if layers.layers.len() > 1 {
            for (key, other) in self.kinds.alternatives(&declared.kind) {
                layers.choose_between(key, other);
            }
        }
        Read { layers, needs, left_out }
    }

    /// The values of a matrix that are settings of the stage. The others must stand somewhere in it
    /// as `${matrix.…}`.
    fn settings_of(
        &self,
        single: &Single,
        portion: &Portion,
        errors: &mut Gathered,
    ) -> Map<String, Value> {
        let mut settings = Map::new();
        for (key, value) in &portion.values {
            let first = key.split('.').next().unwrap_or_default();
            if self.kinds.keys(&single.declared.kind).any(|k| k == first) {
                settings.insert(key.clone(), value.clone());
            } else if let Some(below) = self.kinds.passed_on(single.declared, first) {
                settings.insert(format!("{below}.{key}"), value.clone());
            } else if is_used(&single.declared.body, key) {
            } else if let Some(by) = &portion.by {
                let (id, known) = (&single.declared.id, self.kinds.keys(&single.declared.kind));
                let message = format!("{}: stage `{id}` has no setting `{key}`", by.shown);
                let error = SpecError::plain(message);
                errors.push(error.candidates(key, known.map(String::as_str)));
            } else {
                let moved = portion.moved.iter().find(|(moved, _)| moved == key);
                let own = || [portion.at.as_slice(), std::slice::from_ref(key)].concat();
                let below = moved.map_or_else(own, |(_, at)| at.clone());
                let start = ["stages", single.declared.id.as_str(), "matrix"];
                let at: Vec<&str> =
                    start.into_iter().chain(below.iter().map(String::as_str)).collect();
                let message = match below.last() {
                    Some(last) if last == key => {
                        "neither a setting of the stage nor used in it".to_owned()
                    }
                    _ => format!("`{key}` is neither a setting of the stage nor used in it"),
                };
                let error = error_at(&self.file.source, &at, Part::Key, message)
                    .note(format!("write `${{matrix.{key}}}` where the value belongs"))
                    .candidates(key, self.kinds.keys(&single.declared.kind).map(String::as_str));
                errors.push(error);
            }
        }
        settings
    }
}

/// Whether a stage has `${matrix.KEY}` in it, or what is inside of such a value.
fn is_used(body: &Map<String, Value>, key: &str) -> bool {
    let text = Value::Object(body.clone()).to_string();
    ["}", "."].iter().any(|end| text.contains(&format!("${{matrix.{key}{end}")))
}

/// A stage that could be neither read nor refused: not meant to happen.
fn lost(layers: &StageLayers) -> SpecErrors {
    layers.whole_stage("its settings could not be read").into()
}
