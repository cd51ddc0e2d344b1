//! `pipe ui [FILE]`

use pipe_core::stop::Stop;

use super::pipeline_args::{OptionalPipelineArgs, PipelineArgs};
use super::report::Subject;
use super::{CliError, ExitCode, Kinds, signals};
use crate::report::page;
use crate::report::page::serve::{PageServer, PageSource};
use crate::report::stdout::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe ui\n  pipe ui pipelines/base_to_lora.yaml --port 8080\n\nListens on 127.0.0.1 only, and answers only whoever knows the token in the address that it prints; Ctrl-C ends it (exit code 0)."
)]
pub struct UiArguments {
    #[command(flatten)]
    args: OptionalPipelineArgs,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 7070)]
    port: u16,
    /// Answer without a token, whichever user of this machine asks
    #[arg(long)]
    no_token: bool,
}

pub fn ui(arguments: UiArguments, kinds: &Kinds) -> Result<ExitCode, CliError> {
    // It looks again and again: whoever plans or runs looks at the images.
    let subject =
        Subject::of(arguments.args.pipeline_args()?.map(PipelineArgs::without_data_check), kinds)?;
    let port = arguments.port;
    let server = PageServer::on(port, !arguments.no_token).map_err(|e| {
        CliError::usage(format!("failed to listen on port {port}: {e}; choose another with --port"))
    })?;
    let stop = Stop::default();
    signals::stop_on_signal(stop.clone())?;
    say!("{}", server.address());
    server.serve(subject, &stop).map_err(CliError::failed)?;
    Ok(ExitCode::SUCCESS)
}

impl PageSource for Subject {
    fn stamp(&self) -> String {
        let stages = self.stages().ok().and_then(|stages| {
            // The time that a running stage takes is no news.
            let known: Vec<_> = stages.into_iter().map(|node| node.status).collect();
            serde_json::to_string(&known).ok()
        });
        let folders = self.folders().unwrap_or_default();
        // Lines of the stages' logs come between epochs too.
        let told = self.root().ok().and_then(|root| page::log_bytes(&root)).unwrap_or(0);
        format!("{}{told} {}", stages.unwrap_or_default(), page::stamp(&folders))
    }

    fn html(&self) -> String {
        self.page().map(|page| page.to_html(true)).unwrap_or_else(|error| error.to_text())
    }

    fn json(&self) -> String {
        self.page().map(|page| page.to_json()).unwrap_or_else(|_| "{}".to_owned())
    }
}
