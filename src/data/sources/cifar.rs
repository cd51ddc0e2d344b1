//! CIFAR-10 and CIFAR-100 in their binary form (Krizhevsky 2009,
//! <https://www.cs.toronto.edu/~kriz/cifar.html>).
//!
//! A record is one label byte (CIFAR-100: a coarse one, then a fine one) and 32 x 32 pixels, plane
//! by plane in R, G, B. The files of the wanted split are read, out of the archive or out of the
//! folder that it unpacks to. Archives of the same form with other images, counts or
//! class names are read alike.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};

use super::cifar_class_names;
use crate::archive::published::PublishedArchive;
use crate::archive::unpack::{Limits, for_each_entry};
use crate::classes::Superclass;
use crate::digest::{FieldDigest, sha256};
use crate::error::DataError;
use crate::images::Images;
use crate::progress::Progress;
use crate::source::{Availability, DataSource, Location, SourceContent, SourceOptions};
use crate::split::PublishedSplit;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// CIFAR-10 unpacks to 180 MB; another archive of its form may be larger, but is held in memory.
const LIMITS: Limits = Limits { bytes: 4 << 30, entries: 10_000 };

/// What sets the two apart.
pub(super) struct Cifar {
    name: &'static str,
    description: &'static str,
    class_count: usize,
    archive: PublishedArchive,
    folder: &'static str,
    /// Bytes before the pixels; the last of them is the label.
    label_bytes: usize,
    names_file: &'static str,
    /// Used when an archive has no file of names.
    usual_names: &'static [&'static str],
    superclasses: &'static [Superclass],
    /// A training file is `PREFIX*.bin`.
    train_prefix: &'static str,
    /// A file of test images is `PREFIX*.bin`.
    test_prefix: &'static str,
}

pub(super) static CIFAR10: Cifar = Cifar {
    name: "cifar10",
    description: "CIFAR-10: 50 000 training photos of 32 x 32 pixels in 10 classes, from the binary archive.",
    class_count: 10,
    archive: PublishedArchive {
        file: "cifar-10-binary.tar.gz",
        url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        md5: "c32a1d4ab5d03f1284b67883e8d87530",
    },
    folder: "cifar-10-batches-bin",
    label_bytes: 1,
    names_file: "batches.meta.txt",
    usual_names: &cifar_class_names::CIFAR10,
    superclasses: &[],
    train_prefix: "data_batch",
    test_prefix: "test_batch",
};

pub(super) static CIFAR100: Cifar = Cifar {
    name: "cifar100",
    description: "CIFAR-100: 50 000 training photos of 32 x 32 pixels in 100 classes, from the binary archive.",
    class_count: 100,
    archive: PublishedArchive {
        file: "cifar-100-binary.tar.gz",
        url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        md5: "03b5dce01913d631647c71ecec9e9cb8",
    },
    folder: "cifar-100-binary",
    label_bytes: 2,
    names_file: "fine_label_names.txt",
    usual_names: &cifar_class_names::CIFAR100,
    superclasses: &cifar_class_names::CIFAR100_SUPERCLASSES,
    train_prefix: "train",
    test_prefix: "test",
};

/// The files that matter, by name.
#[derive(Default)]
struct Files {
    names: Option<Vec<u8>>,
    batches: BTreeMap<String, Vec<u8>>,
}

impl DataSource for Cifar {
    fn name(&self) -> &'static str {
        self.name
    }

    fn description(&self) -> &'static str {
        self.description
    }

    fn class_count(&self) -> Option<usize> {
        Some(self.class_count)
    }

    fn superclasses(&self) -> &'static [Superclass] {
        self.superclasses
    }

    fn input_paths(&self, _: &SourceOptions<'_>, root: &Path) -> Vec<PathBuf> {
        [self.folder, self.archive.file].map(|path| root.join(path)).to_vec()
    }

    fn has_test_images(&self) -> bool {
        true
    }

    fn whole_files(&self, options: &SourceOptions<'_>, root: &Path) -> Vec<PathBuf> {
        let folder = root.join(self.folder);
        if !folder.is_dir() {
            let archive = root.join(self.archive.file);
            return if archive.is_file() { vec![archive] } else { Vec::new() };
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let wanted = entries.map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.is_wanted(&name, options.split)
        });
        let mut files: Vec<PathBuf> = wanted.collect();
        files.sort();
        files
    }

    fn availability(&self, options: &SourceOptions<'_>, root: &Path) -> Availability {
        if self.whole_files(options, root).is_empty() {
            Availability::Missing
        } else {
            Availability::Ready
        }
    }

    /// Opens the folder, if it is there, or else the archive (see
    /// [`PublishedArchive::find_or_download`]).
    fn open(
        &self,
        options: &SourceOptions<'_>,
        location: &Location<'_>,
        progress: &dyn Progress,
    ) -> Result<SourceContent, DataError> {
        let folder = location.root.join(self.folder);
        let (from, files) = if folder.is_dir() {
            let files = read_folder(self, options.split, &folder)?;
            (folder, files)
        } else {
            let archive = self.archive.find_or_download(options, location, progress)?;
            let (files, md5) = read_archive(self, options.split, &archive)?;
            self.archive.warn_if_modified(&archive, &md5);
            (archive, files)
        };
        decode(self, options, &from, files, progress)
    }
}

impl Cifar {
    fn is_names(&self, name: &str) -> bool {
        name == self.names_file
    }

    fn prefix(&self, split: PublishedSplit) -> &'static str {
        match split {
            PublishedSplit::Train => self.train_prefix,
            PublishedSplit::Test => self.test_prefix,
        }
    }

    /// Whether it is a file of images of that split, or of names.
    fn is_wanted(&self, name: &str, split: PublishedSplit) -> bool {
        self.is_names(name) || name.starts_with(self.prefix(split)) && name.ends_with(".bin")
    }
}

impl Files {
    fn take(&mut self, variant: &Cifar, name: &str, mut content: impl Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        if variant.is_names(name) {
            self.names = Some(bytes);
        } else if self.batches.insert(name.to_owned(), bytes).is_some() {
            return Err(io::Error::other("a file of this name stood before"));
        }
        Ok(())
    }
}

fn read_folder(variant: &Cifar, split: PublishedSplit, folder: &Path) -> Result<Files, DataError> {
    let mut files = Files::default();
    for entry in fs::read_dir(folder).map_err(DataError::io("read the folder", folder))? {
        let path = entry.map_err(DataError::io("read the folder", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if variant.is_wanted(&name, split) {
            let file = fs::File::open(&path).map_err(DataError::io("open", &path))?;
            files.take(variant, &name, file).map_err(DataError::io("read", &path))?;
        }
    }
    Ok(files)
}

fn read_archive(
    variant: &Cifar,
    split: PublishedSplit,
    archive: &Path,
) -> Result<(Files, String), DataError> {
    let mut files = Files::default();
    let md5 = for_each_entry(archive, LIMITS, |path, entry| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if entry.header().entry_type().is_file() && variant.is_wanted(&name, split) {
            files.take(variant, &name, entry)?;
        }
        Ok(())
    })?;
    Ok((files, md5))
}

/// Checks every record, and keeps those of the wanted classes.
fn decode(
    variant: &Cifar,
    options: &SourceOptions<'_>,
    from: &Path,
    files: Files,
    progress: &dyn Progress,
) -> Result<SourceContent, DataError> {
    if files.batches.is_empty() {
        let reason = format!(
            "it holds no file {}*.bin; is it the binary version?",
            variant.prefix(options.split)
        );
        return Err(DataError::archive(from, "its list of files", reason));
    }
    let mut digest = FieldDigest::new("cifar");
    let available = class_names(variant, from, files.names.as_deref())?;
    available.iter().for_each(|name| digest.field(name));
    let chosen = options.classes.select(&available, variant.superclasses)?;
    let mut label_of = vec![None; available.len()];
    chosen.iter().enumerate().for_each(|(label, class)| label_of[*class] = Some(label as u32));

    let record = variant.label_bytes + 3 * PLANE;
    let total: usize = files.batches.values().map(|bytes| bytes.len() / record).sum();
    let (mut labels, mut images, mut done) = (Vec::new(), Vec::new(), 0);
    for (name, bytes) in files.batches {
        digest.field(&name);
        digest.field(sha256(&bytes));
        let whole = bytes.len() / record * record;
        if whole != bytes.len() || bytes.is_empty() {
            let (at, left) = (format!("{name}, byte {whole}"), bytes.len() - whole);
            let reason = format!(
                "{left} bytes are no whole record of {record}; the file is cut short or foreign"
            );
            return Err(DataError::archive(from, at, reason));
        }
        for (i, record_bytes) in bytes.chunks_exact(record).enumerate() {
            let (head, planes) = record_bytes.split_at(variant.label_bytes);
            let class = usize::from(head[variant.label_bytes - 1]);
            let Some(label) = label_of.get(class) else {
                let at = format!("{name}, byte {}", i * record + variant.label_bytes - 1);
                let reason = format!(
                    "label {class} in record {i}, but there are {} classes",
                    available.len()
                );
                return Err(DataError::archive(from, at, reason));
            };
            if let Some(label) = label {
                labels.push(*label);
                images.push(from_planes(planes));
            }
        }
        done += bytes.len() / record;
        progress.decoded(done, total);
    }
    check_no_class_is_empty(
        options,
        from,
        &labels,
        chosen.iter().map(|class| available[*class].as_str()),
    )?;
    Ok(SourceContent {
        class_names: chosen.iter().map(|class| available[*class].clone()).collect(),
        labels,
        images: Images::Memory(images),
        digest: digest.finish(),
    })
}

/// A class that was asked for must have images; otherwise an archive need not fill every class that
/// it names.
fn check_no_class_is_empty<'a>(
    options: &SourceOptions<'_>,
    from: &Path,
    labels: &[u32],
    names: impl Iterator<Item = &'a str>,
) -> Result<(), DataError> {
    let mut filled = [false; 256];
    labels.iter().for_each(|label| filled[*label as usize] = true);
    for (label, name) in names.enumerate() {
        if filled[label] {
            continue;
        }
        let reason = format!("{} has no image of class `{name}`", from.display());
        if let Some(key) = options.classes.key() {
            return Err(DataError::setting(key, reason));
        }
        tracing::warn!("{reason}");
    }
    Ok(())
}

/// One name a line; names are there, differ, and are at most 256, as many as a byte can tell apart.
fn class_names(
    variant: &Cifar,
    from: &Path,
    file: Option<&[u8]>,
) -> Result<Vec<String>, DataError> {
    let Some(bytes) = file else {
        tracing::warn!(
            "{} has no {}; the usual class names are used",
            from.display(),
            variant.names_file
        );
        return Ok(variant.usual_names.iter().map(|name| name.to_string()).collect());
    };
    let refuse = |reason: &str| Err(DataError::archive(from, variant.names_file, reason));
    let Ok(text) = std::str::from_utf8(bytes) else {
        return refuse("its class names are not UTF-8 text");
    };
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect();
    if names.is_empty() || names.len() > 256 {
        return refuse("it must hold 1 to 256 class names, one a line");
    }
    if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        return refuse(&format!("the class name `{}` stands twice", twice.1));
    }
    Ok(names)
}

fn from_planes(planes: &[u8]) -> RgbImage {
    RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
        let at = y as usize * SIDE + x as usize;
        Rgb([planes[at], planes[PLANE + at], planes[2 * PLANE + at]])
    })
}
