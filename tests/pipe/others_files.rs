//! Files of somebody else where a result is to be written: nothing is lost, and nothing is computed
//! for a place that cannot take it.

use crate::project::{Project, TINY};

const PICTURE: &str = "
  picture: { kind: sample, from: base, to: mine/grid.png, n: 4, steps: 2, device: cpu }
  quality:
    kind: evaluate
    from: base
    dataset: data
    to: mine/quality
    metrics: [nearest]
    seeds: 0-3
    steps: 2
    device: cpu
";

#[test]
fn what_a_stage_did_not_make_is_moved_aside() {
    let project = Project::new();
    project.write("p.yaml", TINY.to_owned() + PICTURE);
    project.write("mine/grid.png", "a photograph");
    project.write("mine/quality/metrics.json", "figures of mine");
    let said = project.pipe(&["run", "p.yaml"]).succeeds();
    said.says(
        "mine/grid.png was there and not made by this stage; it is grid.before.png beside it",
    )
    .says("it is metrics.before.json beside it now");
    assert_eq!(project.read("mine/grid.before.png"), "a photograph");
    assert_eq!(project.read("mine/quality/metrics.before.json"), "figures of mine");
    // What the stage made itself is its own, whatever is asked for now.
    project.pipe(&["run", "p.yaml", "--set", "picture.n=2"]).succeeds();
    assert_eq!(project.list("mine"), ["grid.before.png", "grid.png", "quality"]);
}

#[test]
fn a_record_that_is_lost_leaves_no_copies_of_what_was_made() {
    let project = Project::new();
    project.write("p.yaml", TINY.to_owned() + PICTURE);
    project.pipe(&["run", "p.yaml"]).succeeds();
    let before = project.list("mine");
    std::fs::remove_dir_all(project.path(".pipe/records")).unwrap();
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(project.list("mine"), before, "the same bytes are made again");
}

#[test]
fn pictures_of_their_own_never_replace_a_photograph() {
    let project = Project::new();
    project.write("p.yaml", TINY);
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("photos/circle/000002.png", "a photograph");
    let best = "checkpoints/base_training/run_001";
    let ended = project.pipe(&["sample", best, "--seeds", "0-3", "-o", "photos"]).exits(2);
    ended.says("000002.png is there and is no sampled picture: name another folder");
    assert_eq!(project.list("photos/circle"), ["000002.png"]);
    project.pipe(&["sample", best, "--seeds", "0-3", "-o", "drawn"]).succeeds();
    // Its own pictures are replaced where they are made otherwise.
    let again = ["sample", best, "--seeds", "0-3", "-o", "drawn", "--steps", "2"];
    project.pipe(&again).succeeds();
}

#[test]
fn a_page_and_a_plan_replace_their_like_alone() {
    let project = Project::new();
    project.write("p.yaml", TINY);
    for (command, kind) in [("report", "page"), ("plan", "plan")] {
        let over = project.pipe(&[command, "p.yaml", "-o", "p.yaml"]).exits(2);
        over.says(&format!("p.yaml is there and is no {kind}: name another file, or remove it"));
        assert_eq!(project.read("p.yaml"), TINY);
        project.pipe(&[command, "p.yaml", "-o", "new/folder/result"]).succeeds();
        project.pipe(&[command, "p.yaml", "-o", "new/folder/result"]).succeeds();
        std::fs::remove_file(project.path("new/folder/result")).unwrap();
    }
    let over = project.pipe(&["export", "argo", "p.yaml", "--image", "i", "-o", "p.yaml"]).exits(2);
    over.says("is no workflow");
}

#[test]
fn a_place_that_takes_no_file_is_found_before_anything_is_sampled() {
    let project = Project::new();
    project.write("p.yaml", TINY);
    project.pipe(&["run", "p.yaml"]).succeeds();
    let best = "checkpoints/base_training/run_001";
    std::fs::create_dir(project.path("folder")).unwrap();
    let ended = project.pipe(&["sample", best, "--n", "10000", "-o", "folder"]).exits(2);
    ended.says("folder is a folder: name a file, in it or elsewhere");
    project.pipe(&["sample", best, "--n", "2", "--steps=2", "-o", "new/place/two.png"]).succeeds();
}

#[test]
fn a_file_where_a_folder_is_needed_is_told_by_the_plan() {
    for (key, stage) in [
        ("", "    checkpoint: { base_dir: taken/runs }\n"),
        ("picture.to: ", "  picture: { kind: sample, from: base, n: 1, to: taken/x.png }\n"),
        (
            "quality.to: ",
            "  quality: { kind: evaluate, from: base, dataset: data, metrics: [nearest], to: taken/q/r }\n",
        ),
    ] {
        let project = Project::new();
        project.write("p.yaml", format!("{TINY}{stage}"));
        project.pipe(&["plan", "p.yaml"]).succeeds();
        project.write("taken", "words");
        for command in ["plan", "run"] {
            let ended = project.pipe(&[command, "p.yaml"]).exits(2);
            ended.says(key).says("taken is a file, and a folder is needed there");
        }
        assert!(project.list("checkpoints").is_empty(), "nothing is trained before");
        assert_eq!(project.read("taken"), "words");
    }
}
