//! Whether the folders that a training writes to have room, and do what a checkpoint needs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pipe_fs::{ProjectRoot, STATE_FOLDER, atomic, disk_space};

use super::finding::{Finding, commands};
use super::machine::Machine;
use crate::report::table::bytes;

/// Less is too little for anything.
const NO_ROOM: u64 = 100_000_000;
/// Less is filled by a dozen checkpoints of a large preset.
const LITTLE_ROOM: u64 = 5_000_000_000;

/// File systems that lie on another machine.
const NETWORK: [&str; 15] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "glusterfs",
    "afs",
    "9p",
    "virtiofs",
    "fuse.sshfs",
    "fuse.glusterfs",
];

/// What is known of a folder.
pub struct Folder {
    /// What it is for.
    purpose: &'static str,
    path: PathBuf,
    free: Option<u64>,
    /// ext4, nfs.
    file_system: Option<String>,
    /// How long it took to write a file, to sync it and to give it its name.
    written: Result<Duration, String>,
}

/// The folders that a training in `project` writes to.
pub fn folders(machine: &Machine, project: &Path) -> Vec<Folder> {
    let cache = project.join(STATE_FOLDER).join("cache");
    let is_elsewhere = std::fs::canonicalize(&cache).is_ok_and(|path| !path.starts_with(project));
    let temporary = std::env::temp_dir();
    [
        Some(("the project", project.to_owned())),
        is_elsewhere.then_some(("the cache", cache)),
        Some(("temporary files", temporary)),
    ]
    .into_iter()
    .flatten()
    .map(|(purpose, path)| {
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let mounts = machine.read("/proc/self/mountinfo").unwrap_or_default();
        Folder {
            purpose,
            free: disk_space::free(&path),
            file_system: file_system(&mounts, &path),
            written: write(&path),
            path,
        }
    })
    .collect()
}

/// Writes a file as a checkpoint is written, and takes it away again.
fn write(folder: &Path) -> Result<Duration, String> {
    let began = Instant::now();
    let made = tempfile::Builder::new().prefix(".pipe-doctor-").tempdir_in(folder);
    let made = made.map_err(|e| e.to_string())?;
    let root = ProjectRoot::from(made.path());
    atomic::write(root.disk(), &made.path().join("file"), |out| out.write_all(&[7; 4096]))
        .map_err(|e| e.to_string())?;
    made.close().map_err(|e| e.to_string())?;
    Ok(began.elapsed())
}

/// The type of the file system that a path is on, by the text of `/proc/self/mountinfo`: see
/// proc_pid_mountinfo(5).
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?.replace("\\040", " ");
        let kind = after.split(' ').next()?.to_owned();
        path.starts_with(&point).then_some((point.len(), kind))
    };
    // Of two at one place, the later one covers the earlier.
    mounts.lines().filter_map(mount).max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

impl Folder {
    pub fn finding(&self) -> Finding {
        let place = format!("{} ({})", self.purpose, self.path.display());
        let took = match &self.written {
            Ok(took) => took,
            Err(reason) => {
                let text = format!("{place}: a file cannot be written and renamed: {reason}");
                let finding = Finding::problem("disk", text);
                let temporary = self.purpose == "temporary files";
                return if temporary {
                    finding.with_remedy("export TMPDIR=$HOME")
                } else {
                    finding
                };
            }
        };
        let free = self.free.map(|free| format!("{} free", bytes(free)));
        let kind = self.file_system.as_ref().map(|kind| {
            let network = if NETWORK.contains(&kind.as_str()) { " over the network" } else { "" };
            format!("{kind}{network}")
        });
        let speed = format!("a file is safe after {:.0} ms", 1e3 * took.as_secs_f64());
        let facts: Vec<String> = [free, kind, Some(speed)].into_iter().flatten().collect();
        let text = format!("{place}: {}", facts.join(", "));
        match self.free {
            Some(free) if free < NO_ROOM => {
                Finding::problem("disk", text).with_remedy(commands::MAKE_ROOM)
            }
            Some(free) if free < LITTLE_ROOM => {
                Finding::warning("disk", text).with_remedy(commands::MAKE_ROOM)
            }
            _ => Finding::ok("disk", text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::super::machine::tests::TestMachine;
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /tmp rw,nosuid - tmpfs tmpfs rw
41 22 0:40 / /home/my\\040data rw - nfs4 server:/data rw,vers=4.2
42 22 0:41 /x /home/my\\040data/fast rw - ext4 /dev/sdb1 rw
";

    #[test]
    fn a_file_system_is_that_of_the_nearest_mount() {
        for (path, kind) in [
            ("/var/lib", "ext4"),
            ("/tmp/x", "tmpfs"),
            ("/tmpfiles", "ext4"),
            ("/home/my data/set", "nfs4"),
            ("/home/my data/fast/set", "ext4"),
        ] {
            assert_eq!(file_system(MOUNTS, Path::new(path)).as_deref(), Some(kind), "{path}");
        }
        assert_eq!(file_system("", Path::new("/")), None);
    }

    fn folder(free: Option<u64>, kind: &str, written: Result<Duration, String>) -> Folder {
        let file_system = Some(kind.to_owned());
        Folder { purpose: "the project", path: "/p".into(), free, file_system, written }
    }

    #[test]
    fn little_room_is_a_warning_and_none_or_a_folder_that_takes_no_file_is_a_problem() {
        let took = Ok(Duration::from_millis(3));
        for (free, verdict) in [
            (Some(6_000_000_000), Verdict::Ok),
            (None, Verdict::Ok),
            (Some(4_000_000_000), Verdict::Warning),
            (Some(50_000_000), Verdict::Problem),
        ] {
            let finding = folder(free, "ext4", took.clone()).finding();
            assert_eq!(finding.verdict, verdict, "{}", finding.text);
        }
        let remote = folder(Some(6_000_000_000), "nfs4", took).finding();
        assert_eq!(
            remote.text,
            "the project (/p): 6.0 GB free, nfs4 over the network, a file is safe after 3 ms"
        );
        let refused = folder(Some(6_000_000_000), "ext4", Err("read-only".into())).finding();
        assert_eq!(refused.verdict, Verdict::Problem);
        assert!(refused.text.contains("read-only"), "{}", refused.text);
    }

    #[test]
    fn the_folders_are_tried_and_left_as_they_were() {
        let project = tempfile::tempdir().unwrap();
        let made = TestMachine::new().file("/proc/self/mountinfo", MOUNTS);
        let found = folders(&made.machine, project.path());
        assert_eq!(
            found.iter().map(|f| f.purpose).collect::<Vec<_>>(),
            ["the project", "temporary files"]
        );
        assert!(found.iter().all(|folder| folder.written.is_ok()));
        assert_eq!(std::fs::read_dir(project.path()).unwrap().count(), 0);
        assert!(write(&project.path().join("none")).is_err());
    }
}
