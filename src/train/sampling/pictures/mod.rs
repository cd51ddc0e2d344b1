//! Sampled pictures as files of their own: one PNG each in a folder, a zip file of those, or arrays
//! of NumPy.

mod archive;
mod png;
mod request;
mod seeds;
mod target;

pub(super) use archive::LABELS;
pub use png::is_replaceable as is_sampled_picture;
pub(super) use png::is_sampled;
pub use request::{PictureRequest, Pictures, Which};
pub use seeds::Seeds;
pub use target::Target;
