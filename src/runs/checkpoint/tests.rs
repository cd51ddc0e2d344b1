use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::super::tensor::{Dtype, HostTensor};
use super::digest::content_text;
use super::*;
use pipe_core::digest::hex;
use pipe_fs::Disk;

fn header(epoch: u64) -> Header {
    Header {
        epoch,
        global_step: 64 * epoch,
        step_in_epoch: 0,
        metrics: BTreeMap::from([("train_loss".into(), 0.1 + 0.2)]),
        scheduler_state_dict: json!({"last_step": 64 * epoch}),
        loop_state: json!({}),
        saved_at: "2026-01-02T03:04:05.123456789Z".parse().unwrap(),
        identity: "sha256:abc".into(),
        seed: 42,
        model_config: json!({"dim": 16, "mults": [1, 2]}),
        extra: BTreeMap::from([("classes".into(), "[\"circle\"]".into())]),
    }
}

fn tensors() -> Vec<HostTensor> {
    vec![
        HostTensor::f32("state_dict.b", vec![3], &[1.0, -2.5, f32::MIN_POSITIVE]),
        HostTensor::f32("state_dict.a", vec![2, 2], &[1.0, 2.0, 3.0, 4.0]),
        HostTensor {
            name: "optimizer_state_dict.a.step".into(),
            dtype: Dtype::I64,
            shape: vec![],
            bytes: vec![7; 8],
        },
        HostTensor { name: "empty".into(), dtype: Dtype::U8, shape: vec![0, 4], bytes: vec![] },
    ]
}

fn written() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("epoch_001.ckpt");
    write(&Disk::default(), &path, &header(1), &tensors()).unwrap();
    (folder, path)
}

#[test]
fn everything_comes_back_to_the_bit() {
    let (_folder, path) = written();
    let checkpoint = Checkpoint::open(&path).unwrap();
    checkpoint.verify().unwrap();
    assert_eq!(*checkpoint.header(), header(1));
    for tensor in tensors() {
        assert_eq!(checkpoint.read(&tensor.name).unwrap(), tensor);
    }
    assert_eq!(checkpoint.read("none").unwrap_err().fault, Corruption::NoTensor);
}

#[test]
fn an_independent_reader_reads_it() {
    let (_folder, path) = written();
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("state_dict.a").unwrap().shape(), [2, 2]);
    assert_eq!(file.tensor("state_dict.b").unwrap().data(), tensors()[0].bytes);
    let (_, meta) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let config = &meta.metadata().as_ref().unwrap()["model_config"];
    assert_eq!(serde_json::from_str::<Value>(config).unwrap(), json!({"dim": 16, "mults": [1, 2]}));
}

#[test]
fn every_tensor_is_aligned_to_its_elements() {
    let (_folder, path) = written();
    let checkpoint = Checkpoint::open(&path).unwrap();
    for entry in checkpoint.tensors() {
        assert_eq!(
            (checkpoint.data_start + entry.start) % entry.dtype.size() as u64,
            0,
            "{}",
            entry.name
        );
    }
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    let (_a, first) = written();
    let folder = tempfile::tempdir().unwrap();
    let second = folder.path().join("x");
    let mut shuffled = tensors();
    shuffled.reverse();
    let written = write(&Disk::default(), &second, &header(1), &shuffled).unwrap();
    let bytes = std::fs::read(&second).unwrap();
    assert_eq!(std::fs::read(first).unwrap(), bytes);
    assert_eq!(written.bytes, bytes.len() as u64);
    assert_eq!(written.file_digest, file_digest(&second).unwrap());
}

#[test]
fn a_file_has_the_digest_of_its_head_if_it_is_good() {
    let (_folder, path) = written();
    let sha256 =
        |path: &Path| format!("sha256:{}", hex(&Sha256::digest(std::fs::read(path).unwrap())));
    let bytes = std::fs::read(&path).unwrap();
    let head = Checkpoint::open(&path).unwrap().data_start as usize;
    let expected = format!("blake3-head:{}", blake3::hash(&bytes[..head]));
    assert_eq!(file_digest(&path).unwrap(), expected);
    assert_eq!(file_digest_like(&path, &expected).unwrap(), expected);
    // What older programs recorded.
    assert_eq!(file_digest_like(&path, "sha256:00").unwrap(), sha256(&path));
    // The head is the same, and promises another content.
    let mut bad = bytes.clone();
    *bad.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bad).unwrap();
    assert_eq!(file_digest(&path).unwrap(), sha256(&path));
    std::fs::write(&path, "no checkpoint").unwrap();
    assert_eq!(file_digest_like(&path, &expected).unwrap(), sha256(&path));
}

#[test]
fn every_flipped_byte_is_found() {
    let (_folder, path) = written();
    every_flip_is_found(&path);
}

fn every_flip_is_found(path: &Path) {
    let good = std::fs::read(path).unwrap();
    for position in 0..good.len() {
        for flip in [0x01, 0x80] {
            let mut bad = good.clone();
            bad[position] ^= flip;
            std::fs::write(path, &bad).unwrap();
            let found = Checkpoint::open(path).and_then(|c| c.verify());
            assert!(found.is_err(), "byte {position} flipped by {flip:#x} went unnoticed");
            let loaded = Checkpoint::open(path).and_then(Checkpoint::load);
            assert!(loaded.is_err(), "byte {position} flipped by {flip:#x} was loaded");
        }
    }
    std::fs::write(path, good).unwrap();
}

/// Reads every tensor of the file by itself, until one cannot be had.
fn read_each(path: &Path) -> Result<(), CheckpointError> {
    let checkpoint = Checkpoint::open(path)?;
    let names: Vec<String> = checkpoint.tensors().map(|t| t.name.clone()).collect();
    names.iter().try_for_each(|name| checkpoint.read(name).map(drop))
}

#[test]
fn no_tensor_can_be_had_of_a_file_with_a_flipped_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (new, old) = (folder.path().join("new.ckpt"), folder.path().join("old.ckpt"));
    write(&Disk::default(), &new, &header(1), &tensors()).unwrap();
    write_format_1(&old, &header(1), &tensors());
    for path in [new, old] {
        read_each(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let start = Checkpoint::open(&path).unwrap().data_start as usize;
        for position in start..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 0x40;
            std::fs::write(&path, bad).unwrap();
            let fault = read_each(&path).unwrap_err().fault;
            assert_eq!(fault, Corruption::Altered, "{}, byte {position}", path.display());
        }
    }
}

#[test]
fn a_damaged_tensor_does_not_keep_another_from_being_read() {
    let (_folder, path) = written();
    let mut bytes = std::fs::read(&path).unwrap();
    let opened = Checkpoint::open(&path).unwrap();
    let last = opened.in_order().into_iter().rfind(|t| t.bytes > 0).unwrap().name.clone();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let opened = Checkpoint::open(&path).unwrap();
    for tensor in tensors() {
        assert_eq!(opened.read(&tensor.name).is_err(), tensor.name == last, "{}", tensor.name);
    }
}

#[test]
fn digests_that_were_copied_from_another_file_are_not_believed() {
    let (_folder, path) = written();
    let metadata = Checkpoint::open(&path).unwrap().metadata;
    let copied = ("tensor_digests".to_owned(), metadata["tensor_digests"].clone());
    // As an older program writes a file whose header it has from a newer one.
    let header = Header { extra: BTreeMap::from([copied]), ..header(1) };
    write_format_1(&path, &header, &tensors()[..2]);
    read_each(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(read_each(&path).unwrap_err().fault, Corruption::Altered);
}

#[test]
fn every_cut_is_found() {
    let (_folder, path) = written();
    let good = std::fs::read(&path).unwrap();
    for length in 0..good.len() {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(Checkpoint::open(&path).is_err(), "cut to {length} bytes");
    }
    std::fs::write(&path, [good.as_slice(), b"x"].concat()).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap_err().fault, Corruption::Torn);
}

#[test]
fn foreign_and_newer_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    std::fs::write(&path, "PK\x03\x04 a pickled checkpoint").unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap_err().fault, Corruption::Foreign);
    let (_f, good) = written();
    let text = String::from_utf8_lossy(&std::fs::read(good).unwrap()[..]).into_owned();
    assert!(text.contains("\"version\":\"2\""));
    let bytes = std::fs::read(_f.path().join("epoch_001.ckpt")).unwrap();
    let at = bytes.windows(13).position(|w| w == b"\"version\":\"2\"").unwrap();
    let mut newer = bytes.clone();
    newer[at + 11] = b'9';
    std::fs::write(&path, newer).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap_err().fault, Corruption::TooNew);
}

/// Writes a checkpoint as programs did that knew format 1 alone.
fn write_format_1(path: &Path, header: &Header, tensors: &[HostTensor]) {
    let mut metadata = header.to_metadata();
    metadata.insert("version".into(), "1".into());
    let (mut table, mut data) = (Map::new(), Vec::new());
    for tensor in tensors {
        let start = data.len();
        data.extend(&tensor.bytes);
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]});
        table.insert(tensor.name.clone(), entry);
    }
    let mut hash = Sha256::new();
    for (key, value) in &metadata {
        hash.update(format!("{}:{key}={}:{value}\n", key.len(), value.len()));
    }
    for (name, entry) in &table {
        hash.update(format!("{}:{name}={entry}\n", name.len()));
    }
    hash.update(&data);
    metadata.insert("digest".into(), format!("sha256:{}", hex(&hash.finalize())));
    table.insert("__metadata__".into(), json!(metadata));
    let mut text = serde_json::to_vec(&table).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    std::fs::write(path, [&(text.len() as u64).to_le_bytes()[..], &text, &data].concat()).unwrap();
}

#[track_caller]
fn all_come_back(path: &Path, expected: &[HostTensor]) {
    Checkpoint::open(path).unwrap().verify().unwrap();
    let mut loaded = Checkpoint::open(path).and_then(Checkpoint::load).unwrap();
    assert_eq!(*loaded.header(), header(1));
    for tensor in expected {
        assert_eq!(loaded.take(&tensor.name).as_ref(), Some(tensor));
    }
    assert_eq!(loaded.tensors.len(), 0);
}

#[test]
fn format_1_is_read_and_its_damage_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.ckpt");
    let mut tensors = tensors();
    tensors.swap(0, 2);
    write_format_1(&path, &header(1), &tensors);
    assert!(Checkpoint::open(&path).unwrap().digest().unwrap().starts_with("sha256:"));
    all_come_back(&path, &tensors);
    every_flip_is_found(&path);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let opened = || Checkpoint::open(&path).unwrap();
    assert_eq!(opened().verify().unwrap_err().fault, Corruption::Altered);
    assert_eq!(opened().load().unwrap_err().fault, Corruption::Altered);
}

#[test]
fn files_that_were_kept_still_have_their_digest() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/checkpoint");
    for (name, version) in [("lora.ckpt", "1"), ("lora_format_2.ckpt", "2")] {
        let checkpoint = Checkpoint::open(&kept.join(name)).unwrap();
        assert_eq!(checkpoint.metadata["version"], version);
        checkpoint.verify().unwrap();
        checkpoint.load().unwrap();
    }
}

#[test]
fn the_digest_is_that_of_the_text_and_of_each_tensors_digest() {
    let u8s = |name: &str, n: usize| HostTensor {
        name: name.into(),
        dtype: Dtype::U8,
        shape: vec![n],
        bytes: (0..n).map(|i| (i * i / 7) as u8).collect(),
    };
    let chunk = format::CHUNK;
    // In the order of their data. Empty ones, and ones that end at a piece's end, before and after
    // it.
    let sizes = [0, 1, chunk - 1, chunk, 0, chunk + 1, 3 * chunk + 5, 0];
    let named = |(i, n): (usize, &usize)| u8s(&format!("t{i}"), *n);
    let all: Vec<HostTensor> = sizes.iter().enumerate().map(named).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ckpt");
    for count in 0..=all.len() {
        let tensors = &all[..count];
        write(&Disk::default(), &path, &header(1), tensors).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        let mut expected = content_text(&checkpoint.metadata, &checkpoint.table).into_bytes();
        tensors.iter().for_each(|t| expected.extend(blake3::hash(&t.bytes).as_bytes()));
        let expected = format!("blake3:{}", blake3::hash(&expected));
        assert_eq!(checkpoint.digest(), Some(expected.as_str()), "{count} tensors");
        all_come_back(&path, tensors);
    }
    let good = std::fs::read(&path).unwrap();
    let data = Checkpoint::open(&path).unwrap().data_start as usize;
    for position in
        [data, data + 1, data + chunk, data + 2 * chunk, data + 4 * chunk, good.len() - 1]
    {
        let mut bad = good.clone();
        bad[position] ^= 1;
        std::fs::write(&path, bad).unwrap();
        let opened = || Checkpoint::open(&path).unwrap();
        assert_eq!(opened().verify().unwrap_err().fault, Corruption::Altered, "byte {position}");
        assert_eq!(opened().load().unwrap_err().fault, Corruption::Altered, "byte {position}");
    }
}

#[test]
fn an_empty_tensor_may_stand_before_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ckpt");
    let empty = HostTensor { name: "z".into(), dtype: Dtype::I64, shape: vec![0], bytes: vec![] };
    let tensors = [HostTensor::f32("a", vec![1], &[1.0]), empty];
    write(&Disk::default(), &path, &header(1), &tensors).unwrap();
    all_come_back(&path, &tensors);
}

#[test]
fn a_digest_of_an_unknown_kind_is_named() {
    let (_folder, path) = written();
    let text = std::fs::read(&path).unwrap();
    let at = text.windows(7).position(|w| w == b"blake3:").unwrap();
    let mut other = text.clone();
    other[at..at + 7].copy_from_slice(b"blake9:");
    std::fs::write(&path, other).unwrap();
    let opened = || Checkpoint::open(&path).unwrap();
    for error in [opened().verify().unwrap_err(), opened().load().unwrap_err()] {
        assert_eq!(error.fault, Corruption::Altered);
        assert!(error.message.starts_with("its digest begins with \"blake9:"), "{error}");
    }
}
