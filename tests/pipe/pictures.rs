//! Sampled pictures as files of their own, by a stage and by `pipe sample --seeds`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::project::Project;

const STAGE: &str = "
  drawn: { kind: sample, from: base, to: drawn, seeds: 0-4, steps: 2, device: cpu }
";

/// A pipeline with a stage that draws pictures of their own.
fn project(change: (&str, &str)) -> Project {
    let project = Project::new();
    let text = std::fs::read_to_string(project.path("p.yaml")).unwrap();
    std::fs::write(project.path("p.yaml"), text + &STAGE.replace(change.0, change.1)).unwrap();
    project
}

/// The files below a folder and their content.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for class in ["circle", "square"] {
        let Ok(entries) = std::fs::read_dir(folder.join(class)) else { continue };
        for entry in entries.map(Result::unwrap) {
            let name = format!("{class}/{}", entry.file_name().display());
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn a_stage_draws_a_picture_for_each_seed_once() {
    let project = project(("", ""));
    project.pipe(&["run", "p.yaml"]).succeeds().says("5 pictures: drawn");
    let drawn = files(&project.path("drawn"));
    let names: Vec<&str> = drawn.keys().map(String::as_str).collect();
    let expected = [
        "circle/000000.png",
        "circle/000002.png",
        "circle/000004.png",
        "square/000001.png",
        "square/000003.png",
    ];
    assert_eq!(names, expected);
    project.pipe(&["run", "p.yaml"]).succeeds().says("up to date");

    // What is lost is made again, to the byte, and the rest is not.
    std::fs::remove_file(project.path("drawn/square/000003.png")).unwrap();
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert!(files(&project.path("drawn")) == drawn);

    // Fewer seeds: the stage's other pictures go, and what a person put beside them stays.
    std::fs::write(project.path("drawn/circle/mine.png"), "mine").unwrap();
    project.pipe(&["run", "p.yaml", "--set", "drawn.seeds=0-1"]).succeeds();
    let left = files(&project.path("drawn"));
    let names: Vec<&str> = left.keys().map(String::as_str).collect();
    assert_eq!(names, ["circle/000000.png", "circle/mine.png", "square/000001.png"]);
    assert!(left["square/000001.png"] == drawn["square/000001.png"]);
}

#[test]
fn a_command_goes_on_with_the_pictures_that_are_there() {
    let project = project(("to: drawn", "to: drawn.zip"));
    project.pipe(&["run", "p.yaml"]).succeeds().says("5 pictures: drawn.zip");
    assert!(project.path("drawn.zip").is_file() && !project.path(".drawn.zip.parts").exists());
    let best = "checkpoints/base_training/run_001/checkpoints/best.ckpt";
    let few = ["sample", best, "--seeds", "0-2", "--steps", "2", "-o", "few"];
    project.pipe(&few).succeeds().says("few");
    let all = ["sample", best, "--seeds", "0-4", "--steps", "2", "-o", "few"];
    project.pipe(&all).succeeds().says("3 of 5 pictures were there already");
    let unset = ["sample", best, "--seeds", "1", "--steps", "2", "--class", "circle"];
    project.pipe(&unset).succeeds();
    assert!(project.path("samples/circle/000001.png").exists());
}

#[test]
fn what_cannot_be_drawn_is_refused_before_anything_is() {
    for (change, said) in [
        (("seeds: 0-4", "seeds: 4-0"), "4-0 begins behind its end"),
        (("seeds: 0-4", "seeds: 0-4, n: 5"), "`seeds` says which pictures are sampled"),
        (("to: drawn", "to: drawn.png"), "name a folder, a .zip or an .npz file"),
    ] {
        project(change).pipe(&["check", "p.yaml"]).exits(2).says(said);
    }
    let project = Project::new();
    let both = ["sample", "best.ckpt", "--seeds", "0-4", "--n", "3"];
    project.pipe(&both).exits(2).says("cannot be used with");
}
