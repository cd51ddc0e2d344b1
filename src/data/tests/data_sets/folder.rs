use std::fs;
use std::sync::Arc;

use image::ImageFormat::{Jpeg, Png, WebP};
use pipe_data::{ClassSelection, Dataset, DatasetSettings, Loader, LoaderOptions, Split};

use crate::made::{Project, picture, settings};

const RED: [u8; 3] = [200, 0, 0];
const BLUE: [u8; 3] = [0, 0, 200];

fn two_classes() -> (Project, DatasetSettings) {
    let project = Project::new();
    project.put("pets/dog/b.JPG", &picture(60, 40, RED, Jpeg));
    project.put("pets/dog/a.png", &picture(20, 50, BLUE, Png));
    project.put("pets/cat/c.webp", &picture(33, 32, BLUE, WebP));
    project.put("pets/cat/notes.txt", b"not an image");
    project.put("pets/readme.md", b"not a class");
    project.put("pets/.cache/x.png", b"hidden");
    (
        project,
        DatasetSettings { root: "data/pets".into(), image_size: 16, ..settings("image_folder") },
    )
}

#[test]
fn classes_and_files_are_in_the_order_of_their_names() {
    let (project, settings) = two_classes();
    let dataset = project.open(&settings).unwrap();
    dataset.check_images(&()).unwrap();
    assert_eq!(dataset.class_names(), ["cat", "dog"]);
    let labels: Vec<u32> =
        dataset.indices(Split::Train).iter().map(|i| dataset.label(*i)).collect();
    assert_eq!(labels, [0, 1, 1]);
    let near = |index: usize, colour: [u8; 3]| {
        let image = dataset.image(index).unwrap();
        assert_eq!(image.len(), 3 * 16 * 16);
        assert!(
            image.chunks(3).all(|p| p.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 4)),
            "image {index}"
        );
    };
    near(0, BLUE);
    near(1, BLUE);
    near(2, RED);

    let dogs = Some(ClassSelection::Names(vec!["dog".into()]));
    assert_eq!(
        project
            .open(&DatasetSettings { classes: dogs, ..settings })
            .unwrap()
            .indices(Split::Train)
            .len(),
        2
    );
}

#[test]
fn the_digest_follows_names_and_content_but_not_the_place() {
    let ((here, settings), (there, _)) = (two_classes(), two_classes());
    let digest = |project: &Project| project.open(&settings).unwrap().digest().to_owned();
    let before = digest(&here);
    assert_eq!(before, digest(&there));
    fs::rename(there.data("pets/dog/a.png"), there.data("pets/dog/z.png")).unwrap();
    assert_ne!(before, digest(&there));
    here.put("pets/dog/a.png", &picture(20, 50, RED, Png));
    assert_ne!(before, digest(&here));
}

#[test]
fn a_corrupt_image_is_named_when_checked_and_when_loaded() {
    let (project, settings) = two_classes();
    let whole = picture(60, 40, RED, Jpeg);
    for bad in [&whole[..whole.len() / 2], b"GIF89a and more", b""] {
        let path = project.put("pets/dog/b.JPG", bad);
        let dataset = Arc::new(project.open(&settings).unwrap());
        let message = dataset.check_images(&()).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("failed to decode the image {}: ", path.display())),
            "{message}"
        );
        for num_workers in [0, 2] {
            let options = LoaderOptions { batch_size: 1, num_workers, seed: 1 };
            let batches: Vec<_> =
                Loader::new(dataset.clone(), Split::Train, options).unwrap().epoch(0, 0).collect();
            assert_eq!(batches.last().unwrap().as_ref().unwrap_err().to_string(), message);
            assert_eq!(
                batches.iter().filter(|b| b.is_err()).count(),
                1,
                "the epoch ends with the error"
            );
        }
    }
}

#[test]
fn decoded_images_are_kept_and_are_the_same_images() {
    let (project, settings) = two_classes();
    let images = |dataset: &Dataset| -> Vec<Vec<u8>> {
        dataset
            .indices(Split::Train)
            .iter()
            .map(|i| dataset.image(*i).unwrap().into_owned())
            .collect()
    };
    let first = images(&project.open(&settings).unwrap());
    let again = project.open(&settings).unwrap();
    for file in ["cat/c.webp", "dog/a.png", "dog/b.JPG"] {
        fs::remove_file(project.data("pets").join(file)).unwrap();
    }
    assert_eq!(images(&again), first, "from the cache: the files are gone");

    let (elsewhere, settings) = two_classes();
    fs::write(elsewhere.path().join(".pipe"), "in the way").unwrap();
    assert_eq!(images(&elsewhere.open(&settings).unwrap()), first, "without a cache");
}

#[test]
fn an_image_that_changes_while_a_data_set_is_open_is_refused_and_taken_in_by_the_next() {
    let (project, settings) = two_classes();
    let dataset = project.open(&settings).unwrap();
    let path = project.put("pets/dog/b.JPG", &picture(60, 40, BLUE, Jpeg));
    let message = dataset.image(2).unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("failed to read the image {}: it changed", path.display())),
        "{message}"
    );
    let next = project.open(&settings).unwrap();
    assert_ne!(next.digest(), dataset.digest());
    assert_eq!(next.image(2).unwrap()[2], 200);
}

#[test]
fn folders_without_images_are_refused_all_at_once() {
    let (project, settings) = two_classes();
    fs::create_dir(project.data("pets/fish")).unwrap();
    let empty = project.refusal(&settings);
    assert!(
        empty.contains("pets/fish: it holds no image; add images or remove the folder"),
        "{empty}"
    );
    project.put("pets/bird/1.heic", b"not read");
    project.put("pets/bird/2020/1.png", b"deeper");
    let empty = project.refusal(&settings);
    assert!(
        empty.contains(
            "pets: 2 class folders hold no image: bird, fish; add images or remove the folders;"
        ) && empty.contains("`recursive: true` reads deeper folders"),
        "{empty}"
    );

    project.put("photos/1.heic", b"not read");
    project.put("photos/2.HEIC", b"not read");
    let at = |root: &str| DatasetSettings { root: root.into(), ..settings.clone() };
    let none = project.refusal(&at("data/photos"));
    assert!(
        none.contains("photos: it holds no images, but 2 .heic; put them into it, or"),
        "{none}"
    );
    assert!(project.refusal(&at("data/nowhere")).contains("nowhere: it is not there; set `root`"));
    assert!(
        project
            .refusal(&at("data/pets/readme.md"))
            .contains("readme.md: it is a file; set `root` to a")
    );
    let classes = Some(ClassSelection::Names(vec!["dgo".into()]));
    let unknown = project.refusal(&DatasetSettings { classes, ..settings });
    assert_eq!(
        unknown,
        "failed to accept `classes`: no class `dgo` (nearest: dog); there are: bird, cat, dog, fish"
    );
}
