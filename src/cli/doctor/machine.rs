//! The files and variables that the machine says what it has by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A machine. Tests have one whose files lie in a folder.
pub struct Machine {
    /// What its absolute paths are under.
    root: PathBuf,
    variables: BTreeMap<String, String>,
    /// Whether its user may do everything.
    is_root: bool,
}

/// What a package manager installs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    VulkanLoader,
    /// Vulkan drivers for GPUs of AMD and Intel.
    Mesa,
    /// The part of NVIDIA's driver that has Vulkan.
    Nvidia,
    Git,
}

impl Machine {
    /// The one that the program runs on.
    pub fn this() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        #[cfg(unix)]
        let is_root = rustix::process::geteuid().is_root();
        #[cfg(not(unix))]
        let is_root = false;
        Self {
            root: PathBuf::from("/"),
            variables: std::env::vars_os().filter_map(text).collect(),
            is_root,
        }
    }

    /// A variable that is not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The folders and files that a variable has between colons.
    pub fn path_list(&self, name: &str) -> Option<Vec<PathBuf>> {
        let list = self.variable(name)?.split(':').filter(|item| !item.is_empty());
        Some(list.map(PathBuf::from).collect())
    }

    fn real(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.real(path.as_ref()).exists()
    }

    pub fn is_folder(&self, path: impl AsRef<Path>) -> bool {
        self.real(path.as_ref()).is_dir()
    }

    /// What is in a file of text.
    pub fn read(&self, path: impl AsRef<Path>) -> std::io::Result<String> {
        std::fs::read_to_string(self.real(path.as_ref()))
    }

    /// Whether a file is a library, or a program, of Linux.
    pub fn is_elf(&self, path: impl AsRef<Path>) -> bool {
        use std::io::Read;
        let mut magic = [0; 4];
        let file = std::fs::File::open(self.real(path.as_ref()));
        file.and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
    }

    /// The entries of a folder, sorted; none where it is not there.
    pub fn list(&self, folder: impl AsRef<Path>) -> Vec<PathBuf> {
        let folder = folder.as_ref();
        let entries = std::fs::read_dir(self.real(folder)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|e| folder.join(e.file_name())).collect();
        paths.sort();
        paths
    }

    /// Whether its user may read and write a file.
    pub fn may_use(&self, path: impl AsRef<Path>) -> bool {
        let file =
            std::fs::OpenOptions::new().read(true).write(true).open(self.real(path.as_ref()));
        !file.is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
    }

    /// Whether the program runs inside a container.
    pub fn is_container(&self) -> bool {
        self.has("/.dockerenv")
            || self.has("/run/.containerenv")
            || self.variable("KUBERNETES_SERVICE_HOST").is_some()
    }

    /// How to install a package; `None` where nobody knows for this system.
    pub fn install(&self, package: Package) -> Option<String> {
        use Package::*;
        let release = self.read("/etc/os-release").ok()?;
        let words = |key: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_default().replace('"', "")
        };
        let (id, like) = (words("ID="), words("ID_LIKE="));
        let is = |name: &str| id == name || like.split(' ').any(|word| word == name);
        let (manager, name) = if is("ubuntu") && package == Nvidia {
            ("apt-get", format!("libnvidia-gl-{}", self.nvidia_version()?))
        } else if is("debian") || is("ubuntu") {
            let name = match package {
                VulkanLoader => "libvulkan1",
                Mesa => "mesa-vulkan-drivers",
                Nvidia => "nvidia-vulkan-icd",
                Git => "git",
            };
            ("apt-get", name.into())
        } else if is("fedora") || is("rhel") {
            let name = match package {
                VulkanLoader => "vulkan-loader",
                Mesa => "mesa-vulkan-drivers",
                Nvidia => "xorg-x11-drv-nvidia",
                Git => "git",
            };
            ("dnf", name.into())
        } else if is("suse") || is("opensuse") {
            let name = match package {
                VulkanLoader => "libvulkan1",
                Mesa => "libvulkan_radeon libvulkan_intel",
                Nvidia => "nvidia-gl-G06",
                Git => "git",
            };
            ("zypper", name.into())
        } else if is("arch") {
            let name = match package {
                VulkanLoader => "vulkan-icd-loader",
                Mesa => "vulkan-radeon vulkan-intel",
                Nvidia => "nvidia-utils",
                Git => "git",
            };
            ("pacman", name.into())
        } else {
            return None;
        };
        let verb = if manager == "pacman" { "-S" } else { "install" };
        let sudo = if self.is_root { "" } else { "sudo " };
        Some(format!("{sudo}{manager} {verb} {name}"))
    }

    /// The first number of the version of NVIDIA's kernel module.
    fn nvidia_version(&self) -> Option<String> {
        let text = self.read("/proc/driver/nvidia/version").ok()?;
        let is_version = |word: &&str| {
            word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.')
        };
        let version = text.split_whitespace().find(is_version)?;
        version.split('.').next().map(str::to_owned)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A machine with these files, whose user is root.
    pub struct TestMachine {
        pub machine: Machine,
        folder: tempfile::TempDir,
    }

    impl TestMachine {
        pub fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().to_owned();
            let machine = Machine { root, variables: BTreeMap::new(), is_root: true };
            Self { machine, folder }
        }

        pub fn file(self, path: &str, content: &str) -> Self {
            let path = self.folder.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
            self
        }

        pub fn variable(mut self, name: &str, value: &str) -> Self {
            self.machine.variables.insert(name.into(), value.into());
            self
        }

        /// With Debian's name in its place.
        pub fn debian(self) -> Self {
            self.file("/etc/os-release", "PRETTY_NAME=\"Debian\"\nID=debian\n")
        }
    }

    #[test]
    fn packages_have_the_names_that_the_system_gives_them() {
        let version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22";
        for (release, loader, nvidia) in [
            (
                "ID=ubuntu\nID_LIKE=debian\n",
                "apt-get install libvulkan1",
                "apt-get install libnvidia-gl-550",
            ),
            ("ID=debian", "apt-get install libvulkan1", "apt-get install nvidia-vulkan-icd"),
            (
                "NAME=x\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                "dnf install vulkan-loader",
                "dnf install xorg-x11-drv-nvidia",
            ),
            (
                "ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"",
                "zypper install libvulkan1",
                "zypper install nvidia-gl-G06",
            ),
            ("ID=arch", "pacman -S vulkan-icd-loader", "pacman -S nvidia-utils"),
        ] {
            let mut made = TestMachine::new()
                .file("/etc/os-release", release)
                .file("/proc/driver/nvidia/version", version);
            let install = |machine: &Machine, package| machine.install(package).unwrap();
            assert_eq!(install(&made.machine, Package::VulkanLoader), loader);
            assert_eq!(install(&made.machine, Package::Nvidia), nvidia);
            made.machine.is_root = false;
            assert_eq!(install(&made.machine, Package::VulkanLoader), format!("sudo {loader}"));
        }
        let other = TestMachine::new().file("/etc/os-release", "ID=haiku");
        assert_eq!(other.machine.install(Package::Mesa), None);
        assert_eq!(TestMachine::new().machine.install(Package::Mesa), None);
    }

    #[test]
    fn a_variable_that_is_empty_is_none() {
        let made = TestMachine::new().variable("A", "").variable("B", "/x::/y");
        assert_eq!(made.machine.variable("A"), None);
        assert_eq!(made.machine.path_list("B").unwrap(), ["/x", "/y"].map(PathBuf::from));
    }
}
