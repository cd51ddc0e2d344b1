//! From a pipeline file to stages with typed settings. Each stage is read by itself, in `stage.rs`;
//! here is what belongs to all of them: parameters, matrices, the files that connect stages,
//! warnings.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use pipe_core::error::{Gathered, SpecError, SpecErrors, in_order};
use pipe_core::ids::StageId;
use pipe_core::parallel;
use serde_json::Map;

use crate::diagnostic::Diagnostic;
use crate::graph::{Input, LoadedPipeline, LoadedStage};
use crate::kind::{PipelineView, StageKind};
use crate::pipeline_file::apply::{Applied, apply};
use crate::pipeline_file::declared::{Declared, Kinds, makes};
use crate::pipeline_file::overrides::Override;
use crate::pipeline_file::params::Used;
use crate::pipeline_file::pipeline::{PipelineFile, Reading};
use crate::pipeline_file::stage::Loading;
use crate::pipeline_file::values::error_at;
use crate::pipeline_file::{
    dependencies, executor, fsync, hooks, judges, origin, own_files, pattern_overlaps, store,
    sweeps, time_limits,
};
use crate::reference::{Reference, is_inside_project};
use crate::source::{self, Part, Source};

/// Reads and checks the pipeline file `path`. Relative paths inside it belong to `root`, the
/// project's folder.
///
/// # Errors
/// All that is wrong in the file and in the config files that it names, as far as one error does
/// not hide another.
pub fn load(
    root: &Path,
    path: &Path,
    kinds: &[Arc<dyn StageKind>],
    overrides: &[Override],
) -> Result<LoadedPipeline, SpecErrors> {
    match load_once(root, path, kinds, overrides)? {
        Loaded::Whole(pipeline) => Ok(*pipeline),
        // Once: what two of them write even so is an error.
        Loaded::SharedFiles(own, shared) => {
            let overrides = [overrides, &own].concat();
            match load_once(root, path, kinds, &overrides)? {
                Loaded::Whole(pipeline) => Ok(*pipeline),
                Loaded::SharedFiles(..) => Err(shared),
            }
        }
    }
}

/// What a pipeline file comes to.
enum Loaded {
    Whole(Box<LoadedPipeline>),
    /// Stages that `--sweep` has made several of write one file: settings that give each a file of
    /// its own, and what is wrong without them.
    SharedFiles(Vec<Override>, SpecErrors),
}

impl Loaded {
    fn of(
        read: Result<LoadedPipeline, SpecErrors>,
        own_files: Vec<Override>,
    ) -> Result<Self, SpecErrors> {
        match read {
            Err(shared) if !own_files.is_empty() => Ok(Self::SharedFiles(own_files, shared)),
            read => read.map(|pipeline| Self::Whole(Box::new(pipeline))),
        }
    }
}

fn load_once(
    root: &Path,
    path: &Path,
    kinds: &[Arc<dyn StageKind>],
    overrides: &[Override],
) -> Result<Loaded, SpecErrors> {
    let source = source::read(&root.join(path), path)?;
    let kinds = Kinds::new(kinds);
    let reading = Reading { root, policy_keys: &kinds.policy_keys, overrides };
    let mut file = PipelineFile::parse_with(source, &reading)?;
    let (mut errors, mut warnings, used) = (Gathered::default(), Vec::new(), Used::default());
    let Applied { for_stages, for_executor, for_store, for_fsync, for_hooks, for_time, given } =
        apply(&mut file, &kinds, overrides, &used, (&mut errors, &mut warnings));
    if errors.is_empty() && file.stages.iter().any(|stage| !stage.swept.is_empty()) {
        sweeps::inherit(root, &mut file, &kinds, &for_stages, &mut errors);
    }
    if !errors.is_empty() {
        origin::explain(&mut errors, &file, root, &given);
        return errors
            .or(())
            .and_then(|()| Err(SpecError::plain("failed to read the settings").into()));
    }
    let none = Map::new();
    let names = file.names(None, &none, &used);
    let executor = executor::read(&file, names, for_executor, &mut errors);
    let store = store::read(&file, names, for_store, &mut errors);
    let fsync = fsync::read(&file, names, for_fsync, &mut errors);
    let on = hooks::read(&file, names, for_hooks, &mut errors);
    let time_limits = time_limits::read(&file, names, &for_time, &mut errors);
    let declared = Declared::of(root, &file, &kinds, &used, (&mut errors, &mut warnings));
    let loading = Loading {
        root,
        file: &file,
        kinds: &kinds,
        used: &used,
        overrides: &for_stages,
        executor: &executor,
        time_limits: &time_limits.among(&declared.stages, &kinds),
    };
    let read = parallel::map(&declared.stages, |one| loading.stage(one, &declared));
    let mut stages: Vec<LoadedStage> =
        read.into_iter().filter_map(|stage| errors.take(stage)).collect();
    let mut own_files = Vec::new();
    if errors.is_empty() {
        own_files = connect_files(&file, &mut stages, &mut errors);
        judges::connect(&mut stages);
        let mut doubts = Vec::new();
        for (single, diagnostics) in declared.stages.iter().zip(lint(&stages, &kinds)) {
            for diagnostic in diagnostics {
                let about = loading.about(single, &diagnostic);
                if diagnostic.fatal { errors.push(about) } else { doubts.push((about, &single.id)) }
            }
        }
        if store.is_some() {
            stages
                .iter()
                .filter_map(|stage| not_mirrored(root, &file.source, stage))
                .for_each(|e| errors.push(e));
        }
        warnings.extend(once_a_place(doubts));
        warnings.extend(unused(&used, &file));
        warnings =
            warnings.into_iter().map(|w| origin::explained(w, &file, root, &given)).collect();
        warnings = in_order(warnings);
    }
    origin::explain(&mut errors, &file, root, &given);
    let matrices = declared.matrices;
    let whole = LoadedPipeline {
        name: file.name,
        source: file.source,
        executor,
        store,
        fsync,
        on,
        stages,
        warnings,
        matrices,
    };
    Loaded::of(errors.or(whole), own_files)
}

/// Runs that a store would never get: they lie outside of the project.
fn not_mirrored(root: &Path, source: &Source, stage: &LoadedStage) -> Option<SpecError> {
    let runs = stage.stage.runs()?;
    let inside = match runs.strip_prefix(root) {
        Ok(inside) => is_inside_project(inside),
        Err(_) => is_inside_project(&runs),
    };
    let message = || {
        format!(
            "runs are kept in {}, outside of the project, and `store` mirrors only what is inside",
            runs.display()
        )
    };
    let error = || {
        error_at(
            source,
            &["stages", stage.id.declared(), "checkpoint", "base_dir"],
            Part::Value,
            message(),
        )
        .note("name a folder inside the project, or do without the store (`--store none`)")
    };
    (!inside).then(error)
}

/// What each stage finds about itself and those it refers to.
fn lint(stages: &[LoadedStage], kinds: &Kinds) -> Vec<Vec<Diagnostic>> {
    let pipeline =
        PipelineView::new(stages.iter().map(|stage| {
            (stage.id.as_str(), |pipeline: &PipelineView| stage.stage.preview(pipeline))
        }));
    let by_name = stages.iter().map(|stage| (stage.id.as_str(), stage)).collect();
    let lint = |stage: &LoadedStage| {
        let mut found = unfit_inputs(stage, &by_name, kinds);
        found.extend(judges::check(stage, stages));
        if found.is_empty() {
            found = stage.stage.lint(&pipeline);
            let halving = stage.options.halving.iter();
            found.extend(halving.flat_map(|rule| stage.stage.lint_halving(rule, &pipeline)));
        }
        found
    };
    stages.iter().map(lint).collect()
}

/// References to stages that do not make what is wanted with the settings that they have, though
/// others of their kind do.
fn unfit_inputs(
    stage: &LoadedStage,
    stages: &HashMap<&str, &LoadedStage>,
    kinds: &Kinds,
) -> Vec<Diagnostic> {
    let of_reference = |reference: Reference| {
        let named = |input: &&Input| input.name.split('.').next() == Some(reference.key);
        let mut targets = stage.inputs.iter().filter(named).filter_map(|input| {
            let target = stages.get(input.stage.as_str())?;
            let (kind, _) = kinds.get(&target.kind)?;
            Some((target, makes(*kind, target.stage.as_ref())))
        });
        let (target, (made, instead)) = targets.find(|(_, (made, _))| *made != reference.wants)?;
        let message = dependencies::unfit_message(&target.id, made, reference.wants);
        let error = Diagnostic::error(reference.key, message);
        Some(match instead {
            Some((_, key)) => {
                let declared = target.id.declared();
                error.note(format!("give `{declared}` the key `{key}`: it makes them then"))
            }
            None => error,
        })
    };
    stage.stage.references().into_iter().filter_map(of_reference).collect()
}

/// What several stages find about one value, such as in the config file that they share, is said
/// once: in the words of the first one, with the names of those for which the numbers are others.
fn once_a_place(doubts: Vec<(SpecError, &StageId)>) -> Vec<SpecError> {
    let mut said: Vec<(SpecError, Vec<&StageId>)> = Vec::new();
    for (doubt, stage) in doubts {
        match said.iter_mut().find(|(first, _)| first.is_alike(&doubt)) {
            Some((first, _)) if *first == doubt => {}
            Some((_, others)) => others.push(stage),
            None => said.push((doubt, Vec::new())),
        }
    }
    let with_others = |(doubt, others): (SpecError, Vec<&StageId>)| match others.as_slice() {
        [] => doubt,
        [one] => doubt.note(format!("stage `{one}` likewise, with its own numbers")),
        [first, rest @ ..] => doubt.note(format!(
            "stage `{first}` and {} more likewise, with their own numbers",
            rest.len()
        )),
    };
    said.into_iter().map(with_others).collect()
}

/// A warning for each parameter and policy that nothing refers to.
fn unused(used: &Used, file: &PipelineFile) -> Vec<SpecError> {
    let mut used = used.all();
    // Those that a used parameter refers to are used too.
    let names =
        used.iter().filter(|(section, _)| section == "params").map(|(_, name)| name.clone());
    let all = origin::with_those_inside(names.collect(), file);
    used.extend(all.into_iter().map(|name| ("params".to_owned(), name)));
    let is_used = |section: &str, name: &str| used.contains(&(section.to_owned(), name.to_owned()));
    let params = file.params.keys().filter(|name| !is_used("params", name)).map(|name| {
        error_at(&file.source, &["params", name], Part::Key, "no stage uses this parameter").note(
            format!("write `${{params.{}}}` where its value belongs", file.written_name(name)),
        )
    });
    let policies = file.policies.iter().flat_map(|(kind, named)| {
        let names = named.as_object().into_iter().flat_map(|named| named.keys());
        names.filter(|name| !is_used(kind, name)).map(move |name| {
            error_at(
                &file.source,
                &["policies", kind, name],
                Part::Key,
                "no stage uses this policy",
            )
            .note(format!("a stage takes it with `{kind}: {name}`"))
        })
    });
    params.chain(policies).collect()
}

/// Adds what follows from files: a stage needs the one that makes a file that it reads. Returns what
/// gives each of the stages that `--sweep` has made of one a file of its own, where that is all that
/// is wrong.
fn connect_files(
    file: &PipelineFile,
    stages: &mut [LoadedStage],
    errors: &mut Gathered,
) -> Vec<Override> {
    let mut makers: BTreeMap<PathBuf, StageId> = BTreeMap::new();
    let (mut own_files, mut shared) = (Vec::new(), Vec::new());
    let mut is_all = true;
    for stage in stages.iter() {
        // Several files of one setting that another stage writes too are one mistake.
        let mut told = BTreeSet::new();
        for (key, path) in &stage.files.writes {
            let path: PathBuf = path.components().collect();
            if let Some(other) = makers.insert(path.clone(), stage.id.clone())
                && other != stage.id
                && told.insert((key, other.clone()))
            {
                let at = ["stages", stage.id.declared(), key];
                let message = format!("{} is written by stage `{other}` too", path.display());
                let error = error_at(&file.source, &at, Part::Value, message);
                let error = match own_files::of_matrix(file, &stage.id, &other, key, &path) {
                    Some(note) => error.note(note),
                    None => error,
                };
                match own_files::of_sweep(file, &stage.id, &other, key, &path) {
                    Some(own) => own_files.push(own),
                    None => is_all = false,
                }
                shared.push((path, error));
            }
        }
    }
    if !is_all {
        own_files.clear();
    }
    if !own_files.is_empty() {
        // With files of their own there is none any more where somebody reads one.
        let paths: Vec<&Path> = shared.iter().map(|(path, _)| path.as_path()).collect();
        let readers = own_files::read_by_path(file, stages, &paths);
        if !readers.is_empty() {
            readers.into_iter().for_each(|error| errors.push(error));
            return Vec::new();
        }
    }
    shared.into_iter().for_each(|(_, error)| errors.push(error));
    if makers.is_empty() {
        return own_files;
    }
    for stage in stages.iter_mut() {
        for (key, pattern) in &stage.files.reads {
            for maker in makers_of(pattern, &makers) {
                if *maker != stage.id && !stage.needs.iter().any(|(_, id)| id == maker) {
                    stage.needs.push((vec![key.clone()], maker.clone()));
                }
            }
        }
    }
    pattern_overlaps::connect(stages, &makers);
    own_files
}

/// The stages that make what a path or pattern means: the file itself, a folder around it, or files
/// inside it.
fn makers_of<'a>(pattern: &str, makers: &'a BTreeMap<PathBuf, StageId>) -> Vec<&'a StageId> {
    let is_plain = |c: &Component| !c.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let plain: PathBuf = Path::new(pattern).components().take_while(is_plain).collect();
    if let Some(maker) = plain.ancestors().find_map(|folder| makers.get(folder)) {
        return vec![maker];
    }
    let whole = Path::new(pattern).components().all(|c| is_plain(&c));
    let matcher = glob::Pattern::new(pattern).ok();
    let matches = |path: &Path| whole || matcher.as_ref().is_some_and(|m| m.matches_path(path));
    let inside = makers.range(plain.clone()..).take_while(|(path, _)| path.starts_with(&plain));
    inside.filter(|(path, _)| matches(path)).map(|(_, maker)| maker).collect()
}
