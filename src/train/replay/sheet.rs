//! The images of one step as a picture.

use pipe_core::number_text::short;

use crate::sampling::{ImageGrid, to_rgb};
use crate::trainer::ProbedStep;

/// The images of a step, a row each with its number and loss, the largest loss first.
pub fn sheet(step: &ProbedStep) -> ImageGrid {
    let mut images: Vec<_> = step.images.iter().enumerate().collect();
    images.sort_by(|(_, a), (_, b)| b.loss.total_cmp(&a.loss));
    let row = |(number, image): (usize, &crate::trainer::ProbedImage)| {
        let side = ((image.pixels.len() / 3) as f64).sqrt().round() as usize;
        let name = format!("#{number} {} loss {}", image.class, short(image.loss));
        (name, vec![to_rgb(&image.pixels, side)])
    };
    let title = format!("step {}, epoch {}, loss {}", step.step, step.epoch, short(step.loss));
    let rows = images.into_iter().filter(|(_, image)| !image.pixels.is_empty()).map(row).collect();
    ImageGrid { title, rows, ..ImageGrid::default() }
}
