//! `pipe logs FILE STAGE`

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use pipe_engine::exec::slurm::last_lines;

use super::{CliError, ExitCode, jobs, pipeline_name, project};
use crate::report::stdout::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe logs pipelines/base_to_lora.yaml base\n  pipe logs pipelines/base_to_lora.yaml base --tail 20"
)]
pub struct LogsArguments {
    /// Pipeline file
    file: PathBuf,
    /// The stage
    #[arg(value_name = "STAGE")]
    stage: String,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
}

/// Reads a log line by line, whatever its length: a longer line than this is shown in pieces.
fn lines(file: std::fs::File, mut show: impl FnMut(&str)) -> std::io::Result<()> {
    const LONGEST: u64 = 1 << 20;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)? > 0 {
        show(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
    Ok(())
}

pub fn logs(arguments: LogsArguments) -> Result<ExitCode, CliError> {
    let file = pipeline_name::resolve(&arguments.file)?;
    let root = project::root()?;
    for (stage, job) in jobs::of(&file, std::slice::from_ref(&arguments.stage))? {
        let path = root.join(&job.log);
        let wrong = |e: std::io::Error| {
            CliError::failed(format!(
                "job {} of stage {stage} has no log yet: {}: {e}",
                job.id,
                path.display()
            ))
        };
        match arguments.tail {
            Some(count) => {
                last_lines(&path, count).map_err(wrong)?.iter().for_each(|line| say!("{line}"))
            }
            None => {
                let file = std::fs::File::open(&path).map_err(wrong)?;
                lines(file, |line| say!("{line}")).map_err(wrong)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
