use super::*;
use crate::architecture::{Architectures, ModelConfig, Network};
use crate::diffusion::{Churn, Method};
use crate::sampling::GridRequest;

fn request(seeds: &str, classes: &[&str]) -> PictureRequest {
    PictureRequest {
        which: Which::Seeds(seeds.parse().unwrap()),
        classes: classes.iter().map(|class| class.to_string()).collect(),
        sampler: Sampler { steps: 2, ..Sampler::default() },
        batch_size: 2,
        source: vec![("checkpoint", "abc".to_owned())],
    }
}

fn model(classes: usize) -> (Network, ModelConfig, Vec<String>) {
    let text = format!(
        r#"{{"dim": 16, "mults": [1, 2], "depths": [1, 1], "heads": 2, "window": 4, "image_size": 8,
             "channels": 3, "num_classes": {classes}}}"#
    );
    let config = Architectures::builtin().read(serde_json::from_str(&text).unwrap()).unwrap();
    let net = config.init(7, &Device::flex()).unwrap();
    (net, config, ["oak", "fir"].map(str::to_owned)[..classes].into())
}

fn view<'a>(net: &'a Network, config: &'a ModelConfig, class_names: &'a [String]) -> ModelView<'a> {
    ModelView { net, guide: None, config, class_names }
}

/// How many were made, and how many were there.
fn write(request: &PictureRequest, target: &Target, classes: usize) -> [u64; 2] {
    let (net, config, names) = model(classes);
    let disk = Disk::default();
    let parts = view(&net, &config, &names);
    let written = request.write(&disk, target, parts, &Device::flex(), |_, _| true);
    let written = written.unwrap().unwrap();
    [written.files.len() as u64 - written.kept, written.kept]
}

#[test]
fn a_seed_is_the_same_picture_whatever_is_sampled_with_it() {
    let place = tempfile::tempdir().unwrap();
    let all = Target::Folder(place.path().join("all"));
    let one = Target::Folder(place.path().join("one"));
    assert_eq!(write(&request("0-4", &[]), &all, 2), [5, 0]);
    let few = PictureRequest { batch_size: 7, ..request("3,0", &[]) };
    assert_eq!(write(&few, &one, 2), [2, 0]);
    for name in ["fir/000003.png", "oak/000000.png"] {
        let read = |target: &Target| std::fs::read(target.path().join(name)).unwrap();
        assert!(read(&all) == read(&one), "{name}");
    }
    let other = Target::Folder(place.path().join("other"));
    write(&request("4", &["fir"]), &other, 2);
    assert!(other.path().join("fir/000004.png").exists(), "the class that was named");
}

#[test]
fn pictures_that_are_there_are_not_made_again_and_others_are() {
    let place = tempfile::tempdir().unwrap();
    let folder = Target::Folder(place.path().join("p"));
    write(&request("0-2", &[]), &folder, 2);
    let first = folder.path().join("oak/000000.png");
    let made = std::fs::read(&first).unwrap();
    assert_eq!(write(&request("0-4", &[]), &folder, 2), [2, 3]);
    std::fs::write(&first, &made[..made.len() / 2]).unwrap();
    assert_eq!(write(&request("0-4", &[]), &folder, 2), [1, 4]);
    assert!(std::fs::read(&first).unwrap() == made, "half of a picture is made again");
    let guided = Sampler { steps: 2, guidance: 2.0, ..Sampler::default() };
    let guided = PictureRequest { sampler: guided, ..request("0-4", &[]) };
    assert_eq!(write(&guided, &folder, 2), [5, 0]);
}

#[test]
fn a_file_of_all_pictures_is_made_in_pieces_too() {
    let place = tempfile::tempdir().unwrap();
    let (net, config, names) = model(2);
    let folder = Target::Folder(place.path().join("p"));
    write(&request("0-4", &[]), &folder, 2);
    let file = place.path().join("all.zip");
    let target = Target::Zip(file.clone());
    let stop_in_second = |done: u64, _| done < 4;
    let parts = view(&net, &config, &names);
    let disk = Disk::default();
    let request = request("0-4", &[]);
    let stopped = request.write(&disk, &target, parts, &Device::flex(), stop_in_second);
    assert_eq!(stopped.unwrap(), None);
    assert!(!file.exists());
    assert_eq!(write(&request, &target, 2), [3, 2]);
    assert!(!target.folder().exists());
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&file).unwrap()).unwrap();
    assert_eq!(archive.len(), 6);
    let mut bytes = Vec::new();
    io::copy(&mut archive.by_name("fir/000003.png").unwrap(), &mut bytes).unwrap();
    assert!(bytes == std::fs::read(folder.path().join("fir/000003.png")).unwrap());
    let npz = Target::Npz(place.path().join("all.npz"));
    write(&request, &npz, 2);
    assert_eq!(zip::ZipArchive::new(std::fs::File::open(npz.path()).unwrap()).unwrap().len(), 2);
}

#[test]
fn without_classes_pictures_have_numbers_alone() {
    let place = tempfile::tempdir().unwrap();
    let folder = Target::Folder(place.path().join("p"));
    write(&request("12", &[]), &folder, 0);
    assert!(folder.path().join("000012.png").exists());
}

#[test]
fn classes_have_folders_that_every_file_system_takes() {
    let of = |names: &[&str]| {
        let classes: Vec<_> =
            names.iter().enumerate().map(|(label, name)| (label, name.to_string())).collect();
        folder_names(&classes)
    };
    assert_eq!(of(&["oak", "a/b", "..", "野菜 "]), ["oak", "a_b", "_", "野菜"]);
    assert_eq!(of(&["a/b", "A_b", "c"]), ["a_b 0", "A_b 1", "c"]);
}

#[test]
fn with_churn_too_a_seed_is_the_same_picture_whatever_is_sampled_with_it() {
    let place = tempfile::tempdir().unwrap();
    let churn = Churn { amount: 20.0, ..Churn::default() };
    for (at, method) in [Method::Heun, Method::Euler, Method::Dpmpp2m].into_iter().enumerate() {
        let churn = if method == Method::Dpmpp2m { Churn::default() } else { churn };
        let sampler = Sampler { method, churn, steps: 3, ..Sampler::default() };
        let all = Target::Folder(place.path().join(format!("all {at}")));
        let one = Target::Folder(place.path().join(format!("one {at}")));
        write(&PictureRequest { sampler, ..request("0-4", &[]) }, &all, 2);
        for (seeds, batch_size) in [("3", 1), ("4,1,2", 2), ("0", 3)] {
            let some = PictureRequest { sampler, batch_size, ..request(seeds, &[]) };
            write(&some, &one, 2);
        }
        for (seed, class) in ["oak", "fir", "oak", "fir", "oak"].iter().enumerate() {
            let name = format!("{class}/{seed:06}.png");
            let read = |target: &Target| std::fs::read(target.path().join(&name)).unwrap();
            assert!(read(&all) == read(&one), "{method:?} {name}");
        }
    }
}

#[test]
fn pictures_of_another_sampler_are_not_taken_for_these() {
    let place = tempfile::tempdir().unwrap();
    let folder = Target::Folder(place.path().join("p"));
    let plain = request("0-1", &[]);
    let churn = Churn { amount: 20.0, ..Churn::default() };
    let of = |sampler| PictureRequest { sampler, ..plain.clone() };
    let churned = of(Sampler { churn, ..plain.sampler });
    let euler = of(Sampler { method: Method::Euler, ..plain.sampler });
    for request in [&plain, &churned, &euler, &plain] {
        assert_eq!(write(request, &folder, 2), [2, 0]);
        assert_eq!(write(request, &folder, 2), [0, 2]);
    }
    let other = vec![("checkpoint", "abc".to_owned()), ("guide", "def".to_owned())];
    assert_eq!(write(&PictureRequest { source: other, ..plain.clone() }, &folder, 2), [2, 0]);
    assert_eq!(write(&plain, &folder, 2), [2, 0], "one without a guide is another one");
}

#[test]
fn a_picture_of_a_grid_is_had_by_its_number() {
    let place = tempfile::tempdir().unwrap();
    let folder = Target::Folder(place.path().join("p"));
    let (net, config, names) = model(2);
    let plain = request("0", &[]);
    let grid = GridRequest {
        title: String::new(),
        n: 5,
        classes: Vec::new(),
        seed: 9,
        sampler: plain.sampler,
        batch_size: 3,
        strip: None,
    };
    let parts = view(&net, &config, &names);
    let shown = grid.sample(parts, &Device::flex(), |_, _| true).unwrap().unwrap();
    let shown: Vec<_> = shown.rows.into_iter().flat_map(|(_, images)| images).collect();
    let which = |numbers: &str| Which::OfGrid { n: 5, seed: 9, numbers: numbers.parse().unwrap() };
    let some = PictureRequest { which: which("4,1"), ..plain.clone() };
    assert_eq!(write(&some, &folder, 2), [2, 0]);
    for (name, number) in [("oak/000009_000001.png", 1), ("fir/000009_000004.png", 4)] {
        let own = image::open(folder.path().join(name)).unwrap().to_rgb8();
        assert!(own == shown[number], "{name}");
    }
    let none = PictureRequest { which: which("5"), ..plain };
    let error = none.write(&Disk::default(), &folder, parts, &Device::flex(), |_, _| true);
    assert_eq!(
        error.unwrap_err().message,
        "numbers: the grid has no image 5; its 5 images are 0 to 4"
    );
}
