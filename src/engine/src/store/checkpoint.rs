//! Checkpoint files: safetensors with a header of our own in `__metadata__`. Nothing in them can execute, and
//! reading one tensor touches only its bytes. What the tensors mean is not known here.
//!
//! Format: <https://github.com/huggingface/safetensors#format>: 8 bytes little-endian header length, a JSON object
//! of `name: {dtype, shape, data_offsets}` and `__metadata__` (text to text), then the data without gaps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::atomic;
use super::tensor::{Dtype, HostTensor};
use crate::identity::hex;

/// Value of `format` in the header.
pub const FORMAT: &str = "pipe-checkpoint";
/// Version that this program writes.
pub const VERSION: u64 = 1;
/// A header longer than this is refused; the longest real ones are a few hundred kilobytes.
const MAX_HEADER: u64 = 64 << 20;

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Completed epochs.
    pub epoch: u64,
    /// Optimizer steps since the start.
    pub global_step: u64,
    /// Optimizer steps into the next epoch; 0 at an epoch's end.
    pub step_in_epoch: u64,
    pub metrics: BTreeMap<String, f64>,
    pub scheduler_state_dict: Value,
    /// What the loop needs besides to go on inside an epoch.
    pub loop_state: Value,
    pub saved_at: DateTime<Utc>,
    /// Identity of the run.
    pub identity: String,
    pub seed: u64,
    /// Enough to rebuild the model.
    pub model_config: Value,
    /// Anything else, by key.
    pub extra: BTreeMap<String, String>,
}

/// What is wrong with a checkpoint file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No checkpoint at all.
    Foreign,
    /// Shorter or longer than its header says.
    Torn,
    /// The content does not have the digest that it had when written.
    Altered,
    /// Written by a newer program.
    TooNew,
    /// The file cannot be read.
    Unreadable,
    /// The file is good and has no such tensor.
    NoTensor,
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct CheckpointError {
    pub path: PathBuf,
    pub fault: Fault,
    pub message: String,
}

/// Place and form of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Offset from the start of the data.
    start: u64,
    pub bytes: u64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub bytes: u64,
    /// `sha256:…` of the whole file, as `sha256sum` gives it.
    pub file_digest: String,
}

/// Writes a checkpoint, whole or not at all. The same header and tensors give the same bytes.
///
/// Both digests are computed beside the writing: that of the content while the data goes to the file, which has its
/// header written last, and that of the file while the disk takes it in.
pub fn write(path: &Path, header: &Header, tensors: &[HostTensor]) -> Result<Written, atomic::WriteError> {
    // Larger elements first, so that every tensor starts at a multiple of its element's size.
    let mut sorted: Vec<&HostTensor> = tensors.iter().collect();
    sorted.sort_by(|a, b| b.dtype.size().cmp(&a.dtype.size()).then_with(|| a.name.cmp(&b.name)));
    let mut table = Map::new();
    let mut offset = 0u64;
    for tensor in &sorted {
        let end = offset + tensor.bytes.len() as u64;
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end]});
        table.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let metadata = header.to_metadata();
    let data = || sorted.iter().map(|t| t.bytes.as_slice());
    let (metadata, table) = (&metadata, &table);
    let head = head(metadata, table, &digest_text(&Sha256::new().finalize())).len() as u64;

    std::thread::scope(|scope| {
        let content = Beside::start(scope, move || {
            let mut hash = content_hash(metadata, table);
            data().for_each(|bytes| hash.update(bytes));
            digest_text(&hash.finalize())
        });
        let mut whole = None;
        atomic::write_head_last(path, head, |out| {
            data().try_for_each(|bytes| out.write_all(bytes))?;
            let head = self::head(metadata, table, &content.finish());
            let first = head.clone();
            whole = Some(Beside::start(scope, move || {
                let mut hash = Sha256::new_with_prefix(&first);
                data().for_each(|bytes| hash.update(bytes));
                digest_text(&hash.finalize())
            }));
            Ok(head)
        })?;
        let file_digest = whole.map(Beside::finish).unwrap_or_default();
        Ok(Written { bytes: head + offset, file_digest })
    })
}

/// All that stands before the data: the header's length and the header.
fn head(metadata: &BTreeMap<String, String>, table: &Map<String, Value>, digest: &str) -> Vec<u8> {
    let mut metadata = metadata.clone();
    metadata.insert("digest".into(), digest.into());
    let mut table = table.clone();
    table.insert("__metadata__".into(), json!(metadata));
    let mut text = serde_json::to_string(&table).unwrap_or_default().into_bytes();
    // The data starts at a multiple of 8; the format pads with spaces.
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}

fn digest_text(digest: &[u8]) -> String {
    format!("sha256:{}", hex(digest))
}

/// Work that another thread does meanwhile; where the system has none to give, it is done when its result is wanted.
enum Beside<'scope, T, F> {
    Running(std::thread::ScopedJoinHandle<'scope, T>),
    Later(F),
}

impl<'scope, T: Send + 'scope, F: Fn() -> T + Clone + Send + 'scope> Beside<'scope, T, F> {
    fn start(scope: &'scope std::thread::Scope<'scope, '_>, work: F) -> Self {
        match std::thread::Builder::new().spawn_scoped(scope, work.clone()) {
            Ok(handle) => Self::Running(handle),
            Err(_) => Self::Later(work),
        }
    }

    fn finish(self) -> T {
        match self {
            Self::Running(handle) => handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Self::Later(work) => work(),
        }
    }
}

/// The beginning of the content's digest: SHA-256 over the metadata (without the digest itself) and the tensor table;
/// the data follows.
fn content_hash(metadata: &BTreeMap<String, String>, table: &Map<String, Value>) -> Sha256 {
    let mut hash = Sha256::new();
    for (key, value) in metadata.iter().filter(|(key, _)| *key != "digest") {
        hash.update(format!("{}:{key}={}:{value}\n", key.len(), value.len()));
    }
    for (name, entry) in table.iter().filter(|(name, _)| *name != "__metadata__") {
        hash.update(format!("{}:{name}={entry}\n", name.len()));
    }
    hash
}

impl Header {
    fn to_metadata(&self) -> BTreeMap<String, String> {
        let mut map = self.extra.clone();
        map.extend([
            ("format".to_owned(), FORMAT.to_owned()),
            ("version".into(), VERSION.to_string()),
            ("epoch".into(), self.epoch.to_string()),
            ("global_step".into(), self.global_step.to_string()),
            ("step_in_epoch".into(), self.step_in_epoch.to_string()),
            ("metrics".into(), json!(self.metrics).to_string()),
            ("scheduler_state_dict".into(), self.scheduler_state_dict.to_string()),
            ("loop_state".into(), self.loop_state.to_string()),
            ("saved_at".into(), self.saved_at.to_rfc3339()),
            ("identity".into(), self.identity.clone()),
            ("seed".into(), self.seed.to_string()),
            ("model_config".into(), self.model_config.to_string()),
        ]);
        map
    }

    fn from_metadata(mut map: BTreeMap<String, String>) -> Result<Self, (Fault, String)> {
        let foreign = |message: String| (Fault::Foreign, message);
        let mut take =
            |key: &str| map.remove(key).ok_or_else(|| foreign(format!("the header has no `{key}`")));
        if take("format").ok().as_deref() != Some(FORMAT) {
            return Err(foreign("a safetensors file, but not a checkpoint of pipe".into()));
        }
        let number = |key: &str, text: String| {
            text.parse::<u64>().map_err(|_| foreign(format!("`{key}` is no number")))
        };
        let parsed = |key: &str, text: String| {
            serde_json::from_str::<Value>(&text)
                .map_err(|e| foreign(format!("`{key}` is not valid JSON: {e}")))
        };
        let version = number("version", take("version")?)?;
        if version > VERSION {
            let message =
                format!("written in format {version}, newer than the {VERSION} that this program reads");
            return Err((Fault::TooNew, message));
        }
        let metrics = parsed("metrics", take("metrics")?)?;
        let saved_at = take("saved_at")?;
        let header = Self {
            epoch: number("epoch", take("epoch")?)?,
            global_step: number("global_step", take("global_step")?)?,
            step_in_epoch: number("step_in_epoch", take("step_in_epoch")?)?,
            metrics: serde_json::from_value(metrics).map_err(|e| foreign(format!("`metrics`: {e}")))?,
            scheduler_state_dict: parsed("scheduler_state_dict", take("scheduler_state_dict")?)?,
            loop_state: parsed("loop_state", take("loop_state")?)?,
            saved_at: saved_at.parse().map_err(|e| foreign(format!("`saved_at`: {e}")))?,
            identity: take("identity")?,
            seed: number("seed", take("seed")?)?,
            model_config: parsed("model_config", take("model_config")?)?,
            extra: BTreeMap::new(),
        };
        map.remove("digest");
        Ok(Self { extra: map, ..header })
    }
}

/// An opened checkpoint: header and tensor table are read, the data is not.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    header: Header,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
    table: Map<String, Value>,
    data_start: u64,
    data_bytes: u64,
}

/// A checkpoint whose content has its digest, in memory.
#[derive(Debug)]
pub struct Loaded {
    checkpoint: Checkpoint,
    tensors: BTreeMap<String, HostTensor>,
}

impl Loaded {
    pub fn path(&self) -> &Path {
        &self.checkpoint.path
    }

    pub fn header(&self) -> &Header {
        &self.checkpoint.header
    }

    /// The names of all tensors of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.checkpoint.entries.keys().map(String::as_str)
    }

    /// Hands out a tensor, once: so that its memory goes as it is used.
    pub fn take(&mut self, name: &str) -> Option<HostTensor> {
        self.tensors.remove(name)
    }
}

impl Checkpoint {
    /// Reads and checks the header: lengths, offsets, types. The data's digest is [`verify`](Self::verify)'s work.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Self::read_header(path).map_err(|(fault, message)| CheckpointError {
            path: path.to_owned(),
            fault,
            message,
        })
    }

    fn read_header(path: &Path) -> Result<Self, (Fault, String)> {
        let unreadable = |e: io::Error| (Fault::Unreadable, format!("failed to read: {e}"));
        let foreign = |message: &str| (Fault::Foreign, message.to_owned());
        let mut file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let mut length = [0; 8];
        if size < 8 {
            return Err((Fault::Torn, format!("only {size} bytes long")));
        }
        file.read_exact(&mut length).map_err(unreadable)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER {
            return Err(foreign("not a safetensors file (its header would be too long)"));
        }
        if 8 + length > size {
            return Err((Fault::Torn, format!("cut off inside its header, {size} bytes long")));
        }
        let mut text = vec![0; length as usize];
        file.read_exact(&mut text).map_err(unreadable)?;
        let header: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|e| (Fault::Foreign, format!("its header is not valid JSON: {e}")))?;
        let mut table = header;
        let metadata = table.remove("__metadata__").unwrap_or_default();
        let metadata: BTreeMap<String, String> = serde_json::from_value(metadata)
            .map_err(|_| foreign("a safetensors file, but not a checkpoint of pipe"))?;
        let header = Header::from_metadata(metadata.clone())?;

        let mut entries = Vec::with_capacity(table.len());
        for (name, value) in &table {
            entries.push(
                Entry::parse(name, value)
                    .map_err(|why| (Fault::Altered, format!("tensor `{name}`: {why}")))?,
            );
        }
        entries.sort_by_key(|e| e.start);
        let mut end = 0u64;
        for entry in &entries {
            if entry.start != end {
                return Err((
                    Fault::Altered,
                    format!("tensor `{}` overlaps another or leaves a gap", entry.name),
                ));
            }
            end = end
                .checked_add(entry.bytes)
                .ok_or_else(|| (Fault::Altered, "offsets overflow".to_owned()))?;
        }
        let data_start = 8 + length;
        let whole = data_start.saturating_add(end);
        if size != whole {
            return Err((Fault::Torn, format!("{size} bytes long, its header promises {whole}")));
        }
        let entries = entries.into_iter().map(|e| (e.name.clone(), e)).collect();
        Ok(Self { path: path.to_owned(), header, entries, metadata, table, data_start, data_bytes: end })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// `sha256:…` over the content, as written in the header.
    pub fn digest(&self) -> Option<&str> {
        self.metadata.get("digest").map(String::as_str)
    }

    /// All tensors by name, without their data.
    pub fn tensors(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Reads one tensor if the file has it.
    pub fn find(&self, name: &str) -> Result<Option<HostTensor>, CheckpointError> {
        self.entries.contains_key(name).then(|| self.read(name)).transpose()
    }

    /// Reads one tensor, touching no other bytes.
    pub fn read(&self, name: &str) -> Result<HostTensor, CheckpointError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(self.error(Fault::NoTensor, format!("has no tensor `{name}`")));
        };
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.data_start + entry.start))?;
            let mut bytes = vec![0; entry.bytes as usize];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        let bytes =
            read().map_err(|e| self.error(Fault::Unreadable, format!("failed to read `{name}`: {e}")))?;
        Ok(HostTensor { name: name.to_owned(), dtype: entry.dtype, shape: entry.shape.clone(), bytes })
    }

    /// Recomputes the digest of everything in the file.
    pub fn verify(&self) -> Result<(), CheckpointError> {
        let digest = || -> io::Result<String> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.data_start))?;
            let mut hash = content_hash(&self.metadata, &self.table);
            let read = hash_all(file.take(self.data_bytes), &mut hash)?;
            if read == self.data_bytes {
                Ok(digest_text(&hash.finalize()))
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        };
        self.compare(&digest().map_err(|e| self.error(Fault::Unreadable, format!("failed to read: {e}")))?)
    }

    /// Reads every tensor, and checks the digest of everything meanwhile: the file is read once.
    pub fn load(self) -> Result<Loaded, CheckpointError> {
        let mut entries: Vec<&Entry> = self.entries.values().collect();
        entries.sort_by_key(|entry| entry.start);
        let mut hash = content_hash(&self.metadata, &self.table);
        let mut tensors = BTreeMap::new();
        let read = || -> io::Result<()> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.data_start))?;
            let pieces = entries.into_iter().map(|entry| {
                let mut bytes = vec![0; entry.bytes as usize];
                file.read_exact(&mut bytes).map(|()| (entry, bytes))
            });
            read_ahead(pieces, |(Entry { name, dtype, shape, .. }, bytes)| {
                hash.update(&bytes);
                let (name, shape) = (name.clone(), shape.clone());
                tensors.insert(name.clone(), HostTensor { name, dtype: *dtype, shape, bytes });
            })
        };
        read().map_err(|e| self.error(Fault::Unreadable, format!("failed to read: {e}")))?;
        self.compare(&digest_text(&hash.finalize()))?;
        Ok(Loaded { checkpoint: self, tensors })
    }

    fn compare(&self, digest: &str) -> Result<(), CheckpointError> {
        match self.digest() {
            Some(expected) if expected == digest => Ok(()),
            _ => Err(self
                .error(Fault::Altered, "its content does not have its digest: the file was altered".into())),
        }
    }

    fn error(&self, fault: Fault, message: String) -> CheckpointError {
        CheckpointError { path: self.path.clone(), fault, message }
    }
}

impl Entry {
    fn parse(name: &str, value: &Value) -> Result<Self, String> {
        let dtype: Dtype =
            serde_json::from_value(value["dtype"].clone()).map_err(|_| "unknown dtype".to_owned())?;
        let shape: Vec<usize> =
            serde_json::from_value(value["shape"].clone()).map_err(|_| "bad shape".to_owned())?;
        let [start, end]: [u64; 2] =
            serde_json::from_value(value["data_offsets"].clone()).map_err(|_| "bad offsets".to_owned())?;
        let bytes = end.checked_sub(start).ok_or("offsets run backwards")?;
        let expected = shape.iter().try_fold(dtype.size() as u64, |n, d| n.checked_mul(*d as u64));
        if expected != Some(bytes) {
            return Err(format!("{bytes} bytes do not fit shape {shape:?} of {dtype:?}"));
        }
        Ok(Self { name: name.to_owned(), dtype, shape, start, bytes })
    }
}

/// Digest of a whole file, as `sha256sum` gives it.
pub fn file_digest(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash_all(File::open(path)?, &mut hash)?;
    Ok(digest_text(&hash.finalize()))
}

/// Feeds all that can be read to `hash`, and says how many bytes that was.
fn hash_all(mut from: impl Read + Send, hash: &mut Sha256) -> io::Result<u64> {
    const CHUNK: u64 = 1 << 20;
    let mut total = 0;
    let chunks = std::iter::from_fn(|| {
        let mut chunk = Vec::with_capacity(CHUNK as usize);
        match (&mut from).take(CHUNK).read_to_end(&mut chunk) {
            Ok(0) => None,
            read => Some(read.map(|_| chunk)),
        }
    });
    read_ahead(chunks, |chunk| {
        hash.update(&chunk);
        total += chunk.len() as u64;
    })?;
    Ok(total)
}

/// Gives each of some pieces to `each`, up to the first error, while another thread reads those that follow.
fn read_ahead<T: Send>(
    pieces: impl Iterator<Item = io::Result<T>> + Send,
    mut each: impl FnMut(T),
) -> io::Result<()> {
    const AHEAD: usize = 2;
    let mut pieces = pieces;
    // What is short needs no thread.
    for piece in pieces.by_ref().take(AHEAD) {
        each(piece?);
    }
    let pieces = &Mutex::new(pieces);
    std::thread::scope(|scope| {
        let (send, ready) = sync_channel(AHEAD);
        let read = move || {
            let Ok(mut pieces) = pieces.lock() else { return };
            for piece in pieces.by_ref() {
                let failed = piece.is_err();
                if send.send(piece).is_err() || failed {
                    return;
                }
            }
        };
        match std::thread::Builder::new().spawn_scoped(scope, read) {
            Ok(_) => ready.iter().try_for_each(|piece| piece.map(&mut each)),
            // A system without a thread to give.
            Err(_) => match pieces.lock() {
                Ok(mut pieces) => pieces.by_ref().try_for_each(|piece| piece.map(&mut each)),
                Err(_) => Err(io::ErrorKind::Other.into()),
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn header(epoch: u64) -> Header {
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
        write(&path, &header(1), &tensors()).unwrap();
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
        assert_eq!(checkpoint.read("none").unwrap_err().fault, Fault::NoTensor);
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
        let written = write(&second, &header(1), &shuffled).unwrap();
        let bytes = std::fs::read(&second).unwrap();
        assert_eq!(std::fs::read(first).unwrap(), bytes);
        assert_eq!(written.bytes, bytes.len() as u64);
        assert_eq!(written.file_digest, format!("sha256:{}", hex(&Sha256::digest(&bytes))));
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let (_folder, path) = written();
        let good = std::fs::read(&path).unwrap();
        for position in 0..good.len() {
            for flip in [0x01, 0x80] {
                let mut bad = good.clone();
                bad[position] ^= flip;
                std::fs::write(&path, &bad).unwrap();
                let found = Checkpoint::open(&path).and_then(|c| c.verify());
                assert!(found.is_err(), "byte {position} flipped by {flip:#x} went unnoticed");
            }
        }
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
        assert_eq!(Checkpoint::open(&path).unwrap_err().fault, Fault::Torn);
    }

    #[test]
    fn foreign_and_newer_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "PK\x03\x04 a pickled checkpoint").unwrap();
        assert_eq!(Checkpoint::open(&path).unwrap_err().fault, Fault::Foreign);
        let (_f, good) = written();
        let text = String::from_utf8_lossy(&std::fs::read(good).unwrap()[..]).into_owned();
        assert!(text.contains("\"version\":\"1\""));
        let bytes = std::fs::read(_f.path().join("epoch_001.ckpt")).unwrap();
        let at = bytes.windows(13).position(|w| w == b"\"version\":\"1\"").unwrap();
        let mut newer = bytes.clone();
        newer[at + 11] = b'9';
        std::fs::write(&path, newer).unwrap();
        assert_eq!(Checkpoint::open(&path).unwrap_err().fault, Fault::TooNew);
    }
}
