//! How long it takes to index a folder of many images, the first time and the second.
//!
//! `cargo bench --bench folder -- [FILES] [--dir DIR]` makes that many files of 512 bytes (1.2
//! million, about 5 GB of disk) in 1,000 classes below a new folder in DIR and opens them as a data
//! set, each time in a new process, with the time and the peak memory of each; then once more with
//! one file added; then as it was last seen. The files are in the system's cache when they are
//! read: the disk's own speed is not measured.
//!
//! `cargo bench --bench folder -- check` makes JPEG files of 64, 256 and 1024 pixels and has them
//! checked before a training at `image_size: 64`: images a second the first time, and the time of
//! the second. `RAYON_NUM_THREADS` sets the number of threads.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pipe_train::data::{Dataset, DatasetSettings, summarize};

const CLASSES: usize = 1000;

#[path = "../src/allocator.rs"]
mod allocator;

fn main() -> Result<(), Box<dyn Error>> {
    allocator::keep_memory();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["look", project] => open(Path::new(project), false),
        ["as-last-seen", project] => open(Path::new(project), true),
        ["check"] => [(64, 20_000), (256, 4000), (1024, 400)].into_iter().try_for_each(check),
        [] => measure(1_200_000, &std::env::temp_dir()),
        [files] => measure(files.parse()?, &std::env::temp_dir()),
        ["--dir", folder] => measure(1_200_000, Path::new(folder)),
        [files, "--dir", folder] => measure(files.parse()?, Path::new(folder)),
        _ => Err("usage: [FILES] [--dir DIR]".into()),
    }
}

fn measure(files: usize, folder: &Path) -> Result<(), Box<dyn Error>> {
    let project = tempfile::tempdir_in(folder)?;
    let start = Instant::now();
    make(&project.path().join("data"), files)?;
    println!("{files} files made in {:.1} s", start.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(3)); // files that changed just now are not trusted
    println!("{:<28} {:>8} {:>10}", "", "seconds", "peak");
    let run = |name: &str, how: &str| -> Result<(), Box<dyn Error>> {
        let program = std::env::current_exe()?;
        let output = Command::new(program).arg(how).arg(project.path()).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        println!("{name:<28} {}", String::from_utf8_lossy(&output.stdout).trim_end());
        Ok(())
    };
    run("the first time", "look")?;
    run("the second", "look")?;
    run("the third", "look")?;
    fs::write(project.path().join("data/class_0000/more.jpg"), "one more")?;
    run("with a file more", "look")?;
    run("as it was last seen", "as-last-seen")?;
    Ok(())
}

fn make(root: &Path, files: usize) -> Result<(), Box<dyn Error>> {
    for class in 0..CLASSES {
        let folder = root.join(format!("class_{class:04}"));
        fs::create_dir_all(&folder)?;
        for image in (class..files).step_by(CLASSES) {
            fs::write(
                folder.join(format!("ILSVRC_{class:04}_{image:08}.jpg")),
                [image.to_le_bytes(); 64].as_flattened(),
            )?;
        }
    }
    Ok(())
}

fn open(project: &Path, as_last_seen: bool) -> Result<(), Box<dyn Error>> {
    let settings =
        DatasetSettings { source: "image_folder".parse()?, ..DatasetSettings::default() };
    let start = Instant::now();
    let seen = summarize(&settings, &project.into(), as_last_seen, &())?;
    let seconds = start.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("not known").trim();
    println!("{seconds:>8.2} {peak:>10}");
    drop(seen);
    Ok(())
}

/// Checks so many photos of so many pixels.
fn check((side, count): (u32, u32)) -> Result<(), Box<dyn Error>> {
    let project = tempfile::tempdir()?;
    for image in 0..count {
        let wave = |at: u32, k: u32| (((at * k) as f32 / side as f32).sin() * 90.0 + 128.0) as u8;
        let noise =
            |x: u32, y: u32| (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503 + image)) >> 27;
        let photo = image::RgbImage::from_fn(side, side, |x, y| {
            let grain = noise(x, y) as u8;
            image::Rgb([wave(x, 3 + image % 9) + grain, wave(y, 5) + grain, wave(x + y, 2)])
        });
        let folder = project.path().join("data").join(format!("class {}", image % 10));
        fs::create_dir_all(&folder)?;
        photo.save(folder.join(format!("{image:06}.jpg")))?;
    }
    std::thread::sleep(Duration::from_secs(3)); // files that changed just now are not trusted
    let settings = DatasetSettings {
        source: "image_folder".parse()?,
        image_size: 64,
        ..DatasetSettings::default()
    };
    let timed = || -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        Dataset::open(&settings, &project.path().into(), &())?.check_images(&())?;
        Ok(start.elapsed().as_secs_f64())
    };
    let (first, second) = (timed()?, timed()?);
    let speed = f64::from(count) / first;
    println!(
        "{count:>6} JPEG of {side:>4} px: {speed:>6.0} images/s the first time, {second:.2} s the second"
    );
    Ok(())
}
