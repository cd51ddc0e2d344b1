//! `benches/gpu.sh`, rehearsed on the software Vulkan driver that the tests are given.

use std::process::Command;

use crate::project::{Project, root};

/// The script, whatever it ends with: what it says, and the page that it has written.
fn day(project: &Project, arguments: &[&str]) -> (i32, String, String) {
    // With the variables of the project.
    let environment = project.command(&[]);
    let variables = environment.get_envs().filter_map(|(key, value)| Some((key, value?)));
    let output = Command::new("bash")
        .arg(root().join("benches/gpu.sh"))
        .args(["--pipe", env!("CARGO_BIN_EXE_pipe"), "--small", "--out", "day"])
        .args(arguments)
        .current_dir(project.path(""))
        .envs(variables)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let page = std::fs::read_to_string(project.path("day/report.md")).unwrap_or_default();
    (output.status.code().unwrap(), said, page)
}

#[test]
fn trainings_are_found_right_and_what_was_done_is_not_done_again() {
    let Some(project) = crate::wgpu::project() else { return };
    // What other tests have found out of the adapter.
    let verdicts = project.list(".pipe/cache/devices").into_iter();
    verdicts.for_each(|name| {
        let verdict = project.read(&format!(".pipe/cache/devices/{name}"));
        project.write(&format!("day/devices/{name}"), verdict);
    });
    let steps = ["--only", "machine,bits,torch"];
    let (code, said, page) = day(&project, &steps);
    assert_eq!(code, 0, "{said}\n{page}");
    for part in ["SwiftShader", "Two processes have the same bits", "Skipped: give --python"] {
        assert!(page.contains(part), "no {part:?} in\n{page}");
    }
    let (code, said, again) = day(&project, &steps);
    assert_eq!((code, said.matches("done before").count()), (0, 3), "{said}");
    assert_eq!(again, page);
    let none = ["--only", "torch,losses", "--again", "torch", "--minutes", "0"];
    let (_, said, _) = day(&project, &none);
    assert_eq!(said.matches("skipped, no time left").count(), 2, "{said}");
}

#[test]
fn on_the_cpu_every_other_step_is_done_too() {
    let project = Project::new().environment("VK_DRIVER_FILES", "/dev/null");
    let steps = "losses,resume,chain,steps,kernels,memory,largest,sampler";
    let (code, said, page) = day(&project, &["--device", "cpu", "--only", steps]);
    assert_eq!(code, 0, "{said}\n{page}");
    for part in [
        "The most: 0.0e+00 of the loss, in 16 steps",
        "a training has the bits of one that was not",
        "LoRA on it and pictures of that, in one process: done.",
        "| diffit_tiny | 2 |",
        "Skipped: error: kernels are those of a GPU",
        "were doubled up to 4, and all of them fit",
        "pictures/s",
    ] {
        assert!(page.contains(part), "no {part:?} in\n{page}");
    }
    assert!(!page.contains("FAILED") && !page.contains("—"), "{page}");
}

#[test]
fn a_gpu_that_is_not_there_fails_and_the_page_says_why() {
    let project = Project::new().environment("VK_DRIVER_FILES", "/dev/null");
    let (code, said, page) = day(&project, &["--only", "losses", "--device", "gpu:9"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("failed: losses"), "{said}");
    assert!(page.contains("failed to find adapter 9") && page.contains("**failed**"), "{page}");
    assert_eq!(day(&project, &["--step", "x"]).0, 2);
}
