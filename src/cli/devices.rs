//! `pipe devices`

use std::path::Path;

use pipe_fs::ProjectRoot;
use pipe_train::device::{self, Adapter, DeviceList, GpuAssignment, SelfTestResult};
use pipe_train::trainer::{Precision, self_test};
use serde::Serialize;

use super::{CliError, ExitCode, project};
use crate::report::stdout::say;
use crate::report::table::table;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe devices\n  pipe devices --test\n  pipe devices --test gpu:0 --json\n  pipe run pipelines/base_training.yaml --device gpu:0"
)]
pub struct DevicesArguments {
    /// Test what a training would be tested with before its first step on a GPU: loss and gradients
    /// of a tiny network beside the CPU's. All hardware GPUs, or those named
    #[arg(long, value_name = "DEVICES", num_args = 0..=1, default_missing_value = "all")]
    test: Option<DeviceList>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A line of the table.
#[derive(Serialize)]
struct Row {
    /// `auto` takes it.
    auto: bool,
    device: String,
    name: String,
    kind: &'static str,
    backend: String,
    driver: String,
    /// What `precision:` may be.
    precision: Vec<&'static str>,
    /// What the self-test of each precision said, where it was made.
    self_test: Vec<Tested>,
}

#[derive(Serialize)]
struct Tested {
    precision: &'static str,
    #[serde(flatten)]
    verdict: SelfTestResult,
}

pub fn devices(arguments: DevicesArguments) -> Result<ExitCode, CliError> {
    let root = project::root()?;
    if let Some(list) = &arguments.test {
        test(&root, list)?;
    }
    let all = device::adapters();
    let best = device::best(&all).map(|a| a.index);
    let mut rows: Vec<Row> =
        all.into_iter().map(|a| row(&root, best == Some(a.index), a)).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    rows.push(Row {
        auto: best.is_none(),
        device: "cpu".into(),
        name: format!("{cores} threads"),
        kind: "processor",
        backend: "flex".into(),
        driver: String::new(),
        precision: vec!["f32", "f16", "bf16"],
        self_test: Vec::new(),
    });
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&rows).map_err(CliError::failed)?);
    } else {
        say!("{}", text(&rows));
    }
    let failed = |row: &Row| row.self_test.iter().any(|t| t.verdict != SelfTestResult::Passed);
    let ill = arguments.test.is_some() && rows.iter().any(failed);
    Ok(if ill { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Tests GPUs in every precision that they have.
fn test(root: &ProjectRoot, list: &DeviceList) -> Result<(), CliError> {
    for device in device::resolve_all(list, GpuAssignment::default()).map_err(CliError::usage)? {
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            if precision.runs_on(&device.device) {
                self_test::test(root, &device, precision).map_err(CliError::failed)?;
            }
        }
    }
    Ok(())
}

fn row(root: &Path, auto: bool, adapter: Adapter) -> Row {
    let precision = adapter.precisions().to_vec();
    let tested = |precision: &&'static str| {
        let verdict = SelfTestResult::cached(root, &adapter, precision)?;
        Some(Tested { precision, verdict })
    };
    Row {
        auto,
        device: format!("gpu:{}", adapter.index),
        self_test: precision.iter().filter_map(tested).collect(),
        precision,
        name: adapter.name,
        kind: adapter.kind,
        backend: adapter.backend,
        driver: adapter.driver,
    }
}

fn text(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let tests: Vec<String> = row.self_test.iter().map(tested).collect();
        let mark = if row.auto { "*" } else { "" };
        let precision = row.precision.join(", ");
        [
            mark,
            &row.device,
            &row.name,
            row.kind,
            &row.backend,
            &precision,
            &tests.join(", "),
            &row.driver,
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let headings =
        ["auto", "device", "name", "kind", "backend", "precision", "self-test", "driver"];
    let table = table(&headings, &rows.iter().map(cells).collect::<Vec<_>>());
    let reasons = rows.iter().flat_map(|row| {
        row.self_test.iter().filter_map(|test| match &test.verdict {
            SelfTestResult::Passed => None,
            SelfTestResult::Failed { reason } => {
                Some(format!("\n{} in {}: {reason}", row.device, test.precision))
            }
        })
    });
    std::iter::once(table).chain(reasons).collect()
}

fn tested(test: &Tested) -> String {
    let word = if test.verdict == SelfTestResult::Passed { "passed" } else { "failed" };
    format!("{} {word}", test.precision)
}
