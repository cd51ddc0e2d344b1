//! `pipe devices`

use std::path::Path;

use pipe_fs::ProjectRoot;
use pipe_train::device::{
    self, Adapter, Capabilities, DeviceList, DeviceSpec, GpuAssignment, SelfTestResult,
};
use pipe_train::trainer::{Precision, self_test};
use serde::Serialize;

use super::{CliError, ExitCode, project};
use crate::report::stdout::say;
use crate::report::table::{bytes, table};

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

/// A device.
#[derive(Serialize)]
struct Row {
    /// `auto` takes it.
    auto: bool,
    device: String,
    name: String,
    kind: &'static str,
    backend: String,
    driver: String,
    /// It computes on the processor.
    software: bool,
    /// What `precision:` may be.
    precision: Vec<&'static str>,
    /// What the open GPU says of itself.
    capabilities: Option<Capabilities>,
    /// Why a GPU could not be opened.
    unopened: Option<String>,
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
    rows.extend(device::vendor_adapters().into_iter().map(|a| row(&root, false, a)));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = device::resolve(DeviceSpec::Cpu, GpuAssignment::default());
    let cpu = cpu.map_err(CliError::failed)?;
    rows.push(Row {
        auto: best.is_none(),
        device: "cpu".into(),
        name: format!("{cores} threads"),
        kind: "processor",
        backend: "flex".into(),
        driver: String::new(),
        software: false,
        precision: names(Precision::all_on(&cpu.device)),
        capabilities: None,
        unopened: None,
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
        for precision in Precision::all_on(&device.device) {
            self_test::test(root, &device, precision).map_err(CliError::failed)?;
        }
    }
    Ok(())
}

fn names(precisions: Vec<Precision>) -> Vec<&'static str> {
    precisions.into_iter().map(Precision::name).collect()
}

fn row(root: &Path, auto: bool, adapter: Adapter) -> Row {
    let (precision, capabilities, unopened) = match device::capabilities(&adapter) {
        Ok((open, able)) => (names(Precision::all_on(&open.device)), Some(able), None),
        Err(error) => (adapter.precisions().to_vec(), None, Some(error.to_string())),
    };
    let tested = |precision: &&'static str| {
        let verdict = SelfTestResult::cached(root, &adapter, precision)?;
        Some(Tested { precision, verdict })
    };
    Row {
        auto,
        device: adapter.spec().to_string(),
        self_test: precision.iter().filter_map(tested).collect(),
        precision,
        capabilities,
        unopened,
        name: adapter.name,
        kind: adapter.kind,
        backend: adapter.backend,
        driver: adapter.driver,
        software: adapter.software,
    }
}

/// A table of what there is, then what each can do: lines of 80 columns, if names are not long.
fn text(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let mark = if row.auto { "*" } else { "" };
        [mark, &row.device, &row.name, row.kind, &row.backend].map(str::to_owned).to_vec()
    };
    let headings = ["auto", "device", "name", "kind", "backend"];
    let table = table(&headings, &rows.iter().map(cells).collect::<Vec<_>>());
    let details = rows.iter().map(details);
    let reasons = rows.iter().flat_map(|row| {
        row.self_test.iter().filter_map(|test| match &test.verdict {
            SelfTestResult::Passed => None,
            SelfTestResult::Failed { reason } => {
                Some(format!("\n{} in {}: {reason}", row.device, test.precision))
            }
        })
    });
    std::iter::once(table).chain(details).chain(reasons).collect()
}

/// What a device can do, a line each.
fn details(row: &Row) -> String {
    let able = row.capabilities.as_ref();
    let tests: Vec<String> = row.self_test.iter().map(tested).collect();
    let limits = able.map(|able| {
        let limits = &able.limits;
        [
            format!(
                "{} threads a workgroup, sharing {}",
                limits.workgroup,
                bytes(limits.shared_memory)
            ),
            format!("{} buffers a kernel, of up to {}", limits.bindings, bytes(limits.buffer)),
        ]
    });
    let [threads, buffers] = limits.unwrap_or_default();
    let lines = [
        ("driver", row.driver.clone()),
        ("kernels", able.map(|able| able.compiler.clone()).unwrap_or_default()),
        ("precision", precision(row)),
        ("memory", able.and_then(|able| able.memory).map(bytes).unwrap_or_default()),
        ("limits", threads),
        ("", buffers),
        ("self-test", tests.join(", ")),
        ("not opened", row.unopened.clone().unwrap_or_default()),
    ];
    let lines = lines.iter().filter(|(_, value)| !value.is_empty());
    let lines = lines.map(|(name, value)| format!("\n  {name:<11} {value}"));
    std::iter::once(format!("\n\n{}", row.device)).chain(lines).collect()
}

/// The precisions, with what the device has tensor cores for.
fn precision(row: &Row) -> String {
    let cores = row.capabilities.as_ref().map_or(&[][..], |able| &able.tensor_cores);
    let named = |name: &&'static str| match *name {
        "f32" if cores.contains(&"tf32") => "f32 (tensor cores: tf32)".to_owned(),
        name if cores.contains(&name) => format!("{name} (tensor cores)"),
        name => name.to_owned(),
    };
    row.precision.iter().map(named).collect::<Vec<_>>().join(", ")
}

fn tested(test: &Tested) -> String {
    let word = if test.verdict == SelfTestResult::Passed { "passed" } else { "failed" };
    format!("{} {word}", test.precision)
}
