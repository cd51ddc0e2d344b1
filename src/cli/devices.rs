//! `pipe devices`

use pipe_train::device;

use super::{CliError, ExitCode};
use crate::report::table::table;
use crate::say;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  pipe devices\n  pipe run pipelines/base_training.yaml --device gpu:0")]
pub struct DevicesArguments {}

pub fn devices(_: DevicesArguments) -> Result<ExitCode, CliError> {
    let all = device::adapters();
    let best = device::best(&all).map(|a| a.index);
    let mark = |chosen: bool| if chosen { "*" } else { "" }.to_owned();
    let mut rows: Vec<Vec<String>> = all
        .iter()
        .map(|a| {
            let cells =
                [&format!("gpu:{}", a.index), &a.name, a.kind, &a.backend, &a.driver].map(str::to_owned);
            [vec![mark(best == Some(a.index))], cells.to_vec()].concat()
        })
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = ["cpu", &format!("{cores} threads"), "processor", "flex", ""].map(str::to_owned);
    rows.push([vec![mark(best.is_none())], cpu.to_vec()].concat());
    say!("{}", table(&["auto", "device", "name", "kind", "backend", "driver"], &rows));
    Ok(ExitCode::SUCCESS)
}
