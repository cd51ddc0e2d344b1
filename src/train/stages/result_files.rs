//! Files that a stage makes, and those of others where it makes them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use pipe_core::progress::Event;
use pipe_engine::kind::{RunContext, StageError};
use pipe_fs::{atomic, sha256_of};
use pipe_trainer::epoch_places::remove_if;

/// Writes a file that a stage makes. One that stands there, has another content and is not as the
/// stage made it is moved aside, with a word: it may be all that somebody has.
pub(super) fn write_result(
    context: &RunContext,
    file: &Path,
    bytes: &[u8],
) -> Result<(), StageError> {
    let (disk, target) = (context.root.disk(), context.root.join(file));
    atomic::create_folder(disk, target.parent().unwrap_or(&context.root))?;
    atomic::remove_temporary_files_for(disk, &target);
    if !std::fs::read(&target).is_ok_and(|there| there == bytes)
        && let Some(aside) = make_room(context, file)?
    {
        tell_aside(context, file, &aside);
    }
    atomic::write(disk, &target, |out| out.write_all(bytes))?;
    Ok(())
}

/// Lets `write` make a file that cannot be compared beforehand: see [`write_result`].
pub(super) fn write_over<T>(
    context: &RunContext,
    file: &Path,
    write: impl FnOnce() -> Result<T, StageError>,
) -> Result<T, StageError> {
    let Some(aside) = make_room(context, file)? else { return write() };
    let written = write();
    let digest = |path: &Path| sha256_of(path).ok();
    if written.is_ok() && digest(&aside) == digest(&context.root.join(file)) {
        atomic::remove(context.root.disk(), &aside)?;
    } else {
        tell_aside(context, file, &aside);
    }
    written
}

/// Moves a file aside that is not as the stage made it, and says where. Notes that the place is the
/// stage's from now on.
fn make_room(context: &RunContext, file: &Path) -> Result<Option<PathBuf>, StageError> {
    let target = context.root.join(file);
    let mut aside = None;
    if target.is_file() && !context.is_own(file) {
        let free = free_name(&target);
        atomic::put_in_place(context.root.disk(), &target, &free)?;
        aside = Some(free);
    }
    context.note_place(file)?;
    Ok(aside)
}

fn tell_aside(context: &RunContext, file: &Path, aside: &Path) {
    let name = aside.file_name().unwrap_or_default().to_string_lossy();
    let text = format!(
        "{} was there and not made by this stage; it is {name} beside it now",
        file.display()
    );
    context.event(Event::Warning { text });
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

/// Removes files that were made before and that are not its result any more, where `is_of` it
/// says that they are in its place.
pub(super) fn remove_former(
    context: &RunContext,
    is_of: impl Fn(&Path) -> bool,
    files: &[PathBuf],
) -> Result<(), StageError> {
    let todays: HashSet<&Path> = files.iter().map(PathBuf::as_path).collect();
    for old in context.outputs_in_place() {
        let path = Path::new(&old.path);
        if is_of(path) && !todays.contains(path) {
            let is_own = context.if_unchanged(old).is_some() || context.is_noted(path);
            remove_if(is_own, context, path)?;
        }
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
