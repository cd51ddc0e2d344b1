//! How long a plan takes, when it ends and what it puts on the disk, for `pipe plan`; and that it
//! fits there, for `pipe run`.

use std::path::Path;

use chrono::{DateTime, Local, TimeDelta};
use pipe_engine::forecast::PlanForecast;
use pipe_fs::disk_space;

use super::CliError;
use crate::report::progress_line::duration;
use crate::report::table;

/// The lines behind a plan; none where nothing is known.
pub fn table(forecast: &PlanForecast, jobs: u16, root: &Path) -> Option<String> {
    let is_known = forecast.stages.iter().any(|stage| stage.ends_in.is_some());
    if !is_known {
        return None;
    }
    let now = Local::now();
    let cell = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
    let mut rows: Vec<Vec<String>> = forecast
        .stages
        .iter()
        .map(|stage| {
            vec![
                stage.stage.to_string(),
                cell(stage.forecast.seconds.map(duration)),
                cell(stage.ends_in.map(|seconds| clock(now, seconds))),
                stage.forecast.bytes.map_or_else(|| "-".to_owned(), table::bytes),
                stage.forecast.memory.map_or_else(|| "-".to_owned(), table::bytes),
                stage.forecast.from.clone(),
            ]
        })
        .collect();
    let besides = match forecast.unknown.len() {
        0 => String::new(),
        count => format!(", and {count} of which nothing is known"),
    };
    let free = disk_space::free(root).map(|free| format!("; {} are free", table::bytes(free)));
    rows.push(vec![
        "in all".to_owned(),
        duration(forecast.seconds),
        clock(now, forecast.seconds),
        table::bytes(forecast.bytes),
        forecast.memory.map_or_else(|| "-".to_owned(), table::bytes),
        format!("{jobs} at once{besides}{}", free.unwrap_or_default()),
    ]);
    let mut text = table::table(&["Stage", "Takes", "Ends", "Disk", "Memory", "Known from"], &rows);
    if forecast.critical_seconds < forecast.seconds {
        let chain: Vec<&str> = forecast.critical_path.iter().map(|stage| stage.as_str()).collect();
        let (chain, least) = (chain.join(", "), duration(forecast.critical_seconds));
        text.push_str(&format!(
            "\nthe longest chain takes {least}, whatever runs at once: {chain}"
        ));
    }
    Some(text)
}

/// A time of today as `22:14`, of another day with that.
fn clock(now: DateTime<Local>, seconds: f64) -> String {
    let end = now + TimeDelta::milliseconds((seconds * 1e3) as i64);
    let format = if end.date_naive() == now.date_naive() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    end.format(format).to_string()
}

/// Refuses what will not fit on the disk of the project.
pub fn check_fits(forecast: &PlanForecast, root: &Path) -> Result<(), CliError> {
    let Some(free) = disk_space::free(root).filter(|free| forecast.bytes > *free) else {
        return Ok(());
    };
    let (needed, free) = (table::bytes(forecast.bytes), table::bytes(free));
    let largest = forecast.stages.iter().filter_map(|s| Some((s.forecast.bytes?, &s.stage))).max();
    let which = largest.map(|(bytes, stage)| format!(", {} of them {stage}", table::bytes(bytes)));
    let which = which.unwrap_or_default();
    let error = CliError::failed(format!(
        "checkpoints will take up to {needed}{which}, and {free} are free on the disk of {}",
        root.display()
    ));
    Err(error.note("free some, or keep fewer checkpoints: `keep_last_n` of the checkpoint policy"))
}
