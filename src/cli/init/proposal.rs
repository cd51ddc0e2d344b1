//! What a training on some pictures is set to, and why. Pure: what is known of the pictures in,
//! settings out.
//!
//! The recipe is the one of docs/first_pictures.md, where drawn shapes, digits and emoji were
//! learned with it: a small U-Net, a rate of 2e-3 that falls, EMA as long as the training allows.

use pipe_train::data::ImageHeader;

/// What is known of the pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// 0 where all are of one class.
    pub classes: usize,
    pub train: usize,
    pub validation: usize,
    pub image_size: usize,
    pub has_photographs: bool,
    pub has_gpu: bool,
}

/// The shapes of pictures, by their headers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shapes {
    /// Of the shorter sides, in pixels.
    pub smallest: u32,
    pub median: u32,
    pub largest: u32,
    /// The median of the longer side by the shorter one.
    pub aspect: f64,
    /// The share of pictures whose longer side is at least half as long again as the shorter one.
    pub cut: f64,
    /// Most are JPEG, as photographs are.
    pub has_photographs: bool,
}

/// Settings of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    pub dim: usize,
    pub batch_size: usize,
    pub learning_rate: f64,
    pub epochs: usize,
    /// Of an epoch.
    pub steps: usize,
    pub warmup_steps: usize,
    pub ema: f64,
    /// Epochs between two checkpoints.
    pub save_every: usize,
    /// Epochs between two image grids.
    pub sample_every: usize,
    /// Images of the last grid, as many of each class.
    pub n: usize,
}

impl Shapes {
    /// `None` if no header could be read.
    pub fn of(headers: &[ImageHeader]) -> Option<Self> {
        let mut sides: Vec<u32> = headers.iter().map(|h| h.width.min(h.height)).collect();
        let ratio = |h: &ImageHeader| {
            f64::from(h.width.max(h.height)) / f64::from(h.width.min(h.height).max(1))
        };
        let mut aspects: Vec<f64> = headers.iter().map(ratio).collect();
        sides.sort_unstable();
        aspects.sort_by(f64::total_cmp);
        Some(Self {
            smallest: *sides.first()?,
            median: sides[sides.len() / 2],
            largest: *sides.last()?,
            aspect: aspects[aspects.len() / 2],
            cut: aspects.iter().filter(|aspect| **aspect >= 1.5).count() as f64
                / aspects.len() as f64,
            has_photographs: 2 * headers.iter().filter(|h| h.is_jpeg).count() > headers.len(),
        })
    }

    /// The side to train at: not larger than most pictures are, nor than the device learns in hours.
    pub fn image_size(&self, has_gpu: bool) -> usize {
        match (self.median, has_gpu) {
            (0..24, _) => 16,
            (24..64, _) | (_, false) => 32,
            (_, true) => 64,
        }
    }

    /// Whether cutting out the centre would lose most of most pictures.
    pub fn is_long(&self) -> bool {
        self.aspect > 2.0
    }
}

/// The share that is kept aside: none of so few that each is missed.
pub fn val_split(images: usize) -> f64 {
    if images < 50 { 0.0 } else { 0.1 }
}

impl Proposal {
    pub fn of(known: &Known) -> Self {
        let batch_size = batch_size(known);
        let steps = (known.train / batch_size).max(1);
        let epochs = wanted_steps(known).div_ceil(steps);
        let rows = known.classes.max(2);
        let total = epochs * steps;
        // The mean goes over a seventh of the training.
        let ema = (1.0 - 1.0 / (0.15 * total as f64)).clamp(0.9, 0.9995);
        Self {
            dim: if known.has_gpu { 64 } else { 32 },
            batch_size,
            learning_rate: if known.has_gpu { 1e-3 } else { 2e-3 },
            epochs,
            steps,
            warmup_steps: 50.min(total / 10),
            ema: (ema * 1e4).round() / 1e4,
            save_every: (epochs / 50).max(1),
            sample_every: (epochs / 10).max(1),
            n: (rows * (64 / rows).clamp(1, 8)).min(256),
        }
    }

    pub fn total_steps(&self) -> usize {
        self.epochs * self.steps
    }

    /// Seconds that all of it takes where a step takes `step`: the steps; validation, which is a
    /// step without its backward pass, a third of one; the grids, of 18 steps with two evaluations
    /// each, twice as many with guidance.
    pub fn seconds(&self, known: &Known, step: f64) -> f64 {
        let forward = step / 3.0 / self.batch_size as f64;
        let validation = self.epochs as f64 * known.validation as f64 * forward;
        let grids = (10 * (4 * known.classes.max(1)).min(64)) as f64 * 35.0 * forward;
        let guided = if known.classes > 0 { 2.0 } else { 1.0 };
        let last = self.n as f64 * 35.0 * guided * forward;
        step * self.total_steps() as f64 + validation + grids + last
    }
}

/// As many as a step of the device is well used by, and not more than there are.
fn batch_size(known: &Known) -> usize {
    let mut size: usize = if known.has_gpu { 64 } else { 32 };
    while size > 1 && size / 2 >= known.train {
        size /= 2;
    }
    size
}

/// How many steps until pictures have their form: 1,500 of 16 px and twice as many for each doubling
/// of the side; twice as many for photographs, which show more than drawings; more for more than a
/// thousand pictures, by the root of their number, up to four times.
fn wanted_steps(known: &Known) -> usize {
    let of_size = 1500 * (known.image_size / 16).max(1);
    let of_kind = if known.has_photographs { 2 } else { 1 };
    let of_number = (known.train as f64 / 1000.0).sqrt().clamp(1.0, 4.0);
    ((of_size * of_kind) as f64 * of_number).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(train: usize) -> Known {
        Known {
            classes: 2,
            train,
            validation: train / 9,
            image_size: 32,
            has_photographs: false,
            has_gpu: false,
        }
    }

    #[test]
    fn few_photographs_get_thousands_of_steps() {
        let p = Proposal::of(&Known { has_photographs: true, ..known(205) });
        assert_eq!((p.batch_size, p.steps, p.epochs, p.total_steps()), (32, 6, 1000, 6000));
        assert_eq!((p.ema, p.save_every, p.sample_every, p.n), (0.9989, 20, 100, 16));
        // At 1.2 s a step two hours, and little for all else.
        let hours = p.seconds(&known(205), 1.2) / 3600.0;
        assert!((2.0..2.2).contains(&hours), "{hours}");
    }

    /// All numbers of pictures: at least the steps that are wanted, at most an epoch more, and no
    /// setting that the program refuses.
    #[test]
    fn any_number_of_pictures_gets_settings_that_work() {
        for train in (1..300).chain([1000, 12_345, 1_000_000]) {
            for classes in [0, 2, 10, 300] {
                for has_gpu in [false, true] {
                    let known = Known { classes, has_gpu, ..known(train) };
                    let p = Proposal::of(&known);
                    assert!(p.batch_size.is_power_of_two() && p.batch_size <= 64);
                    assert!(p.batch_size < 2 * train || p.batch_size == 1, "{known:?}");
                    let wanted = wanted_steps(&known);
                    assert!((wanted..wanted + p.steps).contains(&p.total_steps()), "{known:?}");
                    assert!(p.save_every <= p.epochs && p.sample_every <= p.epochs);
                    assert!((0.9..1.0).contains(&p.ema) && p.n >= classes.min(256));
                    assert!(classes > 256 || p.n.is_multiple_of(classes.max(1)), "{}", p.n);
                }
            }
        }
    }

    #[test]
    fn the_size_is_that_of_the_pictures_and_of_the_device() {
        let of = |sides: &[(u32, u32)]| {
            let header = |(width, height): &(u32, u32)| ImageHeader {
                width: *width,
                height: *height,
                is_jpeg: *width > 100,
            };
            Shapes::of(&sides.iter().map(header).collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(of(&[(8, 8)]).image_size(false), 16);
        assert_eq!(of(&[(28, 28), (28, 30)]).image_size(true), 32);
        let photos = of(&[(4000, 3000), (640, 480), (20, 400)]);
        assert_eq!((photos.image_size(false), photos.image_size(true)), (32, 64));
        assert_eq!((photos.smallest, photos.median, photos.largest), (20, 480, 3000));
        assert!(photos.has_photographs && !photos.is_long());
        assert!((photos.cut - 1.0 / 3.0).abs() < 1e-9, "{photos:?}");
        assert!(of(&[(900, 100), (300, 100), (100, 100)]).is_long());
        assert_eq!(Shapes::of(&[]), None);
        assert_eq!((val_split(49), val_split(50)), (0.0, 0.1));
    }
}
