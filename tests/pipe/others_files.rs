//! Files of somebody else where a result is to be written: nothing is lost, and nothing is computed
//! for a place that cannot take it.

use std::process::Command;

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
fn what_was_changed_since_a_stage_made_it_is_moved_aside_too() {
    let project = Project::new();
    let each = PICTURE.replace("from: base", "from: base, each_checkpoint: true");
    let each = each.replace("from: base, each_checkpoint: true\n", "from: base\n");
    project.write("p.yaml", TINY.to_owned() + &each);
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    project.write("mine/grid_epoch_002.png", "a photograph");
    let plan = project.pipe(&["plan", "p.yaml", "--epochs", "3"]).succeeds();
    plan.says("mine/grid_epoch_002.png is not there, or was changed");
    project.write("mine/grid_epoch_003.png", "another");
    project.write("mine/quality/metrics.json", "figures of mine");
    // Another run of fewer epochs: one is in its way, one was nearly removed as the first run's.
    let ran = ["run", "p.yaml", "--epochs", "2", "--learning-rate", "5e-3"];
    let said = project.pipe(&ran).succeeds();
    said.says("mine/grid_epoch_002.png was there and not made by this stage")
        .says("mine/grid_epoch_003.png is not as this stage left it, so it stays")
        .says("mine/quality/metrics.json was there");
    assert_eq!(project.read("mine/grid_epoch_002.before.png"), "a photograph");
    assert_eq!(project.read("mine/grid_epoch_003.png"), "another");
    assert_eq!(project.read("mine/quality/metrics.before.json"), "figures of mine");
    project.pipe(&ran).succeeds().says("everything is up to date");
}

#[test]
fn an_archive_of_pictures_replaces_its_like_alone() {
    let project = Project::new();
    let picture = "  picture: { kind: sample, from: base, to: many.zip, seeds: 0-1, steps: 2, device: cpu }\n";
    project.write("p.yaml", TINY.to_owned() + picture);
    project.write("many.zip", "holidays");
    let said = project.pipe(&["run", "p.yaml"]).succeeds();
    said.says("many.zip was there and not made by this stage; it is many.before.zip beside it");
    assert_eq!(project.read("many.before.zip"), "holidays");
    let made = std::fs::read(project.path("many.zip")).unwrap();
    project.pipe(&["run", "p.yaml", "--set", "picture.steps=3"]).succeeds();
    assert!(!project.path("many.before-2.zip").exists(), "its own is replaced");
    project.pipe(&["run", "p.yaml"]).succeeds();
    std::fs::remove_dir_all(project.path(".pipe/records")).unwrap();
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert!(std::fs::read(project.path("many.zip")).unwrap() == made);
    assert!(!project.path("many.before-2.zip").exists(), "the same bytes were made again");
}

#[test]
fn a_place_that_is_left_and_come_back_to_has_nothing_of_before() {
    let project = Project::new();
    let each = "  quality: { kind: evaluate, from: base, each_checkpoint: true, dataset: data, to: quality, metrics: [nearest], seeds: 0-1, steps: 2, device: cpu }\n";
    project.write("p.yaml", TINY.to_owned() + each);
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    let other = ["run", "p.yaml", "--epochs", "2", "--learning-rate", "5e-3"];
    project.pipe(&[&other[..], &["--set", "quality.to=elsewhere"]].concat()).succeeds();
    let said = project.pipe(&other).succeeds();
    assert!(!said.stderr().contains("was there"), "{}", said.stderr());
    assert_eq!(project.list("quality"), ["epoch_001", "epoch_002", "metrics.json"]);
}

#[test]
fn pictures_that_a_judge_drew_before_are_not_left_among_todays() {
    let project = Project::new();
    project.write("p.yaml", TINY.to_owned() + PICTURE);
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("mine/quality/pictures/circle/holiday.png", "a photograph");
    let fewer = ["run", "p.yaml", "--set", "quality.seeds=0-1", "--learning-rate", "5e-3"];
    project.pipe(&fewer).succeeds();
    assert_eq!(project.list("mine/quality/pictures/circle"), ["000000.png", "holiday.png"]);
    assert_eq!(project.list("mine/quality/pictures/square"), ["000001.png"]);
}

#[test]
fn files_are_those_of_the_stage_that_made_them_last() {
    let project = Project::new();
    let stages = |end: &str| {
        let best = "  best: { kind: copy_best, from: base, to: best.ckpt }\n";
        let all = TINY.to_owned() + PICTURE + best;
        ["picture:", "quality:", "best:"].iter().fold(all, |all, name| {
            all.replace(&format!("  {name}"), &format!("  {}_{end}:", name.trim_end_matches(':')))
        })
    };
    project.write("p.yaml", stages("a"));
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("p.yaml", stages("b"));
    project.pipe(&["run", "p.yaml", "--learning-rate", "5e-3"]).succeeds();
    let aside = |name: &String| name.contains("before");
    assert!(!project.list("mine").iter().any(aside), "{:?}", project.list("mine"));
    project.pipe(&["verify"]).succeeds();
    project.pipe(&["report", "-o", "page.html"]).succeeds();
    let page = project.read("page.html");
    assert!(page.contains("picture_b") && !page.contains("\"stage\":\"picture_a\""));
    project
        .write("mine/grid.png", std::fs::read(project.path("mine/quality/nearest.png")).unwrap());
    project.pipe(&["report", "-o", "page.html"]).succeeds();
    assert!(!project.read("page.html").contains("\"path\":\"mine/grid.png\""), "it is mine");
}

#[test]
fn stages_that_exchange_their_places_leave_what_an_empty_folder_gets() {
    let stages = |[a, b, c, d, e, f]: [&str; 6]| {
        format!(
            "{TINY}
  many: {{ kind: sample, from: base, to: {a}, seeds: 0-5, steps: 2, device: cpu }}
  few: {{ kind: sample, from: base, to: {b}, seeds: 10-11, classes: [circle], steps: 2, device: cpu }}
  each: {{ kind: sample, from: base, each_checkpoint: true, to: {c}, seeds: 0-1, steps: 2, device: cpu }}
  one: {{ kind: sample, from: base, to: {d}, seeds: 7-9, steps: 2, device: cpu }}
  grids: {{ kind: sample, from: base, each_checkpoint: true, to: {e}, n: 2, steps: 2, device: cpu }}
  grid: {{ kind: sample, from: base, to: {f}, n: 2, steps: 2, device: cpu, seed: 9 }}
"
        )
    };
    let now = stages(["out/A", "out/B", "out/C", "out/D", "out/E/g.png", "out/F/g.png"]);
    let before = stages(["out/B", "out/A", "out/D", "out/C", "out/F/g.png", "out/E/g.png"]);
    let files = |project: &Project| {
        let mut find = Command::new("find");
        let found = find.args(["out", "-type", "f"]).current_dir(project.path("")).output();
        let text = String::from_utf8(found.unwrap().stdout).unwrap();
        let mut files: Vec<String> = text.lines().map(str::to_owned).collect();
        files.sort();
        files
    };
    let straight = Project::new();
    straight.write("p.yaml", &now);
    straight.pipe(&["run", "p.yaml"]).succeeds();
    for jobs in ["1", "4"] {
        let project = Project::new();
        project.write("p.yaml", &before);
        project.pipe(&["run", "p.yaml", "--jobs", jobs]).succeeds();
        project.write("p.yaml", &now);
        project.pipe(&["run", "p.yaml", "--jobs", jobs]).succeeds();
        assert_eq!(files(&project), files(&straight), "--jobs {jobs}");
        project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
        project.pipe(&["verify"]).succeeds();
    }
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

/// A PNG of one colour, as a camera would leave it.
fn photograph() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(9, 9, image::Rgb([200, 99, 0]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn a_command_replaces_what_a_sampling_made_alone() {
    let project = Project::new();
    let picture = "  picture: { kind: sample, from: base, to: drawn.png, n: 2, steps: 2 }\n";
    project.write("p.yaml", TINY.to_owned() + picture);
    project.pipe(&["run", "p.yaml"]).succeeds();
    let best = "checkpoints/base_training/run_001";
    for (name, wanted) in [
        ("note.png", "--n=2"),
        ("note.jpg", "--n=2"),
        ("note.webp", "--n=2"),
        ("note.zip", "--seeds=0-1"),
        ("note.npz", "--seeds=0-1"),
    ] {
        let draw = ["sample", best, wanted, "-o", name, "--steps"];
        for foreign in [photograph(), b"words".to_vec()] {
            project.write(name, &foreign);
            let ended = project.pipe(&[&draw[..], &["2"]].concat()).exits(2);
            ended.says(&format!("{name} is there and is not marked as sampled: name another file"));
            assert!(std::fs::read(project.path(name)).unwrap() == foreign, "{name}");
        }
        std::fs::remove_file(project.path(name)).unwrap();
        for steps in ["2", "3"] {
            project.pipe(&[&draw[..], &[steps]].concat()).succeeds();
        }
    }
    project.pipe(&["sample", best, "--n=2", "--steps=3", "-o", "drawn.png"]).succeeds();
    // A picture among those of an archive that nobody sampled.
    let mut zip = zip::ZipWriter::new(std::fs::File::create(project.path("note.zip")).unwrap());
    zip.start_file("a.png", zip::write::SimpleFileOptions::default()).unwrap();
    std::io::Write::write_all(&mut zip, &photograph()).unwrap();
    zip.finish().unwrap();
    let over = ["sample", best, "--seeds=0-1", "--steps=2", "-o"];
    project.pipe(&[&over[..], &["note.zip"]].concat()).exits(2).says("is not marked as sampled");
    project.write("words", "words");
    project.pipe(&[&over[..], &["words"]].concat()).exits(2).says("words is a file: name a folder");
    assert_eq!(project.read("words"), "words");
}

#[test]
fn a_command_draws_into_no_class_folder_of_a_data_set() {
    let project = Project::new();
    project.write("p.yaml", TINY);
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("photos/circle/mine.png", photograph());
    project.write("photos/square/words.txt", "words");
    let best = "checkpoints/base_training/run_001";
    let draw = ["sample", best, "--seeds", "0-3", "--steps", "2", "-o", "photos"];
    project
        .pipe(&draw)
        .exits(2)
        .says("photos/circle/mine.png is there and is no sampled picture: name another folder");
    assert_eq!(project.list("photos/circle"), ["mine.png"]);
    assert_eq!(project.list("photos/square"), ["words.txt"]);
    std::fs::remove_file(project.path("photos/circle/mine.png")).unwrap();
    project.pipe(&draw).succeeds();
    project.pipe(&draw).succeeds().says("4 of 4 pictures were there already");
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
