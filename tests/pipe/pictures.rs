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
    let fewer = project.pipe(&["run", "p.yaml", "--set", "drawn.seeds=0-1"]).succeeds();
    fewer.says("circle/mine.png is there and is no sampled picture");
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

const BEST: &str = "checkpoints/base_training/run_001/checkpoints/best.ckpt";
const GUIDE: &str = "
  guided:
    { kind: sample, from: base, to: guided, seeds: 0-1, steps: 2, device: cpu, guidance: 2,
      guide: { from: base, epoch: 1 } }
";

/// The texts that a picture has, joined.
fn texts(png: &[u8]) -> String {
    let reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let texts = &reader.info().uncompressed_latin1_text;
    texts.iter().map(|chunk| format!("{}={};", chunk.keyword, chunk.text)).collect()
}

#[test]
fn a_sampler_draws_otherwise_and_its_pictures_say_so() {
    let project = project(("", ""));
    project.pipe(&["run", "p.yaml"]).succeeds();
    let plain = files(&project.path("drawn"));
    let mut before = vec![plain.clone()];
    for (set, said) in [
        ("{ method: dpmpp_2m }", "method=dpmpp_2m;"),
        ("{ method: euler, churn: { amount: 1, to: 50 } }", "method=euler;churn=1;churn_to=50;"),
        ("{ sigma_max: 20, rho: 5 }", "sigma_max=20;rho=5;"),
    ] {
        let set = format!("drawn.sampler={set}");
        project.pipe(&["run", "p.yaml", "--set", &set]).succeeds().says("5 pictures");
        let drawn = files(&project.path("drawn"));
        let picture = &drawn["circle/000000.png"];
        assert!(texts(picture).contains(said), "{set}: {}", texts(picture));
        assert!(before.iter().all(|other| other["circle/000000.png"] != *picture), "{set}");
        project.pipe(&["run", "p.yaml", "--set", &set]).succeeds().says("up to date");
        before.push(drawn);
    }
    // The command draws the same as the stage, and without options what it drew before.
    let options = ["--sampler", "euler", "--churn", "1", "--churn-to", "50"];
    let draw = ["sample", BEST, "--seeds", "0-4", "--steps", "2", "--device", "cpu", "-o", "own"];
    project.pipe(&[&draw[..], &options].concat()).succeeds();
    assert!(files(&project.path("own")) == before[2]);
    project.pipe(&draw).succeeds();
    assert!(files(&project.path("own")) == plain);
}

#[test]
fn a_model_is_guided_by_what_it_was() {
    let project = project(("", ""));
    project.write("p.yaml", project.read("p.yaml") + GUIDE);
    let keep = "  base:\n    checkpoint: { keep_last_n: null }";
    project.write("p.yaml", project.read("p.yaml").replace("  base:", keep));
    project.pipe(&["run", "p.yaml"]).succeeds().says("2 pictures: guided");
    project.pipe(&["run", "p.yaml"]).succeeds().says("up to date");
    let guided = files(&project.path("guided"));
    assert!(texts(&guided["circle/000000.png"]).contains("guide="));
    let first = "checkpoints/base_training/run_001/checkpoints/epoch_001.ckpt";
    let draw = ["sample", BEST, "--seeds", "0-1", "--steps", "2", "--guidance", "2"];
    project.pipe(&[&draw[..], &["--guide", first, "-o", "own"]].concat()).succeeds();
    assert!(files(&project.path("own")) == guided);
    project.pipe(&[&draw[..], &["-o", "own"]].concat()).succeeds();
    assert!(files(&project.path("own")) != guided, "no guide, other pictures");

    // Another best checkpoint changes nothing for a guide of epoch 1, and another epoch does.
    project.pipe(&["run", "p.yaml", "--set", "guided.guide.epoch=2"]).succeeds().says("2 pictures");
    project.pipe(&["run", "p.yaml"]).succeeds().says("2 pictures");
    assert!(files(&project.path("guided")) == guided);

    // A file counts by its content.
    std::fs::copy(project.path(first), project.path("old.ckpt")).unwrap();
    let no_epoch = "guided.guide.epoch=null";
    let file = ["run", "p.yaml", "--set", "guided.guide.from=old.ckpt", "--set", no_epoch];
    project.pipe(&file).succeeds();
    assert!(texts(&files(&project.path("guided"))["circle/000000.png"]).contains("guide="));
    project.pipe(&file).succeeds().says("up to date");
    std::fs::copy(project.path(BEST), project.path("old.ckpt")).unwrap();
    project.pipe(&file).succeeds().says("2 pictures");
}

#[test]
fn a_guide_that_cannot_be_is_refused() {
    let project = project(("", ""));
    project.write("p.yaml", project.read("p.yaml") + GUIDE);
    project
        .pipe(&["check", "p.yaml", "--set", "guided.guide.epoch=7"])
        .exits(2)
        .says("there is no epoch 7");
    project
        .pipe(&["check", "p.yaml", "--set", "guided.guide={ from: a.ckpt, epoch: 1 }"])
        .exits(2)
        .says("no epoch beside a file");
    project
        .pipe(&["check", "p.yaml", "--set", "guided.guidance=1"])
        .succeeds()
        .says("guide changes nothing: guidance is 1");
    // Retention has let the first one go.
    project
        .pipe(&["run", "p.yaml", "--set", "base.checkpoint.keep_last_n=1"])
        .exits(2)
        .says("guide.epoch: stage base has no checkpoint of epoch 1")
        .says("keep_last_n: null");
    // A model of other classes.
    std::fs::copy(project.path(BEST), project.path("small.ckpt")).unwrap();
    let other = project.read("p.yaml").replace("[circle, square]", "[circle, triangle]");
    project.write("p.yaml", other);
    project.pipe(&["run", "p.yaml", "base"]).succeeds();
    let second = "checkpoints/base_training/run_002/checkpoints/best.ckpt";
    project
        .pipe(&["sample", second, "--guide", "small.ckpt", "--guidance", "2"])
        .exits(1)
        .says("its classes are circle, square, and not circle, triangle");
}

/// How often an enlarged image of 8 pixels is part of another one.
fn occurrences(shown: &Path, image: &Path) -> usize {
    use image::imageops::{FilterType, crop_imm, resize};
    let [shown, image] = [shown, image].map(|path| image::open(path).unwrap().to_rgb8());
    let large = resize(&image, 64, 64, FilterType::Nearest);
    let places =
        (0..=shown.height() - 64).flat_map(|y| (0..=shown.width() - 64).map(move |x| (x, y)));
    let is_there = |&(x, y): &(u32, u32)| {
        shown.get_pixel(x, y) == large.get_pixel(0, 0)
            && crop_imm(&shown, x, y, 64, 64).to_image() == large
    };
    places.filter(is_there).count()
}

#[test]
fn a_picture_of_a_grid_is_drawn_by_itself_by_its_number() {
    let project = project(("", ""));
    project.pipe(&["run", "p.yaml", "base"]).succeeds();
    let grid = ["sample", BEST, "--steps", "2", "--n", "5", "--seed", "3"];
    project.pipe(&[&grid[..], &["-o", "grid.png"]].concat()).succeeds();
    project.pipe(&[&grid[..], &["--numbers", "1,4", "-o", "own"]].concat()).succeeds();
    assert_eq!(project.list("own/circle"), ["000003_000001.png"]);
    assert_eq!(project.list("own/square"), ["000003_000004.png"]);
    let own = project.path("own/square/000003_000004.png");
    assert_eq!(occurrences(&project.path("grid.png"), &own), 1);
    project
        .pipe(&[&grid[..], &["--numbers", "5", "-o", "own"]].concat())
        .exits(2)
        .says("the grid has no image 5; its 5 images are 0 to 4");
}

#[test]
fn strips_show_how_images_come_to_be() {
    let strip = "
  strips: { kind: sample, from: base, to: strips.png, n: 3, steps: 6, strip: 4, device: cpu }
";
    let project = project(("", ""));
    project.write("p.yaml", project.read("p.yaml") + strip);
    project.pipe(&["run", "p.yaml"]).succeeds().says("3 images: strips.png");
    let draw = ["sample", BEST, "--steps", "6", "--n", "3", "--strip"];
    let own = ["sample", BEST, "--steps", "6", "--n", "3", "--numbers", "0-2", "-o", "own"];
    project.pipe(&own).succeeds();
    project.pipe(&[&draw[..], &["6", "-o", "six.png"]].concat()).succeeds();
    for name in ["circle/000000_000000.png", "circle/000000_000001.png", "square/000000_000002.png"]
    {
        let image = project.path("own").join(name);
        assert_eq!(occurrences(&project.path("strips.png"), &image), 1, "{name}");
        assert_eq!(occurrences(&project.path("six.png"), &image), 1, "{name}");
    }
    project
        .pipe(&[&draw[..], &["7"]].concat())
        .exits(2)
        .says("--strip 7: expected up to --steps, 6");
    let seven = ["check", "p.yaml", "--set", "strips.strip=7"];
    project.pipe(&seven).exits(2).says("strip").says("not more than `steps`");
}
