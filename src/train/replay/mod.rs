//! What a replay of a training's steps tells: the step at which the loss jumped, and a sheet of one
//! step's images.

mod jump;
mod sheet;

pub use jump::{Jump, THRESHOLD, WINDOW, jump};
pub use sheet::sheet;
