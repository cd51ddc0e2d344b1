//! What can be made again: files in the project's `.pipe/cache`. Losing or damaging them costs time
//! and nothing else.

pub(crate) mod decoded_images;
pub(crate) mod file_digests;
pub(crate) mod file_lists;
pub(crate) mod verified_images;
pub(crate) mod write;
