//! Folders of image files: which entries are images, and of which class.

mod labels;
mod layout;
pub(crate) mod nearest;
pub(crate) mod read;
pub(crate) mod scan;
pub(crate) mod survey;
