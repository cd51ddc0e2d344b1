//! How a program finds Vulkan drivers on Linux: a loader, `libvulkan.so.1`, reads files that each
//! name the library of a driver, its ICD (installable client driver).
//!
//! Where they lie: "Driver Discovery on Linux" in the documentation of Khronos' Vulkan-Loader.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::finding::Finding;
use super::machine::{Machine, Package};

pub const LOADER: &str = "libvulkan.so.1";

/// Variables that name drivers in place of the standard folders; the first that is set counts.
const OVERRIDES: [&str; 2] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];

/// A driver's file.
#[derive(Debug, PartialEq, Eq)]
pub struct Driver {
    pub file: PathBuf,
    pub library: Result<Library, String>,
}

/// What a driver's file names.
#[derive(Debug, PartialEq, Eq)]
pub struct Library {
    pub name: String,
    pub found: bool,
}

impl Driver {
    pub fn works(&self) -> bool {
        self.library.as_ref().is_ok_and(|library| library.found)
    }

    /// `nvidia_icd` of `/usr/share/vulkan/icd.d/nvidia_icd.json`.
    pub fn name(&self) -> String {
        self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Where the loader is, if it is anywhere.
pub fn loader(machine: &Machine) -> Option<PathBuf> {
    library(machine, LOADER)
}

/// Where the dynamic linker would find a library, as far as files say so.
pub fn library(machine: &Machine, name: &str) -> Option<PathBuf> {
    let mut folders = machine.path_list("LD_LIBRARY_PATH").unwrap_or_default();
    let configured = machine.list("/etc/ld.so.conf.d").into_iter();
    for file in configured.chain([PathBuf::from("/etc/ld.so.conf")]) {
        let text = machine.read(&file).unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| line.starts_with('/'));
        folders.extend(lines.map(PathBuf::from));
    }
    let architecture = std::env::consts::ARCH;
    folders.extend(
        [
            format!("/lib/{architecture}-linux-gnu"),
            format!("/usr/lib/{architecture}-linux-gnu"),
            "/lib64".into(),
            "/usr/lib64".into(),
            "/lib".into(),
            "/usr/lib".into(),
            "/usr/local/lib".into(),
        ]
        .map(PathBuf::from),
    );
    folders.into_iter().map(|folder| folder.join(name)).find(|path| machine.has(path))
}

/// The folders that the loader looks into, those of the user first.
pub fn folders(machine: &Machine) -> Vec<PathBuf> {
    let home = |variable: &str, below: &str| {
        let given = machine.variable(variable).map(PathBuf::from);
        given.or_else(|| machine.variable("HOME").map(|home| Path::new(home).join(below)))
    };
    let list = |variable: &str, default: &str| {
        let given = machine.path_list(variable);
        given.unwrap_or_else(|| default.split(':').map(PathBuf::from).collect())
    };
    let mut folders: Vec<PathBuf> = home("XDG_CONFIG_HOME", ".config").into_iter().collect();
    folders.extend(list("XDG_CONFIG_DIRS", "/etc/xdg"));
    folders.extend(["/usr/local/etc", "/etc"].map(PathBuf::from));
    folders.extend(home("XDG_DATA_HOME", ".local/share"));
    folders.extend(list("XDG_DATA_DIRS", "/usr/local/share:/usr/share"));
    folders.into_iter().map(|folder| folder.join("vulkan/icd.d")).collect()
}

/// The variable that names drivers in place of the folders, if one is set.
pub fn override_variable(machine: &Machine) -> Option<&'static str> {
    OVERRIDES.into_iter().find(|name| machine.variable(name).is_some())
}

/// The drivers that the loader would read of; those for other processors are left out.
pub fn drivers(machine: &Machine) -> Vec<Driver> {
    let places = match override_variable(machine) {
        Some(variable) => machine.path_list(variable).unwrap_or_default(),
        None => {
            let added = machine.path_list("VK_ADD_DRIVER_FILES").unwrap_or_default();
            added.into_iter().chain(folders(machine)).collect()
        }
    };
    let files = places.into_iter().flat_map(|place| {
        if machine.is_folder(&place) || place.ends_with("vulkan/icd.d") {
            let files = machine.list(&place).into_iter();
            files.filter(|file| file.extension().is_some_and(|e| e == "json")).collect()
        } else {
            vec![place]
        }
    });
    let is_other = |file: &Path| {
        let name = file.to_string_lossy();
        cfg!(target_pointer_width = "64") && (name.contains(".i686.") || name.contains(".i386."))
    };
    let mut files: Vec<PathBuf> = files.filter(|file| !is_other(file)).collect();
    let mut seen = std::collections::BTreeSet::new();
    files.retain(|file| seen.insert(file.clone()));
    files.into_iter().map(|file| Driver { library: read(machine, &file), file }).collect()
}

/// The library that a driver's file names.
fn read(machine: &Machine, file: &Path) -> Result<Library, String> {
    let text = machine.read(file).map_err(|e| e.to_string())?;
    let content: Value = serde_json::from_str(&text).map_err(|e| format!("no JSON: {e}"))?;
    let name = content.pointer("/ICD/library_path").and_then(Value::as_str);
    let name = name.ok_or("it names no library")?.to_owned();
    let found = if name.contains('/') {
        machine.has(file.parent().unwrap_or(file).join(&name))
    } else {
        library(machine, &name).is_some()
    };
    Ok(Library { name, found })
}

/// What is to be said of the loader. `seen`: whether Vulkan has shown an adapter; `has_gpu`: whether
/// there is a GPU that needs it.
pub fn loader_finding(machine: &Machine, seen: bool, has_gpu: bool) -> Finding {
    match loader(machine) {
        Some(path) if !seen && !machine.is_elf(&path) => {
            Finding::problem("loader", format!("{} is no library", path.display()))
        }
        Some(path) => Finding::ok("loader", path.display().to_string()),
        None if seen => Finding::ok("loader", format!("{LOADER}, where the system finds it")),
        None => {
            let text = format!("there is no {LOADER}: no GPU is found without it");
            let found = if has_gpu { Finding::problem } else { Finding::warning };
            let finding = found("loader", text);
            match machine.install(Package::VulkanLoader) {
                Some(command) => finding.with_remedy(command),
                None => finding,
            }
        }
    }
}

/// What is to be said of the drivers' files.
pub fn driver_findings(machine: &Machine) -> Vec<Finding> {
    let drivers = drivers(machine);
    let variable = override_variable(machine);
    let works = drivers.iter().any(Driver::works);
    let mut findings = Vec::new();
    if works {
        let names: Vec<String> = drivers.iter().filter(|d| d.works()).map(|d| d.name()).collect();
        let by = variable.map(|variable| format!(" (by {variable})")).unwrap_or_default();
        findings.push(Finding::ok("drivers", format!("{}{by}", names.join(", "))));
    }
    for driver in drivers.iter().filter(|driver| !driver.works()) {
        let file = driver.file.display();
        let text = match &driver.library {
            Ok(library) => format!("{file} names {}, which is not there", library.name),
            Err(reason) => format!("{file} cannot be used: {reason}"),
        };
        let found = if works { Finding::warning } else { Finding::problem };
        let finding = found("drivers", text);
        findings.push(match variable {
            Some(variable) => finding.with_remedy(format!("unset {variable}")),
            None => finding,
        });
    }
    if drivers.is_empty() {
        let places = match variable {
            Some(variable) => format!("{variable} names no file"),
            None => {
                let folders = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"].join(", ");
                format!("no Vulkan driver is installed: none in {folders}")
            }
        };
        let finding = Finding::warning("drivers", places);
        findings.push(match variable {
            Some(variable) => finding.with_remedy(format!("unset {variable}")),
            None => finding,
        });
    }
    findings
}

#[cfg(test)]
#[path = "vulkan_tests.rs"]
mod tests;
