//! What the tests make: archives, CIFAR records, images, settings.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use pipe_data::{DataError, Dataset, DatasetSettings};
use tempfile::TempDir;

/// A `.tar.gz` in the making.
pub struct TarGz(tar::Builder<GzEncoder<Vec<u8>>>);

impl TarGz {
    pub fn new() -> Self {
        Self(tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast())))
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, tar::EntryType::Regular, None, content)
    }

    pub fn link(self, name: &str, kind: tar::EntryType, to: &str) -> Self {
        self.entry(name, kind, Some(to), &[])
    }

    /// An entry that says something of the next one, such as its name.
    pub fn about(self, kind: tar::EntryType, content: &[u8]) -> Self {
        self.entry("about", kind, None, content)
    }

    /// Writes names as they are: `tar`'s own functions refuse the bad ones that the tests need.
    fn entry(
        mut self,
        name: &str,
        kind: tar::EntryType,
        link: Option<&str>,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(to) = link {
            header.set_link_name(to).unwrap();
        }
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap().finish().unwrap()
    }

    /// A faultless gzip file around the first `length` bytes of the tar file.
    pub fn cut(self, length: usize) -> Vec<u8> {
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&self.bytes()[..]).read_to_end(&mut tar).unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar[..length]).unwrap();
        gzip.finish().unwrap()
    }
}

/// One CIFAR record: its label bytes, and pixels that tell the record and the place.
pub fn record(labels: &[u8], id: u8) -> Vec<u8> {
    let mut bytes = labels.to_vec();
    for plane in 0..3u32 {
        bytes.extend((0..1024u32).map(|i| (u32::from(id) + 85 * plane + i / 32) as u8));
    }
    bytes
}

/// Records of CIFAR-10 with these labels; ids count from `first_id`.
pub fn batch10(labels: &[u8], first_id: u8) -> Vec<u8> {
    labels.iter().zip(first_id..).flat_map(|(label, id)| record(&[*label], id)).collect()
}

pub const NAMES10: &str =
    "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";

/// A project folder with `data/` in it.
pub struct Project(TempDir);

impl Project {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn data(&self, name: &str) -> PathBuf {
        self.path().join("data").join(name)
    }

    /// Writes `data/NAME`, with the folders above it.
    pub fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.data(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn open(&self, settings: &DatasetSettings) -> Result<Dataset, DataError> {
        Dataset::open(settings, &self.path().into(), &())
    }

    /// The message of the error that opening `settings` gives.
    #[track_caller]
    pub fn refusal(&self, settings: &DatasetSettings) -> String {
        self.open(settings).err().expect("the data set should be refused").to_string()
    }

    /// Everything in `data/`, sorted.
    pub fn listing(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path().join("data")).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Settings that never download.
pub fn settings(source: &str) -> DatasetSettings {
    DatasetSettings {
        source: source.parse().unwrap(),
        download: false,
        ..DatasetSettings::default()
    }
}

/// The files of a data set's images with their classes: what a loader would see, and nothing else.
pub fn counted(dataset: &Dataset) -> Vec<(String, usize)> {
    dataset.counts().into_iter().map(|class| (class.name, class.train + class.validation)).collect()
}

/// A PNG or JPEG of one colour.
pub fn picture(width: u32, height: u32, colour: [u8; 3], format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(width, height, image::Rgb(colour))
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}
