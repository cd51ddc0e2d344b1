//! Files that a stage makes, and those of others where it makes them.

use std::path::{Path, PathBuf};

use pipe_core::progress::Event;
use pipe_engine::kind::{RunContext, StageError};
use pipe_fs::atomic;

/// Writes a file that a stage makes. One that stands there, has another content and was not made by
/// the stage is moved aside, with a word: it may be all that somebody has. `is_own`: the stage made
/// it, whatever its record says.
pub(super) fn write_result(
    context: &RunContext,
    file: &Path,
    bytes: &[u8],
    is_own: bool,
) -> Result<(), StageError> {
    let (disk, target) = (context.root.disk(), context.root.join(file));
    atomic::create_folder(disk, target.parent().unwrap_or(&context.root))?;
    atomic::remove_temporary_files_for(disk, &target);
    let mut made = context.made.iter().flat_map(|made| &made.outputs);
    let is_own = is_own || made.any(|output| Path::new(&output.path) == file);
    if !is_own && target.is_file() && std::fs::read(&target).is_ok_and(|there| there != bytes) {
        let aside = free_name(&target);
        atomic::put_in_place(disk, &target, &aside)?;
        let name = aside.file_name().unwrap_or_default().to_string_lossy();
        let text = format!(
            "{} was there and not made by this stage; it is {name} beside it now",
            file.display()
        );
        context.event(Event::Warning { text });
    }
    atomic::write(disk, &target, |out| out.write_all(bytes))?;
    Ok(())
}

/// A name beside a file that is not taken: `grid.before.png`, `grid.before-2.png`.
fn free_name(file: &Path) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let end = file.extension().map(|end| format!(".{}", end.to_string_lossy()));
    let end = end.unwrap_or_default();
    let named = |before: String| file.with_file_name(format!("{stem}.{before}{end}"));
    let mut free = named("before".to_owned());
    for number in 2.. {
        if !free.exists() {
            break;
        }
        free = named(format!("before-{number}"));
    }
    free
}

/// Removes files below `to` that the stage made before and that are not its result any more.
pub(super) fn remove_former(
    context: &RunContext,
    to: &Path,
    files: &[PathBuf],
) -> Result<(), StageError> {
    let before = context.made.iter().flat_map(|made| &made.outputs).map(|o| Path::new(&o.path));
    for old in before.filter(|old| old.starts_with(to) && !files.iter().any(|f| f == old)) {
        atomic::remove(context.root.disk(), &context.root.join(old))?;
    }
    Ok(())
}

/// The error of a stage that looks at each checkpoint of a training that made none.
pub(super) fn no_checkpoint(from: &str) -> StageError {
    StageError::setting(format!(
        "stage {from} has no checkpoint of an epoch's end, which `each_checkpoint` takes: train it \
         longer, or leave that out"
    ))
    .at("from")
}

/// The file of that name, or those in the folder of that name. Relative to the project.
pub(super) fn files_of(root: &Path, path: PathBuf) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join(&path)) else {
        return if root.join(&path).is_file() { vec![path] } else { Vec::new() };
    };
    let mut inside: Vec<PathBuf> =
        entries.flatten().map(|entry| path.join(entry.file_name())).collect();
    inside.sort();
    inside.into_iter().flat_map(|path| files_of(root, path)).collect()
}
