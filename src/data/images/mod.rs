//! The pixels of a data set: files, decoded and made square, or images in memory.

pub(crate) mod decode;
pub(crate) mod files;
pub(crate) mod resize;
pub(crate) mod verify;

pub(crate) use files::Images;
