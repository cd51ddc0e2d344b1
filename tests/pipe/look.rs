//! What people look at: data sets before a training, pictures after it, and what is told of what
//! they leave out.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

use crate::project::Project;

const TINY_DATA: &str = "source: shapes\n    classes: [circle, square]\n    image_size: 8";

fn png(colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(12, 12, Rgb(colour)).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

const RED: [u8; 3] = [200, 20, 20];
const BLUE: [u8; 3] = [20, 20, 200];

/// The tiny pipeline on a folder of two classes, whose names are not ASCII.
fn folder() -> Project {
    let project =
        Project::with(TINY_DATA, "source: image_folder\n    root: food\n    image_size: 8");
    for n in 0..3 {
        project.write(&format!("food/Früchte/{n}.png"), png(RED));
    }
    for n in 0..2 {
        project.write(&format!("food/野菜/{n}.png"), png(BLUE));
    }
    project
}

fn picture(project: &Project, name: &str) -> RgbImage {
    image::open(project.path(name)).unwrap().to_rgb8()
}

#[test]
fn data_shows_counts_and_what_is_passed_over_without_training() {
    let project = folder();
    project.write("food/野菜/x.heic", "?");
    project.write("food/野菜/y.HEIC", "?");
    project.write("food/野菜/more/z.png", png(BLUE));
    let ended = project.pipe(&["data", "p.yaml"]).succeeds();
    let expected = "data: image_folder food, 8 x 8 pixels
  Class        Train
  ------------------
  Früchte      3
  野菜         2
  = 2 classes  5
  passed over: 2 .heic, 1 deeper folder
    deeper folder: `recursive: true` reads them
    .heic: this format is not read: convert the files to JPEG or PNG
";
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&ended.stdout()), sorted(expected), "{}", ended.stdout());
    assert!(project.list("checkpoints").is_empty());
    let json = project.pipe(&["data", "p.yaml", "--json"]).succeeds().stdout();
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(found[0]["stage"], "data");
    assert_eq!(
        found[0]["classes"][1],
        serde_json::json!({"name": "野菜", "train": 2, "validation": 0})
    );
    assert_eq!(found[0]["passed_over"].as_array().unwrap().len(), 2);
    assert_eq!(found[0]["bad"], serde_json::json!([]));
}

#[test]
fn data_names_every_bad_image_and_ends_with_an_error() {
    let project = folder();
    project.write("food/野菜/cut.png", &png(BLUE)[..40]);
    project.write("food/Früchte/empty.jpg", "");
    let ended = project.pipe(&["data", "p.yaml", "-o", "sheet.png"]).exits(1);
    for piece in ["野菜/cut.png: ", "Früchte/empty.jpg: ", "sheet.png"] {
        assert!(ended.stdout().contains(piece), "{piece} is missing in\n{}", ended.stdout());
    }
    ended.says("stage data: 2 images that cannot be read");
    assert!(project.path("sheet.png").is_file(), "the good images are drawn all the same");
    let json = project.pipe(&["data", "p.yaml", "--json"]).exits(1).stdout();
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(found[0]["bad"][0]["file"], "Früchte/empty.jpg");
}

#[test]
fn a_contact_sheet_shows_each_class_as_the_model_will_see_it() {
    let project = folder();
    let set = ["--set", "image_size=16"];
    project.pipe(&[&["data", "p.yaml", "-o", "sheet.png"], &set[..]].concat()).succeeds();
    let sheet = picture(&project, "sheet.png");
    // 16 pixels are shown as 64: three red images, two blue ones.
    for (colour, images) in [(RED, 3), (BLUE, 2)] {
        assert_eq!(sheet.pixels().filter(|pixel| pixel.0 == colour).count(), images * 64 * 64);
    }
    assert!(sheet.pixels().filter(|pixel| pixel.0 == [0; 3]).count() > 100, "names and a title");
    project.pipe(&["data", "p.yaml", "-o", "one.webp", "--each", "1"]).succeeds();
    let one = picture(&project, "one.webp");
    assert_eq!(one.pixels().filter(|pixel| pixel.0 == RED).count(), 64 * 64);
    assert!(project.list("checkpoints").is_empty(), "nothing is trained");
}

#[test]
fn a_sheet_can_show_the_augmentation_and_says_when_there_is_none() {
    let more = "source: shapes\n    image_size: 8\n    augmentation: { enabled: true, rotation_degrees: 90 }";
    let project = Project::with(TINY_DATA, more);
    project.pipe(&["data", "p.yaml", "-o", "plain.png"]).succeeds();
    project.pipe(&["data", "p.yaml", "-o", "turned.png", "--augmented"]).succeeds();
    let [plain, turned] = ["plain.png", "turned.png"].map(|name| picture(&project, name));
    assert!(plain != turned);
    let off = ["--set", "data.augmentation.enabled=false", "--augmented", "-o", "off.png"];
    let said = "its augmentation is not enabled";
    project.pipe(&[&["data", "p.yaml"], &off[..]].concat()).succeeds().says(said);
}

#[test]
fn data_looks_at_the_stages_that_are_meant_and_says_if_there_are_none() {
    let project = folder();
    let two = project.read("p.yaml")
        + "  other: { kind: dataset, source: trees, num_images: 12 }\n  c: { kind: command, run: echo }\n";
    project.write("p.yaml", two);
    let all = project.pipe(&["data", "p.yaml"]).succeeds();
    assert!(
        all.stdout().contains("data: image_folder")
            && all.stdout().contains("other: trees, 32 x 32")
    );
    let one = project.pipe(&["data", "p.yaml", "base"]).succeeds();
    assert!(
        one.stdout().contains("data: image_folder") && !one.stdout().contains("other:"),
        "what base needs"
    );
    project.pipe(&["data", "p.yaml", "c"]).exits(2).says("no stage of kind `dataset`");
    std::fs::remove_dir_all(project.path("food")).unwrap();
    project.pipe(&["data", "p.yaml"]).exits(1).says("stages.data.root: ").says("other: trees");
}

#[test]
fn a_sample_stage_is_warned_about_before_anything_runs() {
    let with = |sample: &str, model: &str| {
        let project = Project::with("model: { dim: 16,", &format!("model: {{ {model}dim: 16,"));
        let stage = format!(
            "  best: {{ kind: copy_best, from: base, to: best.ckpt }}\n  s: {{ kind: sample, from: best, to: s.png, {sample} }}\n"
        );
        project.write("p.yaml", project.read("p.yaml") + &stage);
        project.pipe(&["check", "p.yaml"])
    };
    with("n: 1", "")
        .succeeds()
        .says("1 images for 2 classes: the last 1 get none")
        .says("set n to 2 or more");
    with("n: 8, guidance: 2.0", "label_dropout: 0.0, ")
        .succeeds()
        .says("trained with label_dropout 0");
    with("n: 1, guidance: 2.0", "class_conditional: false, ")
        .succeeds()
        .says("changes nothing: the model knows no classes");
    with("n: 1, classes: [circle, hexagon]", "")
        .exits(2)
        .says("the model has no class `hexagon`; it has circle, square");
    with("n: 1, guidance: 1.0, classes: [circle]", "class_conditional: false, ")
        .exits(2)
        .says("the model knows no classes, so none is called `circle`");
    for (sample, model) in [
        ("n: 2, guidance: 2.0", ""),
        ("n: 1, classes: [circle]", ""),
        ("n: 1, classes: [Circle]", ""),
        ("n: 2", "label_dropout: 0.0, "),
    ] {
        let ended = with(sample, model).succeeds();
        assert!(!ended.stderr().contains("warning"), "{sample} {model}: {}", ended.stderr());
    }
    let to = "source: shapes\n    image_size: 8";
    let project = Project::with(TINY_DATA, to);
    project
        .write("p.yaml", project.read("p.yaml") + "  s: { kind: sample, from: base, to: s.gif }\n");
    project
        .pipe(&["check", "p.yaml"])
        .exits(2)
        .says("images are not written as .gif; name a .png, .jpg or .webp file");
}

#[test]
fn a_drawn_picture_has_the_kind_of_its_name_and_a_sensible_shape() {
    let project = Project::with("model: { dim: 16,", "model: { label_dropout: 0.0, dim: 16,");
    project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds();
    let checkpoint = "checkpoints/base_training/run_001/checkpoints/best.ckpt";
    let sample = |more: &[&str]| {
        let fixed = ["sample", checkpoint, "--steps", "1", "--device", "cpu"];
        project.pipe(&[&fixed[..], more].concat())
    };
    let ended =
        sample(&["-o", "x.jpg", "--guidance", "2"]).succeeds().says("trained with label_dropout 0");
    assert!(ended.stderr().contains("warning"));
    let bytes = std::fs::read(project.path("x.jpg")).unwrap();
    assert_eq!(image::guess_format(&bytes).unwrap(), ImageFormat::Jpeg);
    sample(&["-o", "square.png", "--class", "circle", "--n", "64"]).succeeds();
    let square = picture(&project, "square.png");
    assert!(square.width() < 700 && square.height() < 750, "{:?}", square.dimensions());
    let few = sample(&["-o", "few.png", "--n", "1"]).succeeds().says("1 of 2 classes are sampled");
    assert!(few.stderr().contains("warning"));
    sample(&["-o", "x.gif"]).exits(2).says("--output x.gif: images are not written as .gif");
    sample(&["-o", "x"]).exits(2).says("--output x: name a .png, .jpg or .webp file");
    assert!(!project.path("x.gif").exists());
    let nothing = ["sample", "no_such.ckpt", "-o", "x.txt"];
    project.pipe(&nothing).exits(2).says(".txt");
}

#[test]
fn a_training_of_very_many_classes_says_which_part_its_pictures_show() {
    let images = "source: image_folder\n    root: many\n    image_size: 8";
    let project = Project::with(TINY_DATA, images);
    project.write("p.yaml", project.read("p.yaml") + "    sample_every_n_epochs: 1\n");
    for class in 0..66 {
        project.write(&format!("many/class_{class:02}/a.png"), png(RED));
    }
    let run = ["run", "p.yaml", "--epochs", "1", "--set", "base.batch_size=66"];
    project.pipe(&run).succeeds().says("samples/epoch_001.png: 64 of 66 classes");
    let drawn = picture(&project, "checkpoints/base_training/run_001/samples/epoch_001.png");
    let (long, short) = (drawn.width().max(drawn.height()), drawn.width().min(drawn.height()));
    assert!(long < 2 * short, "{long} x {short}");
}
