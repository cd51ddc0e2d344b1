//! Reading checkpoint files: the header alone, single tensors, or all with their digest checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::super::tensor::HostTensor;
use super::digest::{
    content_digest, content_text, head_digest, listed_digests, sha256_text, state_digest,
};
use super::format::{BLAKE3, CHUNK, CheckpointError, Corruption, SHA256, TENSOR_DIGESTS};
use super::head::{data_length, foreign, read_head};
use super::program::{ProgramFiles, read_beside};
use super::share::share;
use super::{Header, TensorEntry};

/// An opened checkpoint: header and tensor table are read, the data is not. No tensor can be had of
/// it whose bytes were not compared with a digest.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    header: Header,
    entries: BTreeMap<String, TensorEntry>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) table: Map<String, Value>,
    pub(super) data_start: u64,
    head_digest: String,
    /// What a program wrote has files of its own form, and no tensors here.
    program: Option<ProgramFiles>,
    /// The digest of each tensor, where the header lists them and they lead to the content's
    /// digest.
    listed: OnceLock<Option<BTreeMap<String, blake3::Hash>>>,
    /// What came of checking the whole file, where the header lists no digests.
    checked: OnceLock<Result<(), CheckpointError>>,
}

/// A checkpoint whose content has its digest, in memory.
#[derive(Debug)]
pub struct Loaded {
    checkpoint: Checkpoint,
    pub(super) tensors: BTreeMap<String, HostTensor>,
}

impl Loaded {
    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.checkpoint.path
    }

    /// What the file says of itself.
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
    /// Reads and checks the header: lengths, offsets, types. The data's digest is
    /// [`verify`](Self::verify)'s work.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Self::read_header(path).map_err(|(fault, message)| CheckpointError {
            path: path.to_owned(),
            fault,
            message,
        })
    }

    fn read_header(path: &Path) -> Result<Self, (Corruption, String)> {
        match read_beside(path) {
            Ok(Some((header, files))) => Ok(Self::of_program(path, header, files)),
            Ok(None) => Self::read_own(path),
            // What stands beside it may be anybody's.
            Err(error) => Self::read_own(path).map_err(|_| error),
        }
    }

    fn of_program(path: &Path, header: Header, files: ProgramFiles) -> Self {
        Self {
            path: path.to_owned(),
            header,
            entries: BTreeMap::new(),
            metadata: BTreeMap::new(),
            table: Map::new(),
            data_start: 0,
            head_digest: files.digest(),
            program: Some(files),
            listed: OnceLock::new(),
            checked: OnceLock::new(),
        }
    }

    fn read_own(path: &Path) -> Result<Self, (Corruption, String)> {
        let (head, size) = read_head(path)?;
        let mut table: Map<String, Value> = serde_json::from_slice(&head[8..])
            .map_err(|e| (Corruption::Foreign, format!("its header is not valid JSON: {e}")))?;
        let metadata = table.remove("__metadata__").unwrap_or_default();
        let metadata: BTreeMap<String, String> = serde_json::from_value(metadata)
            .map_err(|_| foreign("a safetensors file, but not a checkpoint of pipe"))?;
        let header = Header::from_metadata(metadata.clone())?;

        let mut entries = Vec::with_capacity(table.len());
        for (name, value) in &table {
            entries.push(
                TensorEntry::parse(name, value)
                    .map_err(|why| (Corruption::Altered, format!("tensor `{name}`: {why}")))?,
            );
        }
        entries.sort_by_key(TensorEntry::place);
        let data_start = head.len() as u64;
        let whole = data_start.saturating_add(data_length(&entries)?);
        if size != whole {
            return Err((
                Corruption::Torn,
                format!("{size} bytes long, its header promises {whole}"),
            ));
        }
        let entries = entries.into_iter().map(|e| (e.name.clone(), e)).collect();
        let head_digest = head_digest(&head);
        Ok(Self {
            path: path.to_owned(),
            header,
            entries,
            metadata,
            table,
            data_start,
            head_digest,
            program: None,
            listed: OnceLock::new(),
            checked: OnceLock::new(),
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether a program wrote it in a form of its own: it has no tensors here.
    pub fn is_of_program(&self) -> bool {
        self.program.is_some()
    }

    /// The files that it consists of.
    pub fn files(&self) -> Vec<PathBuf> {
        self.program.as_ref().map_or_else(|| vec![self.path.clone()], |p| p.paths(&self.path))
    }

    /// Its length; of a folder that of all files in it.
    pub fn bytes(&self) -> u64 {
        let own = || std::fs::metadata(&self.path).map_or(0, |found| found.len());
        self.program.as_ref().map_or_else(own, ProgramFiles::bytes)
    }

    /// `blake3:…` over the content, as written in the header; `sha256:…` in format 1. What a program
    /// wrote has none of this sort.
    pub fn digest(&self) -> Option<&str> {
        self.metadata.get("digest").map(String::as_str)
    }

    /// What [`file_digest`](super::file_digest) gives this file if it is whole, to be used after
    /// [`verify`](Self::verify): `blake3-head:…`; of what a program wrote `blake3:…` or
    /// `blake3-tree:…`.
    pub fn head_digest(&self) -> &str {
        &self.head_digest
    }

    /// `blake3:…` over the tensors alone, whatever the header says besides: two checkpoints with the
    /// same one hold the same state. Of what a program wrote it is the digest of its files. To be
    /// used after [`verify`](Self::verify). A file of format 1 has none.
    pub fn state_digest(&self) -> Option<String> {
        if self.is_of_program() {
            return Some(self.head_digest.clone());
        }
        let hashes = listed_digests(self.metadata.get(TENSOR_DIGESTS)?)?;
        Some(state_digest(&self.table, &hashes))
    }

    /// All tensors by name, without their data.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorEntry> {
        self.entries.values()
    }

    /// Reads one tensor if the file has it.
    pub fn find(&self, name: &str) -> Result<Option<HostTensor>, CheckpointError> {
        self.entries.contains_key(name).then(|| self.read(name)).transpose()
    }

    /// Reads one tensor and compares it with its digest. Other tensors are not touched where the
    /// header lists the digest of each; in a file of an older program the whole file is checked,
    /// once.
    ///
    /// # Errors
    /// There is no such tensor, the file cannot be read, or the file was altered since it was
    /// written.
    pub fn read(&self, name: &str) -> Result<HostTensor, CheckpointError> {
        let Some(entry) = self.entries.get(name) else {
            if self.is_of_program() {
                let message = "a training program wrote it in a form of its own, which only that \
                               program reads";
                return Err(self.error(Corruption::NoTensor, message.to_owned()));
            }
            return Err(self.error(Corruption::NoTensor, format!("has no tensor `{name}`")));
        };
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.data_start + entry.start))?;
            let mut bytes = vec![0; entry.bytes as usize];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|e| {
            self.error(Corruption::Unreadable, format!("failed to read `{name}`: {e}"))
        })?;
        match self.listed_digests() {
            Some(digests) if digests.get(name) == Some(&blake3::hash(&bytes)) => {}
            Some(_) => return Err(self.altered()),
            None => self.checked.get_or_init(|| self.verify()).clone()?,
        }
        Ok(HostTensor {
            name: name.to_owned(),
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            bytes,
        })
    }

    /// The digest of each tensor by its name, if the header lists them and is itself as it was
    /// written.
    fn listed_digests(&self) -> Option<&BTreeMap<String, blake3::Hash>> {
        let listed = || {
            let hashes = listed_digests(self.metadata.get(TENSOR_DIGESTS)?)?;
            let entries = self.in_order();
            let text = content_text(&self.metadata, &self.table);
            let whole = entries.len() == hashes.len()
                && self.digest() == Some(content_digest(&text, &hashes).as_str());
            whole.then(|| entries.iter().map(|entry| entry.name.clone()).zip(hashes).collect())
        };
        self.listed.get_or_init(listed).as_ref()
    }

    /// Recomputes the digest of everything in the file.
    pub fn verify(&self) -> Result<(), CheckpointError> {
        self.read_all(false).map(drop)
    }

    /// Reads every tensor, and checks the digest of everything meanwhile: the file is read once.
    pub fn load(self) -> Result<Loaded, CheckpointError> {
        let data = self.read_all(true)?;
        let tensors = self.in_order().into_iter().zip(data).map(
            |(TensorEntry { name, dtype, shape, .. }, bytes)| {
                let tensor =
                    HostTensor { name: name.clone(), dtype: *dtype, shape: shape.clone(), bytes };
                (name.clone(), tensor)
            },
        );
        Ok(Loaded { tensors: tensors.collect(), checkpoint: self })
    }

    /// Reads all data and compares its digest. Returns each tensor's bytes, in the order of the
    /// data, if they are to be kept.
    fn read_all(&self, keep: bool) -> Result<Vec<Vec<u8>>, CheckpointError> {
        if let Some(program) = &self.program {
            let verified = program.verify(&self.path);
            let wrong = |(fault, message)| self.error(fault, message);
            return verified.map(|()| Vec::new()).map_err(wrong);
        }
        let digest = self.digest().unwrap_or_default();
        let text = content_text(&self.metadata, &self.table);
        let read = if digest.starts_with(BLAKE3) {
            self.read_together(keep).map(|(hashes, data)| (content_digest(&text, &hashes), data))
        } else if digest.starts_with(SHA256) {
            self.read_in_order(&text, keep)
        } else {
            let begins: String = digest.chars().take(8).collect();
            let message =
                format!("its digest begins with {begins:?}; known are {BLAKE3} and {SHA256}");
            return Err(self.error(Corruption::Altered, message));
        };
        let (found, data) =
            read.map_err(|e| self.error(Corruption::Unreadable, format!("failed to read: {e}")))?;
        if found == digest {
            return Ok(data);
        }
        Err(self.altered())
    }

    fn altered(&self) -> CheckpointError {
        self.error(
            Corruption::Altered,
            "its content does not have its digest: the file was altered".into(),
        )
    }

    /// Format 2: each tensor has a digest, so that several threads share them.
    fn read_together(&self, keep: bool) -> io::Result<(Vec<blake3::Hash>, Vec<Vec<u8>>)> {
        let open = || Ok((File::open(&self.path)?, blake3::Hasher::new()));
        let read = share(&self.in_order(), open, |(file, hash), entry| {
            hash.reset();
            let bytes = self.read_entry(file, entry, keep, |bytes| {
                hash.update(bytes);
            })?;
            Ok((hash.finalize(), bytes))
        })?;
        Ok(read.into_iter().unzip())
    }

    /// Format 1: one digest goes through all tensors.
    fn read_in_order(&self, text: &str, keep: bool) -> io::Result<(String, Vec<Vec<u8>>)> {
        let mut hash = Sha256::new_with_prefix(text);
        let mut file = File::open(&self.path)?;
        let mut read = |entry| self.read_entry(&mut file, entry, keep, |bytes| hash.update(bytes));
        let data = self.in_order().into_iter().map(&mut read).collect::<io::Result<_>>()?;
        Ok((sha256_text(hash), data))
    }

    /// Gives a tensor's bytes to `each`, piece by piece; returns them if they are to be kept.
    fn read_entry(
        &self,
        file: &mut File,
        entry: &TensorEntry,
        keep: bool,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<Vec<u8>> {
        file.seek(SeekFrom::Start(self.data_start + entry.start))?;
        let whole = entry.bytes as usize;
        if keep {
            let mut bytes = vec![0; whole];
            for piece in bytes.chunks_mut(CHUNK) {
                file.read_exact(piece)?;
                each(piece);
            }
            return Ok(bytes);
        }
        let mut piece = vec![0; whole.min(CHUNK)];
        for start in (0..whole).step_by(CHUNK) {
            piece.truncate(whole - start);
            file.read_exact(&mut piece)?;
            each(&piece);
        }
        Ok(Vec::new())
    }

    /// The tensors in the order of their data.
    pub(super) fn in_order(&self) -> Vec<&TensorEntry> {
        let mut entries: Vec<&TensorEntry> = self.entries.values().collect();
        entries.sort_by_key(|e| e.place());
        entries
    }

    fn error(&self, fault: Corruption, message: String) -> CheckpointError {
        CheckpointError { path: self.path.clone(), fault, message }
    }
}
