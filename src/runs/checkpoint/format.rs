//! What makes a file a checkpoint of this program, and what can be wrong with one.

use std::path::PathBuf;

/// Value of `format` in the header.
pub const FORMAT: &str = "pipe-checkpoint";
/// Version that this program writes. Version 1, which it reads, has SHA-256 over its content.
pub const VERSION: u64 = 2;

/// Key of the header: the digest of each tensor, in the order of their data, so that one can be
/// checked without the others.
pub(super) const TENSOR_DIGESTS: &str = "tensor_digests";

/// What is wrong with a checkpoint file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corruption {
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

/// Why a file cannot be used as a checkpoint. Its text names the file.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct CheckpointError {
    pub path: PathBuf,
    pub fault: Corruption,
    pub message: String,
}

/// Begins the digest of a content in format 1, and that of a file which is no checkpoint.
pub(super) const SHA256: &str = "sha256:";
/// Begins the digest of a content in format 2.
pub(super) const BLAKE3: &str = "blake3:";
/// Begins the digest of a program's checkpoint that is a folder; that of one file begins as that of
/// a content does.
pub(super) const TREE: &str = "blake3-tree:";
/// So much is read before it goes into the digest: little enough to be in the processor's cache
/// still.
pub(super) const CHUNK: usize = 256 << 10;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub bytes: u64,
    /// `blake3-head:…`, as [`file_digest`](super::file_digest) gives it.
    pub file_digest: String,
    /// As [`Checkpoint::state_digest`](super::Checkpoint::state_digest) gives it.
    pub state_digest: String,
}
