//! Folders of image files: which entries are images, of which class, and what is skipped.

mod layout;
pub(crate) mod read;
pub(crate) mod scan;
pub(crate) mod skipped;
