//! `pipe init`: a project that is valid and runs, and nothing of the user's is touched.

use crate::advice::{after, small, typed};
use crate::project::Project;

#[test]
fn each_template_is_a_valid_project() {
    let templates = [
        ("base", "base_training"),
        ("chain", "base_to_lora"),
        ("folder", "image_folder"),
        ("sweep", "sweep"),
        ("diffit", "diffit"),
        ("cifar", "cifar_to_trees"),
    ];
    for (template, file) in templates {
        let project = Project::new();
        let ended = project.pipe(&["init", "new", "--template", template]).succeeds();
        let file = format!("pipelines/{file}.yaml");
        ended.says(&format!("next: cd new && pipe run {file}"));
        let mut check = project.command(&["check", &file]);
        let output = check.current_dir(project.path("new")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // The line for editors leads to a file that is there.
        let text = project.read(&format!("new/{file}"));
        assert!(
            text.starts_with("# yaml-language-server: $schema=../schemas/pipeline.schema.json")
        );
        assert!(project.list("new/schemas").contains(&"pipeline.schema.json".to_owned()));
        project.pipe(&["init", "new", "--template", template]).succeeds();
    }
}

#[test]
fn a_shipped_pipeline_that_is_not_there_is_one_command_away() {
    let project = Project::new();
    project.pipe(&["init"]).succeeds();
    for typed in ["sweep", "sweep.yaml", "pipelines/sweep.yaml"] {
        let refused = project.pipe(&["plan", typed]).exits(2);
        refused
            .says("no such file")
            .says("`pipe init --template sweep` puts it into the project here");
    }
    project.pipe(&["init", "--template", "sweep"]).succeeds();
    project.pipe(&["plan", "sweep"]).succeeds();
    // A folder that is named is meant.
    project.pipe(&["plan", "mine/sweep.yaml"]).exits(2).says("mine/sweep.yaml: no such file");
}

#[test]
fn files_that_are_there_stay() {
    let project = Project::new();
    project.write(".gitignore", "mine\n");
    project.write("pipelines/base_training.yaml", "mine\n");
    project.pipe(&["init"]).exits(2).says("pipelines/base_training.yaml").says("move them away");
    assert_eq!(project.list("configs"), [""; 0]);
    project
        .pipe(&["init", "--template", "chain"])
        .succeeds()
        .says("next: pipe run pipelines/base_to_lora.yaml");
    assert_eq!(project.read(".gitignore"), "mine\n");
    assert_eq!(project.read("pipelines/base_training.yaml"), "mine\n");
}

#[test]
fn a_new_project_trains_on_its_users_images() {
    let project = Project::new();
    project.pipe(&["init", "--template", "chain"]).succeeds();
    for (class, shade) in [("cats", 40), ("dogs", 200)] {
        for i in 0..8u8 {
            let path = project.path(&format!("data/pets/{class}/{i}.png"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::from_pixel(20, 16, image::Rgb([shade, 10 * i, 90]))
                .save(path)
                .unwrap();
        }
    }
    let tiny = "base.model={ dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }";
    let sets = [
        "lora_source=image_folder",
        "lora_root=data/pets",
        "base_epochs=1",
        "lora_epochs=1",
        "image_size=8",
        "data.num_images=32",
        "lora.batch_size=8",
        "lora_samples.n=4",
        "base_samples.n=3",
        tiny,
    ];
    let mut arguments = vec!["run", "pipelines/base_to_lora.yaml"];
    sets.iter().for_each(|set| arguments.extend(["--set", *set]));
    project.pipe(&arguments).succeeds().says("LoRA Fine-tuning - Run 001");
    assert!(image::open(project.path("samples/lora.png")).is_ok());
}

/// Writes pictures of 20 x 16 pixels, so that 16 are proposed.
fn pictures(project: &Project, folder: &str, count: u8) {
    for i in 0..count {
        let path = project.path(&format!("{folder}/{i}.png"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(20, 16, image::Rgb([200, 3 * i, 90])).save(path).unwrap();
    }
}

/// Without the pipeline that every project of the tests has.
fn empty() -> Project {
    let project = Project::new();
    std::fs::remove_file(project.path("p.yaml")).unwrap();
    project
}

#[test]
fn pictures_of_ones_own_are_looked_at_and_trained_on_as_it_says() {
    let project = small(empty());
    pictures(&project, "my photos/cats", 30);
    pictures(&project, "my photos/dogs", 25);
    project.write("my photos/dogs/notes.txt", "no picture");
    project.write("my photos/empty/notes.txt", "no picture");
    project.write("my photos/dogs/broken.png", "no picture");
    let said = project.pipe(&["init", "pets", "--images", "my photos"]).succeeds().stdout();
    for piece in [
        "56 pictures in ",
        "2 classes: cats (30), dogs (26)",
        "passed over: 2 .txt",
        "folders without pictures, left out: empty",
        "1 picture cannot be read",
        "dogs/broken.png: it is neither JPEG",
        "image_size 16      about the size of the pictures",
        "epochs 1500        1,500 steps; 50 epochs would be 50, which are few",
        "6 pictures are kept aside",
        "s a step, as the first few took just now",
        "wrote pets/pipelines/pets.yaml",
    ] {
        assert!(said.contains(piece), "no {piece:?} in\n{said}");
    }
    let next = after(&said, "next: ");
    assert_eq!(next, "cd pets && pipe run");
    std::fs::remove_file(project.path("my photos/dogs/broken.png")).unwrap();
    typed(&project, "", &next);
    assert!(image::open(project.path("pets/samples/pets.png")).is_ok());
    assert_eq!(project.metadata("pets/checkpoints/pets/run_001")["best_checkpoint"]["epoch"], 1);
    typed(&project, "", &(after(&said, "in a tenth of the time: ") + " --dry-run"));
    // What the file itself tells to type.
    let text = project.read("pets/pipelines/pets.yaml");
    let lines = text.lines().filter_map(|line| line.strip_prefix("#   "));
    let lines: Vec<&str> = lines.map(|line| line.split("  #").next().unwrap()).collect();
    assert_eq!(lines.len(), 2);
    lines.iter().for_each(|line| drop(typed(&project, "pets", line)));
    for kind in ["dataset", "train"] {
        assert!(text.contains(&format!("`pipe schema {kind}`")));
        typed(&project, "", &format!("pipe schema {kind}"));
    }
    // Nothing is written over.
    project.pipe(&["init", "pets", "--images", "my photos"]).exits(2).says("holds files of these");
    assert_eq!(project.read("pets/pipelines/pets.yaml"), text);
}

#[test]
fn pictures_are_found_however_they_lie() {
    let project = empty();
    // Without classes, inside the project; few.
    pictures(&project, "flat/data", 3);
    let mut command = project.command(&["init", "--images", "data"]);
    let ended = command.current_dir(project.path("flat")).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(said.contains("there are few pictures, 3: a model learns them by heart"), "{said}");
    assert!(said.contains("next: pipe run"), "{said}");
    let text = project.read("flat/pipelines/flat.yaml");
    for line in ["root: data\n", "class_conditional: false", "batch_size: 4", "monitor: train_loss"]
    {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    assert!(!text.contains("val_split") && !text.contains("guidance"), "{text}");
    project.pipe(&["check", "flat/pipelines/flat.yaml"]).succeeds();
    // In parts, inside a folder around everything, with folders in the classes' folders.
    for (part, count) in [("train", 26), ("test", 2)] {
        pictures(&project, &format!("around/all/{part}/a"), count);
        pictures(&project, &format!("around/all/{part}/b/deeper"), count);
    }
    let ended = project.pipe(&["init", "parts", "--images", "around"]).succeeds();
    ended.says("2 classes: a (26), b (26)");
    let text = project.read("parts/pipelines/parts.yaml");
    assert!(text.contains("around/all/train\n") && text.contains("recursive: true"), "{text}");
    project.pipe(&["data", "parts"]).succeeds().says("= 2 classes");
    // Folders that are classes, each of several: whose names those are is asked, not guessed.
    for class in ["pens/red", "pens/blue", "cups/big", "cups/small"] {
        pictures(&project, &format!("many/{class}"), 3);
    }
    let ended = project.pipe(&["init", "sets", "--images", "many"]).succeeds();
    ended.says("cups holds 2 folders, whose pictures are of one class here").says("many/cups");
    // In a zip file, of very long pictures.
    let mut zip = zip::ZipWriter::new(std::fs::File::create(project.path("my.zip")).unwrap());
    let long = image::RgbImage::from_pixel(48, 16, image::Rgb([9, 9, 9]));
    let mut png = std::io::Cursor::new(Vec::new());
    long.write_to(&mut png, image::ImageFormat::Png).unwrap();
    for name in ["x/1.png", "y/1.png"] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, png.get_ref()).unwrap();
    }
    zip.finish().unwrap();
    project
        .pipe(&["init", "zipped", "--images", "my.zip"])
        .succeeds()
        .says("x (1), y (1)")
        .says("the smallest class, x, has few pictures, 1:");
    assert!(project.read("zipped/pipelines/zipped.yaml").contains("fit: pad"));
    project.pipe(&["data", "zipped"]).succeeds().says("= 2 classes");
}

#[test]
fn what_holds_no_pictures_is_refused_and_nothing_is_written() {
    let project = empty();
    project.write("heic/1.heic", "");
    project.write("file.txt", "");
    project.write("bad/1.png", "no picture");
    pictures(&project, "photos", 2);
    for (images, what) in [
        ("gone", "failed to find the pictures gone"),
        ("heic", "holds no pictures, but 1 .heic"),
        ("file.txt", "is a file; name a folder of pictures, or a .zip or .parquet file"),
        ("bad", "none of the pictures in bad can be read"),
    ] {
        project.pipe(&["init", "new", "--images", images]).exits(2).says(what);
    }
    assert_eq!(project.list("new"), [""; 0]);
    let ended = project.pipe(&["init", "photos/new", "--images", "photos"]).exits(2);
    ended.says("lies in its own pictures");
    let both = ["init", "new", "--images", "photos", "--template", "chain"];
    project.pipe(&both).exits(2).says("cannot be used with");
}
