//! How fast batches are made, and how long a training step of 20 ms would wait for them.
//!
//! `cargo bench --bench loader`: for each data set and number of workers, images a second when
//! nothing else is done, and the share of waiting when the consumer keeps a processor busy between
//! batches, as a step on the CPU does.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pipe_train::data::{
    Augmentation, DataError, Dataset, DatasetSettings, Loader, LoaderOptions, Split,
};

const BATCH: usize = 16;
const STEP: Duration = Duration::from_millis(20);
const STEPS: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let project = tempfile::tempdir()?;
    write_photos(&project.path().join("data"), 800)?;
    let turned = Augmentation {
        enabled: true,
        horizontal_flip: true,
        rotation_degrees: 10.0,
        ..Augmentation::default()
    };
    let shapes = DatasetSettings { num_images: 4096, ..DatasetSettings::default() };
    let photos = DatasetSettings { source: "image_folder".parse()?, ..DatasetSettings::default() };
    println!("{:<30} {:>7} {:>10} {:>14}", "data set", "workers", "images/s", "waiting");
    for (name, settings) in [
        ("shapes 32 px", shapes.clone()),
        ("shapes 32 px, augmented", DatasetSettings { augmentation: turned.clone(), ..shapes }),
        ("JPEG 213 x 160, first epoch", photos.clone()),
        ("JPEG, later epochs, augmented", DatasetSettings { augmentation: turned, ..photos }),
    ] {
        for workers in [0, 1, 2] {
            let open = || measured(&settings, project.path(), workers, name.contains("later"));
            let loader = open()?;
            let start = Instant::now();
            let images: usize =
                loader.epoch(0, 0).map(|b| b.map(|b| b.labels.len())).sum::<Result<_, _>>()?;
            let speed = images as f64 / start.elapsed().as_secs_f64();
            let share = waiting(&open()?)?;
            println!("{name:<30} {workers:>7} {speed:>10.0} {:>12.2} %", 100.0 * share);
        }
    }
    Ok(())
}

/// A loader on a newly opened data set, whose files are all decoded already if `decoded`, and else
/// none.
fn measured(
    settings: &DatasetSettings,
    project: &Path,
    num_workers: usize,
    decoded: bool,
) -> Result<Loader, Box<dyn Error>> {
    if !decoded
        && let Err(error) = std::fs::remove_dir_all(project.join(".pipe"))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error.into());
    }
    let dataset = Dataset::open(settings, &project.into(), &())?;
    if decoded {
        dataset.check_images(&())?;
    }
    let options = LoaderOptions { batch_size: BATCH, num_workers, seed: 0 };
    Ok(Loader::new(Arc::new(dataset), Split::Train, options)?)
}

/// The share of the time that a consumer with steps of [`STEP`] spends waiting for a batch.
fn waiting(loader: &Loader) -> Result<f64, DataError> {
    let (mut batches, mut waited) = (loader.epoch(0, 0), Duration::ZERO);
    let start = Instant::now();
    for _ in 0..STEPS {
        let asked = Instant::now();
        let batch = batches.next().transpose()?;
        waited += asked.elapsed();
        let step = Instant::now();
        while step.elapsed() < STEP {
            black_box(&batch);
        }
    }
    Ok(waited.as_secs_f64() / start.elapsed().as_secs_f64())
}

/// JPEG files of the size of Imagenette's, in two classes.
fn write_photos(root: &Path, count: u32) -> Result<(), Box<dyn Error>> {
    for class in ["a", "b"] {
        std::fs::create_dir_all(root.join(class))?;
    }
    for i in 0..count {
        let photo = image::RgbImage::from_fn(213, 160, |x, y| {
            let wave =
                |k: u32| (((x * k + y * (k + i % 7)) as f32 / 40.0).sin() * 100.0 + 128.0) as u8;
            image::Rgb([wave(3), wave(5), wave(9)])
        });
        photo.save(root.join(if i % 2 == 0 { "a" } else { "b" }).join(format!("{i:04}.jpg")))?;
    }
    Ok(())
}
