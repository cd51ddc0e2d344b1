//! How long it takes to index a folder of many images, the first time and the second.
//!
//! `cargo bench --bench folder -- [FILES] [--dir DIR]` makes that many files of 512 bytes (1.2 million, about 5 GB of
//! disk) in 1,000 classes below a new folder in DIR and opens them as a data set, each time in a new process, with the
//! time and the peak memory of each; then once more with one file added. The files are in the system's cache when they
//! are read: the disk's own speed is not measured.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pipe_train::data::{Dataset, DatasetSettings, Source};

const CLASSES: usize = 1000;

#[path = "../src/allocator.rs"]
mod allocator;

fn main() -> Result<(), Box<dyn Error>> {
    allocator::keep_memory();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["open", project] => open(Path::new(project)),
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
    let run = |name: &str| -> Result<(), Box<dyn Error>> {
        let program = std::env::current_exe()?;
        let output = Command::new(program).arg("open").arg(project.path()).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        println!("{name:<28} {}", String::from_utf8_lossy(&output.stdout).trim_end());
        Ok(())
    };
    run("the first time")?;
    run("the second")?;
    run("the third")?;
    fs::write(project.path().join("data/class_0000/more.jpg"), "one more")?;
    run("with a file more")?;
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

fn open(project: &Path) -> Result<(), Box<dyn Error>> {
    let settings = DatasetSettings { source: Source::ImageFolder, ..DatasetSettings::default() };
    let start = Instant::now();
    let dataset = Dataset::open(&settings, project, &())?;
    let seconds = start.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("not known").trim();
    println!("{seconds:>8.2} {peak:>10}");
    drop(dataset);
    Ok(())
}
