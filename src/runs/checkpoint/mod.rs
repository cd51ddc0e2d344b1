//! Checkpoint files: safetensors with a header of our own in `__metadata__`. Nothing in them can
//! execute, and reading one tensor touches only its bytes. What the tensors mean is not known here.
//!
//! Format: <https://github.com/huggingface/safetensors#format>: 8 bytes little-endian header
//! length, a JSON object of `name: {dtype, shape, data_offsets}` and `__metadata__` (text to text),
//! then the data without gaps.

mod digest;
mod entry;
mod format;
mod head;
mod header;
mod named;
mod program;
mod read;
mod share;
#[cfg(test)]
mod tests;
mod write;

pub use digest::{file_digest, file_digest_like};
pub use entry::TensorEntry;
pub use format::{CheckpointError, Corruption, FORMAT, VERSION, Written};
pub use header::{Header, SECONDS};
pub use named::{HUB_WEIGHTS, named};
pub use program::{header_beside, link, remove, rename, take_in};
pub use read::{Checkpoint, Loaded};
pub use write::write;
