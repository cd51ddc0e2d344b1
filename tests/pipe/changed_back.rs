//! Settings that are changed and changed back: whatever ran before, what a command leaves is what it
//! leaves in an empty folder.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::project::{Project, TINY};

const STAGES: &str = "
    checkpoint: { monitor: quality.val_loss }
  quality:
    kind: evaluate
    from: base
    each_checkpoint: true
    dataset: data
    to: quality
    metrics: [val_loss, nearest]
    seeds: 0-3
    steps: 2
    device: cpu
  grids: { kind: sample, from: base, each_checkpoint: true, to: grids/g.png, n: 4, steps: 2, device: cpu }
  drawn: { kind: sample, from: base, each_checkpoint: true, to: drawn, seeds: 0-1, steps: 2, device: cpu }
  plain: { kind: evaluate, from: base, dataset: data, to: plain, metrics: [val_loss], device: cpu }
";

/// The folders that stages write results into.
const RESULTS: [&str; 4] = ["quality", "grids", "drawn", "plain"];

/// What somebody may type, of which the first is the one that is come back to.
const COMMANDS: [&[&str]; 6] = [
    &["--epochs", "3"],
    &["--epochs", "2"],
    &["--epochs", "4", "--learning-rate", "5e-3"],
    &["--epochs", "2", "--set", "data.num_images=48"],
    &["--epochs", "3", "--set", "quality.seeds=1-4"],
    &["--epochs", "3", "--set", "base.checkpoint.monitor=train_loss"],
];

fn project() -> Project {
    let project = Project::new();
    let tiny = TINY.replace("num_images: 64", "num_images: 64\n    val_split: 0.25");
    project.write("p.yaml", tiny.trim_end().to_owned() + STAGES);
    project
}

fn typed(command: &'static [&'static str]) -> Vec<&'static str> {
    [&["run", "p.yaml"], command].concat()
}

/// Every file of the results, by its path; of pictures by themselves what is seen, since they name
/// the checkpoint, which names the time of its saving.
fn results(project: &Project) -> BTreeMap<String, Vec<u8>> {
    let root = project.path("");
    let files = RESULTS.iter().flat_map(|folder| walk(&root.join(folder)));
    let named = files.map(|file| {
        let bytes = if file.starts_with(root.join("drawn")) {
            image::open(&file).unwrap().to_rgb8().into_raw()
        } else {
            std::fs::read(&file).unwrap()
        };
        (file.strip_prefix(&root).unwrap().display().to_string(), bytes)
    });
    named.collect()
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    assert!(!folder.exists() || !paths.is_empty(), "{} is empty", folder.display());
    let inside = paths.into_iter();
    inside.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[track_caller]
fn same(project: &Project, expected: &BTreeMap<String, Vec<u8>>, story: &[String]) {
    let found = results(project);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(expected), "{story:#?}");
    let other: Vec<&String> =
        found.iter().filter(|(name, bytes)| expected[*name] != **bytes).map(|f| f.0).collect();
    assert!(other.is_empty(), "{other:?} are of another run, after {story:#?}");
    project.pipe(&typed(COMMANDS[0])).succeeds().says("everything is up to date");
}

fn undisturbed() -> BTreeMap<String, Vec<u8>> {
    let project = project();
    project.pipe(&typed(COMMANDS[0])).succeeds();
    let results = results(&project);
    assert_eq!(results.len(), 3 * 2 + 1 + 3 + 1 + 3 * 2 + 1, "{:?}", results.keys());
    results
}

#[test]
fn a_setting_that_is_changed_and_changed_back_leaves_nothing_of_the_other_run() {
    let expected = undisturbed();
    for other in &COMMANDS[2..] {
        let project = project();
        for command in [COMMANDS[0], other, COMMANDS[0]] {
            project.pipe(&typed(command)).succeeds();
        }
        same(&project, &expected, &[format!("{other:?} in between")]);
    }
}

#[test]
fn stages_with_other_names_and_settings_leave_nothing_of_the_former_ones() {
    let expected = undisturbed();
    let names = ["quality", "grids", "drawn", "plain"];
    for is_killed in [false, true] {
        let project = project();
        let file = project.read("p.yaml");
        let renamed = names.iter().fold(file.clone(), |file, name| {
            file.replace(&format!("  {name}:\n"), &format!("  {name}_before:\n"))
                .replace(&format!("  {name}: {{"), &format!("  {name}_before: {{"))
        });
        project.write("p.yaml", renamed.replace("quality.val_loss", "quality_before.val_loss"));
        let other = typed(COMMANDS[2]);
        if is_killed {
            let mut child = project.start(&other);
            crate::slurm::until("grid", || project.path("grids/g_epoch_002.png").exists());
            let _ = child.kill();
            child.wait().unwrap();
        } else {
            project.pipe(&other).succeeds();
        }
        project.write("p.yaml", file);
        project.pipe(&typed(COMMANDS[0])).succeeds();
        same(&project, &expected, &[format!("stages renamed, killed: {is_killed}")]);
    }
}

#[test]
fn whatever_ran_before_and_however_it_ended_the_results_are_of_the_last_command() {
    let expected = undisturbed();
    for seed in 1..=8u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        let project = project();
        let mut story = vec![format!("seed {seed}")];
        for _ in 0..4 {
            let command = COMMANDS[below(COMMANDS.len() as u64) as usize];
            let is_killed = below(2) == 0;
            if is_killed {
                let wait = 100 + below(1500);
                let mut child = project.start(&typed(command));
                std::thread::sleep(Duration::from_millis(wait));
                let _ = child.kill();
                child.wait().unwrap();
                story.push(format!("{command:?} killed after {wait} ms"));
            } else {
                project.pipe(&typed(command)).succeeds();
                story.push(format!("{command:?}"));
            }
        }
        project.pipe(&typed(COMMANDS[0])).succeeds();
        same(&project, &expected, &story);
    }
}
