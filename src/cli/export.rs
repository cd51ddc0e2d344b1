//! `pipe export argo FILE [STAGE…]`

use std::path::PathBuf;

use pipe_engine::export::argo::{self, Options};

use super::pipeline_args::{PipelineArgs, PipelineSession};
use super::{CliError, ExitCode, Kinds, output_file, project};
use crate::report::stdout::say;
use crate::report::{message, stdout};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe export argo pipelines/base_training.yaml --volume-claim trainings\n  pipe export argo pipelines/sweep.yaml --epochs 20 -o workflow.yaml\n  pipe export argo pipelines/sweep.yaml winner --image registry.example/pipe:1 | kubectl create -f -"
)]
pub struct ExportArguments {
    #[command(subcommand)]
    to: To,
}

#[derive(clap::Subcommand)]
enum To {
    /// An Argo Workflow for Kubernetes: a step a stage, on a volume that holds the project
    Argo(Box<ArgoArguments>),
}

#[derive(clap::Args)]
struct ArgoArguments {
    #[command(flatten)]
    args: PipelineArgs,
    /// Image that has `pipe` in it, made by packaging/Dockerfile
    #[arg(long, value_name = "IMAGE", default_value = concat!("pipe:", env!("CARGO_PKG_VERSION")), help_heading = "Cluster")]
    image: String,
    /// Volume claim with the project's folder
    #[arg(long, value_name = "NAME", default_value = "pipe-project", help_heading = "Cluster")]
    volume_claim: String,
    /// Where the project's folder is in a container
    #[arg(long, value_name = "FOLDER", default_value = "/project", help_heading = "Cluster")]
    mount: String,
    /// Namespace; the submitter's if there is none
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    namespace: Option<String>,
    /// Service account of the steps
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    service_account: Option<String>,
    /// What the cluster calls a GPU
    #[arg(long, value_name = "NAME", default_value = "nvidia.com/gpu", help_heading = "Cluster")]
    gpu_resource: String,
    /// Time to save a checkpoint before a step is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = "Cluster")]
    grace: u32,
    /// Steps that may run at once; as many as there is room for if not given
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Cluster")]
    jobs: Option<u16>,
    /// Write the workflow into this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn export(arguments: ExportArguments, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let To::Argo(a) = arguments.to;
    if let Some(path) = &a.output {
        output_file::check_replaces(&project::path(path), "apiVersion", "workflow")?;
    }
    let args = a.args.resolved()?;
    let loaded = args.load_for_export(kinds)?;
    // A file that was named from the root of this machine may still be one of the project's.
    let file = loaded.file.strip_prefix(&loaded.session.root).unwrap_or(&loaded.file);
    let options = Options {
        image: a.image,
        volume_claim: a.volume_claim,
        mount: a.mount,
        namespace: a.namespace,
        service_account: a.service_account,
        gpu_resource: a.gpu_resource,
        grace: a.grace,
        jobs: a.jobs,
    };
    let made = argo::workflow(
        &loaded.session.graph,
        &loaded.session.selection,
        file,
        &args.settings(),
        &options,
    );
    let text = made.map_err(CliError::usage)?.to_yaml();
    if holds_values(&loaded) {
        message::warning("the workflow holds the values of `env:`; whoever reads it knows them");
    }
    match &a.output {
        Some(path) => {
            let disk = loaded.session.root.disk();
            output_file::write(disk, &project::path(path), |out| out.write_all(text.as_bytes()))?;
            if !output_file::is_output(path) {
                say!("{}", path.display());
            }
        }
        None => stdout::document(text.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a stage has values in its `env:`.
fn holds_values(loaded: &PipelineSession) -> bool {
    let selected = loaded
        .session
        .graph
        .stages()
        .filter(|stage| loaded.session.selection.stages.contains(&stage.id));
    selected.into_iter().any(|stage| {
        let settings = stage.stage.settings();
        settings.get("env").and_then(|env| env.as_object()).is_some_and(|env| !env.is_empty())
    })
}
