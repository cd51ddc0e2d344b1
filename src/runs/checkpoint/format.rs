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
