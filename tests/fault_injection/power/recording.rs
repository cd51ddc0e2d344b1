//! What a program and its children change on the disk, as `recorder.c` sees it.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::results::ensure;

/// One change of the disk, or something that bears on what lasts. Names are below the folder that
/// is recorded.
#[derive(Debug)]
pub enum Change {
    /// The file has this content now; it may be a new one.
    Content {
        name: String,
        about: About,
        bytes: Vec<u8>,
    },
    Rename {
        from: String,
        to: String,
    },
    /// Two names are exchanged.
    Exchange {
        one: String,
        other: String,
    },
    Link {
        to: String,
        from: String,
        about: About,
    },
    Symlink {
        name: String,
        target: String,
    },
    /// A file, or an empty folder.
    Remove {
        name: String,
    },
    Folder {
        name: String,
    },
    SyncFile {
        name: String,
        about: About,
    },
    SyncFolder {
        name: String,
    },
    SyncAll,
    /// Written to stderr.
    Told(Vec<u8>),
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Content { name, bytes, .. } => write!(f, "{name} has {} bytes", bytes.len()),
            Self::Rename { from, to } => write!(f, "{from} becomes {to}"),
            Self::Exchange { one, other } => write!(f, "{one} and {other} change places"),
            Self::Link { from, to, .. } => write!(f, "{from} is {to} too"),
            Self::Symlink { name, target } => write!(f, "{name} leads to {target}"),
            Self::Remove { name } => write!(f, "{name} is removed"),
            Self::Folder { name } => write!(f, "new folder {name}"),
            Self::SyncFile { name, .. } => write!(f, "{name} is synced"),
            Self::SyncFolder { name } => write!(f, "the folder {name:?} is synced"),
            Self::SyncAll => write!(f, "all is synced"),
            Self::Told(text) => write!(f, "told: {}", String::from_utf8_lossy(text).trim()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct About {
    pub inode: u64,
    /// Nanoseconds since 1970.
    pub modified: u64,
}

/// The compiled recorder.
pub struct Recorder {
    folder: tempfile::TempDir,
}

impl Recorder {
    /// Compiles it and sees that it works; the error says what this machine lacks.
    pub fn build() -> Result<Self, String> {
        let this = Self { folder: tempfile::tempdir().map_err(|e| e.to_string())? };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fault_injection/power/recorder.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-o"]).arg(this.program()).arg(source);
        let compiled = compiler.output().map_err(|_| "there is no C compiler (`cc`)".to_owned())?;
        ensure(compiled.status.success(), || {
            format!("cc cannot compile the recorder: {}", String::from_utf8_lossy(&compiled.stderr))
        })?;
        let place = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut touch = Command::new("touch");
        touch.arg("file").current_dir(place.path());
        let tried = this.run(&touch, place.path(), &this.folder.path().join("try"))?;
        ensure(tried.status.success(), || {
            format!(
                "system calls cannot be watched here: {}",
                String::from_utf8_lossy(&tried.stderr)
            )
        })?;
        Ok(this)
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("recorder")
    }

    /// Runs a command to its end; what it changes below `root` is added to the log.
    pub fn run(&self, command: &Command, root: &Path, log: &Path) -> Result<Output, String> {
        let mut recorded = Command::new(self.program());
        recorded.arg(log).arg(root).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => recorded.env(key, value),
                None => recorded.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            recorded.current_dir(folder);
        }
        recorded.stdin(Stdio::null()).output().map_err(|e| e.to_string())
    }
}

/// Reads a log.
pub fn read(log: &Path) -> Result<Vec<Change>, String> {
    let bytes = std::fs::read(log).map_err(|e| format!("{}: {e}", log.display()))?;
    let mut rest = &bytes[..];
    let mut changes = Vec::new();
    while !rest.is_empty() {
        changes.push(entry(&mut rest).ok_or("the log of changes is cut off")?);
    }
    Ok(changes)
}

fn entry(rest: &mut &[u8]) -> Option<Change> {
    let [kind, first, second, content] = [(); 4].map(|()| number::<4>(rest));
    let about = About { inode: number::<8>(rest)?, modified: number::<8>(rest)? };
    let mut take = |length: Option<u64>| rest.split_off(..length? as usize);
    let (first, second, content) = (take(first)?, take(second)?, take(content)?.to_vec());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (name, other) = (text(first), text(second));
    Some(match kind? {
        1 => Change::Content { name, about, bytes: content },
        2 => Change::Rename { from: name, to: other },
        3 => Change::Exchange { one: name, other },
        4 => Change::Link { from: name, to: other, about },
        5 => Change::Symlink { name, target: text(&content) },
        6 => Change::Remove { name },
        7 => Change::Folder { name },
        8 => Change::SyncFile { name, about },
        9 => Change::SyncFolder { name },
        10 => Change::SyncAll,
        11 => Change::Told(content),
        _ => return None,
    })
}

/// The next integer, of so many bytes.
fn number<const BYTES: usize>(rest: &mut &[u8]) -> Option<u64> {
    let mut whole = [0; 8];
    whole[..BYTES].copy_from_slice(rest.split_off(..BYTES)?);
    Some(u64::from_le_bytes(whole))
}
