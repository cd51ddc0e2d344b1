//! Images from a trained network, and the grid that shows them.

mod arabic;
mod contact_sheet;
mod font;
mod format;
mod generate;
mod grid_request;
mod guidance;
mod image_grid;
mod layout;
mod made;
mod mark;
mod pictures;
mod sampler_settings;
mod text;

pub use contact_sheet::ContactSheet;
pub use format::Format;
pub(crate) use generate::to_rgb;
pub use generate::{Draw, ModelView, SampleSpec, generate};
pub use grid_request::{GridRequest, unknown_class};
pub use guidance::GuidanceCheck;
pub use image_grid::{ImageGrid, stack};
pub use made::check_replaces;
pub use pictures::{PictureRequest, Pictures, Seeds, Target, Which, is_sampled_picture};
pub use sampler_settings::{
    ChurnSettings, GuidanceInterval, SamplerSettings, default_guidance, default_steps,
    sampler_in_words,
};
