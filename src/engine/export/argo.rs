//! A pipeline as an Argo Workflow for Kubernetes: a task a stage. Each runs `pipe run FILE STAGE`
//! on a volume that all share; the records there say that what it needs is up to date.

use std::collections::BTreeMap;
use std::path::Path;

use pipe_core::ids::StageId;

use super::names;
use super::workflow::*;
use crate::graph::{Graph, Selection};
use crate::pipeline_file::LoadedStage;
use crate::policy::{ExecutionOptions, HookEvent, OnFailure, Retryable};
use crate::reference::is_inside_project;

/// What a pipeline file does not know of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub image: String,
    /// The volume claim that holds the project's folder, and where it is mounted.
    pub volume_claim: String,
    pub mount: String,
    pub namespace: Option<String>,
    pub service_account: Option<String>,
    /// The name under which the cluster counts GPUs.
    pub gpu_resource: String,
    /// Seconds between SIGTERM and SIGKILL: time to save a checkpoint.
    pub grace: u32,
    /// Tasks at once; as many as there is room for if unset.
    pub jobs: Option<u16>,
}

/// Why a pipeline cannot be given to Argo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    #[error("{0}: the pipeline file must lie in the project's folder, and be named from there")]
    Outside(String),
    #[error("`{0}` has `{{{{` in it, which Argo would fill in")]
    Braces(String),
    #[error("`{0}` is no absolute path in a container")]
    Mount(String),
    #[error(
        "stages.{stage}.slurm.{key}: its program is {count} processes, and Argo starts one pod for a stage; \
         set `nodes` and `ntasks_per_node` to 1 there, or run it as a job of Slurm"
    )]
    SeveralProcesses { stage: StageId, key: &'static str, count: u32 },
    #[error(
        "stages.{0}.halving: which stages go on one process decides, and Argo starts a pod for each stage; \
         run the pipeline with `pipe run`, or leave `halving` out with `--set {0}.halving=null`"
    )]
    Halved(String),
}

/// As often as Argo can count. It waits between attempts only where there is a limit.
const NO_LIMIT: i32 = i32::MAX;
/// Longer than the 90 seconds after which an NFS server frees the locks of a machine that went
/// away.
const WAIT_SECONDS: u64 = 120;
/// The user that the image has.
const USER: u32 = 10001;

const STAGE: &str = "stage";
const STAGE_VALUE: &str = "{{inputs.parameters.stage}}";
/// The end of one pod is not that of the pipeline.
const NO_END: &str = "--set=on.end=null";
const VOLUME: &str = "project";
const ENTRY: &str = "pipeline";

/// The stages of a selection as a workflow. `file` is the pipeline's, from the project's folder;
/// `settings` are the arguments of `pipe run` that each stage gets behind its name.
pub fn workflow(
    graph: &Graph,
    selection: &Selection,
    file: &Path,
    settings: &[String],
    options: &Options,
) -> Result<Workflow, ExportError> {
    let shown = file.display().to_string();
    check(file, &shown, settings, options)?;
    let stages: Vec<&LoadedStage> =
        graph.stages().filter(|s| selection.stages.contains(&s.id)).collect();
    if let Some(stage) = stages.iter().find(|stage| stage.tasks().count() > 1) {
        let key = stage.options.slurm.asks_for_several().unwrap_or("gpus_per_node");
        let count = stage.tasks().count();
        return Err(ExportError::SeveralProcesses { stage: stage.id.clone(), key, count });
    }
    if let Some(stage) = stages.iter().find(|stage| stage.options.halving.is_some()) {
        return Err(ExportError::Halved(stage.id.declared().to_owned()));
    }
    // A pod carries out one stage, and does not know how the others end.
    let no_end = (!graph.pipeline.on.of(HookEvent::End).is_empty()).then_some(NO_END);
    let args: Vec<String> = ["run", &shown, STAGE_VALUE]
        .into_iter()
        .map(str::to_owned)
        .chain(settings.iter().cloned())
        .chain(no_end.map(str::to_owned))
        .collect();

    let (mut templates, tasks) = tasks(graph, &stages, &args, options);
    // Argo knows this of the whole graph only.
    let fail_fast = !stages.iter().any(|s| s.options.on_failure == OnFailure::Continue);
    let graph_of_tasks = Template {
        name: ENTRY.to_owned(),
        dag: Some(Dag { fail_fast, tasks }),
        ..Template::default()
    };
    templates.insert(0, graph_of_tasks);

    let patch = PodSpec { termination_grace_period_seconds: options.grace };
    Ok(Workflow {
        api_version: "argoproj.io/v1alpha1",
        kind: "Workflow",
        metadata: Metadata {
            generate_name: Some(generated(&graph.pipeline.name)),
            namespace: options.namespace.clone(),
            annotations: BTreeMap::from([
                ("pipe-file", shown),
                ("pipe-pipeline", graph.pipeline.name.clone()),
            ]),
        },
        spec: Spec {
            entrypoint: ENTRY,
            service_account_name: options.service_account.clone(),
            parallelism: options.jobs,
            security_context: SecurityContext {
                run_as_non_root: true,
                run_as_user: USER,
                fs_group: USER,
            },
            pod_spec_patch: serde_json::to_string(&patch).unwrap_or_default(),
            volumes: vec![Volume {
                name: VOLUME,
                persistent_volume_claim: Claim { claim_name: options.volume_claim.clone() },
            }],
            templates,
        },
    })
}

/// Refuses what Argo would read otherwise, or what it cannot reach.
fn check(
    file: &Path,
    shown: &str,
    settings: &[String],
    options: &Options,
) -> Result<(), ExportError> {
    if !is_inside_project(file) {
        return Err(ExportError::Outside(shown.to_owned()));
    }
    if let Some(text) = settings
        .iter()
        .map(String::as_str)
        .chain([shown, &options.mount])
        .find(|text| text.contains("{{"))
    {
        return Err(ExportError::Braces(text.to_owned()));
    }
    if !options.mount.starts_with('/') {
        return Err(ExportError::Mount(options.mount.clone()));
    }
    Ok(())
}

/// A task for each stage, and the templates that they are made from.
fn tasks(
    graph: &Graph,
    stages: &[&LoadedStage],
    args: &[String],
    options: &Options,
) -> (Vec<Template>, Vec<Task>) {
    let names = names::of(stages.iter().map(|s| s.id.as_str()));
    let name = |stage: &LoadedStage| names.get(stage.id.as_str()).cloned().unwrap_or_default();
    // One template for each way to carry a stage out: a thousand stages still fit into one
    // resource.
    let mut templates: Vec<Template> = Vec::new();
    let mut tasks = Vec::with_capacity(stages.len());
    for stage in stages {
        let made = template(stage, args, options);
        let known =
            templates.iter().find(|t| Template { name: String::new(), ..(*t).clone() } == made);
        let template = known.map(|t| t.name.clone()).unwrap_or_else(|| {
            let name = match templates.len() {
                0 => STAGE.to_owned(),
                n => format!("{STAGE}-{}", n + 1),
            };
            templates.push(Template { name: name.clone(), ..made });
            name
        });
        let before = graph.dependencies(&stage.id).into_iter().map(|(_, before)| before);
        tasks.push(Task {
            name: name(stage),
            template,
            dependencies: before.filter(|b| names.contains_key(b.id.as_str())).map(name).collect(),
            arguments: Parameters {
                parameters: vec![Parameter { name: STAGE, value: Some(stage.id.to_string()) }],
            },
        });
    }
    (templates, tasks)
}

/// How stages that are carried out as this one run; the stage is a parameter.
fn template(stage: &LoadedStage, args: &[String], options: &Options) -> Template {
    let (conduct, gpus) = (&stage.options, stage.gpus());
    let limits = BTreeMap::from([(options.gpu_resource.clone(), gpus.to_string())]);
    Template {
        inputs: Some(Parameters { parameters: vec![Parameter { name: STAGE, value: None }] }),
        metadata: Some(Metadata {
            annotations: BTreeMap::from([("pipe-stage", STAGE_VALUE.to_owned())]),
            ..Metadata::default()
        }),
        retry_strategy: Some(retry_strategy(conduct)),
        container: Some(Container {
            image: options.image.clone(),
            command: vec!["pipe"],
            args: args.to_vec(),
            working_dir: options.mount.clone(),
            resources: (gpus > 0).then_some(Resources { limits }),
            volume_mounts: vec![Mount { name: VOLUME, mount_path: options.mount.clone() }],
        }),
        ..Template::default()
    }
}

/// What is worth another pod. Failures inside the program were met there, as `retry` says: exit
/// codes 1 and 2 are final. A pod that was told to stop (75: saved; 143: before it could listen) or
/// that went away with its machine goes on from its checkpoint as often as that happens. One that
/// was killed (137), mostly for its memory, had no chance to meet that itself: `retry` counts for
/// it here.
fn retry_strategy(conduct: &ExecutionOptions) -> RetryStrategy {
    let retry = &conduct.retry;
    let mut expression =
        r#"lastRetry.status == "Error" || lastRetry.exitCode in ["75", "143"]"#.to_owned();
    if retry.max > 0 && retry.on.contains(&Retryable::OutOfMemory) {
        expression.push_str(&format!(
            r#" || (lastRetry.exitCode == "137" && asInt(retries) < {})"#,
            retry.max
        ));
    }
    let seconds = retry.backoff.0.as_secs().max(WAIT_SECONDS);
    RetryStrategy {
        limit: NO_LIMIT,
        retry_policy: "Always",
        expression,
        backoff: Backoff { duration: format!("{seconds}s") },
    }
}

/// What the name of a submitted workflow begins with.
fn generated(pipeline: &str) -> String {
    match names::beginning(pipeline, 50).as_str() {
        "" => "pipeline-".to_owned(),
        name => format!("{name}-"),
    }
}
