//! Writing a checkpoint file.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::tensor::HostTensor;
use super::Header;
use super::digest::{content_digest, content_text, head_digest, state_digest, tensor_digests};
use super::format::{TENSOR_DIGESTS, Written};
use super::head::{MAX_HEADER, MAX_VALUES, values};
use pipe_fs::{Disk, atomic};

/// Writes a checkpoint, whole or not at all. The same header and tensors give the same bytes.
///
/// The content's digest is computed beside the writing, and the header that holds it goes in last.
pub fn write(
    disk: &Disk,
    path: &Path,
    header: &Header,
    tensors: &[HostTensor],
) -> Result<Written, atomic::WriteError> {
    // Larger elements first, so that every tensor starts at a multiple of its element's size.
    let mut sorted: Vec<&HostTensor> = tensors.iter().collect();
    sorted.sort_by(|a, b| b.dtype.size().cmp(&a.dtype.size()).then_with(|| a.name.cmp(&b.name)));
    let mut table = Map::new();
    let mut offset = 0u64;
    for tensor in &sorted {
        let end = offset + tensor.bytes.len() as u64;
        let entry =
            json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end]});
        table.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let metadata = header.to_metadata();
    // As long as the one that takes its place: a digest's length is always the same.
    let room = head(metadata.clone(), table.clone(), &vec![blake3::hash(&[]); sorted.len()]);
    // What is not read must not be written.
    if room.len() as u64 > MAX_HEADER || values(&room) > MAX_VALUES {
        let text = format!("a header of {} tensors is too long for a checkpoint", sorted.len());
        return Err(atomic::failed(disk, "write", path)(std::io::Error::other(text)));
    }

    std::thread::scope(|scope| {
        let digests = Beside::start(scope, || {
            sorted.iter().map(|t| blake3::hash(&t.bytes)).collect::<Vec<_>>()
        });
        let (mut file_digest, mut state) = (String::new(), String::new());
        let parts =
            || std::iter::once(room.as_slice()).chain(sorted.iter().map(|t| t.bytes.as_slice()));
        atomic::write_head_last(
            disk,
            path,
            |out| parts().try_for_each(|bytes| out.write_all(bytes)),
            || {
                let digests = digests.finish();
                state = state_digest(&table, &digests);
                let head = head(metadata, table, &digests);
                file_digest = head_digest(&head);
                head
            },
        )?;
        let bytes = room.len() as u64 + offset;
        Ok(Written { bytes, file_digest, state_digest: state })
    })
}

/// All that stands before the data: the header's length and the header. `tensors`: the digest of
/// each.
fn head(
    mut metadata: BTreeMap<String, String>,
    mut table: Map<String, Value>,
    tensors: &[blake3::Hash],
) -> Vec<u8> {
    metadata.insert(TENSOR_DIGESTS.into(), tensor_digests(tensors));
    let digest = content_digest(&content_text(&metadata, &table), tensors);
    metadata.insert("digest".into(), digest);
    table.insert("__metadata__".into(), json!(metadata));
    let mut text = serde_json::to_string(&table).unwrap_or_default().into_bytes();
    // The data starts at a multiple of 8; the format pads with spaces.
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}

/// Work that another thread does meanwhile; where the system has none to give, it is done when its
/// result is wanted.
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
            Self::Running(handle) => {
                handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
            Self::Later(work) => work(),
        }
    }
}
