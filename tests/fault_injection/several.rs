//! Several processes at once: the same pipeline, the same folder of runs, cleaning during a
//! training.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::project::Project;
use crate::results::{Options, Results, ensure};
use crate::state::{CHAIN, RUN, chain, goes_on, text, undisturbed};

/// Many short epochs, so that there is always a training under way.
const LONG: [&str; 7] = [
    "run",
    "p.yaml",
    "base",
    "--set",
    "base.epochs=500",
    "--set",
    "base.sample_every_n_epochs=500",
];

pub fn section(options: &Options, results: &mut Results) {
    let expected = undisturbed();
    let rounds: Vec<usize> = (0..options.rounds.div_ceil(10)).collect();
    results.each("the same pipeline twice at once", &rounds, |_| {
        let project = chain();
        let start =
            || project.command(&RUN).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let both = [start(), start()].map(|child| (child.id(), child.wait_with_output().unwrap()));
        let ids: Vec<u32> = both.iter().map(|(id, _)| *id).collect();
        for (id, output) in &both {
            let said = text(&output.stderr);
            let other = ids.iter().find(|i| *i != id).unwrap();
            let names_it = said.contains(&format!("it is being run by pid {other} on "));
            ensure(
                output.status.success() || (output.status.code() == Some(2) && names_it),
                || said,
            )?;
        }
        ensure(both.iter().any(|(_, output)| output.status.success()), || {
            "neither came to its end".into()
        })?;
        goes_on(&project, &expected)
    });
    results.one("32 trainings that start at once in one folder of runs", || {
        let project = chain();
        for i in 0..32 {
            project.write(
                &format!("p{i}.yaml"),
                CHAIN.replace("name: chain", &format!("name: chain{i}")),
            );
        }
        let start = |i: usize| {
            let file = format!("p{i}.yaml");
            let seed = format!("base.seed={i}");
            let mut command = project.command(&["run", &file, "base", "--set", &seed]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<Child> = (0..32).map(start).collect();
        for child in children {
            let output = child.wait_with_output().map_err(|e| e.to_string())?;
            ensure(output.status.success(), || text(&output.stderr))?;
        }
        let mut seeds = BTreeSet::new();
        for number in 1..=32 {
            let metadata = project.metadata(&format!("checkpoints/base_training/run_{number:03}"));
            ensure(metadata["status"] == "completed" && metadata["run_number"] == number, || {
                metadata.to_string()
            })?;
            seeds.insert(metadata["seed"].as_u64());
        }
        ensure(seeds.len() == 32, || format!("{} different trainings in 32 runs", seeds.len()))
    });
    results.one("cleaning during a training", || {
        let project = chain();
        project.pipe(&RUN).succeeds();
        let child = Alive(project.start(&[&LONG[..], &["--force"]].concat()));
        let run = "checkpoints/base_training/run_002";
        until_saved(&project, run)?;
        for arguments in [&["runs", "prune", "--keep", "1"][..], &["gc"]] {
            let output = project.command(arguments).output().unwrap();
            ensure(output.status.success(), || text(&output.stderr))?;
        }
        let output = project.command(&["runs", "rm", "2"]).output().unwrap();
        let said = text(&output.stderr);
        ensure(said.contains(&format!("pid {}", child.0.id())), || said)?;
        // What it was and what it goes on with are still there.
        ensure(project.path(run).join("checkpoints/last.ckpt").is_file(), || {
            "last.ckpt is gone".into()
        })?;
        ensure(project.path("checkpoints/base_training/run_001").is_dir(), || {
            "the base of a LoRA is gone".into()
        })?;
        drop(child);
        let output = project.command(&LONG).arg("--dry-run").output().unwrap();
        ensure(text(&output.stdout).contains("resume at epoch"), || text(&output.stdout))
    });
    results.one("a training that is alive, gone on with by another process", || {
        let project = chain();
        let child = Alive(project.start(&LONG));
        until_saved(&project, "checkpoints/base_training/run_001")?;
        let again = [&LONG[..], &["--run-number", "1", "--resume"]].concat();
        let output = project.command(&again).output().unwrap();
        let (said, holder) = (text(&output.stderr), format!("pid {} on ", child.0.id()));
        drop(child);
        ensure(output.status.code() == Some(2) && said.contains(&holder), || said)
    });
}

/// Killed at the latest when it is not needed any more.
struct Alive(Child);

impl Drop for Alive {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until_saved(project: &Project, run: &str) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !project.path(run).join("checkpoints/last.ckpt").exists() {
        ensure(Instant::now() < deadline, || "no checkpoint after a minute".into())?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
