//! What a shell may complete that is not known before: pipelines, stages, runs, classes, devices of
//! the project in which it is typed.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, Command};
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use pipe_engine::graph::LoadedStage;
use pipe_models::architecture::Architectures;
use pipe_runs::Run;
use pipe_runs::checkpoint::Checkpoint;
use pipe_train::device;

use super::pipeline_args::SettingArgs;
use super::pipeline_name::{self, HERE};
use super::runs::named;
use super::{files, project, run_folders};

/// A command line whose values a shell completes.
pub fn with_candidates(command: Command) -> Command {
    let command = command.mut_args(of_argument);
    command.mut_subcommands(with_candidates)
}

fn of_argument(argument: Arg) -> Arg {
    let name = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    match (argument.get_id().as_str(), name.as_deref()) {
        ("file" | "files", Some("FILE" | "FILES")) => {
            argument.add(ArgValueCompleter::new(pipeline_or_path))
        }
        (_, Some("STAGE")) => argument.add(ArgValueCandidates::new(stages)),
        ("run" | "runs", _) | ("run_number", _) => argument.add(ArgValueCandidates::new(run_names)),
        ("classes", _) => argument.add(ArgValueCandidates::new(classes)),
        (_, Some("DEVICE")) => argument.add(ArgValueCandidates::new(devices)),
        _ => argument,
    }
}

/// Names and files of the project's pipelines, and every other path.
fn pipeline_or_path(current: &OsStr) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy();
    let mut found: Vec<CompletionCandidate> = pipeline_name::all(Path::new(HERE))
        .into_iter()
        .filter(|file| file.to_string_lossy().starts_with(&*typed))
        .map(CompletionCandidate::new)
        .collect();
    if found.is_empty() {
        found = PathCompleter::any().complete(current);
    }
    found
}

/// The words of the command line that is being completed, without the program and its options.
fn words() -> impl Iterator<Item = OsString> {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(2);
    words.filter(|word| !word.to_string_lossy().starts_with('-'))
}

/// The stages of the pipeline that the command line names, or of the project's only one.
fn stages() -> Vec<CompletionCandidate> {
    let is_file = |word: &OsString| pipeline_name::resolve(Path::new(word)).ok();
    // The first word is the command.
    let named = words().skip(1).find_map(|word| is_file(&word));
    let only = || pipeline_name::resolve(Path::new(HERE)).ok();
    let Some(file) = named.or_else(only) else { return Vec::new() };
    let load = || {
        project::enter(Some(&file))?;
        let (root, file) = (project::root()?, project::path(&file));
        let kinds = crate::kinds(&Architectures::builtin());
        SettingArgs::default().load(&root, &file, Vec::new(), &kinds)
    };
    let Ok(graph) = load() else { return Vec::new() };
    let stage = |stage: &LoadedStage| {
        CompletionCandidate::new(stage.id.as_str()).help(Some(stage.kind.clone().into()))
    };
    graph.stages().map(stage).collect()
}

/// The runs of the project, each with its stage and how it ended.
fn run_names() -> Vec<CompletionCandidate> {
    let folders = run_folders::folders(None).unwrap_or_default();
    let candidate = |(name, run): (String, Run)| {
        let known = run.current_metadata().ok();
        let help = known.map(|m| format!("{}, {}", m.stage, m.status.name()).into());
        CompletionCandidate::new(name).help(help)
    };
    named::all(&folders).into_iter().map(candidate).collect()
}

/// The classes of the model whose checkpoint the command line names.
fn classes() -> Vec<CompletionCandidate> {
    let names = |word: OsString| {
        let path = files::checkpoint(Path::new(&word)).ok()?;
        let file = Checkpoint::open(&path).ok()?;
        Some(pipe_models::header::class_names(&file))
    };
    let found = words().find_map(names).unwrap_or_default();
    found.into_iter().map(CompletionCandidate::new).collect()
}

fn devices() -> Vec<CompletionCandidate> {
    let gpus = device::adapters();
    let named = gpus.iter().map(|gpu| {
        CompletionCandidate::new(gpu.spec().to_string()).help(Some(gpu.name.clone().into()))
    });
    ["auto", "cpu", "gpu"].map(CompletionCandidate::new).into_iter().chain(named).collect()
}
