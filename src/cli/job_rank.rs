//! `pipe job rank`: one of the processes of a training program, as `srun` starts it. It is not for
//! people to type.
//!
//! It waits for the program and ends as it did. The end of its stdin asks it to end the program:
//! `srun` passes that on to every node. Signals of Slurm reach the program by themselves.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::{CliError, ExitCode};

#[derive(clap::Args)]
pub struct RankArguments {
    /// Port at which the processes meet
    #[arg(long)]
    port: u16,
    /// Milliseconds between the request to stop and the end by force
    #[arg(long)]
    grace: u64,
    /// Where process 0 leaves its exit code
    #[arg(long)]
    ended: PathBuf,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// A process among those of a step, as Slurm numbers it.
struct Place {
    rank: u32,
    variables: Vec<(&'static str, String)>,
}

impl Place {
    /// The variables that torchrun sets, of those that Slurm does.
    fn find(port: u16, variable: impl Fn(&str) -> Option<String>) -> Result<Self, CliError> {
        let of_slurm = |name: &str| {
            let none =
                || CliError::usage(format!("{name} is not set: only srun starts this command"));
            variable(name).filter(|value| !value.is_empty()).ok_or_else(none)
        };
        let rank = of_slurm("SLURM_PROCID")?;
        let number = rank.parse();
        let number =
            number.map_err(|_| CliError::usage(format!("SLURM_PROCID is {rank:?}, no number")))?;
        // `2(x2)`, `3,2`: each node has as many as the first.
        let per_node = of_slurm("SLURM_STEP_TASKS_PER_NODE")?;
        let digits = per_node.find(|c: char| !c.is_ascii_digit()).unwrap_or(per_node.len());
        let variables = vec![
            ("RANK", rank),
            ("WORLD_SIZE", of_slurm("SLURM_STEP_NUM_TASKS")?),
            ("LOCAL_RANK", of_slurm("SLURM_LOCALID")?),
            ("LOCAL_WORLD_SIZE", per_node[..digits].to_owned()),
            ("NODE_RANK", of_slurm("SLURM_NODEID")?),
            ("GROUP_RANK", of_slurm("SLURM_NODEID")?),
            // Of the node of process 0, where srun runs.
            ("MASTER_ADDR", of_slurm("SLURM_LAUNCH_NODE_IPADDR")?),
            ("MASTER_PORT", port.to_string()),
        ];
        Ok(Self { rank: number, variables })
    }
}

#[cfg(unix)]
pub fn rank(arguments: RankArguments) -> Result<ExitCode, CliError> {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    let RankArguments { port, grace, ended, program } = arguments;
    let Place { rank, variables } = Place::find(port, |name| std::env::var(name).ok())?;
    let Some((first, rest)) = program.split_first() else {
        return Err(CliError::usage("expected a program"));
    };
    // The program gets it as well, and decides when it ends.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGTERM, std::sync::Arc::default());
    let mut command = Command::new(first);
    command.args(rest).envs(variables).stdin(Stdio::null());
    let shown = first.to_string_lossy();
    let mut child =
        command.spawn().map_err(|e| CliError::failed(format!("failed to start `{shown}`: {e}")))?;
    let pid = rustix::process::Pid::from_child(&child);
    std::thread::spawn(move || end_with_stdin(pid, Duration::from_millis(grace)));
    let status = child.wait().map_err(|e| CliError::failed(format!("failed to wait: {e}")))?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    if rank == 0 {
        // Without it the others are waited for, however long they go on.
        let _ = std::fs::write(ended, code.to_string());
    }
    Ok(ExitCode(u8::try_from(code).unwrap_or(1)))
}

/// Waits for the end of stdin, and ends the program: by force with all processes of the step on
/// this node, which were asked at the same time, and with this one.
#[cfg(unix)]
fn end_with_stdin(pid: rustix::process::Pid, grace: Duration) {
    use rustix::process::{Signal, kill_current_process_group, kill_process};

    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    let _ = kill_process(pid, Signal::TERM);
    std::thread::sleep(grace);
    let _ = kill_current_process_group(Signal::KILL);
}

#[cfg(not(unix))]
pub fn rank(_: RankArguments) -> Result<ExitCode, CliError> {
    Err(CliError::usage("this command needs Slurm, which this system does not have"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_are_those_of_torchrun() {
        let slurm = |name: &str| {
            let value = match name {
                "SLURM_PROCID" => "3",
                "SLURM_STEP_NUM_TASKS" => "4",
                "SLURM_LOCALID" | "SLURM_NODEID" => "1",
                "SLURM_STEP_TASKS_PER_NODE" => "2(x2)",
                "SLURM_LAUNCH_NODE_IPADDR" => "10.0.0.7",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let place = Place::find(29_500, slurm).unwrap_or_else(|_| panic!("refused"));
        let shown: Vec<String> =
            place.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(place.rank, 3);
        assert_eq!(
            shown.join(" "),
            "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 NODE_RANK=1 GROUP_RANK=1 \
             MASTER_ADDR=10.0.0.7 MASTER_PORT=29500"
        );
        let outside = Place::find(1, |name| slurm(name).filter(|_| name != "SLURM_PROCID"));
        assert!(outside.is_err());
    }
}
