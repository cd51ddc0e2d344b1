//! Folders nobody would make on purpose: whatever lies in one, each entry is an image of a class,
//! is told as bad, or is counted as passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
use pipe_core::rng::ChaCha8Rng;
use pipe_data::{DatasetSettings, Split};
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};

use crate::made::{Project, picture, settings};

const CMYK: &[u8] = include_bytes!("pictures/cmyk.jpg");
const PALETTE: &[u8] = include_bytes!("pictures/palette.png");
const GRAY16: &[u8] = include_bytes!("pictures/gray16.png");
const BILEVEL: &[u8] = include_bytes!("pictures/bilevel.tif");
const TURNED: &[u8] = include_bytes!("pictures/turned.jpg");
const MOVING: [&[u8]; 2] =
    [include_bytes!("pictures/moving.gif"), include_bytes!("pictures/moving.webp")];

/// A tree in the making, and what is expected of it.
struct Tree {
    project: Project,
    rng: ChaCha8Rng,
    recursive: bool,
    next: usize,
    classes: BTreeMap<String, usize>,
    bad: BTreeSet<PathBuf>,
    passed: usize,
}

impl Tree {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let recursive = rng.random_bool(0.5);
        let (classes, bad) = Default::default();
        Self { project: Project::new(), rng, recursive, next: 0, classes, bad, passed: 0 }
    }

    fn chance(&mut self, share: f64) -> bool {
        self.rng.random_bool(share)
    }

    fn name(&mut self, extension: &str) -> String {
        self.next += 1;
        let stem =
            *["a", "Ä b", "野菜", "x.y", "-", "%41", "#", "a'b\"c"].choose(&mut self.rng).unwrap();
        format!("{stem}{}.{extension}", self.next)
    }

    /// The content of an image and an extension that it may have, not always its own.
    fn image(&mut self) -> (Vec<u8>, &'static str) {
        let extension = *["jpg", "JPG", "jpeg", "Png", "webp", "gif", "BMP", "tiff", "jfif"]
            .choose(&mut self.rng)
            .unwrap();
        let (width, height) = (self.rng.random_range(1..40), self.rng.random_range(1..40));
        let format = *[Jpeg, Png, WebP, Gif, Bmp, Tiff].choose(&mut self.rng).unwrap();
        let fixed = [CMYK, PALETTE, GRAY16, BILEVEL, TURNED, MOVING[0], MOVING[1]];
        let content = if self.chance(0.4) {
            fixed.choose(&mut self.rng).unwrap().to_vec()
        } else {
            picture(width, height, [9, 200, 30], format)
        };
        (content, extension)
    }

    /// Puts one entry into `folder`. Images in it count for `class`, if there is one.
    fn entry(&mut self, folder: &str, class: Option<&str>, depth: usize) {
        match self.rng.random_range(0..12) {
            0..5 => {
                let (content, extension) = self.image();
                let name = self.name(extension);
                self.project.put(&format!("set/{folder}{name}"), &content);
                match class {
                    Some(class) => *self.classes.get_mut(class).unwrap() += 1,
                    None => self.passed += 1,
                }
            }
            5 => self.bad(folder, class),
            6 | 7 => {
                let extension = *["txt", "heic", "avif", "json", "jpg.part", "..", "x y"]
                    .choose(&mut self.rng)
                    .unwrap();
                let name = self.name(extension);
                self.project.put(&format!("set/{folder}{name}"), b"something else");
                self.passed += 1;
            }
            8 => {
                self.next += 1;
                let hidden =
                    [".hidden.png", ".git/1.png", "__MACOSX/1.png", "Thumbs.db", "@eaDir/1.jpg"];
                let name = hidden.choose(&mut self.rng).unwrap();
                let path = format!("set/{folder}{name}");
                let top = name.split('/').next().unwrap();
                if !self.project.data(&format!("set/{folder}{top}")).exists() {
                    self.passed += 1;
                }
                self.project.put(&path, b"hidden");
            }
            9 => self.link(folder, class),
            _ => {
                let Some(name) = class else { return };
                let below = format!("{folder}deeper {}/", self.next);
                self.next += 1;
                std::fs::create_dir_all(self.project.data(&format!("set/{below}"))).unwrap();
                if !self.recursive {
                    self.passed += 1;
                    self.project.put(&format!("set/{below}1.png"), b"not looked at");
                } else if depth < 4 {
                    (0..3).for_each(|_| self.entry(&below, Some(name), depth + 1))
                }
            }
        }
    }

    fn bad(&mut self, folder: &str, class: Option<&str>) {
        let (whole, extension) = self.image();
        let mut vast = picture(8, 8, [1, 2, 3], Png);
        vast[16..20].copy_from_slice(&[0x7f, 0, 0, 0]);
        let half = picture(
            30,
            30,
            [1, 2, 3],
            *[Jpeg, Png, WebP, Bmp, Tiff].choose(&mut self.rng).unwrap(),
        );
        let content = match self.rng.random_range(0..5) {
            0 => Vec::new(),
            1 => vec![0; 700],
            2 => vast,
            3 => half[..half.len() / 2].to_vec(),
            _ => whole.iter().map(|byte| !byte).collect(),
        };
        let name = self.name(extension);
        let path = self.project.put(&format!("set/{folder}{name}"), &content);
        match class {
            Some(_) => drop(self.bad.insert(path)),
            None => self.passed += 1, // beside the class folders nothing is looked into
        }
    }

    #[cfg(unix)]
    fn link(&mut self, folder: &str, class: Option<&str>) {
        use std::os::unix::fs::symlink;
        let name = self.name("png");
        let path = self.project.data(&format!("set/{folder}{name}"));
        match self.rng.random_range(0..3) {
            0 => {
                let end =
                    self.project.put(&format!("elsewhere/{name}"), &picture(5, 5, [1, 2, 3], Png));
                symlink(end, path).unwrap();
                match class {
                    Some(class) => *self.classes.get_mut(class).unwrap() += 1,
                    None => self.passed += 1,
                }
            }
            1 => {
                symlink("nowhere.png", &path).unwrap();
                self.bad.insert(path);
            }
            // A folder however it is called: one below the class that is read already, or the root
            // itself.
            _ => {
                symlink(if class.is_some() { "." } else { "../set" }, path).unwrap();
                self.passed += 1;
            }
        }
    }

    #[cfg(not(unix))]
    fn link(&mut self, _: &str, _: Option<&str>) {}
}

/// A tree with class folders, each of which has an image.
fn tree(seed: u64) -> Tree {
    let mut tree = Tree::new(seed);
    for number in 0..tree.rng.random_range(1..4) {
        let class = format!("{} {number}", ["cat", "Ä b", "野菜"][number]);
        tree.project.put(&format!("set/{class}/first.png"), PALETTE);
        tree.classes.insert(class.clone(), 1);
        for _ in 0..tree.rng.random_range(0..12) {
            tree.entry(&format!("{class}/"), Some(&class), 0);
        }
    }
    for _ in 0..tree.rng.random_range(0..5) {
        tree.entry("", None, 0);
    }
    tree
}

#[test]
fn every_entry_is_an_image_is_bad_or_is_counted_as_passed_over() {
    for seed in 0..60 {
        let tree = tree(seed);
        let settings = DatasetSettings {
            root: "data/set".into(),
            image_size: 8,
            recursive: tree.recursive,
            ..settings("image_folder")
        };
        let dataset =
            tree.project.open(&settings).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let told = dataset.bad_images(&()).unwrap();
        let bad: BTreeSet<PathBuf> = told.iter().map(|bad| bad.file.clone()).collect();
        assert_eq!(bad, tree.bad, "seed {seed}: {told:?}");
        assert_eq!(dataset.skipped().total(), tree.passed, "seed {seed}: {:?}", dataset.skipped());
        // An image that cannot be decoded has a number and a class all the same; one without an end
        // has none.
        let fine = dataset
            .indices(Split::Train)
            .iter()
            .filter(|index| dataset.image(**index).is_ok_and(|image| image.len() == 3 * 8 * 8));
        let mut classes = tree.classes.clone();
        fine.for_each(|index| {
            *classes.get_mut(&dataset.class_names()[dataset.label(*index) as usize]).unwrap() -= 1;
        });
        assert!(classes.values().all(|missing| *missing == 0), "seed {seed}: {classes:?}");
        assert_eq!(dataset.check_images(&()).is_ok(), tree.bad.is_empty(), "seed {seed}");
        assert_eq!(tree.project.open(&settings).unwrap().digest(), dataset.digest(), "seed {seed}");
    }
}

#[test]
fn no_damage_to_an_image_ends_the_program() {
    let project = Project::new();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (number, whole) in
        [CMYK, PALETTE, GRAY16, BILEVEL, TURNED, MOVING[0], MOVING[1]].iter().enumerate()
    {
        for copy in 0..60 {
            let mut damaged = whole.to_vec();
            for _ in 0..3 {
                let at = rng.random_range(0..damaged.len());
                damaged[at] = rng.next_u32() as u8;
            }
            project.put(&format!("set/{number}-{copy}.jpg"), &damaged);
        }
    }
    let settings =
        DatasetSettings { root: "data/set".into(), image_size: 8, ..settings("image_folder") };
    let dataset = project.open(&settings).unwrap();
    let bad = dataset.bad_images(&()).unwrap();
    assert!((1..420).contains(&bad.len()), "{} of 420 are bad", bad.len());
    let told = bad.iter().filter(|bad| bad.reason.contains("gave up")).count();
    assert!(told <= bad.len());
}

/// What the loader makes of an image that a camera took on its side, in colours of print, or of one
/// that moves.
#[test]
fn images_of_every_kind_are_upright_and_in_their_colours() {
    let project = Project::new();
    let settings = |root: &str| DatasetSettings {
        root: root.into(),
        image_size: 16,
        ..settings("image_folder")
    };
    for (name, content) in
        [("a.jpg", CMYK), ("b.png", PALETTE), ("c.gif", MOVING[0]), ("d.webp", MOVING[1])]
    {
        project.put(&format!("set/{name}"), content);
    }
    let dataset = project.open(&settings("data/set")).unwrap();
    for index in 0..4 {
        let image = dataset.image(index).unwrap();
        assert!(
            image[0] > 180 && image[1] < 60 && image[2] < 60,
            "image {index}: {:?}",
            &image[..3]
        );
    }
    // Its first row is blue, and EXIF says that this is the right side.
    project.put("turned/1.jpg", TURNED);
    let all = DatasetSettings { fit: pipe_data::Fit::Squash, ..settings("data/turned") };
    let image = project.open(&all).unwrap().image(0).unwrap().into_owned();
    let pixel = |x: usize, y: usize| image[3 * (16 * y + x)..][..3].to_vec();
    assert!(pixel(15, 8)[2] > 150 && pixel(15, 8)[0] < 80, "{:?}", pixel(15, 8));
    assert!(pixel(1, 8)[0] > 150 && pixel(8, 1)[0] > 150, "{:?}", pixel(1, 8));
}
