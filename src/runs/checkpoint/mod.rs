//! Checkpoint files: safetensors with a header of our own in `__metadata__`. Nothing in them can
//! execute, and reading one tensor touches only its bytes. What the tensors mean is not known here.
//!
//! Format: <https://github.com/huggingface/safetensors#format>: 8 bytes little-endian header
//! length, a JSON object of `name: {dtype, shape, data_offsets}` and `__metadata__` (text to text),
//! then the data without gaps.

mod digest;
mod entry;
mod header;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::path::PathBuf;

pub use digest::{file_digest, file_digest_like};
pub use entry::TensorEntry;
pub use header::Header;
pub use read::{Checkpoint, Loaded};
pub use write::{Written, write};

/// Value of `format` in the header.
pub const FORMAT: &str = "pipe-checkpoint";
/// Version that this program writes. Version 1, which it reads, has SHA-256 over its content.
pub const VERSION: u64 = 2;

/// Key of the header: the digest of each tensor, in the order of their data, so that one can be
/// checked without the others.
const TENSOR_DIGESTS: &str = "tensor_digests";

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

#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct CheckpointError {
    pub path: PathBuf,
    pub fault: Corruption,
    pub message: String,
}
