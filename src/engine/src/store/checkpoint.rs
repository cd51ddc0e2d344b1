//! Checkpoint files: safetensors with a header of our own in `__metadata__`. Nothing in them can execute, and
//! reading one tensor touches only its bytes. What the tensors mean is not known here.
//!
//! Format: <https://github.com/huggingface/safetensors#format>: 8 bytes little-endian header length, a JSON object
//! of `name: {dtype, shape, data_offsets}` and `__metadata__` (text to text), then the data without gaps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
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
/// Version that this program writes. Version 1, which it reads, has another digest: [`ContentHash`].
pub const VERSION: u64 = 2;
/// A header longer than this is refused; the longest real ones are a few hundred kilobytes.
const MAX_HEADER: u64 = 64 << 20;
/// So much is read at a time where only a digest is wanted.
const CHUNK: u64 = 1 << 20;

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
/// The content's digest comes first, since the header holds it; that of the file is computed beside the writing.
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
    let content = content_digest(&content_text(&metadata, &table), &sorted, offset);
    let head = head(&metadata, table, &content);
    let parts = || std::iter::once(head.as_slice()).chain(sorted.iter().map(|t| t.bytes.as_slice()));

    std::thread::scope(|scope| {
        let file = Beside::start(scope, move || {
            let mut hash = Sha256::new();
            parts().for_each(|bytes| hash.update(bytes));
            sha256_text(&hash.finalize())
        });
        atomic::write(path, |out| parts().try_for_each(|bytes| out.write_all(bytes)))?;
        Ok(Written { bytes: head.len() as u64 + offset, file_digest: file.finish() })
    })
}

/// The digest that [`ContentHash`] gives tensors in this order, of so many bytes in all, with two threads.
fn content_digest(text: &str, tensors: &[&HostTensor], bytes: u64) -> String {
    let mut seen = 0;
    let half = tensors.iter().take_while(|tensor| {
        seen += tensor.bytes.len() as u64;
        2 * seen <= bytes
    });
    let (first, second) = tensors.split_at(half.count());
    let digests = |of: &[&HostTensor]| of.iter().map(|t| blake3::hash(&t.bytes)).collect::<Vec<_>>();
    let mut whole = blake3::Hasher::new();
    whole.update(text.as_bytes());
    std::thread::scope(|scope| {
        let first = Beside::start(scope, move || digests(first));
        let second = digests(second);
        for digest in first.finish().iter().chain(&second) {
            whole.update(digest.as_bytes());
        }
    });
    blake3_text(&whole)
}

/// All that stands before the data: the header's length and the header.
fn head(metadata: &BTreeMap<String, String>, mut table: Map<String, Value>, digest: &str) -> Vec<u8> {
    let mut metadata = metadata.clone();
    metadata.insert("digest".into(), digest.into());
    table.insert("__metadata__".into(), json!(metadata));
    let mut text = serde_json::to_string(&table).unwrap_or_default().into_bytes();
    // The data starts at a multiple of 8; the format pads with spaces.
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}

fn sha256_text(digest: &[u8]) -> String {
    format!("{SHA256}{}", hex(digest))
}

fn blake3_text(hash: &blake3::Hasher) -> String {
    format!("{BLAKE3}{}", hash.finalize().to_hex())
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

/// What a content's digest begins with: the metadata (without the digest itself) and the tensor table.
fn content_text(metadata: &BTreeMap<String, String>, table: &Map<String, Value>) -> String {
    let metadata = metadata.iter().filter(|(key, _)| *key != "digest");
    let metadata = metadata.map(|(key, value)| format!("{}:{key}={}:{value}\n", key.len(), value.len()));
    let table = table.iter().filter(|(name, _)| *name != "__metadata__");
    let table = table.map(|(name, entry)| format!("{}:{name}={entry}\n", name.len()));
    metadata.chain(table).collect()
}

const SHA256: &str = "sha256:";
const BLAKE3: &str = "blake3:";

/// A content's digest while it is computed: over [`content_text`] and the tensors in the order of their data.
enum ContentHash {
    /// Of format 1: SHA-256 of the text and the data.
    Sha256(Sha256),
    /// BLAKE3 of the text and of each tensor's BLAKE3.
    Blake3 { whole: Box<blake3::Hasher>, tensor: Box<blake3::Hasher> },
}

impl ContentHash {
    /// The kind of this digest; none if its prefix is unknown.
    fn like(digest: &str, text: &str) -> Option<Self> {
        if digest.starts_with(SHA256) {
            Some(Self::Sha256(Sha256::new_with_prefix(text)))
        } else if digest.starts_with(BLAKE3) {
            let mut whole = Box::<blake3::Hasher>::default();
            whole.update(text.as_bytes());
            Some(Self::Blake3 { whole, tensor: Box::default() })
        } else {
            None
        }
    }

    /// The next bytes of a tensor.
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Blake3 { tensor, .. } => drop(tensor.update(bytes)),
        }
    }

    /// All bytes of a tensor were given.
    fn end_tensor(&mut self) {
        if let Self::Blake3 { whole, tensor } = self {
            whole.update(tensor.finalize().as_bytes());
            tensor.reset();
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Sha256(hash) => sha256_text(&hash.finalize()),
            Self::Blake3 { whole, .. } => blake3_text(&whole),
        }
    }
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
        entries.sort_by_key(Entry::place);
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
        Ok(Self { path: path.to_owned(), header, entries, metadata, table, data_start })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// `blake3:…` over the content, as written in the header; `sha256:…` in format 1.
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
        let pieces = self.in_order().into_iter().flat_map(|entry| {
            // One that is empty has a piece, too: its end.
            let starts = (0..entry.bytes.max(1)).step_by(CHUNK as usize);
            starts.map(move |start| (entry, start..entry.bytes.min(start + CHUNK)))
        });
        self.read_all(pieces, |_, _| {})
    }

    /// Reads every tensor, and checks the digest of everything meanwhile: the file is read once.
    pub fn load(self) -> Result<Loaded, CheckpointError> {
        let mut tensors = BTreeMap::new();
        let whole = self.in_order().into_iter().map(|entry| (entry, 0..entry.bytes));
        self.read_all(whole, |Entry { name, dtype, shape, .. }, bytes| {
            let (name, shape) = (name.clone(), shape.clone());
            tensors.insert(name.clone(), HostTensor { name, dtype: *dtype, shape, bytes });
        })?;
        Ok(Loaded { checkpoint: self, tensors })
    }

    /// Hands all data to `each` in these pieces, which must be in order, and compares its digest.
    fn read_all<'a>(
        &self,
        pieces: impl Iterator<Item = (&'a Entry, Range<u64>)> + Send,
        mut each: impl FnMut(&'a Entry, Vec<u8>),
    ) -> Result<(), CheckpointError> {
        let digest = self.digest().unwrap_or_default();
        let text = content_text(&self.metadata, &self.table);
        let Some(mut hash) = ContentHash::like(digest, &text) else {
            let begins: String = digest.chars().take(8).collect();
            let message = format!("its digest begins with {begins:?}; known are {BLAKE3} and {SHA256}");
            return Err(self.error(Fault::Altered, message));
        };
        let read = || -> io::Result<()> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.data_start))?;
            let pieces = pieces.map(|(entry, piece)| {
                let mut bytes = vec![0; (piece.end - piece.start) as usize];
                file.read_exact(&mut bytes).map(|()| (entry, piece.end, bytes))
            });
            read_ahead(pieces, |(entry, end, bytes)| {
                hash.update(&bytes);
                if end == entry.bytes {
                    hash.end_tensor();
                }
                each(entry, bytes);
            })
        };
        read().map_err(|e| self.error(Fault::Unreadable, format!("failed to read: {e}")))?;
        if hash.finish() == digest {
            return Ok(());
        }
        Err(self.error(Fault::Altered, "its content does not have its digest: the file was altered".into()))
    }

    /// The tensors in the order of their data.
    fn in_order(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.values().collect();
        entries.sort_by_key(|e| e.place());
        entries
    }

    fn error(&self, fault: Fault, message: String) -> CheckpointError {
        CheckpointError { path: self.path.clone(), fault, message }
    }
}

impl Entry {
    /// Sorts by where the data stands; one that is empty comes before the one that begins there.
    fn place(&self) -> (u64, u64) {
        (self.start, self.bytes)
    }

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
    Ok(sha256_text(&hash.finalize()))
}

/// Feeds all that can be read to `hash`.
fn hash_all(mut from: impl Read + Send, hash: &mut Sha256) -> io::Result<()> {
    let chunks = std::iter::from_fn(|| {
        let mut chunk = Vec::with_capacity(CHUNK as usize);
        match (&mut from).take(CHUNK).read_to_end(&mut chunk) {
            Ok(0) => None,
            read => Some(read.map(|_| chunk)),
        }
    });
    read_ahead(chunks, |chunk| hash.update(&chunk))
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
        assert!(text.contains("\"version\":\"2\""));
        let bytes = std::fs::read(_f.path().join("epoch_001.ckpt")).unwrap();
        let at = bytes.windows(13).position(|w| w == b"\"version\":\"2\"").unwrap();
        let mut newer = bytes.clone();
        newer[at + 11] = b'9';
        std::fs::write(&path, newer).unwrap();
        assert_eq!(Checkpoint::open(&path).unwrap_err().fault, Fault::TooNew);
    }

    /// Writes a checkpoint as programs did that knew format 1 alone.
    fn write_format_1(path: &Path, header: &Header, tensors: &[HostTensor]) {
        let mut metadata = header.to_metadata();
        metadata.insert("version".into(), "1".into());
        let (mut table, mut data) = (Map::new(), Vec::new());
        for tensor in tensors {
            let start = data.len();
            data.extend(&tensor.bytes);
            let entry =
                json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]});
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
        assert_eq!(opened().verify().unwrap_err().fault, Fault::Altered);
        assert_eq!(opened().load().unwrap_err().fault, Fault::Altered);
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
        let chunk = CHUNK as usize;
        // In the order of their data. Empty ones, and ones that end at a piece's end, before and after it.
        let sizes = [0, 1, chunk - 1, chunk, 0, chunk + 1, 3 * chunk + 5, 0];
        let named = |(i, n): (usize, &usize)| u8s(&format!("t{i}"), *n);
        let all: Vec<HostTensor> = sizes.iter().enumerate().map(named).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ckpt");
        for count in 0..=all.len() {
            let tensors = &all[..count];
            write(&path, &header(1), tensors).unwrap();
            let checkpoint = Checkpoint::open(&path).unwrap();
            let mut expected = content_text(&checkpoint.metadata, &checkpoint.table).into_bytes();
            tensors.iter().for_each(|t| expected.extend(blake3::hash(&t.bytes).as_bytes()));
            let expected = format!("blake3:{}", blake3::hash(&expected));
            assert_eq!(checkpoint.digest(), Some(expected.as_str()), "{count} tensors");
            all_come_back(&path, tensors);
        }
        let good = std::fs::read(&path).unwrap();
        let data = Checkpoint::open(&path).unwrap().data_start as usize;
        for position in [data, data + 1, data + chunk, data + 2 * chunk, data + 4 * chunk, good.len() - 1] {
            let mut bad = good.clone();
            bad[position] ^= 1;
            std::fs::write(&path, bad).unwrap();
            let opened = || Checkpoint::open(&path).unwrap();
            assert_eq!(opened().verify().unwrap_err().fault, Fault::Altered, "byte {position}");
            assert_eq!(opened().load().unwrap_err().fault, Fault::Altered, "byte {position}");
        }
    }

    #[test]
    fn an_empty_tensor_may_stand_before_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ckpt");
        let empty = HostTensor { name: "z".into(), dtype: Dtype::I64, shape: vec![0], bytes: vec![] };
        let tensors = [HostTensor::f32("a", vec![1], &[1.0]), empty];
        write(&path, &header(1), &tensors).unwrap();
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
            assert_eq!(error.fault, Fault::Altered);
            assert!(error.message.starts_with("its digest begins with \"blake9:"), "{error}");
        }
    }
}
