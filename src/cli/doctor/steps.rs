//! Whether devices can train: steps of a tiny network, two seconds on each.

use std::time::Duration;

use pipe_train::device::{self, DeviceSpec, GpuAssignment, SelfTestResult};
use pipe_train::trainer::self_test;
use serde::{Deserialize, Serialize};

use super::super::CliError;
use super::child;
use super::finding::{Finding, commands};

/// So long steps are made.
const STEPS: Duration = Duration::from_secs(2);
/// A software adapter compiles kernels for half a minute.
const AT_MOST: Duration = Duration::from_secs(180);

/// What a process says that has tried a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Of a step.
    pub seconds: f64,
    pub result: SelfTestResult,
}

/// Tries a device in this process.
pub fn here(device: DeviceSpec) -> Result<Tried, CliError> {
    let device = device::resolve(device, GpuAssignment::default()).map_err(CliError::usage)?;
    let tried = self_test::try_steps(&device.device, STEPS).map_err(CliError::failed)?;
    Ok(Tried { result: tried.0, seconds: tried.1.as_secs_f64() })
}

/// Tries a device in a process of its own.
pub fn finding(program: &str, device: &str) -> Finding {
    let ended = child::run(program, &["doctor", "--step", device], AT_MOST);
    let told = match &ended {
        Ok(ended) => match serde_json::from_str::<Tried>(&ended.stdout) {
            Ok(tried) => Ok(tried),
            Err(_) if ended.code.is_none() => Err("the process crashed".to_owned()),
            Err(_) => Err(ended.last_words.trim_start_matches("error: ").to_owned()),
        },
        Err(error) => Err(error.to_string()),
    };
    of(device, told)
}

fn of(device: &str, told: Result<Tried, String>) -> Finding {
    let reason = match told {
        Ok(Tried { seconds, result: SelfTestResult::Passed }) => {
            let compared = if device == "cpu" { "" } else { ", as the CPU computes it" };
            let text = format!("{device}: {:.1} ms for a tiny network{compared}", 1e3 * seconds);
            return Finding::ok("step", text);
        }
        Ok(Tried { result: SelfTestResult::Failed { reason }, .. }) => {
            format!("a step is not what the CPU computes: {reason}")
        }
        Err(reason) => format!("no step could be made: {reason}"),
    };
    let finding = Finding::problem("step", format!("{device}: {reason}"));
    let is_cpu = device == "cpu";
    if is_cpu { finding } else { finding.with_remedy(commands::ON_CPU) }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_device_that_computes_wrongly_or_not_at_all_is_a_problem() {
        let passed = Tried { seconds: 0.0123, result: SelfTestResult::Passed };
        assert_eq!(of("cpu", Ok(passed.clone())).text, "cpu: 12.3 ms for a tiny network");
        assert!(of("gpu:0", Ok(passed)).text.ends_with("as the CPU computes it"));
        let reason = "the loss was NaN".to_owned();
        let wrong = Tried { seconds: 0.0, result: SelfTestResult::Failed { reason } };
        for told in [Ok(wrong), Err("the process crashed".into())] {
            let finding = of("gpu:0", told);
            assert_eq!(finding.verdict, Verdict::Problem);
            assert_eq!(finding.remedy.as_deref(), Some("pipe run PIPELINE --device cpu"));
        }
    }

    #[test]
    fn what_the_process_says_is_read_back() {
        let reason = "x".to_owned();
        for result in [SelfTestResult::Passed, SelfTestResult::Failed { reason }] {
            let tried = Tried { seconds: 0.5, result };
            let text = serde_json::to_string(&tried).unwrap();
            assert_eq!(serde_json::from_str::<Tried>(&text).unwrap(), tried);
        }
    }
}
