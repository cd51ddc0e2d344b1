//! `pipe doctor`: what a machine has and lacks. Each cause has a test beside its code; here the
//! program looks at the machine that the tests run on.

use serde_json::Value;

use crate::project::Project;

/// What it finds, and the code that it exits with.
fn findings(project: &Project, arguments: &[&str]) -> (Vec<Value>, i32) {
    let output = project.command(&[&["doctor", "--json"], arguments].concat()).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = report["findings"].as_array().unwrap().clone();
    let is_problem = found.iter().any(|finding| finding["verdict"] == "problem");
    assert_eq!(report["healthy"], !is_problem, "{report:#}");
    let code = output.status.code().unwrap();
    assert_eq!(code, i32::from(is_problem), "{report:#}");
    (found, code)
}

fn of<'a>(found: &'a [Value], subject: &str) -> Vec<&'a Value> {
    found.iter().filter(|finding| finding["subject"] == subject).collect()
}

#[test]
fn the_cpu_makes_a_step_and_the_disk_takes_a_file_and_nothing_stays() {
    let project = Project::new().environment("VK_DRIVER_FILES", "/dev/null");
    let (found, _) = findings(&project, &[]);
    let step = &of(&found, "step")[0];
    assert_eq!(step["verdict"], "ok", "{step}");
    assert!(step["text"].as_str().unwrap().starts_with("cpu: "), "{step}");
    let disks = of(&found, "disk");
    assert!(disks.iter().all(|disk| disk["text"].as_str().unwrap().contains("safe after")));
    assert!(disks.len() >= 2 && of(&found, "memory").len() == 1);
    assert_eq!(project.list(""), ["p.yaml"]);
    let said = String::from_utf8(project.command(&["doctor"]).output().unwrap().stdout).unwrap();
    for finding in &found {
        let line = format!(
            "{:<8} {}",
            finding["verdict"].as_str().unwrap(),
            finding["subject"].as_str().unwrap()
        );
        assert!(said.lines().any(|told| told.starts_with(&line)), "no {line:?} in\n{said}");
    }
}

#[test]
fn a_message_that_points_here_is_answered() {
    let project = Project::new();
    for device in ["gpu:99", "cpu,99"] {
        let told = project.pipe(&["run", "p.yaml", "--devices", device]).exits(2).stderr();
        assert!(told.contains("; `pipe doctor` says why"), "{told}");
    }
    let (found, _) = findings(&project, &[]);
    assert!(!of(&found, "gpu").is_empty(), "{found:#?}");
}

#[cfg(target_os = "linux")]
#[test]
fn drivers_that_a_variable_names_and_that_are_not_there_are_a_problem() {
    let project = Project::new().environment("VK_DRIVER_FILES", "/no/such/icd.json");
    let (found, code) = findings(&project, &[]);
    let driver = of(&found, "drivers")[0];
    assert_eq!((&driver["verdict"], code), (&"problem".into(), 1));
    assert!(driver["text"].as_str().unwrap().starts_with("/no/such/icd.json cannot be used"));
    assert_eq!(driver["remedy"], "unset VK_DRIVER_FILES");
}

#[cfg(target_os = "linux")]
#[test]
fn a_machine_without_a_loader_says_so_and_still_has_its_cpu() {
    let project = Project::new();
    // What the linker finds first is no library, as where there is none.
    project.write("lib/libvulkan.so.1", "nothing");
    project.write("lib/libvulkan.so", "nothing");
    let folder = project.path("lib").display().to_string();
    let project = project.environment("LD_LIBRARY_PATH", folder);
    let (found, code) = findings(&project, &[]);
    let loader = of(&found, "loader")[0];
    assert_eq!((&loader["verdict"], code), (&"problem".into(), 1));
    assert!(loader["text"].as_str().unwrap().ends_with("libvulkan.so.1 is no library"));
    assert_eq!(of(&found, "step").len(), 1);
}

#[test]
fn software_vulkan_is_no_gpu_and_can_be_tried() {
    let Some(project) = crate::wgpu::project() else { return };
    let (found, _) = findings(&project, &["--test", "gpu:0"]);
    assert!(of(&found, "drivers")[0]["text"].as_str().unwrap().contains("(by VK_DRIVER_FILES)"));
    assert!(of(&found, "gpu")[0]["verdict"] != "ok", "{found:#?}");
    let steps = of(&found, "step");
    assert_eq!(steps.len(), 2);
    assert!(steps[1]["text"].as_str().unwrap().ends_with("as the CPU computes it"), "{}", steps[1]);
    let (found, code) = findings(&project, &["--test", "gpu:9"]);
    assert_eq!((&of(&found, "step")[1]["verdict"], code), (&"problem".into(), 1));
}
