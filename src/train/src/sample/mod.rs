//! Images from a trained network, and the picture that shows them.

mod arabic;
mod draw;
mod font;
mod format;
mod layout;
mod picture;
mod request;
mod sheet;
mod text;

pub use draw::{Drawing, draw};
pub use format::Format;
pub use picture::{Picture, stacked};
pub use request::{Request, guidance_in_vain};
pub use sheet::Sheet;
