//! What is asked of the disk, who hears of its changes, and how many they were: one value, which
//! whoever writes files is handed. Two sessions in one process have one each.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use crate::io_counters::{Counters, IoCounters};
use crate::known_folders::KnownFolders;
use crate::level::Level;
use crate::watch::{FileEvent, Listener};

/// How files are written. Cheap to clone; clones count together, and know of the same folders that
/// they are durable.
#[derive(Clone, Default)]
pub struct Disk {
    level: Level,
    listener: Option<Arc<dyn Listener>>,
    project: Option<Arc<Path>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    counters: Counters,
    known: KnownFolders,
}

impl Disk {
    /// The same, with another level of durability.
    pub fn with_level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// The same, with a listener that hears of each change from now on, in the place of another.
    pub fn with_listener(self, listener: Arc<dyn Listener>) -> Self {
        Self { listener: Some(listener), ..self }
    }

    /// The same for the files of a project, whose folder is never made: one that is gone was moved.
    pub(crate) fn in_project(self, project: Arc<Path>) -> Self {
        let project = Some(project).filter(|path| !path.as_os_str().is_empty());
        Self { project, ..self }
    }

    pub fn level(&self) -> Level {
        self.level
    }

    pub(crate) fn project(&self) -> Option<&Path> {
        self.project.as_deref()
    }

    /// What was done to the disk and asked of it since this was made.
    pub fn io_counters(&self) -> IoCounters {
        self.shared.counters.so_far()
    }

    /// Takes note of a record that was looked for, and of how many bytes were in it.
    pub fn count_read(&self, bytes: usize) {
        self.shared.counters.read(bytes);
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    pub(crate) fn known_folders(&self) -> &KnownFolders {
        &self.shared.known
    }

    pub(crate) fn notify(&self, news: FileEvent) {
        if let Some(listener) = &self.listener {
            listener.hear(news);
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Disk").field("level", &self.level).finish_non_exhaustive()
    }
}

/// The folder of a project, and how its files are written. It reads as a path.
#[derive(Clone)]
pub struct ProjectRoot {
    path: Arc<Path>,
    disk: Disk,
}

impl ProjectRoot {
    pub fn new(path: &Path, disk: Disk) -> Self {
        let path: Arc<Path> = path.into();
        Self { disk: disk.in_project(path.clone()), path }
    }

    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The same, with another level of durability.
    pub fn with_level(self, level: Level) -> Self {
        Self { disk: self.disk.with_level(level), ..self }
    }

    /// The same, with a listener in the place of another.
    pub fn with_listener(self, listener: Arc<dyn Listener>) -> Self {
        Self { disk: self.disk.with_listener(listener), ..self }
    }
}

impl Deref for ProjectRoot {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for ProjectRoot {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// A project whose files nobody else hears of, as durable as can be.
impl From<&Path> for ProjectRoot {
    fn from(path: &Path) -> Self {
        Self::new(path, Disk::default())
    }
}

impl From<&ProjectRoot> for ProjectRoot {
    fn from(root: &ProjectRoot) -> Self {
        root.clone()
    }
}

impl fmt::Debug for ProjectRoot {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.path.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Mutex;

    use super::*;
    use crate::atomic;

    #[derive(Default)]
    struct Heard(Mutex<Vec<PathBuf>>);

    impl Listener for Heard {
        fn hear(&self, news: FileEvent) {
            let FileEvent::Written(path) = news else { panic!("{news:?}") };
            self.0.lock().unwrap().push(path.to_owned());
        }
    }

    #[test]
    fn two_disks_of_a_process_have_nothing_in_common() {
        let folder = tempfile::tempdir().unwrap();
        let levels = [Level::Full, Level::Data, Level::Off];
        let disks = levels.map(|level| {
            let heard = Arc::new(Heard::default());
            (Disk::default().with_level(level).with_listener(heard.clone()), heard)
        });
        std::thread::scope(|scope| {
            for (number, (disk, _)) in disks.iter().enumerate() {
                let path = folder.path().join(number.to_string());
                scope.spawn(move || atomic::write(disk, &path, |out| out.write_all(b"x")).unwrap());
            }
        });
        let synced = disks.each_ref().map(|(disk, _)| disk.io_counters().synced);
        // Under `Full` the folder too, and those above it that were not known to stand.
        assert!(synced[0] >= 2 && synced[1..] == [1, 0], "{synced:?}");
        for (number, (disk, heard)) in disks.iter().enumerate() {
            assert_eq!(disk.io_counters().renamed, 1);
            assert_eq!(*heard.0.lock().unwrap(), [folder.path().join(number.to_string())]);
        }
    }

    #[test]
    fn clones_count_together_and_know_the_same_folders() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let write = |disk: &Disk| {
            let before = disk.io_counters();
            atomic::write(disk, &folder.path().join("a"), |out| out.write_all(b"x")).unwrap();
            (disk.io_counters() - before).synced
        };
        assert!(write(&disk) >= 2);
        assert_eq!(write(&disk.clone()), 2, "the file and its folder");
        assert_eq!(disk.io_counters().renamed, 2);
    }

    #[test]
    fn a_project_that_is_gone_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let [here, other] = ["here", "other"].map(|name| folder.path().join(name));
        std::fs::create_dir(&here).unwrap();
        let [root, elsewhere] = [&here, &other].map(|path| ProjectRoot::from(path.as_path()));
        std::fs::remove_dir(&here).unwrap();
        let error = atomic::create_folder(root.disk(), &root.join("a/b")).unwrap_err().to_string();
        assert!(error.contains("the project was moved or removed"), "{error}");
        let error = atomic::write(root.disk(), &root.join("a"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("the project was moved or removed"), "{error}");
        assert!(!here.exists());
        // Another project of the process is none of it.
        atomic::create_folder(elsewhere.disk(), &here.join("a")).unwrap();
        assert!(here.is_dir());
    }
}
