//! Real formats from the pipeline file: CIFAR archives made by someone else, folders of images, and
//! no network.

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::project::Project;

const RUN: &str = "checkpoints/base_training/run_001";

/// A binary CIFAR archive of `records` images a file; 100 classes have a coarse label in front of
/// the fine one.
fn cifar(hundred: bool, records: usize) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content).unwrap();
    };
    let classes = if hundred { 100 } else { 10 };
    let record = |i: usize| {
        let mut bytes = if hundred { vec![0] } else { vec![] };
        bytes.push((i % classes) as u8);
        bytes.extend((0..3072).map(|p| (p * 7 + i * 13) as u8));
        bytes
    };
    let batch: Vec<u8> = (0..records).flat_map(record).collect();
    if hundred {
        add("cifar-100-binary/train.bin", &batch);
        add("cifar-100-binary/test.bin", &batch);
    } else {
        for i in 1..=5 {
            add(&format!("cifar-10-batches-bin/data_batch_{i}.bin"), &batch);
        }
        add("cifar-10-batches-bin/test_batch.bin", &batch);
    }
    archive.into_inner().unwrap().finish().unwrap()
}

fn project(source: &str) -> Project {
    let from = "source: shapes\n    classes: [circle, square]\n    image_size: 8";
    Project::with(from, &format!("source: {source}\n    download: false\n    image_size: 8"))
}

#[test]
fn training_sees_groups_of_classes_as_its_classes() {
    let project = Project::with(
        "    classes: [circle, square]\n",
        "    groups: { round: [circle, ring, 7], pointy: [star, triangle] }\n",
    );
    project.pipe(&["data", "p.yaml"]).succeeds().says("pointy").says("= 2 classes");
    project.pipe(&["run", "p.yaml"]).succeeds().says("images in 2 classes");
    assert_eq!(project.metadata(RUN)["dataset"]["classes"], serde_json::json!(["pointy", "round"]));
    let sample = ["sample", RUN, "--n", "2", "--steps", "2", "--device", "cpu", "--class"];
    project.pipe(&[&sample[..], &["round"]].concat()).succeeds();
    project.pipe(&[&sample[..], &["ring"]].concat()).exits(2).says("it has pointy, round");
    project.pipe(&["plan", "p.yaml"]).succeeds().says("up to date");
    let other = ["plan", "p.yaml", "--set", "data.groups.round=[circle, ring]"];
    project.pipe(&other).succeeds().says("new run_002");
}

#[test]
fn cifar10_is_loaded_trained_and_listed() {
    let project = project("cifar10");
    project.write("data/cifar-10-binary.tar.gz", cifar(false, 20));
    project
        .pipe(&["run", "p.yaml"])
        .succeeds()
        .says("cifar10, 100 images in 10 classes at 8 x 8 pixels");
    let metadata = project.metadata(RUN);
    assert_eq!(metadata["dataset"]["train_images"], 100);
    assert_eq!(metadata["dataset"]["classes"][9], "truck");
    project.pipe(&["runs", "show", "1"]).succeeds().says("cifar10, 100 training");
}

#[test]
fn the_trees_of_cifar100() {
    let project = Project::with(
        "source: shapes\n    classes: [circle, square]",
        "source: cifar100\n    classes: trees\n    download: false",
    );
    project.write("data/cifar-100-binary.tar.gz", cifar(true, 400));
    project.pipe(&["run", "p.yaml"]).succeeds().says("20 images in 5 classes");
    let classes = project.metadata(RUN)["dataset"]["classes"].clone();
    assert_eq!(
        classes,
        serde_json::json!(["maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"])
    );
}

#[test]
fn a_cut_archive_names_the_file() {
    let project = project("cifar10");
    let whole = cifar(false, 20);
    project.write("data/cifar-10-binary.tar.gz", &whole[..whole.len() / 2]);
    project.pipe(&["run", "p.yaml"]).exits(1).says("cifar-10-binary.tar.gz");
    assert!(project.list("checkpoints").is_empty(), "no run is begun without data");
}

#[test]
fn without_data_the_address_and_the_place_are_named() {
    let ended = project("cifar10").pipe(&["run", "p.yaml"]).exits(1);
    ended
        .says("cifar-10-binary.tar.gz")
        .says("www.cs.toronto.edu")
        .says("data/cifar-10-binary.tar.gz");
}

#[test]
fn the_flag_chooses_the_source_in_any_case() {
    let arguments = ["run", "p.yaml", "--dataset", "CIFAR10", "--set", "data.download=false"];
    let project = Project::with("    classes: [circle, square]\n", "");
    project.pipe(&arguments).exits(1).says("data/cifar-10-binary.tar.gz");
    let project =
        Project::with("source: shapes\n    classes: [circle, square]", "source: ${params.dataset}");
    let with_parameter =
        project.read("p.yaml").replace("{ epochs: 2 }", "{ epochs: 2, dataset: shapes }");
    project.write("p.yaml", with_parameter);
    project.pipe(&arguments).exits(1).says("data/cifar-10-binary.tar.gz");
}

#[test]
fn a_folder_of_images() {
    let project = project("image_folder\n    root: pictures\n    val_split: 0.25");
    for (class, shade) in [("dark", 40u8), ("light", 220)] {
        for i in 0..20u8 {
            let image = image::RgbImage::from_fn(20, 14, |x, y| {
                image::Rgb([shade, x as u8 * 5 + i, y as u8 * 9])
            });
            let mut png = std::io::Cursor::new(Vec::new());
            image.write_to(&mut png, image::ImageFormat::Png).unwrap();
            project.write(&format!("pictures/{class}/{i}.png"), png.into_inner());
        }
    }
    project
        .pipe(&["run", "p.yaml"])
        .succeeds()
        .says("30 images and 10 for validation in 2 classes");
}

#[test]
fn archives_made_by_another_program_are_listed_and_trained_on() {
    let Ok(python) = std::env::var("PIPE_TEST_PYTHON") else {
        eprintln!("skipped: PIPE_TEST_PYTHON is not set");
        return;
    };
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipe/make_cifar.py");
    for (source, said) in [
        ("cifar10", "cifar10, 100 images in 10 classes"),
        ("cifar100", "cifar100, 30 images in 5 classes"),
    ] {
        let classes = if source == "cifar100" { "\n    classes: trees" } else { "" };
        let project = project(&format!("{source}{classes}"));
        let made =
            std::process::Command::new(&python).arg(&script).arg(project.path("data")).status();
        assert!(made.unwrap().success());
        project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds().says(said);
        let metadata = project.metadata("checkpoints/base_training/run_001");
        let names = metadata["dataset"]["classes"].as_array().unwrap();
        assert_eq!(names[0], if source == "cifar10" { "airplane" } else { "maple_tree" });
    }
}
