//! Images from a trained network, and the picture that shows them.

mod draw;
mod picture;
mod request;

pub use draw::{Drawing, draw};
pub use picture::{Picture, png};
pub use request::Request;
