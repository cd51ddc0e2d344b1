//! Images from a trained network, and the grid that shows them.

mod arabic;
mod contact_sheet;
mod font;
mod format;
mod generate;
mod grid_request;
mod image_grid;
mod layout;
mod pictures;
mod text;

pub use contact_sheet::ContactSheet;
pub use format::Format;
pub use generate::{Draw, SampleSpec, generate};
pub use grid_request::{GridRequest, ineffective_guidance};
pub use image_grid::{ImageGrid, stack};
pub use pictures::{PictureRequest, Pictures, Seeds, Target};
